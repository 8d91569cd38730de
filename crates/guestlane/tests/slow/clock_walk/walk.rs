//! A random walk: sessions, pruning and clock jumps.

use super::*;

#[derive(Default)]
pub(super) struct Counts {
    pub(super) opened: u64,
    pub(super) replayed: u64,
    pub(super) refused: u64,
    pub(super) deleted: u64,
    pub(super) jumps: u64,
    pub(super) rows: u64,
}

pub(super) struct Walk {
    pub(super) platform: TestPlatform,
    pub(super) engine: Arc<SessionEngine>,
    pub(super) random: fastrand::Rng,
    /// The idempotency keys of open sessions, with the true time at which each was opened.
    pub(super) open: BTreeMap<String, Timestamp>,
    /// Batch rows whose sessions a process opened without recording the result, as if it was
    /// killed.
    pub(super) unended: BTreeMap<String, BatchId>,
    /// The error of the wall clock, in seconds.
    pub(super) off: i64,
    pub(super) counts: Counts,
}

impl Walk {
    pub(super) async fn new(backend: Backend, seed: u64) -> Self {
        // The platform's clock shows the true time, whatever the node's wall clock shows.
        let mut platform = TestPlatform::with(backend, |options| {
            let truth = ReferenceClock::new(options.clock.clone());
            truth.set(options.clock.monotonic(), options.clock.monotonic());
            options.clock = truth.clock();
        })
        .await;
        platform.config.surface = OPEN_MESSAGING;
        platform.config.credentials.sign_in = TokenRequestAuth::Basic;
        platform.config.messaging.external_source = Some(guestlane_sim::EXTERNAL_SOURCE_ID);
        platform.config.retention = Some(KEEP);
        platform.install_database_clock().await;
        let engine = platform.engine().await;
        let random = fastrand::Rng::with_seed(seed);
        Self {
            platform,
            engine,
            random,
            open: BTreeMap::new(),
            unended: BTreeMap::new(),
            off: 0,
            counts: Counts::default(),
        }
    }

    pub(super) fn truth(&self) -> Timestamp {
        self.platform.clock().monotonic()
    }

    pub(super) async fn step(&mut self, run: u64, step: u32) {
        match self.random.u32(0..100) {
            0..25 => self.create(&format!("guest-{run}-{step}")).await,
            25..45 => self.replay().await,
            45..55 => self.jump(),
            55..65 => self.set_clock_right(),
            65..80 => self.pass_time(),
            80..83 => self.restart().await,
            83..85 => self.reboot().await,
            85..95 => self.prune().await,
            _ if self.platform.backend == Backend::Postgres => {
                self.open_rows_and_crash(run, step).await
            }
            _ => drop(self.engine.outbox().unwrap().deliver_due().await.unwrap()),
        }
        self.platform.set_database_clock();
        self.engine.store().measure_clock().await.unwrap();
    }

    pub(super) async fn create(&mut self, guest: &str) {
        match self.engine.create(request(guest)).await {
            Ok(opened) => {
                assert!(!opened.replayed, "{guest}");
                self.counts.opened += 1;
                self.open.insert(guest.to_owned(), self.truth());
            }
            // With a wrong wall clock the platform may refuse the guest token; then it has created
            // nothing.
            Err(_) => self.counts.refused += 1,
        }
    }

    /// Asserts that an idempotency key within its retention returns the same session.
    pub(super) async fn replay(&mut self) {
        let (truth, slack) = (self.truth(), HOUR);
        let kept: Vec<_> = self
            .open
            .iter()
            .filter(|(_, opened)| truth.since(**opened) + slack < KEEP)
            .collect();
        let Some((guest, _)) = self.random.choice(kept) else {
            return;
        };
        let guest = guest.clone();
        let replayed = self.engine.create(request(&guest)).await.unwrap();
        assert!(replayed.replayed, "{guest} was opened again");
        self.counts.replayed += 1;
    }

    pub(super) fn jump(&mut self) {
        let to = self.random.i64(-50 * 86_400..50 * 86_400);
        self.platform.clock.set_wall_clock(to - self.off);
        self.off = to;
        self.counts.jumps += 1;
    }

    pub(super) fn set_clock_right(&mut self) {
        self.platform.clock.set_wall_clock(-self.off);
        self.off = 0;
    }

    pub(super) fn pass_time(&mut self) {
        let most = if self.random.bool() { 3 } else { 240 };
        self.platform
            .clock
            .advance(Duration::from_secs(self.random.u64(1..most * 3600)));
    }

    pub(super) async fn restart(&mut self) {
        // On a shared database, a node with a wrong clock refuses to start.
        if let Ok(engine) = self.platform.try_engine().await {
            self.engine = engine;
        }
    }

    /// Restarts the machine after a pause, with a correct clock. The store partly trusts a wrong
    /// clock at a start (`store/trusted_time.rs`).
    pub(super) async fn reboot(&mut self) {
        self.set_clock_right();
        self.pass_time();
        self.platform.clock.reboot();
        self.restart().await;
    }

    pub(super) async fn prune(&mut self) {
        let before = self.sessions().await;
        let pruned = self.engine.prune().await.unwrap();
        self.counts.deleted += pruned.sessions;
        assert_eq!(self.sessions().await + pruned.sessions as usize, before);
        self.assert_no_orphaned_rows();
    }

    pub(super) async fn sessions(&self) -> usize {
        let all = SessionFilter {
            limit: 100_000,
            ..SessionFilter::default()
        };
        self.engine
            .store()
            .sessions(all)
            .await
            .unwrap()
            .sessions
            .len()
    }

    /// Asserts that every pending event and batch row still refers to an existing session.
    pub(super) fn assert_no_orphaned_rows(&self) {
        if let Some(url) = &self.platform.postgres {
            let count = |sql: &str| guestlane_testkit::column(url, sql)[0].clone();
            let events = "SELECT count(*) FROM outbox WHERE state IN ('pending', 'dead') AND session_id NOT IN (SELECT id FROM session)";
            assert_eq!(count(events), "0");
            let keys = guestlane_testkit::column(
                url,
                "SELECT idempotency_key FROM batch_row WHERE state IN ('waiting', 'running') \
                 AND idempotency_key NOT IN (SELECT idempotency_key FROM session)",
            );
            let opened: Vec<_> = self
                .unended
                .keys()
                .map(|guest| format!("key-of-{guest}"))
                .collect();
            assert!(
                keys.iter().all(|key| !opened.contains(key)),
                "{keys:?} lost their sessions"
            );
        }
    }

    /// A worker opens the sessions of a batch and crashes before it records the results.
    pub(super) async fn open_rows_and_crash(&mut self, run: u64, step: u32) {
        let (store, now) = (self.engine.store().clone(), self.engine.clock().now());
        let guests: Vec<_> = (0..2)
            .map(|row| format!("row-{run}-{step}-{row}"))
            .collect();
        let rows = batch::rows_of(guests.iter().map(String::as_str));
        let id = batch::enqueue(&store, rows, now).await;
        store.batches().unwrap().claim_rows(200, now).await.unwrap();
        for guest in guests {
            self.counts.rows += 1;
            if let Ok(opened) = self.engine.create(request(&guest)).await {
                assert!(!opened.replayed);
                self.counts.opened += 1;
                self.unended.insert(guest, id);
            }
        }
    }

    /// Runs the batch workers again. Each row finds the session that it opened, however long ago.
    pub(super) async fn complete_all_rows(&mut self) {
        self.set_clock_right();
        self.platform.set_database_clock();
        self.engine.store().measure_clock().await.unwrap();
        self.platform.clock.advance(HOUR);
        self.platform.set_database_clock();
        self.engine.store().measure_clock().await.unwrap();
        let store = self.engine.store().clone();
        loop {
            let taken = store
                .batches()
                .unwrap()
                .claim_rows(200, self.engine.clock().now())
                .await
                .unwrap();
            if taken.is_empty() {
                break;
            }
            let mut ended = Vec::new();
            for row in taken {
                let request = row.request.unwrap();
                let guest = request.guest.as_str().to_owned();
                let opened = self.engine.create(request).await.unwrap();
                assert_eq!(
                    opened.replayed,
                    self.unended.contains_key(&guest),
                    "{guest}"
                );
                self.counts.opened += u64::from(!opened.replayed);
                ended.push((
                    row.place,
                    RowOutcome::Open {
                        session: opened.session.id,
                        replayed: opened.replayed,
                    },
                ));
            }
            store
                .batches()
                .unwrap()
                .complete_rows(ended, self.engine.clock().now())
                .await
                .unwrap();
        }
        self.unended.clear();
    }
}
