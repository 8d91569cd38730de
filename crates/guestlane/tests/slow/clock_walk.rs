//! Random walks of wall clocks that jump by up to 50 days, with retention, deliveries, restarts and
//! (on PostgreSQL) batches. No guest gets a second conversation, and no row is deleted that another
//! row still refers to.
//!
//! `GUESTLANE_TEST_CLOCK_RUNS` sets the number of runs, `GUESTLANE_TEST_SEED` the first seed.

mod walk;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use guestlane::{SessionEngine, TokenRequestAuth};
use guestlane_runtime::{ReferenceClock, Timestamp};
use guestlane_store::{
    SessionFilter,
    batch::{BatchId, RowOutcome},
};
use guestlane_testkit::{
    Backend::{self, Postgres, Sqlite},
    batch,
    platform::{OPEN_MESSAGING, TestPlatform, request, setting, tell},
};
use rstest::rstest;

use walk::{Counts, Walk};

const HOUR: Duration = Duration::from_secs(3600);

/// The retention of idempotency keys.
const KEEP: Duration = Duration::from_secs(30 * 24 * 3600);

/// The number of consecutive runs on one store.
const RUNS_PER_STORE: u64 = 50;

const STEPS_PER_RUN: u32 = 12;

#[rstest]
#[tokio::test]
async fn random_clock_jumps_cause_no_duplicate_and_no_early_deletion(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let (runs, seed) = (
        setting("GUESTLANE_TEST_CLOCK_RUNS", 200),
        setting("GUESTLANE_TEST_SEED", 15),
    );
    let mut sum = Counts::default();
    for store in 0..runs.div_ceil(RUNS_PER_STORE) {
        let mut walk = Walk::new(backend, seed + store).await;
        for run in 0..RUNS_PER_STORE.min(runs - store * RUNS_PER_STORE) {
            for step in 0..STEPS_PER_RUN {
                walk.step(run, step).await;
            }
        }
        if backend == Postgres {
            walk.complete_all_rows().await;
        }
        let state = walk.platform.sim.state();
        assert_eq!(
            state.duplicates,
            guestlane_sim::Duplicates::default(),
            "seed {}",
            seed + store
        );
        assert_eq!(
            (state.conversations, state.guests),
            (walk.counts.opened, walk.counts.opened),
            "seed {}",
            seed + store
        );
        let Counts {
            opened,
            replayed,
            refused,
            deleted,
            jumps,
            rows,
        } = walk.counts;
        sum.opened += opened;
        sum.replayed += replayed;
        sum.refused += refused;
        sum.deleted += deleted;
        sum.jumps += jumps;
        sum.rows += rows;
    }
    let Counts {
        opened,
        replayed,
        refused,
        deleted,
        jumps,
        rows,
    } = sum;
    tell(&format!(
        "{runs} runs: {jumps} jumps, {opened} sessions opened, {rows} rows of batches, {replayed} replayed, {refused} refused, \
         {deleted} deleted: 0 duplicates"
    ));
    assert!(
        runs < 100 || deleted > 0 && replayed > 0 && jumps > 0,
        "the walk reaches all that it is about"
    );
}

/// Regression test: a clock was 40 days ahead for a moment, and the next start deleted the
/// idempotency keys of months.
#[rstest]
#[tokio::test]
async fn momentary_clock_jump_deletes_no_idempotency_key(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut platform = TestPlatform::new(backend).await;
    platform.config.retention = Some(KEEP);
    let engine = platform.engine().await;
    for guest in ["ann", "bob", "cy"] {
        engine.create(request(guest)).await.unwrap();
        engine.outbox().unwrap().wait_for_initial_deliveries().await;
    }
    drop(engine);
    platform.clock.set_wall_clock(40 * 86_400);
    if backend == Sqlite {
        assert_eq!(platform.engine().await.prune().await.unwrap().sessions, 0);
    }
    platform.clock.set_wall_clock(-40 * 86_400);
    let engine = platform.engine().await;
    assert_eq!(engine.prune().await.unwrap().sessions, 0);
    for guest in ["ann", "bob", "cy"] {
        assert!(
            engine.create(request(guest)).await.unwrap().replayed,
            "{guest}"
        );
    }
    platform.assert_each_guest_once(3);
}

/// A session that was written while the clock was 50 days behind must not count as 50 days older. On
/// PostgreSQL the database's clock stamps the session, which the random walk covers.
#[tokio::test]
async fn session_created_while_the_clock_was_behind_keeps_full_retention() {
    let mut platform = TestPlatform::new(Sqlite).await;
    platform.config.surface = OPEN_MESSAGING;
    platform.config.credentials.sign_in = TokenRequestAuth::Basic;
    platform.config.retention = Some(KEEP);
    drop(platform.state().await);
    platform.clock.set_wall_clock(-50 * 86_400);
    let engine = platform.engine().await;
    let opened = engine.create(request("ann")).await.unwrap();
    engine.outbox().unwrap().wait_for_initial_deliveries().await;
    platform.clock.set_wall_clock(50 * 86_400);
    assert_eq!(engine.prune().await.unwrap().sessions, 0);
    assert_eq!(
        engine.create(request("ann")).await.unwrap().session.id,
        opened.session.id
    );
    let mut deleted = 0;
    for _ in 0..31 {
        platform.clock.advance(24 * HOUR);
        deleted += engine.prune().await.unwrap().sessions;
    }
    assert_eq!(deleted, 1, "and no longer");
}
