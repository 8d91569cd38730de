//! What the platform refuses on the public surfaces, and what the error says.

use super::*;

#[rstest]
#[tokio::test]
async fn store_accepts_any_oauth_client_of_its_organization_only(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let with_second = |options: &mut guestlane_sim::Options| {
        let mut second = options.clients[0].clone();
        second.id = "second".to_owned();
        options.clients.push(second);
    };
    let mut platform = of(backend, WEB_MESSAGING, with_second).await;
    platform
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap();
    assert_eq!(platform.sim.state().calls["token-info"], 1);
    platform
        .engine()
        .await
        .create(request("bob"))
        .await
        .unwrap();
    assert_eq!(
        platform.sim.state().calls["token-info"],
        1,
        "a known client is not looked up again"
    );
    platform.config.credentials.clients[0].id = "second".to_owned();
    platform
        .engine()
        .await
        .create(request("eve"))
        .await
        .unwrap();
    assert_eq!(platform.sim.state().calls["token-info"], 2);

    platform.config.credentials.clients[0].id = "sim-client".to_owned();
    platform.faults(&["token-info:500:first=2"]);
    // The call is retried until it succeeds.
    platform
        .engine()
        .await
        .create(request("dan"))
        .await
        .unwrap();
    platform.faults(&["token-info:500"]);
    platform.config.credentials.clients[0].id = "second".to_owned();
    let error = platform
        .engine()
        .await
        .create(request("joe"))
        .await
        .unwrap_err();
    assert_eq!(advice(&error).0, "platform_failing");
    assert_eq!(
        platform.sim.state().contacts,
        4,
        "nothing is created before it is known for whom"
    );
    platform.faults(&[]);

    platform.sql("UPDATE platform SET organization = 'another', client_id = 'another'");
    let error = platform
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("belongs to the organization another"),
        "{error}"
    );
}

#[rstest]
#[tokio::test]
async fn oversized_attributes_are_rejected_before_any_request(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = web(backend).await;
    let wide = |bytes: usize| SessionRequest {
        attributes: Attributes::from_pairs([("a", "x".repeat(bytes - 1))]).unwrap(),
        ..request("ann")
    };
    let ours = "guestId".len() + "ann".len() + "routingTarget".len() + SALES.len();
    let error = platform
        .engine()
        .await
        .create(wide(2048 - ours + 1))
        .await
        .unwrap_err();
    assert_eq!(error.field(), Some("attributes"));
    assert!(platform.sim.journal().is_empty());
    platform
        .engine()
        .await
        .create(wide(2048 - ours))
        .await
        .unwrap();
}

#[rstest]
#[tokio::test]
async fn guest_token_is_sent_up_to_the_exact_attribute_size_limit(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    for (spare, sent) in [(0, true), (-1, false)] {
        let mut platform = web(backend).await;
        platform.config.messaging.send_guest_token = true;
        let engine = platform.engine().await;
        let first = engine
            .create(SessionRequest {
                attributes: Attributes::default(),
                ..request("ann")
            })
            .await
            .unwrap();
        let fixed = "guestId".len() + 3 + "routingTarget".len() + SALES.len() + "guestToken".len();
        // The token contains the attribute too, in base64. Search for the length that exactly
        // reaches the limit.
        let length = |n: usize| {
            let attributes = Attributes::from_pairs([("a", "x".repeat(n))]).unwrap();
            let token = guestlane_core::token::GuestToken::placeholder(
                &"bob".parse().unwrap(),
                &attributes,
                "webchat-guest-key-v1",
            );
            fixed + 1 + n + token.expose().len()
        };
        let n = (1..2000).find(|n| length(*n) > 2048).unwrap() - 1;
        let n = if spare == 0 { n } else { n + 1 };
        let attributes = Attributes::from_pairs([("a", "x".repeat(n))]).unwrap();
        engine
            .create(SessionRequest {
                attributes,
                ..request("bob")
            })
            .await
            .unwrap();
        let attributes =
            bodies(&platform, "message")[1]["message"]["channel"]["metadata"]["customAttributes"]
                .clone();
        assert_eq!(
            attributes["guestToken"].is_string(),
            sent,
            "{n} bytes, {}",
            length(n)
        );
        assert!(first.guest_session.is_some());
    }
}

#[rstest]
#[tokio::test]
async fn guest_token_is_sent_when_it_fits_beside_the_attributes(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let mut platform = web(backend).await;
    platform.config.messaging.send_guest_token = true;
    let engine = platform.engine().await;
    let opened = engine.create(request("ann")).await.unwrap();
    let wide = Attributes::from_pairs([("a", "x".repeat(1500))]).unwrap();
    engine
        .create(SessionRequest {
            attributes: wide,
            ..request("bob")
        })
        .await
        .unwrap();
    let sent = |n: usize| {
        bodies(&platform, "message")[n]["message"]["channel"]["metadata"]["customAttributes"]
            .clone()
    };
    assert_eq!(sent(0)["guestToken"], opened.guest_token.expose());
    assert_eq!(
        (sent(1)["guestToken"].clone(), sent(1)["guestId"].clone()),
        (Value::Null, json!("bob"))
    );
}

#[rstest]
#[tokio::test]
async fn throttled_sign_in_is_rate_limited_and_wrong_secret_not_retried(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    let platform = of(backend, WEB_MESSAGING, |options| {
        options.token_quota = Some("1/min".parse::<Rate>().unwrap())
    })
    .await;
    platform
        .engine()
        .await
        .create(request("ann"))
        .await
        .unwrap();
    platform.sim.revoke_tokens(); // on PostgreSQL, processes share the token and would not request one
    let error = create_refused(&platform, "bob").await;
    assert_eq!(advice(&error).0, "rate_limited");

    for status in [400, 401] {
        let status = http::StatusCode::from_u16(status).unwrap();
        let mut platform = of(backend, WEB_MESSAGING, |options| {
            options.bad_client_status = status
        })
        .await;
        platform.config.credentials.clients[0].secret = "wrong".to_owned().into();
        let error = create_refused(&platform, "ann").await;
        assert_eq!(advice(&error).0, "auth_failed", "{status}");
        assert_eq!(platform.sim.state().calls["token"], 1);
    }
}

#[rstest]
#[tokio::test]
async fn unknown_deployment_or_forbidden_origin_names_the_setting(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    for unknown in [
        UnknownDeployment::Upgrade(http::StatusCode::NOT_FOUND),
        UnknownDeployment::Configure,
    ] {
        let mut platform = of(backend, WEB_MESSAGING, |options| {
            options.unknown_deployment = unknown
        })
        .await;
        platform.config.surface = Surface::WebMessaging {
            deployment: uuid::Uuid::nil(),
        };
        let error = create_refused(&platform, "ann").await;
        assert!(
            advice(&error).1.contains("GENESYS_DEPLOYMENT_ID"),
            "{:?}",
            diagnosis::of(&error)
        );
        assert!(
            error.correlation_id().is_some(),
            "something to quote to support"
        );
    }
    let platform = of(backend, WEB_MESSAGING, |options| {
        options.deployment.allow_all_domains = false;
        options.deployment.allowed_domains = vec!["example.com".to_owned()];
    })
    .await;
    let error = create_refused(&platform, "ann").await;
    assert!(
        advice(&error).0 == "forbidden" && advice(&error).1.contains("GENESYS_ORIGIN"),
        "{:?}",
        diagnosis::of(&error)
    );
    assert_eq!(
        platform.sim.state().calls["socket"],
        1,
        "a refusal is not repeated"
    );
}

#[rstest]
#[tokio::test]
async fn missing_permission_is_named_and_session_completes_once_granted(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    for (permission, operation) in [
        ("externalContacts:contact:enrich", Operation::EnrichContact),
        ("conversation:communication:view", Operation::Conversation),
    ] {
        let platform = of(backend, WEB_MESSAGING, |options| {
            let mut poor = options.clients[0].clone();
            poor.scopes.retain(|scope| scope != permission);
            poor.id = "poor".to_owned();
            options.clients.push(poor);
        })
        .await;
        let mut poor = platform.config.clone();
        poor.credentials.clients[0].id = "poor".to_owned();
        let error = SessionEngine::open(poor, platform.clock())
            .await
            .unwrap()
            .create(request("ann"))
            .await
            .unwrap_err();
        assert!(
            advice(&error).1.contains(operation.permissions()[0]),
            "{:?}",
            diagnosis::of(&error)
        );
        platform
            .engine()
            .await
            .create(request("ann"))
            .await
            .unwrap();
        platform.assert_each_guest_once(1);
        assert_eq!(platform.sim.state().calls["message"], 1);
    }
}
