//! A fleet: several processes share one database, one access token and one rate limit. One process
//! rotates keys, and each has its own audit log.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::future::join_all;
use guestlane::{EngineConfig, Rate, SessionEngine};
use guestlane_core::{request::SessionRequest, token::RotationPolicy};
use guestlane_runtime::Clock;
use guestlane_store::Store;
use guestlane_testkit::{
    Backend::Postgres,
    platform::{TestPlatform, request, tell},
};

/// Starts nodes on separate machines that share a database and a master key.
pub(crate) async fn machines(platform: &TestPlatform, count: usize) -> Vec<Arc<SessionEngine>> {
    let mut engines = Vec::new();
    for machine in 0..count {
        engines.push(machine_of(platform, machine).await);
    }
    engines
}

async fn machine_of(platform: &TestPlatform, machine: usize) -> Arc<SessionEngine> {
    SessionEngine::open(on_machine(platform, machine), platform.clock())
        .await
        .unwrap()
}

pub(crate) fn on_machine(platform: &TestPlatform, machine: usize) -> EngineConfig {
    let mut config = platform.config.clone();
    let home = platform.directory.path().join(format!("machine-{machine}"));
    let first = &platform.config.storage.master_key_file;
    config.storage.master_key = std::fs::read_to_string(first).ok().map(Into::into);
    config.storage.audit.path = home.join("audit/session-audit.jsonl");
    config.storage.home = home;
    config
}

#[tokio::test]
async fn token_refresh_is_single_flight_across_four_processes() {
    let platform = TestPlatform::new(Postgres).await;
    drop(platform.engine().await); // creates the keys
    let engines = machines(&platform, 4).await;
    let waves = engines.iter().enumerate().map(|(n, engine)| async move {
        let wishes = (0..1000).map(|guest| engine.create(request(&format!("guest-{n}-{guest}"))));
        join_all(wishes)
            .await
            .iter()
            .filter(|created| created.is_err())
            .count()
    });
    assert_eq!(join_all(waves).await, [0; 4]);
    assert_eq!(platform.sim.state().tokens_issued, 1);
    platform.assert_each_guest_once(4000);

    // An access token that the platform no longer accepts is also refreshed only once.
    platform.sim.revoke_tokens();
    let more = engines
        .iter()
        .enumerate()
        .map(|(n, engine)| engine.create(request(&format!("another-{n}"))));
    assert!(join_all(more).await.iter().all(Result::is_ok));
    assert_eq!(platform.sim.state().tokens_issued, 2);
}

#[tokio::test]
async fn abandoned_token_refresh_lock_is_waited_for_until_it_expires() {
    let platform = TestPlatform::new(Postgres).await;
    let engine = platform.engine().await;
    engine.create(request("ann")).await.unwrap();
    // Another process starts to request the next token, and crashes.
    platform.sim.revoke_tokens();
    let until = (platform.clock.now() + std::time::Duration::from_secs(9)).unix_micros();
    platform.sql(&format!(
        "UPDATE oauth_client SET refresh_lock_until = {until}"
    ));
    let before = platform.clock.now();
    engine.create(request("bob")).await.unwrap();
    assert_eq!(platform.sim.state().tokens_issued, 2);
    assert!(
        platform.clock.now().unix_micros() >= until
            && platform.clock.now().since(before).as_secs() < 15
    );
}

#[tokio::test]
async fn the_access_token_is_not_readable_in_the_database() {
    let platform = TestPlatform::new(Postgres).await;
    let engine = platform.engine().await;
    engine.create(request("ann")).await.unwrap();
    let tokens = platform
        .journal("contact")
        .into_iter()
        .map(|entry| format!("{entry:?}"))
        .collect::<String>();
    let bytes = platform.stored_bytes();
    assert!(!tokens.is_empty());
    for secret in ["sim-client-secret", "Bearer", "access_token"] {
        assert!(
            !bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes()),
            "{secret}"
        );
    }
}

#[tokio::test]
async fn shared_access_token_is_not_used_with_wrong_credentials() {
    let platform = TestPlatform::new(Postgres).await;
    platform
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap();
    let mut config = platform.config.clone();
    config.credentials.clients[0].secret = "wrong".to_owned().into();
    let error = SessionEngine::open(config, platform.clock())
        .await
        .unwrap()
        .create(request("bob"))
        .await
        .unwrap_err();
    assert_eq!(error.code().name(), "auth_failed");
}

/// However the calls are distributed over processes, the platform refuses none of them. The test
/// runs on the system clock, as the database does.
#[tokio::test]
async fn four_processes_together_stay_within_the_rate_limit() {
    let platform = TestPlatform::with(Postgres, |options| {
        options.clock = Clock::system();
        options.quota = Some("100/s".parse::<Rate>().unwrap());
    });
    let mut platform = platform.await;
    platform.config.call_policy.quota = Some("100/s".parse().unwrap());
    let engines = join_all((0..4).map(|machine| {
        let config = on_machine(&platform, machine);
        async move { SessionEngine::open(config, Clock::system()).await.unwrap() }
    }));
    let engines = engines.await;
    let waves = engines.iter().enumerate().map(|(n, engine)| async move {
        let wishes = (0..60).map(|guest| {
            engine.create_with(
                request(&format!("guest-{n}-{guest}")),
                guestlane::Priority::Background,
                guestlane::AttemptLog::default(),
            )
        });
        join_all(wishes)
            .await
            .iter()
            .filter(|created| created.is_err())
            .count()
    });
    assert_eq!(join_all(waves).await, [0; 4], "none lost");
    platform.assert_each_guest_once(240);
    tell(&format!("{} answered 429", platform.sim.state().throttled));
    assert_eq!(platform.sim.state().throttled, 0);
}

#[tokio::test]
async fn one_process_rotates_the_signing_key_and_all_publish_it() {
    let mut platform = TestPlatform::new(Postgres).await;
    let day = std::time::Duration::from_secs(86_400);
    platform.config.key_rotation = RotationPolicy::new(day / 24, Some(day)).unwrap();
    drop(platform.engine().await);
    let engines = machines(&platform, 4).await;
    platform.clock.advance(day);
    let made = join_all(engines.iter().map(|engine| engine.rotate_if_due())).await;
    assert_eq!(
        made.into_iter()
            .filter(|made| matches!(made, Ok(true)))
            .count(),
        1
    );
    platform
        .clock()
        .sleep(std::time::Duration::from_secs(2))
        .await;
    let kids: BTreeSet<_> = engines
        .iter()
        .map(|engine| format!("{:?}", engine.keyring().jwks(platform.clock.now())["keys"]))
        .collect();
    assert_eq!(kids.len(), 1, "all publish the same keys");
}

#[tokio::test]
async fn each_process_has_its_own_verifiable_audit_log() {
    let platform = TestPlatform::new(Postgres).await;
    drop(platform.engine().await);
    let engines = machines(&platform, 3).await;
    for (n, engine) in engines.iter().enumerate() {
        engine.create(request(&format!("guest-{n}"))).await.unwrap();
    }
    let state = platform.state().await;
    let mut origins = BTreeSet::new();
    for (n, engine) in engines.iter().enumerate() {
        let logs = engine
            .store()
            .logs(engine.audit_log(), engine.audit_key())
            .await
            .unwrap();
        let ours: Vec<_> = logs.iter().filter(|log| !log.other_node).collect();
        assert_eq!((logs.len(), ours.len()), (3, 1), "machine {n}");
        assert_eq!(
            guestlane_tlog::verify_log(&ours[0].path, state.audit_key(), &[]).unwrap(),
            ours[0].checkpoint
        );
        assert_eq!(
            engine.store().leaves(ours[0].log).await.unwrap().len() as u64,
            ours[0].checkpoint.size
        );
        origins.insert(ours[0].checkpoint.origin.clone());
    }
    assert_eq!(origins.len(), 3);
}

/// The order of admission decides, and the same key is one session on every node.
#[tokio::test]
async fn concurrent_creates_with_one_key_on_four_nodes_share_one_session() {
    let platform = TestPlatform::new(Postgres).await;
    drop(platform.engine().await);
    let engines = machines(&platform, 4).await;
    let asked = (0..40).map(|n| engines[n % 4].create(request("ann")));
    let sessions: BTreeSet<_> = join_all(asked)
        .await
        .into_iter()
        .map(|created| created.unwrap().session.id)
        .collect();
    assert_eq!(sessions.len(), 1);
    platform.assert_each_guest_once(1);
}

/// The first process to start creates format, keys and log.
#[tokio::test]
async fn concurrent_starts_on_an_empty_database_succeed() {
    let platform = TestPlatform::new(Postgres).await;
    let places = platform.config.storage.clone();
    let open = (0..6).map(|n| {
        let (places, home) = (
            places.clone(),
            platform.directory.path().join(format!("home-{n}")),
        );
        async move {
            Store::open(
                &places.database,
                &home,
                &Clock::system(),
                &guestlane_runtime::FailPoints::default(),
            )
            .await
        }
    });
    let errors: Vec<_> = join_all(open)
        .await
        .into_iter()
        .filter_map(Result::err)
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
}

/// A waiter is notified immediately, although it also polls every second.
#[tokio::test]
async fn api_key_changes_notify_other_processes() {
    let platform = TestPlatform::new(Postgres).await;
    let (one, two) = (platform.state().await.store, platform.state().await.store);
    let mut changes = two.changes();
    changes.next().await; // it listens
    let key = guestlane_core::api_key::ApiKey::generate().unwrap();
    let hash = guestlane_core::api_key::ApiKeyHasher::new(b"secret");
    let scopes = "sessions:write".parse().unwrap();
    let stored = guestlane_core::api_key::StoredApiKey::new(
        &key,
        &hash,
        "shop",
        scopes,
        platform.clock.now(),
    );
    let id = stored.id.clone();
    one.add_api_key(stored, None).await.unwrap();
    changes.next().await;
    one.revoke_api_key(id, platform.clock.now()).await.unwrap();
    changes.next().await;
}

/// Both commits last long enough to overlap, and neither statement could see the other's event.
#[tokio::test]
async fn events_of_one_guest_keep_their_order_across_processes() {
    let platform = TestPlatform::new(Postgres).await;
    drop(platform.engine().await); // creates the keys
    let engines = machines(&platform, 2).await;
    platform.sql(
        "CREATE FUNCTION slow_commit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.3); RETURN NULL; END'; \
         CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON outbox DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW EXECUTE FUNCTION slow_commit()",
    );
    for guest in ["ann", "bob", "cy"] {
        platform.faults(&["crm:500"]);
        let before = platform.journal("crm").len();
        let wish = |key: usize| SessionRequest {
            key: format!("{guest}-{key}").parse().unwrap(),
            ..request(guest)
        };
        let created = join_all(
            engines
                .iter()
                .zip(1..)
                .map(|(engine, key)| engine.create(wish(key))),
        )
        .await;
        assert!(created.iter().all(Result::is_ok), "{created:?}");
        for engine in &engines {
            while !engine.outbox().unwrap().wait_for_initial_deliveries().await {}
        }
        assert_eq!(
            platform.journal("crm").len() - before,
            1,
            "{guest}: one event is tried, and the other waits for it"
        );
        platform.faults(&[]);
        platform.clock.advance(Duration::from_secs(10));
        let told = platform.sim.crm_events().len();
        for engine in &engines {
            engine.outbox().unwrap().deliver_due().await.unwrap();
        }
        let written = engines[0].store().events(None, None, 2).await.unwrap();
        let order: Vec<_> = written
            .iter()
            .rev()
            .map(|event| event.event.body.clone())
            .collect();
        let arrived: Vec<_> = platform.sim.crm_events()[told..]
            .iter()
            .map(|event| event["data"]["conversationId"].to_string())
            .collect();
        assert!(
            arrived.len() == 2
                && order
                    .iter()
                    .zip(&arrived)
                    .all(|(body, id)| body.contains(id.as_str())),
            "{arrived:?}"
        );
    }
}

/// Group commits of several processes take the locks of many guests at once, in whatever order
/// their sessions come.
#[tokio::test]
async fn group_commits_with_the_same_guests_do_not_deadlock() {
    let platform = TestPlatform::new(Postgres).await;
    drop(platform.engine().await); // creates the keys
    let engines = machines(&platform, 4).await;
    let waves = engines.iter().enumerate().map(|(n, engine)| async move {
        // Each process creates the sessions of the same guests in a different order.
        let wishes = (0..60).map(|at| {
            let guest = format!("guest-{}", (at * (2 * n + 1)) % 60);
            let key = format!("{guest}-{n}-{at}").parse().unwrap();
            engine.create(SessionRequest {
                key,
                ..request(&guest)
            })
        });
        join_all(wishes)
            .await
            .iter()
            .filter(|created| created.is_err())
            .count()
    });
    assert_eq!(join_all(waves).await, [0; 4]);
    for engine in &engines {
        while !engine.outbox().unwrap().wait_for_initial_deliveries().await {}
    }
    while engines[0].store().pending_events().await.unwrap() > 0 {
        platform.clock.advance(Duration::from_secs(11));
        engines[0].outbox().unwrap().deliver_due().await.unwrap();
    }
    assert_eq!(platform.sim.state().crm.events, 240);
}
