//! Clock skew between nodes: the database's clock decides, and a node whose clock is off claims
//! nothing.

use std::{sync::Arc, time::Duration};

use guestlane::SessionEngine;
use guestlane_runtime::ReferenceClock;
use guestlane_testkit::{
    Backend::Postgres,
    platform::{TestPlatform, request},
};

use super::fleet::on_machine;

/// Starts a second node, whose clock the test can set.
async fn second_machine(platform: &TestPlatform) -> (Arc<SessionEngine>, ReferenceClock) {
    let clock = ReferenceClock::new(platform.clock());
    clock.set(platform.clock.now(), platform.clock().monotonic());
    (
        SessionEngine::open(on_machine(platform, 1), clock.clock())
            .await
            .unwrap(),
        clock,
    )
}

fn set_ahead(platform: &TestPlatform, clock: &ReferenceClock, seconds: u64) {
    let now = platform.clock().monotonic();
    clock.set(now + Duration::from_secs(seconds), now);
}

/// Regression test: a node whose clock had jumped by a minute claimed all leases of other nodes,
/// and each first message was sent three times.
#[tokio::test]
async fn node_with_clock_ahead_claims_no_live_lease() {
    let platform = TestPlatform::new(Postgres).await;
    platform.install_database_clock().await;
    let one = platform.engine().await;
    let (two, clock) = second_machine(&platform).await;
    platform.faults(&["contact:slow:seconds=3"]);
    let create = |n| {
        let one = Arc::clone(&one);
        tokio::spawn(async move { one.create(request(&format!("guest-{n}"))).await })
    };
    let creating: Vec<_> = (0..30).map(create).collect();
    platform.hanging().await;
    set_ahead(&platform, &clock, 60);
    // This holds before the next clock comparison, too: leases are compared by the database's
    // clock.
    assert!(two.recover_abandoned().await.unwrap().is_empty());
    while !creating.iter().all(tokio::task::JoinHandle::is_finished) {
        if platform.sim.state().hanging > 0 {
            platform.clock.advance(Duration::from_millis(300)); // the slow responses arrive
        }
        tokio::task::yield_now().await;
    }
    for created in creating {
        assert!(!created.await.unwrap().unwrap().replayed);
    }
    let calls = platform.sim.state().calls.clone();
    assert_eq!(
        (calls["contact"], calls["conversation"]),
        (30, 30),
        "no call was made twice"
    );
    platform.assert_each_guest_once(30);
}

#[tokio::test]
async fn node_with_skewed_clock_neither_claims_nor_prunes_until_corrected() {
    let mut platform = TestPlatform::new(Postgres).await;
    platform.config.retention = Some(Duration::from_secs(24 * 3600));
    platform.install_database_clock().await;
    let (two, clock) = second_machine(&platform).await;
    two.create(request("old")).await.unwrap();
    two.outbox().unwrap().wait_for_initial_deliveries().await;
    platform.faults(&["conversation:500:first=4"]);
    two.create(request("unfinished")).await.unwrap_err();
    platform.clock.advance(Duration::from_secs(25 * 3600));
    platform.set_database_clock();

    set_ahead(&platform, &clock, 3);
    two.store().measure_clock().await.unwrap();
    assert!((2.9..3.1).contains(&two.store().clock_offset().unwrap()) && !two.store().may_claim());
    assert!(two.recover_abandoned().await.unwrap().is_empty());
    assert!(
        two.store()
            .batches()
            .unwrap()
            .claim_rows(9, two.clock().now())
            .await
            .unwrap()
            .is_empty()
    );
    assert!(
        two.store()
            .claim_events(1, 9, two.clock().now())
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(two.prune().await.unwrap().sessions, 0);

    set_ahead(&platform, &clock, 1);
    two.store().measure_clock().await.unwrap();
    assert!(two.store().may_claim());
    assert_eq!(two.prune().await.unwrap().sessions, 1);
    assert_eq!(two.recover_abandoned().await.unwrap().len(), 1);
}

#[tokio::test]
async fn node_with_clock_skew_over_2_seconds_refuses_to_start() {
    let platform = TestPlatform::new(Postgres).await;
    platform.install_database_clock().await;
    platform.clock.set_wall_clock(-3);
    let refused = platform.try_engine().await.unwrap_err();
    assert!(
        refused.to_string().contains("clock is 3.0 s behind"),
        "{refused}"
    );
    platform.clock.set_wall_clock(2);
    platform.engine().await;
}
