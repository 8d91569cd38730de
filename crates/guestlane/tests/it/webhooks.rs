//! A webhook endpoint that is down, slow or hostile delays no session, and every event is
//! delivered.

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
use guestlane_store::{DeliveryOutcome, DeliveryState, RecordFilter, ReplayFilter};
use guestlane_testkit::{
    Backend::{self, Postgres, Sqlite},
    platform::{CRM_SECRET, TestPlatform, crowd, request},
};
use rstest::rstest;

use crate::peer::{Peer, Reply, json};

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
        let event = engine
            .store()
            .events(None, None, 1)
            .await
            .unwrap()
            .remove(0);
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

#[rstest]
#[tokio::test]
async fn events_of_one_guest_keep_order_and_do_not_block_other_guests(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    let outbox = engine.outbox().unwrap();
    platform.faults(&["crm:500:first=1"]);
    let create = async |guest: &str, key: &str| {
        let opened = engine
            .create(SessionRequest {
                key: key.parse().unwrap(),
                ..request(guest)
            })
            .await
            .unwrap();
        outbox.wait_for_initial_deliveries().await;
        opened.session.conversation_id.unwrap().to_string()
    };
    let first = create("ann", "one").await;
    let (second, third) = (create("ann", "two").await, create("ann", "three").await);
    let other = create("bob", "bob").await;
    let delivered = || -> Vec<String> {
        platform
            .sim
            .crm_events()
            .iter()
            .map(|event| event["data"]["conversationId"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        delivered(),
        [other.as_str()],
        "the first of ann's failed, so the others wait"
    );
    outbox.deliver_due().await.unwrap();
    assert_eq!(delivered().len(), 1, "also for a worker");
    platform.clock.advance(Duration::from_secs(6));
    outbox.deliver_due().await.unwrap();
    assert_eq!(delivered(), [other, first, second, third]);
}

#[rstest]
#[tokio::test]
async fn dead_letter_unblocks_the_next_event_and_can_be_replayed(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    let outbox = engine.outbox().unwrap();
    platform.faults(&["crm:500:first=10"]);
    for key in ["one", "two"] {
        engine
            .create(SessionRequest {
                key: key.parse().unwrap(),
                ..request("ann")
            })
            .await
            .unwrap();
    }
    outbox.wait_for_initial_deliveries().await;
    for _ in 0..9 {
        platform.clock.advance(Duration::from_secs(27 * 3600));
        outbox.deliver_due().await.unwrap();
    }
    let [dead] = &engine
        .store()
        .events(Some(DeliveryState::Dead), None, 10)
        .await
        .unwrap()[..]
    else {
        panic!()
    };
    assert_eq!(
        (dead.event.attempts, platform.sim.state().crm.events),
        (10, 1),
        "after ten attempts the second event is delivered"
    );
    assert_eq!(
        dead.last_error.as_deref(),
        Some("the endpoint responded with HTTP 500")
    );
    engine
        .store()
        .replay(
            ReplayFilter::Event(dead.event.id.clone()),
            platform.clock.now(),
        )
        .await
        .unwrap();
    outbox.deliver_due().await.unwrap();
    assert_eq!(platform.sim.state().crm.events, 2);
}

#[rstest]
#[tokio::test]
async fn events_in_a_time_range_are_counted_and_replayed(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    let mut times = Vec::new();
    for guest in ["ann", "bob", "cy"] {
        times.push(platform.clock.now());
        engine.create(request(guest)).await.unwrap();
        engine.outbox().unwrap().wait_for_initial_deliveries().await;
        platform.clock.advance(Duration::from_secs(60));
    }
    let of = |since, until, state| ReplayFilter::Written {
        since,
        until,
        state,
    };
    let count = async |replay| engine.store().replayable(replay).await.unwrap();
    assert_eq!(count(of(times[0], platform.clock.now(), None)).await, 3);
    assert_eq!(count(of(times[1], times[2], None)).await, 1);
    assert_eq!(
        count(of(
            times[0],
            platform.clock.now(),
            Some(DeliveryState::Dead)
        ))
        .await,
        0
    );
    assert_eq!(
        platform.sim.state().crm.repeated,
        0,
        "counting sends nothing"
    );
    assert_eq!(
        engine
            .store()
            .replay(
                of(times[1], platform.clock.now(), None),
                platform.clock.now()
            )
            .await
            .unwrap(),
        2
    );
    engine.outbox().unwrap().deliver_due().await.unwrap();
    let crm = platform.sim.state().crm;
    assert_eq!((crm.events, crm.repeated), (3, 2));
}

/// One receiver does not respond or only fails. The deliveries to the other one must not be
/// delayed.
#[rstest]
#[tokio::test]
async fn failing_endpoint_does_not_delay_another_endpoint(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    for fault in ["crm:hang", "crm:500", "crm:429:retry-after=3600"] {
        let mut platform = TestPlatform::new(backend).await;
        let (bad, good) = (
            TestPlatform::new(backend).await,
            TestPlatform::new(backend).await,
        );
        bad.faults(&[fault]);
        platform.config.webhooks.as_mut().unwrap().urls = [&bad, &good]
            .map(|receiver| receiver.sim.crm_url().parse().unwrap())
            .to_vec();
        let engine = platform.engine().await;
        let before = platform.clock.now();
        assert!(
            crowd(&engine, 200, 64).await.iter().all(Result::is_ok),
            "{fault}"
        );
        // The clock stands still while the failing receiver withholds its response, so the other
        // one must not need any time.
        let waiting = async || {
            engine
                .store()
                .events(Some(DeliveryState::Pending), None, 1000)
                .await
                .unwrap()
        };
        while waiting()
            .await
            .iter()
            .any(|delivery| delivery.event.endpoint == 2)
        {}
        let took = platform.clock.now().since(before);
        assert!(took < Duration::from_secs(1), "{fault}: {took:?}");
        assert_eq!(bad.sim.state().crm.events, 0, "{fault}");
        assert_eq!(
            (good.sim.state().crm.events, waiting().await.len()),
            (200, 200),
            "{fault}"
        );

        if fault != "crm:hang" {
            bad.faults(&[]);
            [&platform, &bad]
                .iter()
                .for_each(|platform| platform.clock.advance(Duration::from_secs(3700)));
            engine.outbox().unwrap().deliver_due().await.unwrap();
            assert_eq!(
                (bad.sim.state().crm.events, good.sim.state().crm.events),
                (200, 200),
                "{fault}"
            );
        }
    }
}

/// A worker that stalls during a delivery must not settle it after another worker has claimed it.
#[rstest]
#[tokio::test]
async fn delivery_with_an_expired_lease_is_not_recorded(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = TestPlatform::new(backend).await;
    let engine = platform.engine().await;
    platform.faults(&["crm:500:nth=1"]);
    engine.create(request("ann")).await.unwrap();
    engine.outbox().unwrap().wait_for_initial_deliveries().await;
    platform.clock.advance(Duration::from_secs(60));
    let store = engine.store();
    let late = store
        .claim_events(1, 9, platform.clock.now())
        .await
        .unwrap()
        .remove(0);
    assert!(
        store
            .claim_events(1, 9, platform.clock.now())
            .await
            .unwrap()
            .is_empty(),
        "it is taken"
    );
    platform.clock.advance(Duration::from_secs(11));
    let now = platform.clock.now();
    let other = store.claim_events(1, 9, now).await.unwrap().remove(0);
    assert!(other.epoch > late.epoch);
    store
        .record_delivery(
            late.clone(),
            DeliveryOutcome::Dead {
                error: "late".to_owned(),
            },
            now,
        )
        .await
        .unwrap();
    assert_eq!(
        store.event(late.id.clone()).await.unwrap()[0].state,
        DeliveryState::Pending
    );
    store
        .record_delivery(other, DeliveryOutcome::Delivered, now)
        .await
        .unwrap();
    assert_eq!(
        store.event(late.id).await.unwrap()[0].state,
        DeliveryState::Delivered
    );
}

/// Returns a harness whose webhook receiver is `peer`.
async fn platform_with_peer(backend: Backend, peer: &Peer) -> TestPlatform {
    let mut platform = TestPlatform::new(backend).await;
    platform.config.webhooks.as_mut().unwrap().urls =
        vec![format!("{}/hook", peer.url).parse().unwrap()];
    platform
}

/// The description of an unusual response, and the response.
type Case = (&'static str, fn() -> Reply);

fn close(answer: &str) -> Reply {
    Reply::Close(answer.as_bytes().to_vec())
}

fn hold(answer: &str) -> Reply {
    Reply::Hold(answer.as_bytes().to_vec())
}

#[rstest]
#[tokio::test]
async fn status_line_2xx_counts_as_delivered_whatever_follows(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    const CASES: &[Case] = &[
        ("a blank before a colon", || {
            close("HTTP/1.1 200 OK\r\nServer : IIS\r\nContent-Length: 2\r\n\r\nok")
        }),
        ("a folded header", || {
            close("HTTP/1.1 200 OK\r\nX-A: a\r\n b\r\nContent-Length: 0\r\n\r\n")
        }),
        ("a blank in a header's name", || {
            close("HTTP/1.1 200 OK\r\nX Name: a\r\nContent-Length: 0\r\n\r\n")
        }),
        ("a line without a colon", || {
            close("HTTP/1.1 200 OK\r\nwhat is this\r\nContent-Length: 0\r\n\r\n")
        }),
        ("a control character", || {
            close("HTTP/1.1 200 OK\r\nX-A: a\u{1}b\r\nContent-Length: 0\r\n\r\n")
        }),
        ("Latin-1", || {
            Reply::Close(b"HTTP/1.1 200 OK\r\nX-A: \xe9\r\nContent-Length: 0\r\n\r\n".to_vec())
        }),
        ("120 headers", || {
            close(&format!(
                "HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n",
                "X-A: a\r\n".repeat(120)
            ))
        }),
        ("transfer encoding identity", || {
            hold("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok")
        }),
        ("a long body", || {
            close(&format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 2097152\r\n\r\n{}",
                "x".repeat(2_097_152)
            ))
        }),
        ("a body without an end", || {
            hold("HTTP/1.1 200 OK\r\n\r\nok")
        }),
        ("a body that does not come", || {
            hold("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nok")
        }),
        ("a body that breaks off", || {
            close("HTTP/1.1 202 Accepted\r\nContent-Length: 100\r\n\r\nok")
        }),
        ("chunks that are none", || {
            close("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
        }),
        ("HTTP/1.0", || close("HTTP/1.0 200 OK\r\n\r\nok")),
        ("no reason phrase", || close("HTTP/1.1 204\r\n\r\n")),
        ("lines that end in LF", || {
            close("HTTP/1.1 200 OK\nServer: x\n\nok")
        }),
        ("an early hint first", || {
            close(
                "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            )
        }),
    ];
    for (what, answer) in CASES {
        let peer = Peer::start(|_| answer());
        let platform = platform_with_peer(backend, &peer).await;
        let engine = platform.engine().await;
        engine.create(request("ann")).await.unwrap();
        while !engine.outbox().unwrap().wait_for_initial_deliveries().await {}
        let event = engine
            .store()
            .events(None, None, 1)
            .await
            .unwrap()
            .remove(0);
        assert_eq!(
            event.state,
            DeliveryState::Delivered,
            "{what}: {:?}",
            event.last_error
        );
        assert_eq!(peer.asked().len(), 1, "{what}: once");
    }
}

#[rstest]
#[tokio::test]
async fn response_without_a_2xx_status_line_is_not_a_delivery(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    const CASES: &[Case] = &[
        ("a status beyond 2xx with a long body", || {
            hold("HTTP/1.1 500 X\r\nContent-Length: 2097152\r\n\r\nx")
        }),
        ("a redirect", || {
            close("HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n")
        }),
        ("no HTTP", || close("220 mail.example.org ESMTP\r\n")),
        ("half a status line", || close("HTTP/1.1 20")),
        ("nothing", || close("")),
    ];
    for (what, answer) in CASES {
        let peer = Peer::start(|_| answer());
        let platform = platform_with_peer(backend, &peer).await;
        let engine = platform.engine().await;
        engine.create(request("ann")).await.unwrap();
        while !engine.outbox().unwrap().wait_for_initial_deliveries().await {}
        let event = engine
            .store()
            .events(None, None, 1)
            .await
            .unwrap()
            .remove(0);
        assert!(
            event.state == DeliveryState::Pending && event.event.attempts == 1,
            "{what}: {event:?}"
        );
        assert!(event.last_error.unwrap().chars().count() <= 300, "{what}");
    }
}

/// Limits of the HTTP library, as `docs/crm.md` lists them. If one of these responses counts as
/// delivered in the future, remove it there.
#[rstest]
#[tokio::test]
async fn unparsable_2xx_response_leaves_the_event_pending(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    const CASES: &[Case] = &[
        ("a length that is no number", || {
            close("HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok")
        }),
        ("two lengths", || {
            close("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok")
        }),
        ("chunks in HTTP/1.0", || {
            close("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        }),
        ("a control character in the reason", || {
            close("HTTP/1.1 200 O\u{1}K\r\nContent-Length: 0\r\n\r\n")
        }),
        ("a head without an end", || {
            close("HTTP/1.1 200 OK\r\nServer: x\r\n")
        }),
        ("a head of a megabyte", || {
            close(&format!(
                "HTTP/1.1 200 OK\r\nX-A: {}\r\n\r\n",
                "a".repeat(1_000_000)
            ))
        }),
    ];
    for (what, answer) in CASES {
        let peer = Peer::start(|_| answer());
        let platform = platform_with_peer(backend, &peer).await;
        let engine = platform.engine().await;
        engine.create(request("ann")).await.unwrap();
        while !engine.outbox().unwrap().wait_for_initial_deliveries().await {}
        let event = engine
            .store()
            .events(None, None, 1)
            .await
            .unwrap()
            .remove(0);
        assert_eq!(
            (event.state, event.event.attempts),
            (DeliveryState::Pending, 1),
            "{what}: {:?}",
            event.last_error
        );
    }
}

#[rstest]
#[tokio::test]
async fn endpoint_retry_after_is_capped_at_one_day(#[values(Sqlite, Postgres)] backend: Backend) {
    for wait in [
        "4294967295",
        "999999999999999999999",
        "Fri, 22 Nov 2126 15:24:49 GMT",
    ] {
        let answer = format!("HTTP/1.1 503 X\r\nRetry-After: {wait}\r\nContent-Length: 0\r\n\r\n");
        let peer = Peer::start(move |_| close(&answer));
        let platform = platform_with_peer(backend, &peer).await;
        let engine = platform.engine().await;
        engine.create(request("ann")).await.unwrap();
        while !engine.outbox().unwrap().wait_for_initial_deliveries().await {}
        let event = engine
            .store()
            .events(None, None, 1)
            .await
            .unwrap()
            .remove(0);
        let day = Duration::from_secs(24 * 3600);
        assert!(
            event.event.due_at.since(platform.clock.now()) <= day,
            "{wait}: {}",
            event.event.due_at
        );
        platform.clock.advance(day);
        assert_eq!(
            engine.outbox().unwrap().deliver_due().await.unwrap().failed,
            1,
            "{wait}: it is tried again after a day"
        );
    }
}

/// Returns whether the reference library verifies the signatures of a received event with a secret.
fn signs(entry: &guestlane_sim::Entry, secret: &str) -> bool {
    let reference = standardwebhooks::Webhook::new(secret).unwrap();
    let timestamp: i64 = entry.headers["webhook-timestamp"].parse().unwrap();
    let expected = reference
        .sign(
            &entry.headers["webhook-id"],
            timestamp,
            entry.body.as_bytes(),
        )
        .unwrap();
    entry.headers["webhook-signature"]
        .split(' ')
        .any(|signature| signature == expected)
}

fn secret_of(engine: &SessionEngine, endpoint: usize) -> String {
    engine.outbox().unwrap().endpoints()[endpoint]
        .keys
        .secret()
        .unwrap()
        .expose()
        .to_owned()
}

#[rstest]
#[tokio::test]
async fn each_endpoint_is_signed_with_its_own_secret(#[values(Sqlite, Postgres)] backend: Backend) {
    let mut platform = TestPlatform::new(backend).await;
    let (one, other) = (
        TestPlatform::with(backend, |sim| sim.crm_secret = None).await,
        TestPlatform::with(backend, |sim| sim.crm_secret = None).await,
    );
    let crm = platform.config.webhooks.as_mut().unwrap();
    crm.urls = [&one, &other]
        .map(|receiver| receiver.sim.crm_url().parse().unwrap())
        .to_vec();
    crm.secret = None;
    let engine = platform.engine().await;
    engine.create(request("ann")).await.unwrap();
    assert!(engine.outbox().unwrap().wait_for_initial_deliveries().await);
    let (secrets, [one, other]) = (
        [secret_of(&engine, 0), secret_of(&engine, 1)],
        [one, other].map(|it| it.journal("crm").remove(0)),
    );
    assert!(signs(&one, &secrets[0]) && signs(&other, &secrets[1]));
    assert!(!signs(&one, &secrets[1]) && !signs(&other, &secrets[0]));
}

#[rstest]
#[tokio::test]
async fn rotated_secret_signs_at_once_and_the_old_one_until_overlap_ends(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut platform = TestPlatform::with(backend, |sim| sim.crm_secret = None).await;
    platform.config.webhooks.as_mut().unwrap().secret = None;
    let engine = platform.engine().await;
    let outbox = engine.outbox().unwrap();
    let old = secret_of(&engine, 0);
    let day = Duration::from_secs(86_400);
    let state = platform.state().await;
    let endpoints = Endpoints::new(&state, platform.config.webhooks.as_ref()).unwrap();
    endpoints
        .rotate(1, KeyKind::Secret, day, platform.clock.now())
        .await
        .unwrap();
    outbox.read_endpoints().await.unwrap(); // the process does this every second
    let new = secret_of(&engine, 0);
    assert_ne!(old, new);
    for (guest, signed_by_old) in [("ann", true), ("bob", false)] {
        engine.create(request(guest)).await.unwrap();
        assert!(outbox.wait_for_initial_deliveries().await);
        let sent = platform.journal("crm").pop().unwrap();
        assert_eq!(
            (signs(&sent, &new), signs(&sent, &old)),
            (true, signed_by_old),
            "{guest}"
        );
        platform.clock.advance(day);
    }
    let filter = RecordFilter {
        session: None,
        guest: None,
        limit: 100,
    };
    let records = engine.store().records(filter).await.unwrap();
    let record = records
        .iter()
        .find(|record| record.line.contains("webhook_key.rotate"))
        .unwrap();
    assert!(
        record.line.contains("v1, overlap 24 h") && !record.line.contains("whsec_"),
        "{}",
        record.line
    );
}

#[rstest]
#[tokio::test]
async fn endpoint_that_responds_410_is_disabled_until_enabled(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let is_gone = Arc::new(AtomicBool::new(true));
    let gone = Arc::clone(&is_gone);
    let peer = Peer::start(move |_| {
        json(
            if gone.load(Ordering::Relaxed) {
                410
            } else {
                204
            },
            "",
        )
    });
    let platform = platform_with_peer(backend, &peer).await;
    let engine = platform.engine().await;
    for guest in ["ann", "bob"] {
        engine.create(request(guest)).await.unwrap();
        while !engine.outbox().unwrap().wait_for_initial_deliveries().await {}
    }
    assert_eq!(peer.asked().len(), 1, "bob's event is not sent");
    let disabled_at = engine.outbox().unwrap().endpoints()[0].disabled_at;
    assert!(disabled_at.is_some());
    drop(engine);

    platform.clock.advance(Duration::from_secs(3600));
    let next = platform.engine().await;
    let outbox = next.outbox().unwrap();
    assert_eq!(
        outbox.endpoints()[0].disabled_at,
        disabled_at,
        "a start does not enable it"
    );
    outbox.deliver_due().await.unwrap();
    assert_eq!(peer.asked().len(), 1);
    let waiting = next
        .store()
        .events(Some(DeliveryState::Pending), None, 9)
        .await
        .unwrap();
    assert_eq!(waiting.len(), 2);
    assert_eq!(
        waiting[1].last_error.as_deref(),
        Some("the endpoint responded with HTTP 410 and is disabled")
    );

    is_gone.store(false, Ordering::Relaxed);
    let state = platform.state().await;
    assert!(
        Endpoints::new(&state, platform.config.webhooks.as_ref())
            .unwrap()
            .enable(1)
            .await
            .unwrap()
    );
    outbox.read_endpoints().await.unwrap();
    assert_eq!(outbox.deliver_due().await.unwrap().delivered, 2);
    assert_eq!(peer.asked().len(), 3);
}
