//! The process crashes at every fail point, each time the fail point is passed, and with every
//! fault at every step. The next process completes the saga.
//!
//! The tests assert the counts of the platform and the webhook receiver, never those of the
//! product's store alone.

mod fail_points;
mod faults;
mod key_rotation;
mod power_loss;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use guestlane::{SessionEngine, Workspace};
use guestlane_core::{
    api_key::{ApiKey, ApiKeyHasher, StoredApiKey},
    session,
    surface::Surface,
    token::{KeyState, KeyringError, RotationPolicy},
};
use guestlane_runtime::{FailPoint, FailPoints, Timestamp};
use guestlane_sim::FaultKind;
use guestlane_store::{GuestIdMode, ReplayFilter, SessionFilter};
use guestlane_testkit::{
    Backend::{self, Postgres, Sqlite},
    platform::{OPEN_MESSAGING, SALES, TestPlatform, WEB_MESSAGING, request, tell},
};
use rstest::rstest;

use fail_points::{FAIL_POINTS_OF_PUBLIC_SURFACES, SEPARATELY_TESTED_FAIL_POINTS, is_first_use};

/// The fail point at which a process crashes, and whether it has crashed.
#[derive(Clone)]
struct InjectedCrash {
    at: Option<(FailPoint, usize)>,
    passed: Arc<AtomicUsize>,
    died: Arc<AtomicBool>,
}

impl InjectedCrash {
    /// Crashes at the n-th passing of a fail point, counted from 1.
    fn at(fail_point: FailPoint, nth: usize) -> Self {
        Self {
            at: Some((fail_point, nth)),
            passed: Arc::default(),
            died: Arc::default(),
        }
    }

    fn never() -> Self {
        Self {
            at: None,
            passed: Arc::default(),
            died: Arc::default(),
        }
    }

    fn fail_points(&self, last_words: impl Fn() + Send + Sync + 'static) -> FailPoints {
        let death = self.clone();
        FailPoints::new(move |fail_point| {
            let Some((at, nth)) = death.at else {
                return false;
            };
            let dies = fail_point == at && death.passed.fetch_add(1, Ordering::SeqCst) + 1 == nth;
            if dies {
                last_words();
                death.died.store(true, Ordering::SeqCst);
            }
            dies
        })
    }

    fn died(&self) -> bool {
        self.died.load(Ordering::SeqCst)
    }
}

/// Runs one process until it crashes: it opens the store, creates a session, and does the work of
/// every worker.
async fn run_process(
    platform: &TestPlatform,
    death: &InjectedCrash,
    guest: &str,
    erase: Option<&str>,
) {
    run_process_until(platform, death, guest, erase, || ()).await;
}

/// Like [`run_process`]. `last_words` run at the fail point, before anything else can happen.
async fn run_process_until(
    platform: &TestPlatform,
    death: &InjectedCrash,
    guest: &str,
    erase: Option<&str>,
    last_words: impl Fn() + Send + Sync + 'static,
) {
    let mut config = platform.config.clone();
    config.storage.fail_points = death.fail_points(last_words);
    let (clock, hands) = (platform.clock(), platform.clock.clone());
    let (guest, erase) = (guest.to_owned(), erase.map(str::to_owned));
    let mut life = tokio::spawn(async move {
        let Ok(engine) = SessionEngine::open(config, clock.clone()).await else {
            return;
        };
        let _ = engine.create(request(&guest)).await;
        engine.outbox().unwrap().wait_for_initial_deliveries().await;
        for _ in 0..3 {
            hands.advance(Duration::from_secs(301));
            let _ = engine.recover_abandoned().await;
            let _ = engine.outbox().unwrap().deliver_due().await;
        }
        if let Some(erase) = erase {
            let _ = engine
                .store()
                .erase_guest(erase.parse().unwrap(), clock.now())
                .await;
        }
        if let Ok(key) = stored_api_key(clock.now()) {
            let id = key.id.clone();
            let _ = engine.store().add_api_key(key, None).await;
            let _ = engine.store().revoke_api_key(id, clock.now()).await;
        }
        if let Some(session) = session(&engine, &guest).await {
            let event = ReplayFilter::Event(format!("msg_{}", session.id.0.simple()));
            let _ = engine.store().replay(event, clock.now()).await;
            let _ = engine.outbox().unwrap().deliver_due().await;
        }
    });
    while !death.died() && !life.is_finished() {
        time_passes(platform);
        tokio::task::yield_now().await;
    }
    life.abort();
    let _ = (&mut life).await;
}

/// Advances the clock while the platform withholds a response, so that the caller reaches its
/// timeout.
fn time_passes(platform: &TestPlatform) {
    if platform.sim.state().hanging > 0 {
        platform.clock.advance(Duration::from_secs(1));
    }
}

fn stored_api_key(now: Timestamp) -> Result<StoredApiKey, guestlane::Error> {
    let key = ApiKey::generate().map_err(KeyringError::Key)?;
    Ok(StoredApiKey::new(
        &key,
        &ApiKeyHasher::new(b"secret"),
        "shop",
        "sessions:write".parse()?,
        now,
    ))
}

async fn session(
    engine: &SessionEngine,
    guest: &str,
) -> Option<guestlane_core::session::SessionRecord> {
    let filter = SessionFilter {
        guest: Some(guest.to_owned()),
        state: None,
        limit: 2,
        ..SessionFilter::default()
    };
    let mut sessions = engine.store().sessions(filter).await.ok()?.sessions;
    assert!(sessions.len() < 2, "one wish is one session");
    sessions.pop()
}

/// Runs the next process: the caller repeats the request, and recovery completes abandoned sagas.
async fn run_to_completion(platform: &TestPlatform, guest: &str) {
    platform.faults(&[]);
    let engine = platform.engine().await;
    for round in 0.. {
        let _ = engine.create(request(guest)).await;
        engine.recover_abandoned().await.unwrap();
        engine.outbox().unwrap().deliver_due().await.unwrap();
        let open = session(&engine, guest)
            .await
            .is_some_and(|session| session.state == session::SessionState::Open);
        if open
            && engine.store().pending_events().await.unwrap() == 0
            && engine.store().unfinished().await.unwrap() == 0
        {
            break;
        }
        assert!(
            round < 10,
            "{guest} does not come to rest: {:?}",
            session(&engine, guest).await
        );
        platform.clock.advance(Duration::from_secs(301));
    }
    engine.flush_counters().await.unwrap();
}

async fn assert_audit_is_proven(platform: &TestPlatform) {
    assert!(!platform.proven_logs().await.is_empty());
}

/// Returns a harness whose logs are full after a few records, and whose guests can be erased.
async fn platform(backend: Backend, surface: &Surface) -> TestPlatform {
    let mut platform = TestPlatform::on(backend, surface).await;
    platform.config.storage.audit.rotate_at = Some(900);
    platform.config.storage.audit.guest_ids = GuestIdMode::Pseudonymous;
    // The state is in memory where possible: thousands of processes crash here, but the disk does
    // not.
    if let Ok(directory) = tempfile::tempdir_in("/dev/shm") {
        platform.directory = directory;
    }
    keep_state_in(backend, &mut platform, "state");
    platform
}

/// Moves the state to its own directory, so that a copy can replace it.
fn keep_state_in(backend: Backend, platform: &mut TestPlatform, name: &str) {
    let places = guestlane::StorageConfig::in_directory(&platform.directory.path().join(name));
    if backend == Backend::Sqlite {
        platform.config.storage.database = places.database;
    }
    platform.config.storage.home = places.home;
    platform.config.storage.master_key_file = places.master_key_file;
    platform.config.storage.audit.path = places.audit.path;
}

/// Runs `work` on its own runtime. The remaining tasks of a crashed process end with the runtime.
fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

/// Returns every fail point of a surface, except those that have their own tests. One of these
/// needs 24 hours, others need key changes, a shared store or a migration.
fn fail_points(surface: &Surface) -> impl Iterator<Item = FailPoint> {
    let none_of_it = match surface {
        Surface::Rest => FAIL_POINTS_OF_PUBLIC_SURFACES,
        Surface::WebMessaging { .. } => &[],
        Surface::OpenMessaging { .. } => &FAIL_POINTS_OF_PUBLIC_SURFACES[..2],
    };
    FailPoint::ALL.iter().copied().filter(move |fail_point| {
        !SEPARATELY_TESTED_FAIL_POINTS.contains(fail_point) && !none_of_it.contains(fail_point)
    })
}

/// Returns the fault that a process needs to reach a fail point.
fn fault_on_the_way_to(fail_point: FailPoint, surface: &Surface) -> String {
    let opens = match surface {
        Surface::Rest => "conversation",
        Surface::WebMessaging { .. } => "socket",
        Surface::OpenMessaging { .. } => "open-message",
    };
    match fail_point {
        FailPoint::AttemptFailed | FailPoint::LeasesRenewed => "contact:500:first=2".to_owned(),
        FailPoint::RefusalStored => "queue:404:nth=1".to_owned(),
        FailPoint::StepFailed | FailPoint::FailureStored | FailPoint::SessionClaimed => {
            format!("{opens}:500:first=4")
        }
        FailPoint::TokenRenewed => format!("{opens}:429:nth=1,retry-after=400"),
        FailPoint::EventsClaimed => "crm:500:nth=1".to_owned(),
        _ => "contact:500:nth=99".to_owned(),
    }
}

/// Asserts that each guest has one contact, one conversation and one event, and that the audit log
/// verifies.
async fn assert_at_rest(platform: &TestPlatform, guests: u64) {
    platform.assert_each_guest_once(guests);
    let crm = platform.sim.state().crm;
    // A receiver may refuse a signature, because five minutes can pass while the event is in
    // flight. The event is then signed and sent again.
    assert_eq!((crm.events, crm.guests_notified_twice), (guests, 0));
    if platform.config.surface.is_public_api() {
        let state = platform.sim.state();
        let waiting = state
            .queues
            .iter()
            .find(|(id, _)| id.to_string() == SALES)
            .map(|(_, waiting)| *waiting);
        assert_eq!(
            (state.linked, waiting),
            (guests, Some(guests)),
            "each has its contact, and is in its queue"
        );
    }
    assert_audit_is_proven(platform).await;
}

#[rstest]
#[test]
fn needs_attention_state_survives_a_crash_at_its_transition(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    for death in [
        InjectedCrash::at(FailPoint::NeedsAttentionStored, 1),
        InjectedCrash::never(),
    ] {
        run(async {
            let platform = platform(backend, &Surface::Rest).await;
            platform.faults(&["conversation:answer-lost"]);
            platform
                .engine()
                .await
                .create(request("ann"))
                .await
                .unwrap_err();
            platform.clock.advance(Duration::from_secs(24 * 3600));
            platform.faults(&[]);
            run_process(&platform, &death, "bob", None).await;
            let engine = platform.engine().await;
            assert_eq!(
                session(&engine, "ann").await.unwrap().state,
                session::SessionState::NeedsAttention
            );
            assert_eq!(death.died(), death.at.is_some());
            run_to_completion(&platform, "bob").await;
            // Ann's session was opened once, but the response was lost.
            platform.assert_each_guest_once(2);
            assert_audit_is_proven(&platform).await;
        });
    }
}
