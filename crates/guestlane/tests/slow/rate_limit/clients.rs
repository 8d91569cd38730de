//! Several OAuth clients: one that fails does not slow the others.

use super::*;

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
    assert!(create_many(&engine, 30, 4).await.iter().all(Result::is_ok));
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
    assert!(create_many(&engine, 20, 4).await.iter().all(Result::is_ok));
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
    assert_eq!(error.code(), guestlane::error::ErrorCode::AuthFailed);
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
