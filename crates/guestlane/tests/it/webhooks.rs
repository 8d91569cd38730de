//! A webhook endpoint that is down, slow or hostile delays no session, and every event is
//! delivered.

mod endpoints;
mod order;
mod responses;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use guestlane::{
    SessionEngine,
    outbox::{Endpoints, KeyKind},
};
use guestlane_core::request::SessionRequest;
use guestlane_runtime::ssrf::EgressPolicy;
use guestlane_store::{Delivery, DeliveryOutcome, DeliveryState, RecordFilter, ReplayFilter};
use guestlane_testkit::{
    Backend::{self, Postgres, Sqlite},
    platform::{CRM_SECRET, TestPlatform, create_many, request},
};
use rstest::rstest;

use crate::peer::{Peer, Reply, json};

/// The first event of the outbox.
async fn first_event(engine: &SessionEngine) -> Delivery {
    let mut events = engine.store().events(None, None, 1).await.unwrap();
    events.remove(0)
}

#[rstest]
#[tokio::test]
async fn event_signature_matches_the_reference_library(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    let opened = engine.create(request("ann")).await.unwrap();
    assert!(engine.outbox().unwrap().wait_for_initial_deliveries().await);
    let [sent] = &platform.journal("crm")[..] else {
        panic!()
    };
    let header = |name: &str| sent.headers[name].clone();
    assert_eq!(
        header("webhook-id"),
        format!("msg_{}", opened.session.id.0.simple())
    );
    let reference = standardwebhooks::Webhook::new(CRM_SECRET).unwrap();
    let timestamp: i64 = header("webhook-timestamp").parse().unwrap();
    let signature = reference
        .sign(&header("webhook-id"), timestamp, sent.body.as_bytes())
        .unwrap();
    assert_eq!(header("webhook-signature"), signature);
    assert_eq!(platform.sim.state().crm.bad_signature, 0);
}

#[rstest]
#[tokio::test]
async fn crm_outage_does_not_delay_create_and_event_is_delivered_later(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    for fault in [
        "crm:500:first=1",
        "crm:hang:first=1",
        "crm:redirect:first=1",
        "crm:reset:first=1",
        "crm:429:first=1,retry-after=9",
    ] {
        let platform = TestPlatform::new(backend).await;
        let engine = platform.engine().await;
        platform.faults(&[fault]);
        let before = platform.clock.now();
        engine.create(request("ann")).await.unwrap();
        assert!(
            platform.clock.now().since(before) < Duration::from_secs(1),
            "{fault}: the session waited"
        );
        if fault.contains("hang") {
            platform.hanging().await;
            platform.clock.advance(Duration::from_secs(3));
        }
        assert!(
            engine.outbox().unwrap().wait_for_initial_deliveries().await,
            "{fault}"
        );
        assert_eq!(platform.sim.state().crm.events, 0, "{fault}");
        let [event] = &engine
            .store()
            .events(Some(DeliveryState::Pending), None, 10)
            .await
            .unwrap()[..]
        else {
            panic!("{fault}")
        };
        assert!(event.last_error.is_some(), "{fault}");

        platform.clock.advance(Duration::from_secs(10));
        let round = engine.outbox().unwrap().deliver_due().await.unwrap();
        assert_eq!(round.delivered, 1, "{fault}");
        let ids: std::collections::HashSet<_> = platform
            .journal("crm")
            .iter()
            .map(|sent| sent.headers["webhook-id"].clone())
            .collect();
        assert_eq!(
            (ids.len(), platform.sim.state().crm.events),
            (1, 1),
            "{fault}: the same id on every try"
        );
    }
}

#[rstest]
#[tokio::test]
async fn undelivered_event_of_a_crashed_process_is_delivered_by_the_next(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    platform.faults(&["crm:hang"]);
    engine.create(request("ann")).await.unwrap();
    drop(engine);
    platform.faults(&[]);
    platform.clock.advance(Duration::from_secs(10));
    let next = platform.engine().await;
    next.outbox().unwrap().deliver_due().await.unwrap();
    assert_eq!(platform.sim.state().crm.events, 1);
}

#[rstest]
#[tokio::test]
async fn replayed_event_keeps_its_id(#[values(Sqlite, Postgres)] backend: Backend) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    engine.create(request("ann")).await.unwrap();
    engine.outbox().unwrap().wait_for_initial_deliveries().await;
    let [event] = &engine.store().events(None, None, 10).await.unwrap()[..] else {
        panic!()
    };
    assert_eq!(event.state, DeliveryState::Delivered);
    let replay = ReplayFilter::Event(event.event.id.clone());
    assert_eq!(
        engine
            .store()
            .replay(replay, platform.clock.now())
            .await
            .unwrap(),
        1
    );
    engine.outbox().unwrap().deliver_due().await.unwrap();
    let crm = platform.sim.state().crm;
    assert_eq!((crm.events, crm.repeated), (1, 1));
}

#[rstest]
#[tokio::test]
async fn public_egress_policy_blocks_private_network_endpoints(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut platform = TestPlatform::new(backend).await;
    let crm = platform.config.webhooks.as_mut().unwrap();
    crm.egress_policy = EgressPolicy::Public;
    for host in ["127.0.0.1", "localhost"] {
        platform.config.webhooks.as_mut().unwrap().urls = vec![
            platform
                .sim
                .crm_url()
                .replace("127.0.0.1", host)
                .parse()
                .unwrap(),
        ];
        let engine = platform.engine().await;
        engine.create(request(host)).await.unwrap();
        assert!(engine.outbox().unwrap().wait_for_initial_deliveries().await);
        let event = first_event(&engine).await;
        assert!(
            event.last_error.unwrap().contains("private network"),
            "{host}"
        );
    }
    assert!(platform.journal("crm").is_empty());
}

#[rstest]
#[tokio::test]
async fn missing_webhook_secret_is_generated_and_stored(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut platform = TestPlatform::new(backend).await;
    platform.config.webhooks.as_mut().unwrap().secret = None;
    let secret = |engine: &SessionEngine| {
        engine.outbox().unwrap().endpoints()[0]
            .keys
            .secret()
            .unwrap()
            .expose()
            .to_owned()
    };
    let first = secret(&*platform.engine().await);
    assert!(first.starts_with("whsec_"));
    assert_eq!(secret(&*platform.engine().await), first);
}

#[rstest]
#[tokio::test]
async fn without_a_crm_no_events_are_written(#[values(Sqlite, Postgres)] backend: Backend) {
    let mut platform = TestPlatform::new(backend).await;
    platform.config.webhooks = None;
    let engine = platform.engine().await;
    engine.create(request("ann")).await.unwrap();
    assert!(
        engine
            .store()
            .events(None, None, 1)
            .await
            .unwrap()
            .is_empty()
    );
}

/// Returns a harness whose webhook receiver is `peer`.
async fn platform_with_peer(backend: Backend, peer: &Peer) -> TestPlatform {
    let mut platform = TestPlatform::new(backend).await;
    platform.config.webhooks.as_mut().unwrap().urls =
        vec![format!("{}/hook", peer.url).parse().unwrap()];
    platform
}
