//! Batches run at the platform's rate limit without wasted calls.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use guestlane::{
    OAuthClient, Rate, SessionEngine, TokenRequestAuth,
    admission_control::{AdmissionController, PauseEvent},
};
use guestlane_sim::Options;
use guestlane_testkit::{
    Backend::Sqlite,
    platform::{SALES, TestPlatform, WEB_MESSAGING, crowd, request, tell},
};
use tokio::task::JoinSet;

/// Returns a harness whose platform has `clients` OAuth clients with the rate limit `quota` each.
async fn platform(clients: u16, quota: &str) -> TestPlatform {
    let quota: Rate = quota.parse().unwrap();
    let mut platform = with(clients, |options| options.quota = Some(quota)).await;
    platform.config.call_policy.quota = Some(quota);
    platform
}

async fn with(clients: u16, change: impl FnOnce(&mut Options)) -> TestPlatform {
    let all = guestlane_sim::OAuthClient::several(clients);
    let mut platform = TestPlatform::with(Sqlite, |options| {
        options.clients = all.clone();
        change(options);
    })
    .await;
    platform.config.credentials.clients = all
        .into_iter()
        .map(|client| OAuthClient {
            id: client.id,
            secret: client.secret.into(),
        })
        .collect();
    platform
}

/// Creates sessions as `guestlane batch` does: rows start as fast as admission control permits.
/// Returns the number of failed rows.
async fn batch(engine: &Arc<SessionEngine>, rows: usize) -> usize {
    let intake = AdmissionController::new(Arc::clone(engine), AdmissionController::MAX_CONCURRENCY);
    let mut running = JoinSet::new();
    for n in 0..rows {
        let Ok(begun) = intake
            .acquire(SALES.parse().unwrap(), |_: PauseEvent| {})
            .await
        else {
            break;
        };
        let engine = Arc::clone(engine);
        running.spawn(async move {
            let _begun = begun;
            engine
                .create_with(
                    request(&format!("guest-{n}")),
                    guestlane::Priority::Background,
                    guestlane::AttemptLog::default(),
                )
                .await
        });
    }
    running
        .join_all()
        .await
        .iter()
        .filter(|ended| ended.is_err())
        .count()
}

/// Returns the number of calls to the platform in each second of the platform's time.
fn by_second(platform: &TestPlatform) -> BTreeMap<i64, u64> {
    let mut seconds = BTreeMap::new();
    for entry in platform.sim.journal() {
        if entry.route.is_some_and(|route| route.name() != "crm") {
            *seconds.entry(entry.at.unix_seconds()).or_default() += 1;
        }
    }
    seconds
}

#[tokio::test]
async fn batch_uses_97_percent_of_the_rate_limit_of_1_and_4_clients() {
    for clients in [1_u16, 4] {
        let platform = platform(clients, "100/s").await;
        let engine = platform.engine().await;
        let before = platform.clock.now();
        assert_eq!(batch(&engine, 1500).await, 0, "none lost");
        platform.assert_each_guest_once(1500);
        let seconds = platform.clock.now().since(before).as_secs_f64();
        let state = platform.sim.state();
        let calls = engine.platform_metrics().calls();
        let used = calls as f64 / seconds / (100.0 * f64::from(clients));
        tell(&format!(
            "{clients} clients: {calls} calls in {seconds:.2} s, {:.1} % of the quota, {} answered 429",
            used * 100.0,
            state.throttled
        ));
        assert!(used >= 0.97, "{used}");
        assert!(
            state.throttled * 1000 <= calls,
            "{} of {calls} answered 429",
            state.throttled
        );
        assert!(calls as f64 / 1500.0 <= 2.02, "{calls} calls");
    }
}

#[tokio::test]
async fn batch_over_30_minutes_uses_99_percent_of_the_rate_limit() {
    let mut platform = platform(1, "300/min").await;
    platform.config.deadline = Duration::from_secs(600);
    let engine = platform.engine().await;
    let before = platform.clock.now();
    assert_eq!(batch(&engine, 4500).await, 0);
    platform.assert_each_guest_once(4500);
    let (calls, minutes) = (
        engine.platform_metrics().calls(),
        platform.clock.now().since(before).as_secs_f64() / 60.0,
    );
    let used = calls as f64 / minutes / 300.0;
    tell(&format!(
        "{calls} calls in {minutes:.2} minutes: {:.1} % of the quota, {} answered 429",
        used * 100.0,
        platform.sim.state().throttled
    ));
    assert!(used >= 0.99, "{used}");
    assert_eq!(platform.sim.state().throttled, 0);
}

#[tokio::test]
async fn two_programs_share_the_rate_limit_of_one_oauth_client() {
    let platform = platform(1, "300/min").await;
    let (one, two) = (platform.engine().await, platform.engine().await);
    let guests = |engine: Arc<SessionEngine>, name: &'static str| async move {
        let rows = stream::iter(0..150).map(|n| {
            let engine = Arc::clone(&engine);
            async move {
                engine
                    .create_with(
                        request(&format!("{name}-{n}")),
                        guestlane::Priority::Background,
                        guestlane::AttemptLog::default(),
                    )
                    .await
                    .is_ok()
            }
        });
        rows.buffer_unordered(8)
            .filter(|good| std::future::ready(*good))
            .count()
            .await
    };
    let before = platform.clock.now();
    assert_eq!(
        tokio::join!(guests(one.clone(), "one"), guests(two.clone(), "two")),
        (150, 150)
    );
    platform.assert_each_guest_once(300);
    let (calls, throttled) = (
        one.platform_metrics().calls() + two.platform_metrics().calls(),
        platform.sim.state().throttled,
    );
    let minutes = platform.clock.now().since(before).as_secs_f64() / 60.0;
    tell(&format!(
        "{calls} calls of two programs in {minutes:.2} minutes, {throttled} answered 429"
    ));
    assert!(
        throttled * 20 <= calls,
        "{throttled} of {calls} answered 429"
    );
    assert!(
        calls as f64 / minutes >= 200.0,
        "{calls} calls in {minutes} minutes"
    );
}

#[tokio::test]
async fn lower_endpoint_rate_limit_is_learned_from_responses() {
    let mut platform = with(1, |options| {
        options.quota = Some(Rate::PLATFORM_DEFAULT);
        options.endpoint_rate_limits =
            vec![("contact".parse().unwrap(), "60/min".parse().unwrap())];
    })
    .await;
    platform.config.call_policy.quota = Some(Rate::PLATFORM_DEFAULT);
    platform.config.deadline = Duration::from_secs(600);
    let engine = platform.engine().await;
    assert_eq!(batch(&engine, 200).await, 0);
    platform.assert_each_guest_once(200);
    let (calls, throttled) = (
        engine.platform_metrics().calls(),
        platform.sim.state().throttled,
    );
    assert!(
        throttled * 100 <= calls,
        "{throttled} of {calls} answered 429"
    );
}

#[tokio::test]
async fn interactive_calls_precede_batch_rows() {
    let platform = platform(1, "100/s").await;
    let engine = platform.engine().await;
    let rows = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { batch(&engine, 600).await }
    });
    while platform.sim.state().contacts < 100 {
        tokio::task::yield_now().await;
    }
    for person in ["ann", "bob", "cy"] {
        let asked_at = platform.clock.now();
        engine.create(request(person)).await.unwrap();
        let waited = platform.clock.now().since(asked_at);
        // Two calls at the next free slots of the rate limit. Behind the queued rows they would
        // wait about 400 ms.
        assert!(waited <= Duration::from_millis(150), "{waited:?}");
    }
    assert_eq!(rows.await.unwrap(), 0);
}

#[tokio::test]
async fn oauth_client_with_wrong_secret_or_permissions_is_quarantined() {
    let mut platform = platform(3, "100/s").await;
    platform.config.credentials.clients[1].secret = "wrong".to_owned().into();
    let engine = platform.engine().await;
    assert_eq!(batch(&engine, 300).await, 0);
    platform.assert_each_guest_once(300);
    let clients = engine.client_usage();
    assert!(
        clients[0].calls > 100 && clients[2].calls > 100 && clients[1].calls <= 2,
        "{clients:?}"
    );

    let mut platform = with(2, |options| {
        options.clients[0]
            .scopes
            .retain(|scope| !scope.contains("conversations"));
        options.quota = Some(Rate::REST);
    })
    .await;
    platform.config.call_policy.quota = Some(Rate::REST);
    let engine = platform.engine().await;
    assert_eq!(batch(&engine, 300).await, 0);
    platform.assert_each_guest_once(300);
    assert!(
        engine.client_usage()[0].quarantined,
        "{:?}",
        engine.client_usage()
    );
    let refused = platform
        .journal("conversation")
        .iter()
        .filter(|entry| entry.status == Some(403))
        .count();
    assert!(
        refused <= 40,
        "{refused} calls wasted: no more than the rows that may be ready at once"
    );
}

#[tokio::test]
async fn throttled_oauth_client_is_bypassed_without_waiting() {
    let platform = platform(2, "100/s").await;
    let engine = platform.engine().await;
    engine.create(request("ann")).await.unwrap();
    platform.faults(&["contact:429:first=1,retry-after=20"]);
    let before = platform.clock.now();
    engine.create(request("bob")).await.unwrap();
    assert!(platform.clock.now().since(before) < Duration::from_secs(1));
    platform.assert_each_guest_once(2);
}

#[tokio::test]
async fn official_surfaces_use_all_oauth_clients_of_an_organization() {
    let mut platform = with(2, |options| options.quota = Some("60/min".parse().unwrap())).await;
    platform.config.surface = WEB_MESSAGING;
    platform.config.credentials.sign_in = TokenRequestAuth::Basic;
    platform.config.call_policy.quota = Some("60/min".parse().unwrap());
    platform.config.deadline = Duration::from_secs(600);
    let engine = platform.engine().await;
    assert!(crowd(&engine, 30, 4).await.iter().all(Result::is_ok));
    platform.assert_each_guest_once(30);
    assert_eq!(
        platform.sim.state().calls["token-info"],
        2,
        "each client is looked up"
    );
    assert!(
        engine.client_usage().iter().all(|client| client.calls > 30),
        "{:?}",
        engine.client_usage()
    );
}

#[tokio::test]
async fn official_surfaces_quarantine_only_the_client_that_cannot_sign_in() {
    let mut platform = with(3, |options| options.quota = Some(Rate::PLATFORM_DEFAULT)).await;
    platform.config.surface = WEB_MESSAGING;
    platform.config.credentials.sign_in = TokenRequestAuth::Basic;
    platform.config.call_policy.quota = Some(Rate::PLATFORM_DEFAULT);
    platform.config.credentials.clients[0].secret = "wrong".to_owned().into();
    let engine = platform.engine().await;
    assert!(crowd(&engine, 20, 4).await.iter().all(Result::is_ok));
    platform.assert_each_guest_once(20);
    let left_out: Vec<_> = engine
        .client_usage()
        .iter()
        .map(|client| client.quarantined)
        .collect();
    assert_eq!(
        left_out,
        [true, false, false],
        "only the one whose fault it is"
    );
}

#[tokio::test]
async fn revoked_tokens_of_all_clients_are_refreshed_without_failure() {
    let platform = platform(2, "100/s").await;
    let engine = platform.engine().await;
    assert_eq!(batch(&engine, 60).await, 0); // requests an access token for both clients
    for n in 0..10 {
        platform.sim.revoke_tokens();
        engine.create(request(&format!("late-{n}"))).await.unwrap();
    }
    platform.assert_each_guest_once(70);
    assert!(
        engine
            .client_usage()
            .iter()
            .all(|client| !client.quarantined)
    );
}

#[tokio::test]
async fn already_expired_access_tokens_are_not_requested_endlessly() {
    let platform = with(1, |options| options.token_life = Duration::ZERO).await;
    let error = platform
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap_err();
    assert_eq!(error.advice().code, guestlane::error::ErrorCode::AuthFailed);
    assert!(
        platform.sim.state().calls["token"] <= 4,
        "{:?}",
        platform.sim.state().calls
    );
}

#[tokio::test]
async fn throttled_oauth_client_is_used_again_after_its_wait() {
    let platform = platform(2, "100/s").await;
    let engine = platform.engine().await;
    assert_eq!(batch(&engine, 60).await, 0);
    let before: Vec<_> = engine
        .client_usage()
        .iter()
        .map(|client| client.calls)
        .collect();
    for wait in ["", ",retry-after=1"] {
        platform.faults(&[&format!("contact:429:first=1{wait}")]);
        assert!(
            engine
                .create(request(
                    &format!("throttled{wait}").replace([',', '='], "-")
                ))
                .await
                .is_ok()
        );
    }
    platform.faults(&[]);
    platform.clock().sleep(Duration::from_secs(2)).await;
    let more = stream::iter(0..200).map(|n| {
        let engine = Arc::clone(&engine);
        async move { engine.create(request(&format!("more-{n}"))).await.unwrap() }
    });
    more.buffer_unordered(20).collect::<Vec<_>>().await;
    let clients = engine.client_usage();
    assert!(
        clients
            .iter()
            .zip(before)
            .all(|(client, before)| client.calls > before + 150 && !client.quarantined),
        "{clients:?}"
    );
}

/// Creates `a_second` sessions per second at a constant rate, whatever their results.
async fn arrivals(
    platform: &TestPlatform,
    engine: &Arc<SessionEngine>,
    a_second: u32,
    seconds: u32,
    name: &str,
) {
    let clock = platform.clock();
    let mut running = JoinSet::new();
    for n in 0..a_second * seconds {
        clock.sleep(Duration::from_secs(1) / a_second).await;
        let (engine, wish) = (Arc::clone(engine), request(&format!("{name}-{n}")));
        running.spawn(async move { drop(engine.create(wish).await) });
    }
    running.join_all().await;
}

#[tokio::test]
async fn platform_outage_raises_call_load_by_at_most_10_percent() {
    const RATE: u32 = 10;
    let platform = TestPlatform::new(Sqlite).await;
    let engine = platform.engine().await;
    let working = tokio::spawn(guestlane::Workers::new(std::sync::Arc::clone(&engine)).run());
    let calls = || {
        platform
            .sim
            .state()
            .calls
            .iter()
            .filter(|(route, _)| **route != "crm")
            .map(|(_, calls)| calls)
            .sum::<u64>()
    };
    arrivals(&platform, &engine, RATE, 60, "before").await;
    let normal = calls() as f64 / 60.0;
    let began = calls();
    platform.faults(&["any:500"]);
    arrivals(&platform, &engine, RATE, 600, "during").await;
    let failing = (calls() - began) as f64 / 600.0;
    tell(&format!(
        "{normal:.1} calls/s normally, {failing:.1} while all fail: {:.2} times",
        failing / normal
    ));
    assert!(
        failing <= normal * 1.1,
        "{failing} calls a second, {normal} normally"
    );
    platform.faults(&[]);
    working.abort();
}

#[tokio::test]
async fn batch_reaches_95_percent_of_its_rate_10_seconds_after_an_outage() {
    let platform = platform(1, "100/s").await;
    let engine = platform.engine().await;
    let working = tokio::spawn(guestlane::Workers::new(std::sync::Arc::clone(&engine)).run());
    let rows = tokio::spawn({
        let engine = Arc::clone(&engine);
        async move { batch(&engine, 3000).await }
    });
    let clock = platform.clock();
    clock.sleep(Duration::from_secs(10)).await;
    platform.faults(&["any:500"]);
    clock.sleep(Duration::from_secs(300)).await;
    platform.faults(&[]);
    let back = platform.clock.now().unix_seconds();
    let failed = rows.await.unwrap();
    let seconds = by_second(&platform);
    let outage: u64 = seconds
        .range(back - 300..back)
        .map(|(_, calls)| calls)
        .sum();
    let later: Vec<u64> = (back + 10..back + 25)
        .map(|second| seconds.get(&second).copied().unwrap_or_default())
        .collect();
    tell(&format!(
        "{outage} calls in the outage, {failed} rows failed in it; calls by second from 10 s after it: {later:?}"
    ));
    assert!(outage as f64 / 300.0 <= 110.0);
    assert!(
        later.iter().sum::<u64>() >= 95 * 98 * later.len() as u64 / 100,
        "{later:?}"
    );
    assert!(seconds.values().all(|calls| *calls <= 100), "{seconds:?}");
    assert_eq!(platform.sim.state().throttled, 0);
    assert!(failed <= 150, "only what began before it was noticed");
    // Sessions that were in flight are completed without a further request.
    while engine.store().unfinished().await.unwrap() > 0 {
        clock.sleep(Duration::from_secs(1)).await;
    }
    platform.assert_each_guest_once(3000);
    working.abort();
}
