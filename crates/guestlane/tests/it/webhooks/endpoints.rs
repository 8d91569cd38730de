//! Several endpoints: each with its own queue and secret.

use super::*;

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
            create_many(&engine, 200, 64)
                .await
                .iter()
                .all(Result::is_ok),
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
