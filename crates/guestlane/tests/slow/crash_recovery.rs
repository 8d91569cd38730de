//! The process crashes at every fail point, each time the fail point is passed, and with every
//! fault at every step. The next process completes the saga.
//!
//! The tests assert the counts of the platform and the webhook receiver, never those of the
//! product's store alone.

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

async fn assert_audit_is_proven(platform: &TestPlatform) {
    assert!(!platform.proven_logs().await.is_empty());
}

fn copy_files(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to.join("audit")).unwrap();
    for directory in ["", "audit"] {
        for file in std::fs::read_dir(from.join(directory))
            .into_iter()
            .flatten()
            .flatten()
        {
            if file.file_type().unwrap().is_file() {
                std::fs::copy(file.path(), to.join(directory).join(file.file_name())).unwrap();
            }
        }
    }
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
        Surface::Rest => FAIL_POINTS_OF_OFFICIAL_SURFACES,
        Surface::WebMessaging { .. } => &[],
        Surface::OpenMessaging { .. } => &FAIL_POINTS_OF_OFFICIAL_SURFACES[..2],
    };
    FailPoint::ALL.iter().copied().filter(move |fail_point| {
        !SEPARATELY_TESTED_FAIL_POINTS.contains(fail_point) && !none_of_it.contains(fail_point)
    })
}

const SEPARATELY_TESTED_FAIL_POINTS: &[FailPoint] = &[
    FailPoint::NeedsAttentionStored,
    FailPoint::ContactRemoved,
    FailPoint::NextKeyStored,
    FailPoint::KeyRevoked,
    FailPoint::PreviousMasterKeyKept,
    FailPoint::MasterKeyReplaced,
    FailPoint::ChunkResealed,
    // These occur only where a store is shared or migrated.
    FailPoint::RowsClaimed,
    FailPoint::RowsEnded,
    FailPoint::MoveMarked,
    FailPoint::RowsCopied,
    FailPoint::StoreMoved,
];

/// The first two occur only on the guest WebSocket.
const FAIL_POINTS_OF_OFFICIAL_SURFACES: &[FailPoint] = &[
    FailPoint::GuestConnected,
    FailPoint::GuestConfigured,
    FailPoint::MessageSent,
    FailPoint::MessageStored,
    FailPoint::ConversationFound,
    FailPoint::ConversationStored,
    FailPoint::ContactLinked,
    FailPoint::QueueReached,
    FailPoint::OrganizationStored,
];

/// Returns whether only the first process passes the fail point. Where processes share an access
/// token, the first process requests it for all.
fn is_first_use(backend: Backend, fail_point: FailPoint) -> bool {
    let signs_in_for_all = backend == Backend::Postgres && fail_point == FailPoint::SignedIn;
    signs_in_for_all
        || matches!(
            fail_point,
            FailPoint::MasterKeyDrafted
                | FailPoint::MasterKeyMade
                | FailPoint::SigningKeyStored
                | FailPoint::OrganizationStored
        )
}

/// Crashes a process at each passing of the fail point in turn. Returns the number of crashes.
fn crash_at_each_passing(backend: Backend, fail_point: FailPoint, surface: &Surface) -> usize {
    let mut deaths = 0;
    loop {
        let died = run(async {
            let platform = platform(backend, surface).await;
            // The store also has a completed guest, which can be erased.
            let before = if is_first_use(backend, fail_point) {
                None
            } else {
                Some("before")
            };
            if let Some(before) = before {
                run_to_completion(&platform, before).await;
            }
            platform.faults(&[&fault_on_the_way_to(fail_point, surface)]);
            let death = InjectedCrash::at(fail_point, deaths + 1);
            run_process(&platform, &death, "ann", before).await;
            run_to_completion(&platform, "ann").await;
            assert_at_rest(&platform, 1 + u64::from(before.is_some())).await;
            death.died()
        });
        if !died {
            return deaths;
        }
        deaths += 1;
    }
}

fn crash_at_every_fail_point(backend: Backend, surface: &Surface) {
    let deaths: BTreeMap<_, _> = fail_points(surface)
        .map(|fail_point| {
            (
                fail_point,
                crash_at_each_passing(backend, fail_point, surface),
            )
        })
        .collect();
    let unreached: Vec<_> = deaths
        .iter()
        .filter(|(_, deaths)| **deaths == 0)
        .map(|(fail_point, _)| fail_point.name())
        .collect();
    assert!(unreached.is_empty(), "no test reaches {unreached:?}");
    let sum = deaths.values().sum::<usize>();
    tell(&format!(
        "{surface}: {} fail_points, {sum} deaths, one at each passing",
        deaths.len()
    ));
    for (fail_point, deaths) in deaths {
        tell(&format!("  {fail_point:<24} {deaths}"));
    }
}

#[rstest]
#[test]
fn rest_session_completes_once_after_any_crash(#[values(Sqlite, Postgres)] backend: Backend) {
    crash_at_every_fail_point(backend, &Surface::Rest);
}

#[rstest]
#[test]
fn web_messaging_session_completes_once_after_any_crash(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    crash_at_every_fail_point(backend, &WEB_MESSAGING);
}

#[rstest]
#[test]
fn open_messaging_session_completes_once_after_any_crash(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    crash_at_every_fail_point(backend, &OPEN_MESSAGING);
}

/// Without an external source, an e-mail address or a telephone number, no lookup finds a contact
/// again. A crash may lose the contact, but never the guest.
#[rstest]
#[test]
fn crash_with_unidentifiable_contact_opens_one_conversation(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut unlinked = 0;
    for fail_point in fail_points(&WEB_MESSAGING) {
        run(async {
            let mut platform = platform(backend, &WEB_MESSAGING).await;
            platform.config.messaging.external_source = None;
            platform.faults(&[&fault_on_the_way_to(fail_point, &WEB_MESSAGING)]);
            let death = InjectedCrash::at(fail_point, 1);
            run_process(&platform, &death, "ann", None).await;
            run_to_completion(&platform, "ann").await;
            let state = platform.sim.state();
            assert!(
                state.contacts <= 1 && state.conversations == 1,
                "{fail_point}: {state:?}"
            );
            assert_eq!(
                (state.crm.events, state.crm.guests_notified_twice),
                (1, 0),
                "{fail_point}"
            );
            unlinked += 1 - state.linked;
        });
    }
    tell(&format!(
        "{unlinked} deaths left a guest without a linked contact"
    ));
    assert!(unlinked > 0, "where the answer died with the process");
}

/// The routes of all calls and frames of a session.
fn steps(surface: &Surface) -> &'static [&'static str] {
    match surface {
        Surface::Rest => &["token", "queue", "contact", "conversation", "crm"],
        Surface::WebMessaging { .. } => &[
            "token",
            "queue",
            "contact",
            "socket",
            "configure",
            "message",
            "jwt",
            "history",
            "details",
            "conversation-read",
            "link",
            "transfer",
            "crm",
        ],
        Surface::OpenMessaging { .. } => &[
            "token",
            "queue",
            "contact",
            "open-message",
            "details",
            "conversation-read",
            "link",
            "transfer",
            "crm",
        ],
    }
}

/// On PostgreSQL every case takes longer. One case of thirteen runs, a different set at each fail
/// point, unless `GUESTLANE_TEST_ALL_FAULTS` is set.
#[expect(clippy::disallowed_methods, reason = "a test's own setting")]
fn is_taken(backend: Backend, case: usize, fail_point: Option<FailPoint>) -> bool {
    let all = backend == Backend::Sqlite || std::env::var("GUESTLANE_TEST_ALL_FAULTS").is_ok();
    all || (case + fail_point.map_or(0, |fail_point| fail_point as usize)).is_multiple_of(13)
}

/// Injects every fault at every step, with a crash at the first passing of a fail point. Each case
/// has its own guest.
fn crash_with_every_fault(
    backend: Backend,
    fail_point: Option<FailPoint>,
    kinds: &[FaultKind],
    surface: &Surface,
) -> (usize, usize) {
    run(async {
        let platform = platform(backend, surface).await;
        run_to_completion(&platform, "guest-0").await;
        let (mut met, mut cases, mut deaths) = (0, 0, 0);
        for step in steps(surface) {
            for kind in kinds {
                let fault = format!("{step}:{}:nth=1", kind.name());
                if fault.parse::<guestlane_sim::Fault>().is_err() {
                    continue; // `stale` applies only to reads
                }
                met += 1;
                if !is_taken(backend, met, fail_point) {
                    continue;
                }
                cases += 1;
                let mut faults = vec![fault.clone()];
                faults
                    .extend(fail_point.map(|fail_point| fault_on_the_way_to(fail_point, surface)));
                // The history is read only if the outcome of the message is unknown.
                if ["jwt", "history"].contains(step) {
                    faults.push("message:answer-lost:nth=1".to_owned());
                }
                platform.faults(&faults.iter().map(String::as_str).collect::<Vec<_>>());
                let repeated = platform.sim.state().repeated_first_messages;
                let death = fail_point.map_or_else(InjectedCrash::never, |fail_point| {
                    InjectedCrash::at(fail_point, 1)
                });
                let (guest, erase) = (format!("guest-{cases}"), format!("guest-{}", cases - 1));
                run_process(&platform, &death, &guest, Some(&erase)).await;
                run_to_completion(&platform, &guest).await;
                let state = platform.sim.state();
                let all = cases as u64 + 1;
                assert_eq!(
                    (state.contacts, state.conversations),
                    (all, all),
                    "{fail_point:?} {fault}"
                );
                // Open Messaging has no history to check first. Each response that is lost, by the
                // fault or by the crash, may repeat the message.
                let most = if *surface == OPEN_MESSAGING && death.died() {
                    2
                } else {
                    1
                };
                assert!(
                    state.repeated_first_messages - repeated <= most,
                    "{fail_point:?} {fault}"
                );
                deaths += usize::from(death.died());
            }
        }
        assert_at_rest(&platform, cases as u64 + 1).await;
        (cases, deaths)
    })
}

fn crash_everywhere_with_every_fault(backend: Backend, part: usize) {
    let fail_points =
        fail_points(&Surface::Rest).filter(|fail_point| !is_first_use(backend, *fail_point));
    crash_with_every_fault_at(
        backend,
        fail_points.skip(part).step_by(2),
        FaultKind::ALL,
        &Surface::Rest,
    );
}

fn crash_with_every_fault_at(
    backend: Backend,
    fail_points: impl Iterator<Item = FailPoint>,
    kinds: &[FaultKind],
    surface: &Surface,
) {
    let mut all = 0;
    for fail_point in fail_points {
        let (cases, deaths) = crash_with_every_fault(backend, Some(fail_point), kinds, surface);
        tell(&format!(
            "  {fail_point:<24} {cases} faults at their steps, died in {deaths}"
        ));
        assert!(deaths > 0, "{fail_point}");
        all += cases;
    }
    tell(&format!("{surface}: {all} cases"));
}

/// The fail points that only the official surfaces have, and those around them. The other fail
/// points behave the same on every surface.
fn official_fail_points(backend: Backend, surface: &Surface) -> impl Iterator<Item = FailPoint> {
    let more = [
        FailPoint::SignedIn,
        FailPoint::AttemptFailed,
        FailPoint::ContactCreated,
        FailPoint::ConversationOpened,
        FailPoint::FailureStored,
    ];
    fail_points(surface).filter(move |fail_point| {
        (FAIL_POINTS_OF_OFFICIAL_SURFACES.contains(fail_point) || more.contains(fail_point))
            && !is_first_use(backend, *fail_point)
    })
}

/// One fault of each class: three with the work done and the response lost, one with nothing done,
/// one refusal.
const FAULT_CLASSES: &[FaultKind] = &[
    FaultKind::AnswerLost,
    FaultKind::BadGatewayAfter,
    FaultKind::HangAfter,
    FaultKind::Reset,
    FaultKind::Forbidden,
];

fn every_fault_at_every_step(backend: Backend, surface: &Surface) {
    let (cases, _) = crash_with_every_fault(backend, None, FaultKind::ALL, surface);
    tell(&format!("{surface}: {cases} faults at their steps"));
}

#[rstest]
#[test]
fn web_messaging_session_completes_once_after_every_fault(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    every_fault_at_every_step(backend, &WEB_MESSAGING);
}

#[rstest]
#[test]
fn open_messaging_session_completes_once_after_every_fault(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    every_fault_at_every_step(backend, &OPEN_MESSAGING);
}

#[rstest]
#[test]
fn web_messaging_session_completes_once_after_fault_and_crash(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    crash_with_every_fault_at(
        backend,
        official_fail_points(backend, &WEB_MESSAGING),
        FAULT_CLASSES,
        &WEB_MESSAGING,
    );
}

#[rstest]
#[test]
fn open_messaging_session_completes_once_after_fault_and_crash(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    crash_with_every_fault_at(
        backend,
        official_fail_points(backend, &OPEN_MESSAGING),
        FAULT_CLASSES,
        &OPEN_MESSAGING,
    );
}

// Two halves, so that two processors run them in parallel.
#[rstest]
#[test]
fn rest_session_completes_once_after_fault_and_crash_part_1(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    crash_everywhere_with_every_fault(backend, 0);
}

#[rstest]
#[test]
fn rest_session_completes_once_after_fault_and_crash_part_2(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    crash_everywhere_with_every_fault(backend, 1);
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

/// A process crashes while it creates the next signing key or revokes one. The next process finds
/// either all of the change or nothing, one key signs, and the earlier sessions are completed.
#[rstest]
#[test]
fn crash_during_key_rotation_or_revocation_leaves_one_active_key(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let fail_points = [
        FailPoint::RowsWritten,
        FailPoint::RecordsWritten,
        FailPoint::Committed,
        FailPoint::NextKeyStored,
        FailPoint::KeyRevoked,
    ];
    for (fail_point, revokes) in fail_points
        .into_iter()
        .flat_map(|fail_point| [(fail_point, false), (fail_point, true)])
    {
        if (fail_point == FailPoint::NextKeyStored && revokes)
            || (fail_point == FailPoint::KeyRevoked && !revokes)
        {
            continue;
        }
        run(async {
            let platform = platform(backend, &Surface::Rest).await;
            platform.faults(&["conversation:answer-lost:first=4"]);
            platform
                .engine()
                .await
                .create(request("ann"))
                .await
                .unwrap_err();
            let (armed, died) = (
                Arc::new(AtomicBool::new(false)),
                Arc::new(AtomicBool::new(false)),
            );
            let (at, dies, says) = (fail_point, Arc::clone(&armed), Arc::clone(&died));
            let mut places = platform.config.storage.clone();
            places.fail_points = FailPoints::new(move |fail_point| {
                let dies = dies.load(Ordering::SeqCst) && fail_point == at;
                says.fetch_or(dies, Ordering::SeqCst);
                dies
            });
            let (clock, now) = (platform.clock(), platform.clock.now());
            let changing = tokio::spawn(async move {
                let state = Workspace::open_read_only(&places, &clock).await.unwrap();
                armed.store(true, Ordering::SeqCst);
                if revokes {
                    let _ = state.revoke_key("webchat-guest-key-v1", now).await;
                } else {
                    let _ = state.rotate_key(RotationPolicy::default(), &clock).await;
                }
            });
            while !died.load(Ordering::SeqCst) && !changing.is_finished() {
                tokio::task::yield_now().await;
            }
            changing.abort();
            assert!(died.load(Ordering::SeqCst), "{fail_point}");
            let committed = !matches!(
                fail_point,
                FailPoint::RowsWritten | FailPoint::RecordsWritten
            );
            let states: Vec<_> = platform
                .state()
                .await
                .keyring
                .list(platform.clock.now())
                .into_iter()
                .map(|key| key.state)
                .collect();
            assert_eq!(
                states,
                match (committed, revokes) {
                    (false, _) => vec![KeyState::Active],
                    (true, false) => vec![KeyState::Active, KeyState::Next],
                    (true, true) => vec![KeyState::Revoked, KeyState::Active],
                },
                "{fail_point}"
            );
            run_to_completion(&platform, "ann").await;
            run_to_completion(&platform, "bob").await;
            assert_at_rest(&platform, 2).await;
        });
    }
}

/// Power fails at a fail point. Committed data is on the disk; of the rest, the disk has an
/// arbitrary part.
#[rstest]
#[test]
fn power_loss_at_any_writer_fail_point_loses_no_committed_data(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let writing = [
        FailPoint::RowsWritten,
        FailPoint::RecordsWritten,
        FailPoint::Committed,
        FailPoint::LinesAppended,
        FailPoint::HashesAppended,
        FailPoint::CheckpointWritten,
        FailPoint::LogSealed,
    ];
    let mut cuts = 0;
    for fail_point in writing {
        for nth in 1..9 {
            let mut chance = fastrand::Rng::with_seed(nth as u64 * 31 + fail_point as u64);
            run(async {
                let mut platform = platform(backend, &Surface::Rest).await;
                run_to_completion(&platform, "before").await;
                let death = InjectedCrash::at(fail_point, nth);
                let (state, copy) = (
                    platform.directory.path().join("state"),
                    platform.directory.path().join("at-the-fail_point"),
                );
                let copied = copy.clone();
                run_process_until(&platform, &death, "ann", None, move || {
                    copy_files(&state, &copied)
                })
                .await;
                if death.died() {
                    cuts += 1;
                    drop_unsynced_data(&platform, &copy, &mut chance);
                    keep_state_in(backend, &mut platform, "at-the-fail_point");
                }
                run_to_completion(&platform, "ann").await;
                assert_at_rest(&platform, 2).await;
            });
        }
    }
    assert!(cuts > 30, "{cuts}");
    tell(&format!("{cuts} power cuts"));
}

/// The files of an open log are not synced. A crash may leave each of them shorter, or with zeros
/// at the end, independently of the others.
fn drop_unsynced_data(platform: &TestPlatform, state: &Path, chance: &mut fastrand::Rng) {
    let first = state.join("audit/session-audit.jsonl");
    let open = platform
        .open_logs(state)
        .into_iter()
        .map(|log| guestlane_tlog::lines_path(&first, log));
    for path in open.flat_map(|lines| {
        [
            guestlane_tlog::hashes_path(&lines),
            guestlane_tlog::checkpoint_path(&lines),
            lines,
        ]
    }) {
        let Ok(file) = std::fs::OpenOptions::new().write(true).open(path) else {
            continue;
        };
        let length = file.metadata().unwrap().len();
        let kept = chance.u64(0..=length);
        file.set_len(kept).unwrap();
        if chance.bool() {
            file.set_len(length).unwrap(); // zeros in place of the bytes
        }
    }
}
