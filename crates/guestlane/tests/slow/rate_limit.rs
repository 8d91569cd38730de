//! Batches run at the platform's rate limit without wasted calls.

mod clients;
mod outages;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use guestlane::{
    OAuthClient, Rate, SessionEngine, TokenRequestAuth,
    admission_control::{AdmissionController, PauseEvent},
};
use guestlane_sim::Options;
use guestlane_testkit::{
    Backend::Sqlite,
    platform::{SALES, TestPlatform, WEB_MESSAGING, create_many, request, tell},
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
