//! Tests of a process that has no file descriptor left. The limit applies to the process, so this
//! test has its own process.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::{fs::File, time::Duration};

use guestlane_store::{Delivery, DeliveryState};
use guestlane_testkit::{
    Backend,
    platform::{TestPlatform, request},
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Opens files until no file descriptor is left.
fn take_all_descriptors() -> Vec<File> {
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    taken
}

#[tokio::test]
async fn local_descriptor_exhaustion_is_not_counted_as_an_attempt() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 256.min(most), most).unwrap();
    let platform = TestPlatform::new(Backend::Sqlite).await;
    let engine = platform.engine().await;
    let outbox = engine.outbox().unwrap();
    // Closes the connection, so the next delivery needs a new descriptor.
    platform.faults(&["crm:reset:first=1"]);
    engine.create(request("ann")).await.unwrap();
    while !outbox.wait_for_initial_deliveries().await {}
    let event = async || -> Delivery {
        engine
            .store()
            .events(None, None, 1)
            .await
            .unwrap()
            .remove(0)
    };
    let failed = event().await;
    assert_eq!(
        (failed.state, failed.event.attempts),
        (DeliveryState::Pending, 1)
    );

    platform.clock.advance(Duration::from_secs(10));
    for _ in 0..20 {
        let taken = take_all_descriptors();
        let round = outbox.deliver_due().await;
        drop(taken);
        assert_eq!(round.unwrap().failed, 1);
        let waiting = event().await;
        assert_eq!(
            (waiting.state, waiting.event.attempts),
            (DeliveryState::Pending, 1),
            "no try of the receiver is used"
        );
        assert_eq!(waiting.last_error, failed.last_error);
        platform.clock.advance(Duration::from_secs(11));
    }
    assert_eq!(outbox.deliver_due().await.unwrap().delivered, 1);
    assert_eq!(
        (
            platform.sim.state().crm.events,
            event().await.event.attempts
        ),
        (1, 2)
    );

    // A local failure that lasts longer than a day does count as an attempt, so that the event ends
    // as a dead letter and an operator sees it.
    platform.faults(&["crm:reset:first=1"]);
    engine.create(request("bob")).await.unwrap();
    while !outbox.wait_for_initial_deliveries().await {}
    platform.clock.advance(Duration::from_secs(25 * 3600));
    let taken = take_all_descriptors();
    let round = outbox.deliver_due().await;
    drop(taken);
    assert_eq!(round.unwrap().failed, 1);
    assert_eq!(event().await.event.attempts, 2);

    // A platform call that lacks a descriptor is no attempt either. It waits longer than three
    // retries would take.
    platform.faults(&[]);
    let fresh = platform.engine().await; // has no connection yet
    let (taken, before) = (take_all_descriptors(), platform.clock.now());
    let clock = platform.clock();
    let (opened, ()) = tokio::join!(fresh.create(request("cy")), async {
        clock.sleep(Duration::from_secs(30)).await;
        drop(taken);
    });
    opened.unwrap();
    assert!(
        platform.clock.now().since(before) >= Duration::from_secs(30),
        "the call waited for a descriptor"
    );
    assert_eq!(
        (fresh.platform_down_for(), fresh.error_counts().total),
        (None, 0),
        "it says nothing of the platform"
    );
}
