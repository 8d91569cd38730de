//! No key, no answer; and with one, what it allows.

use std::time::Duration;

use guestlane::api_key::Scope;
use http::Method;
use serde_json::{Value, json};

use crate::world::{World, bearer, header, json, new_key, settings};

/// Every operation of the document, with something in the place of its parameters.
async fn operations(world: &World) -> Vec<(Method, String, Value)> {
    let document = json(&world.send(Method::GET, "/openapi.json", &[], "").await);
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method = method.to_uppercase().parse().unwrap();
            found.push((method, path.replace("{id}", "019ab123-4567-7000-8000-0123456789ab"), operation.clone()));
        }
    }
    assert!(found.len() > 12);
    found
}

fn scopes(operation: &Value) -> Vec<&str> {
    let schemes = operation["security"].as_array().into_iter().flatten();
    schemes.filter_map(|scheme| scheme["apiKey"].as_array()).flatten().map(|scope| scope.as_str().unwrap()).collect()
}

#[tokio::test]
async fn without_a_good_key_every_answer_is_the_same_401() {
    let world = World::new().await;
    let expired = new_key(&world.lane, "admin", |key| key.expires_at = Some(key.created_at)).await;
    let other_store = World::new().await;
    let foreign = other_store.key(Scope::Admin);
    let bad = ["", "Bearer", "Bearer gl_x", &bearer(&expired), &bearer(foreign), &format!("Basic {}", world.key(Scope::Admin))]
        .map(str::to_owned);
    let mut bodies = Vec::new();
    for (method, path, operation) in operations(&world).await {
        if scopes(&operation).is_empty() {
            continue;
        }
        for authorization in &bad {
            let answer = world.send(method.clone(), &path, &[("authorization", authorization)], "").await;
            assert_eq!(
                (answer.status.as_u16(), header(&answer, "www-authenticate")),
                (401, "Bearer realm=\"guestlane\""),
                "{method} {path}"
            );
            bodies.push(answer.body);
        }
    }
    // Nor is it told whether there is such a path.
    let nowhere = world.send(Method::GET, "/v1/nowhere", &[], "").await;
    bodies.push(nowhere.body);
    bodies.dedup();
    assert_eq!(bodies.len(), 1);
}

#[tokio::test]
async fn each_scope_allows_what_it_says_and_admin_all() {
    let world = World::new().await;
    let mut allowed = 0;
    for (method, path, operation) in operations(&world).await {
        let wanted = scopes(&operation);
        if wanted.is_empty() || path == "/v1/events" {
            continue; // the stream does not end; it has a test of its own
        }
        // A query that cannot be read changes nothing: the scope comes first.
        let path = if path.contains('?') || method != Method::GET { path } else { format!("{path}?nothing=x") };
        for scope in Scope::ALL {
            let headers = [("authorization", bearer(world.key(scope))), ("content-type", "application/json".to_owned())];
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let answer = world.send(method.clone(), &path, &headers, "{\"guestId\":\"ann\",\"token\":\"x\"}").await;
            let may = wanted.contains(&scope.name()) || scope == Scope::Admin;
            assert_eq!(answer.status == 403, !may, "{method} {path} with {scope}: {}", answer.status);
            assert_ne!(answer.status, 401, "{method} {path}");
            allowed += u32::from(may);
        }
    }
    assert!(allowed > 20, "{allowed}");
}

#[tokio::test]
async fn what_has_no_data_in_it_needs_no_key() {
    let world = World::new().await;
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
        let answer = world.send(Method::GET, path, &[], "").await;
        assert_eq!(answer.status, 200, "{path}");
    }
    let page = world.send(Method::GET, "/", &[], "").await;
    assert!(header(&page, "content-security-policy").contains("default-src 'none'"));
}

#[tokio::test]
async fn a_key_that_is_revoked_is_not_accepted_a_second_later_and_one_that_is_replaced_for_a_while() {
    let world = World::new().await;
    let try_key =
        async |key: &str| world.send(Method::GET, "/v1/errors", &[("authorization", &bearer(key))], "").await.status.as_u16();
    let (old, store) = (new_key(&world.lane, "sessions:read", |_| {}).await, world.lane.store());
    world.until(async |_| try_key(&old).await == 200).await; // made while the service runs

    let id = &old[3..15];
    let next = guestlane::api_key::ApiKey::generate().unwrap();
    let mut stored = store.api_keys().await.unwrap().into_iter().find(|key| key.id == id).unwrap();
    (stored.id, stored.hash) = (next.id().to_owned(), world.lane.api_key_hash().await.unwrap().hash(&next));
    let clock = world.lane.clock();
    store.add_api_key(stored, Some((id.to_owned(), clock.now() + Duration::from_secs(60)))).await.unwrap();
    world.until(async |_| try_key(next.expose()).await == 200).await;
    assert_eq!(try_key(&old).await, 200, "both are good for a while");
    let replaced = store.api_keys().await.unwrap().into_iter().find(|key| key.id == id).unwrap();
    assert!(replaced.expires_at.is_some_and(|end| end <= clock.now() + Duration::from_secs(60)), "the old one ends");

    store.revoke_api_key(next.id().to_owned(), clock.now()).await.unwrap();
    let looks = std::cell::Cell::new(0);
    world
        .until(async |_| {
            looks.set(looks.get() + 1);
            try_key(next.expose()).await == 401
        })
        .await;
    // It looks every ten milliseconds: some hundred times in the second that it may take, and what a busy machine adds.
    assert!(looks.get() < 1000, "{}", looks.get());
}

#[tokio::test]
async fn a_key_that_asks_too_often_is_sent_back_and_the_others_are_not() {
    let mut settings = settings();
    settings.key_rate = Some("5/min".parse().unwrap());
    let world = World::with(|_| {}, settings).await;
    for _ in 0..5 {
        assert_eq!(world.get("/v1/errors").await.status, 200);
    }
    let refused = world.get("/v1/errors").await;
    assert_eq!((refused.status.as_u16(), json(&refused)["code"].as_str()), (429, Some("too_many_requests")));
    let wait: u64 = header(&refused, "retry-after").parse().unwrap();
    assert!((1..=12).contains(&wait), "{wait}");
    assert_eq!(world.create(&[], &json!({"guestId": "ann"})).await.status, 201, "another key has its own");
}

#[tokio::test]
async fn when_a_key_was_used_is_known() {
    let world = World::new().await;
    assert_eq!(world.get("/v1/errors").await.status, 200);
    let id = world.key(Scope::SessionsRead)[3..15].to_owned();
    world
        .until(async |world| {
            let keys = world.lane.store().api_keys().await.unwrap();
            keys.iter().any(|key| key.id == id && key.last_used_at.is_some())
        })
        .await;
}
