//! API keys: without one, every request is rejected; with one, its scopes decide.

mod owners;

use std::time::Duration;

use guestlane_core::api_key::{Scope, StoredApiKey};
use guestlane_runtime::http_client::HttpResponse;
use guestlane_runtime::{Clock, ManualClock};
use http::Method;
use serde_json::{Value, json};

use guestlane_testkit::service::{TestService, bearer, header, json, new_key, settings};

/// Returns every operation of the OpenAPI document, with example values for its parameters.
async fn operations(test_service: &TestService) -> Vec<(Method, String, Value)> {
    let document = json(
        &test_service
            .send(Method::GET, "/openapi.json", &[], "")
            .await,
    );
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method = method.to_uppercase().parse().unwrap();
            found.push((
                method,
                path.replace("{id}", "019ab123-4567-7000-8000-0123456789ab"),
                operation.clone(),
            ));
        }
    }
    assert!(found.len() > 12);
    found
}

fn scopes(operation: &Value) -> Vec<&str> {
    let schemes = operation["security"].as_array().into_iter().flatten();
    schemes
        .filter_map(|scheme| scheme["apiKey"].as_array())
        .flatten()
        .map(|scope| scope.as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn every_request_without_a_valid_api_key_gets_the_same_401() {
    let test_service = TestService::new().await;
    let expired = new_key(&test_service.engine, "admin", |key| {
        key.expires_at = Some(key.created_at)
    })
    .await;
    let other_store = TestService::new().await;
    let foreign = other_store.key(Scope::Admin);
    let bad = [
        "",
        "Bearer",
        "Bearer gl_x",
        &bearer(&expired),
        &bearer(foreign),
        &format!("Basic {}", test_service.key(Scope::Admin)),
    ]
    .map(str::to_owned);
    let mut bodies = Vec::new();
    for (method, path, operation) in operations(&test_service).await {
        if scopes(&operation).is_empty() {
            continue;
        }
        for authorization in &bad {
            let answer = test_service
                .send(
                    method.clone(),
                    &path,
                    &[("authorization", authorization)],
                    "",
                )
                .await;
            assert_eq!(
                (answer.status.as_u16(), header(&answer, "www-authenticate")),
                (401, "Bearer realm=\"guestlane\""),
                "{method} {path}"
            );
            bodies.push(answer.body);
        }
    }
    // The response does not reveal whether the path exists either.
    let nowhere = test_service.send(Method::GET, "/v1/nowhere", &[], "").await;
    bodies.push(nowhere.body);
    bodies.dedup();
    assert_eq!(bodies.len(), 1);
}

#[tokio::test]
async fn each_scope_allows_its_operations_and_admin_allows_all() {
    let test_service = TestService::new().await;
    let mut allowed = 0;
    for (method, path, operation) in operations(&test_service).await {
        let wanted = scopes(&operation);
        if wanted.is_empty() || path == "/v1/events" {
            // The stream does not end; its own test covers it.
            continue;
        }
        // The scope is checked before the query, so an invalid query does not change the result.
        let path = if path.contains('?') || method != Method::GET {
            path
        } else {
            format!("{path}?nothing=x")
        };
        for scope in Scope::ALL {
            let headers = [
                ("authorization", bearer(test_service.key(scope))),
                ("content-type", "application/json".to_owned()),
            ];
            let headers: Vec<_> = headers
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            let answer = test_service
                .send(
                    method.clone(),
                    &path,
                    &headers,
                    "{\"guestId\":\"ann\",\"token\":\"x\"}",
                )
                .await;
            let may = wanted.contains(&scope.name()) || scope == Scope::Admin;
            assert_eq!(
                answer.status == 403,
                !may,
                "{method} {path} with {scope}: {}",
                answer.status
            );
            assert_ne!(answer.status, 401, "{method} {path}");
            allowed += u32::from(may);
        }
    }
    assert!(allowed > 20, "{allowed}");
}

#[tokio::test]
async fn public_endpoints_need_no_api_key() {
    let test_service = TestService::new().await;
    for path in [
        "/healthz",
        "/readyz",
        "/.well-known/jwks.json",
        "/openapi.json",
        "/",
        "/docs",
        "/assets/app.js",
        "/problems/unauthorized",
    ] {
        let answer = test_service.send(Method::GET, path, &[], "").await;
        assert_eq!(answer.status, 200, "{path}");
    }
    let page = test_service.send(Method::GET, "/", &[], "").await;
    assert!(header(&page, "content-security-policy").contains("default-src 'none'"));
}

#[tokio::test]
async fn revoked_api_key_is_rejected_and_replaced_api_key_overlaps() {
    let test_service = TestService::new().await;
    let try_key = async |key: &str| {
        test_service
            .send(
                Method::GET,
                "/v1/errors",
                &[("authorization", &bearer(key))],
                "",
            )
            .await
            .status
            .as_u16()
    };
    let (old, store) = (
        new_key(&test_service.engine, "sessions:read", |_| {}).await,
        test_service.engine.store(),
    );
    // The key is created while the service runs.
    test_service
        .until(async |_| try_key(&old).await == 200)
        .await;

    let id = &old[3..15];
    let next = guestlane_core::api_key::ApiKey::generate().unwrap();
    let mut stored = store
        .api_keys()
        .await
        .unwrap()
        .into_iter()
        .find(|key| key.id == id)
        .unwrap();
    (stored.id, stored.hash) = (
        next.id().to_owned(),
        test_service
            .engine
            .api_key_hash()
            .await
            .unwrap()
            .hash(&next),
    );
    let clock = test_service.engine.clock();
    store
        .add_api_key(
            stored,
            Some((id.to_owned(), clock.now() + Duration::from_secs(60))),
        )
        .await
        .unwrap();
    test_service
        .until(async |_| try_key(next.expose()).await == 200)
        .await;
    assert_eq!(try_key(&old).await, 200, "both are good for a while");
    let replaced = store
        .api_keys()
        .await
        .unwrap()
        .into_iter()
        .find(|key| key.id == id)
        .unwrap();
    assert!(
        replaced
            .expires_at
            .is_some_and(|end| end <= clock.now() + Duration::from_secs(60)),
        "the old one ends"
    );

    store
        .revoke_api_key(next.id().to_owned(), clock.now())
        .await
        .unwrap();
    let attempts = std::cell::Cell::new(0);
    test_service
        .until(async |_| {
            attempts.set(attempts.get() + 1);
            try_key(next.expose()).await == 401
        })
        .await;
    // The check runs every 10 ms, so about a hundred times in the second that revocation may take,
    // and more often on a busy machine.
    assert!(attempts.get() < 1000, "{}", attempts.get());
}

#[tokio::test]
async fn api_key_rate_limit_returns_429_without_affecting_other_keys() {
    let mut settings = settings();
    settings.key_rate = Some("5/min".parse().unwrap());
    let test_service = TestService::with(|_| {}, settings).await;
    for _ in 0..5 {
        assert_eq!(test_service.get("/v1/errors").await.status, 200);
    }
    let refused = test_service.get("/v1/errors").await;
    assert_eq!(
        (refused.status.as_u16(), json(&refused)["code"].as_str()),
        (429, Some("too_many_requests"))
    );
    let wait: u64 = header(&refused, "retry-after").parse().unwrap();
    assert!((1..=12).contains(&wait), "{wait}");
    assert_eq!(
        test_service
            .create(&[], &json!({"guestId": "ann"}))
            .await
            .status,
        201,
        "another key has its own"
    );
}

#[tokio::test]
async fn last_use_of_an_api_key_is_recorded() {
    let test_service = TestService::new().await;
    assert_eq!(test_service.get("/v1/errors").await.status, 200);
    let id = test_service.key(Scope::SessionsRead)[3..15].to_owned();
    test_service
        .until(async |test_service| {
            let keys = test_service.engine.store().api_keys().await.unwrap();
            keys.iter()
                .any(|key| key.id == id && key.last_used_at.is_some())
        })
        .await;
}

/// One row that a newer version wrote must not keep the process from reading the list: revoked keys
/// would then stay accepted.
#[tokio::test]
async fn unreadable_api_key_row_is_refused_and_others_stay_revocable() {
    let test_service = TestService::new().await;
    let (odd, revoked) = (
        new_key(&test_service.engine, "sessions:read", |_| {}).await,
        new_key(&test_service.engine, "sessions:read", |_| {}).await,
    );
    let status = async |test_service: &TestService, key: &str| {
        test_service
            .send(
                Method::GET,
                "/v1/sessions",
                &[("authorization", &bearer(key))],
                "",
            )
            .await
            .status
            .as_u16()
    };
    test_service
        .until(async |test_service| status(test_service, &revoked).await == 200)
        .await;
    let id = |key: &str| key[3..15].to_owned();
    test_service.sql(&format!(
        "UPDATE api_key SET scopes = 'sessions:read events:read' WHERE id = '{}'",
        id(&odd)
    ));
    test_service
        .engine
        .store()
        .revoke_api_key(id(&revoked), test_service.engine.clock().now())
        .await
        .unwrap()
        .unwrap();
    test_service
        .until(async |test_service| status(test_service, &revoked).await == 401)
        .await;
    assert_eq!(status(&test_service, &odd).await, 401);
    assert_eq!(test_service.get("/v1/sessions").await.status, 200);
}

/// While the store cannot report revoked keys, no key is accepted for long.
#[tokio::test]
async fn api_key_list_older_than_30_seconds_accepts_no_key() {
    let clock = ManualClock::new(Clock::system().now());
    let test_service = TestService::at(&clock).await;
    assert_eq!(test_service.get("/v1/sessions").await.status, 200);
    test_service.sql("ALTER TABLE api_key RENAME TO elsewhere");
    for _ in 0..29 {
        clock.advance(Duration::from_secs(1));
    }
    assert_eq!(test_service.get("/v1/sessions").await.status, 200);
    clock.advance(Duration::from_secs(2));
    let refused = test_service.get("/v1/sessions").await;
    assert_eq!(
        (refused.status.as_u16(), &json(&refused)["code"]),
        (503, &json!("store_failed"))
    );
    test_service.sql("ALTER TABLE elsewhere RENAME TO api_key");
    while test_service.get("/v1/sessions").await.status != 200 {
        clock.advance(Duration::from_secs(1));
    }
}
