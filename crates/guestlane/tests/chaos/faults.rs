//! All kinds of faults occur at the same time.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use guestlane::SessionEngine;
use guestlane_core::session::SessionState;
use guestlane_sim::{FaultKind, Route};
use guestlane_store::SessionFilter;
use guestlane_testkit::{
    Backend::{self, Postgres, Sqlite},
    platform::{TestPlatform, create_many, request, tell},
};
use rstest::rstest;

/// Number of sessions. `GUESTLANE_TEST_SESSIONS=10000` makes the run longer.
#[expect(clippy::disallowed_methods, reason = "a test's own setting")]
fn sessions() -> usize {
    std::env::var("GUESTLANE_TEST_SESSIONS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(2000)
}

/// Advances the clock when nothing else makes progress, for callers that wait for a withheld
/// response.
async fn time_passes(platform: &TestPlatform) {
    let mut requests = 0;
    loop {
        for _ in 0..500 {
            tokio::task::yield_now().await;
        }
        let state = platform.sim.state();
        let now: u64 = state.calls.values().sum();
        if state.hanging > 0 && now == requests {
            platform.clock.advance(Duration::from_secs(1));
        }
        requests = now;
    }
}

#[rstest]
#[tokio::test]
async fn every_fault_at_5_percent_loses_and_duplicates_no_session(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let guests = sessions();
    let platform = TestPlatform::with(backend, |options| options.seed = 11).await;
    let engine = platform.engine().await;
    let mut faults = Vec::new();
    for route in Route::GATEWAY {
        let applies = |kind: &&FaultKind| {
            **kind != FaultKind::Stale || matches!(route, Route::Queue | Route::Conversation)
        };
        faults.extend(
            FaultKind::ALL
                .iter()
                .filter(applies)
                .map(|kind| format!("{route}:{}:p=0.05", kind.name())),
        );
    }
    let faults: Vec<_> = faults.iter().map(String::as_str).collect();
    platform.faults(&faults);
    let created = tokio::select! {
        created = create_many(&engine, guests, 64) => created,
        () = time_passes(&platform) => unreachable!("time does not end"),
    };
    let state = platform.sim.state();
    assert_eq!(
        state.faults.len(),
        FaultKind::ALL.len(),
        "{:?}",
        state.faults
    );
    assert_eq!(state.duplicates, guestlane_sim::Duplicates::default());

    let opened = created.iter().filter(|created| created.is_ok()).count();
    let mut failed = BTreeMap::new();
    for error in created.iter().filter_map(|created| created.as_ref().err()) {
        *failed.entry(error.code()).or_insert(0_usize) += 1;
    }
    assert_each_unfinished_one_says_why(&engine, opened).await;

    platform.faults(&[]);
    run_to_completion(&platform, &engine, guests).await;
    platform.assert_each_guest_once(guests as u64);
    assert_eq!(
        (
            platform.sim.state().crm.events,
            platform.sim.state().crm.guests_notified_twice
        ),
        (guests as u64, 0)
    );
    tell(&format!(
        "{guests} sessions: {opened} opened at once, the others after {failed:?}; faults {:?}",
        state.faults
    ));
}

#[rstest]
#[tokio::test]
async fn each_fault_alone_at_5_percent_loses_no_session(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    const GUESTS: usize = 150;
    for kind in FaultKind::ALL {
        let mut platform = TestPlatform::with(backend, |options| options.seed = 3).await;
        platform.outlast_random_faults();
        let engine = platform.engine().await;
        let on = |route| format!("{route}:{}:p=0.05", kind.name());
        let specs = if *kind == FaultKind::Stale {
            vec![on("queue"), on("conversation")]
        } else {
            vec![on("any"), on("crm")]
        };
        platform.faults(&specs.iter().map(String::as_str).collect::<Vec<_>>());
        let created = tokio::select! {
            created = create_many(&engine, GUESTS, 16) => created,
            () = time_passes(&platform) => unreachable!("time does not end"),
        };
        assert!(
            platform.sim.state().faults[kind.name()] > 0,
            "{}",
            kind.name()
        );
        let opened = created.iter().filter(|created| created.is_ok()).count();
        // A final refusal ends a session. Every other fault is retried, and at a fault rate of 5 %
        // the retries suffice.
        let final_kinds = [
            "400",
            "400-echo",
            "401",
            "403",
            "404",
            "redirect",
            "stale",
            "token-revoked",
            "clock-skew",
        ];
        assert!(
            opened == GUESTS || final_kinds.contains(&kind.name()),
            "{}: {opened} opened",
            kind.name()
        );
        assert_each_unfinished_one_says_why(&engine, opened).await;
        platform.faults(&[]);
        run_to_completion(&platform, &engine, GUESTS).await;
        platform.assert_each_guest_once(GUESTS as u64);
        assert_eq!(
            platform.sim.state().crm.events,
            GUESTS as u64,
            "{}",
            kind.name()
        );
    }
}

async fn assert_each_unfinished_one_says_why(engine: &SessionEngine, opened: usize) {
    let filter = SessionFilter {
        guest: None,
        state: None,
        limit: u32::MAX,
        ..SessionFilter::default()
    };
    let sessions = engine.store().sessions(filter).await.unwrap().sessions;
    assert_eq!(
        sessions
            .iter()
            .filter(|session| session.state == SessionState::Open)
            .count(),
        opened
    );
    for session in sessions
        .iter()
        .filter(|session| session.state != SessionState::Open)
    {
        assert!(
            session
                .failure
                .as_ref()
                .is_some_and(|failure| !failure.code.is_empty()),
            "{session:?}"
        );
    }
}

async fn run_to_completion(platform: &TestPlatform, engine: &Arc<SessionEngine>, guests: usize) {
    for round in 0.. {
        platform.clock.advance(Duration::from_secs(301));
        let mut left = 0;
        for n in 0..guests {
            left += usize::from(engine.create(request(&format!("guest-{n}"))).await.is_err());
        }
        engine.outbox().unwrap().deliver_due().await.unwrap();
        if left == 0 && engine.store().pending_events().await.unwrap() == 0 {
            return;
        }
        assert!(round < 10, "{left} sessions do not come to rest");
    }
}
