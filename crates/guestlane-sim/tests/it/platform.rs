//! The surface `rest`: access tokens, idempotency keys, validation and rate limits.

use std::time::Duration;

use guestlane_genesys::Rate;
use guestlane_sim::SCOPE_CONTACTS;
use serde_json::{Value, json};

use crate::client::{Client, SALES};

const FORM: [(&str, &str); 1] = [("content-type", "application/x-www-form-urlencoded")];

#[tokio::test]
async fn a_sign_in_needs_a_form_the_right_grant_and_a_known_client() {
    let client = Client::new(|_| {}).await;
    let sign_in = async |headers: &[(&str, &str)], form: &str| {
        let (status, body) = client
            .send("POST", "/api/v2/oauth/token", headers, form)
            .await;
        (status, body["error"].clone())
    };
    let good = "grant_type=client_credentials&client_id=sim-client&client_secret=sim-client-secret";
    assert_eq!(sign_in(&FORM, good).await.0, 200);
    assert_eq!(sign_in(&[], good).await, (400, json!("invalid_request")));
    assert_eq!(
        sign_in(&FORM, &good.replace("client_credentials", "password")).await,
        (400, json!("unsupported_grant_type"))
    );
    assert_eq!(
        sign_in(&FORM, &good.replace("sim-client-secret", "guess")).await,
        (401, json!("invalid_client"))
    );
    assert_eq!(
        sign_in(&FORM, &good.replace("id=sim-client", "id=nobody")).await,
        (401, json!("invalid_client"))
    );
}

#[tokio::test]
async fn an_access_token_must_be_there_known_unexpired_and_unrevoked() {
    let client = Client::new(|options| options.token_life = Duration::from_secs(60)).await;
    let queue = format!("/api/v2/routing/queues/{SALES}");
    let get = async |bearer: Option<&str>| {
        let headers: Vec<_> = bearer
            .map(|bearer| ("authorization", bearer))
            .into_iter()
            .collect();
        let (status, body) = client.send("GET", &queue, &headers, "").await;
        (status, body["code"].clone())
    };
    assert_eq!(get(None).await, (401, json!("authentication.required")));
    assert_eq!(
        get(Some("Bearer nonsense")).await,
        (401, json!("bad.credentials"))
    );
    let bearer = client.sign_in().await;
    assert_eq!(get(Some(&bearer)).await.0, 200);
    client.clock.advance(Duration::from_secs(60));
    assert_eq!(
        get(Some(&bearer)).await,
        (401, json!("credentials.expired"))
    );
    let bearer = client.sign_in().await;
    client.sim.revoke_tokens();
    assert_eq!(get(Some(&bearer)).await, (401, json!("bad.credentials")));
}

#[tokio::test]
async fn a_missing_scope_is_named() {
    let client =
        Client::new(|options| options.clients[0].scopes = vec![SCOPE_CONTACTS.to_owned()]).await;
    let bearer = client.sign_in().await;
    assert_eq!(
        client
            .contact(&bearer, "a", &client.new_contact("ann"))
            .await
            .0,
        200
    );
    let (status, body) = client
        .conversation(&bearer, "b", &client.new_conversation("ann"))
        .await;
    assert_eq!(
        (status, &body["code"]),
        (403, &json!("missing.any.permissions"))
    );
    assert!(
        body["message"]
            .as_str()
            .unwrap()
            .contains("conversations:messaging")
    );
}

#[tokio::test]
async fn a_queue_is_there_or_not_found_or_no_id_at_all() {
    let client = Client::new(|_| {}).await;
    let bearer = client.sign_in().await;
    let get = async |id: &str| {
        client
            .send(
                "GET",
                &format!("/api/v2/routing/queues/{id}"),
                &[("authorization", &bearer)],
                "",
            )
            .await
    };
    assert_eq!(get(SALES).await.1["name"], "Sales");
    assert_eq!(
        get("00000000-0000-4000-8000-000000000000").await.1["code"],
        "not.found"
    );
    assert_eq!(get("sales").await.1["code"], "bad.request");
}

#[tokio::test]
async fn a_key_is_remembered_for_24_hours_with_its_answer_and_its_body() {
    let client = Client::new(|options| options.token_life = Duration::from_secs(48 * 3600)).await;
    let bearer = client.sign_in().await;
    let body = client.new_contact("ann");
    let first = client.contact(&bearer, "key", &body).await;
    client.clock.advance(Duration::from_secs(24 * 3600 - 1));
    // The guest token in the body has expired long ago. The idempotency key is looked up before the
    // body is validated.
    assert_eq!(client.contact(&bearer, "key", &body).await, first);
    assert_eq!(
        client
            .contact(&bearer, "key", &client.new_contact("bob"))
            .await
            .1["code"],
        "idempotency.key.reused"
    );
    assert_eq!(client.sim.state().contacts, 1);
    client.clock.advance(Duration::from_secs(1));
    assert_eq!(
        client
            .contact(&bearer, "key", &client.new_contact("ann"))
            .await
            .0,
        200
    );
    let state = client.sim.state();
    assert_eq!(
        (
            state.contacts,
            state.duplicates.contacts,
            state.duplicates.guests[0].guest_id.as_str()
        ),
        (2, 1, "ann")
    );
}

#[tokio::test]
async fn a_key_is_needed_and_a_refusal_does_not_take_it() {
    let client = Client::new(|_| {}).await;
    let bearer = client.sign_in().await;
    let (status, body) = client
        .contact(&bearer, "", &client.new_contact("ann"))
        .await;
    assert_eq!(
        (status, &body["message"]),
        (400, &json!("The header Idempotency-Key is missing."))
    );
    let mut wrong = client.new_contact("ann");
    wrong["address"] = json!("guest-bob");
    assert_eq!(client.contact(&bearer, "key", &wrong).await.0, 400);
    assert_eq!(
        client
            .contact(&bearer, "key", &client.new_contact("ann"))
            .await
            .0,
        200
    );
}

#[tokio::test]
async fn a_contact_is_checked_field_by_field() {
    let client = Client::new(|_| {}).await;
    let bearer = client.sign_in().await;
    let changed = |pointer: &str, value: Value| {
        let mut body = client.new_contact("ann");
        *body.pointer_mut(pointer).unwrap() = value;
        body
    };
    let cases = [
        (changed("/type", json!("call")), "bad.request"),
        (changed("/address", json!("ann")), "bad.request"),
        (changed("/externalContactId", json!("bob")), "bad.request"),
        (changed("/externalContactId", json!(5)), "bad.request"),
        (
            changed("/customAttributes", json!({"tier": "gold"})),
            "bad.request",
        ),
        (
            changed("/customAttributes/tier", json!("x".repeat(2045))),
            "custom.attributes.too.large",
        ),
        (json!([]), "bad.request"),
    ];
    for (body, code) in cases {
        let (status, answer) = client.contact(&bearer, "key", &body).await;
        assert_eq!((status, &answer["code"]), (400, &json!(code)), "{answer}");
        assert_eq!(answer["contextId"].as_str().unwrap().len(), 36);
    }
    assert_eq!(client.sim.state().contacts, 0);
}

#[tokio::test]
async fn a_conversation_needs_a_contact_a_queue_and_a_target_that_agree() {
    let client = Client::new(|_| {}).await;
    let bearer = client.sign_in().await;
    let body = client.new_conversation("ann");
    assert_eq!(
        client.conversation(&bearer, "key", &body).await.1["message"],
        "contactId is not the address of a contact."
    );
    assert_eq!(
        client
            .contact(&bearer, "c", &client.new_contact("ann"))
            .await
            .0,
        200
    );
    let mut elsewhere = body.clone();
    elsewhere["routingData"]["queueId"] = json!("00000000-0000-4000-8000-000000000000");
    assert_eq!(client.conversation(&bearer, "key", &elsewhere).await.0, 403);
    let mut disagree = body.clone();
    disagree["customAttributes"]["routingTarget"] = json!("00000000-0000-4000-8000-000000000000");
    assert_eq!(client.conversation(&bearer, "key", &disagree).await.0, 400);
    assert_eq!(client.conversation(&bearer, "key", &body).await.0, 200);
}

#[tokio::test]
async fn a_guest_token_is_rs256_unexpired_this_guests_and_once_keys_are_registered_of_one_of_them()
{
    let client = Client::new(|_| {}).await;
    let bearer = client.sign_in().await;
    let now = client.clock.now().unix_seconds();
    let header = json!({"alg": "RS256", "kid": "k"});
    let claims = json!({"guestId": "ann", "exp": now + 300});
    let code = async |token: String| {
        let mut body = client.new_contact("ann");
        body["customAttributes"]["guestToken"] = json!(token);
        client.contact(&bearer, "key", &body).await.1["code"].clone()
    };
    let without_keys = [
        ("nonsense".to_owned(), "guest.token.malformed"),
        (
            client.token(&json!({"alg": "HS256", "kid": "k"}), &claims),
            "guest.token.algorithm",
        ),
        (
            client.token(&header, &json!({"guestId": "ann", "exp": now})),
            "guest.token.expired",
        ),
        (
            client.token(&header, &json!({"guestId": "ann"})),
            "guest.token.expired",
        ),
        (
            client.token(&header, &json!({"exp": now + 300})),
            "guest.token.no.guest.id",
        ),
        (
            client.token(&header, &json!({"guestId": "bob", "exp": now + 300})),
            "guest.token.mismatch",
        ),
    ];
    for (token, wanted) in without_keys {
        assert_eq!(code(token).await, wanted);
    }
    let (status, registered) = client
        .send("PUT", "/_sim/guest-keys?kid=k", &[], &client.public_pem())
        .await;
    assert_eq!((status, registered), (200, json!({"registered": 1})));
    assert_eq!(
        code(client.token(&json!({"alg": "RS256", "kid": "other"}), &claims)).await,
        "guest.token.unknown.key"
    );
    let mut forged = client.token(&header, &claims);
    let at = forged.find('.').unwrap() + 5;
    forged.replace_range(at..=at, if &forged[at..=at] == "A" { "B" } else { "A" });
    assert_eq!(code(forged).await, "guest.token.signature");
    assert_eq!(
        code(client.token(&header, &claims)).await,
        Value::Null,
        "a good one is taken"
    );
}

#[tokio::test]
async fn the_quota_is_told_with_every_answer_and_kept() {
    let client = Client::new(|options| options.quota = Some("3/s".parse::<Rate>().unwrap())).await;
    let bearer = client.sign_in().await;
    let queue = format!("/api/v2/routing/queues/{SALES}");
    let get = async || {
        client
            .try_send("GET", &queue, &[("authorization", &bearer)], "")
            .await
            .unwrap()
    };
    for count in ["1", "2", "3"] {
        let answer = get().await;
        assert_eq!(
            (
                answer.status.as_u16(),
                answer.headers["inin-ratelimit-count"].to_str().unwrap()
            ),
            (200, count)
        );
        assert_eq!(answer.headers["inin-ratelimit-allowed"], "3");
        assert_eq!(answer.headers["inin-ratelimit-reset"], "1");
        assert_eq!(answer.headers["inin-correlation-id"].len(), 36);
    }
    let refused = get().await;
    assert_eq!(
        (
            refused.status.as_u16(),
            refused.headers["retry-after"].to_str().unwrap()
        ),
        (429, "1")
    );
    let body: Value = serde_json::from_slice(&refused.body).unwrap();
    assert_eq!(body["code"], "too.many.requests.retry.after");
    assert_eq!(
        refused.headers["inin-correlation-id"].to_str().unwrap(),
        body["contextId"].as_str().unwrap()
    );
    client.clock.advance(Duration::from_secs(1));
    assert_eq!(get().await.status.as_u16(), 200);
    assert_eq!(client.sim.state().throttled, 1);
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let client = Client::new(|_| {}).await;
    for (method, path, status) in [
        ("GET", "/api/v2/users/me", 404),
        ("GET", "/", 404),
        ("GET", "/api/v2/conversations/messaging", 405),
        ("GET", "/_sim/nothing", 404),
    ] {
        assert_eq!(client.send(method, path, &[], "").await.0, status, "{path}");
    }
}

#[tokio::test]
async fn an_answer_and_its_body_have_the_same_correlation_id_and_the_quota_is_told_with_faults() {
    let client =
        Client::new(|options| options.quota = Some("9/min".parse::<Rate>().unwrap())).await;
    let bearer = client.sign_in().await;
    let queue = format!("/api/v2/routing/queues/{SALES}");
    let get = async |path: &str| {
        client
            .try_send("GET", path, &[("authorization", &bearer)], "")
            .await
            .unwrap()
    };
    assert_eq!(get(&queue).await.status.as_u16(), 200);
    for (fault, status, count) in [
        ("429", 429, "1"),
        ("429-date", 429, "1"),
        ("503", 503, "1"),
        ("504-after", 504, "2"),
    ] {
        client
            .sim
            .set_faults(vec![format!("queue:{fault}").parse().unwrap()]);
        let answer = get(&queue).await;
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(answer.status.as_u16(), status, "{fault}");
        assert_eq!(
            answer.headers["inin-correlation-id"].to_str().unwrap(),
            body["contextId"].as_str().unwrap(),
            "{fault}"
        );
        assert_ne!(
            answer.headers["inin-correlation-id"],
            "00000000-0000-0000-0000-000000000000"
        );
        let told = ["count", "allowed"].map(|name| {
            answer.headers[format!("inin-ratelimit-{name}")]
                .to_str()
                .unwrap()
        });
        assert_eq!(told, [count, "9"], "{fault}");
    }
    client
        .sim
        .set_faults(vec!["deployment:503".parse().unwrap()]);
    let open = get(&format!(
        "/webdeployments/v1/deployments/{SALES}/config.json"
    ))
    .await;
    assert!(
        open.status == 503 && !open.headers.contains_key("inin-ratelimit-count"),
        "nobody is counted there"
    );
    let too_large = client
        .try_send("POST", "/crm/events", &[], &"x".repeat(1024 * 1024 + 1))
        .await
        .unwrap();
    let body: Value = serde_json::from_slice(&too_large.body).unwrap();
    assert_eq!(
        (too_large.status.as_u16(), &body["code"]),
        (413, &json!("request.too.large"))
    );
    assert_eq!(
        too_large.headers["inin-correlation-id"].to_str().unwrap(),
        body["contextId"].as_str().unwrap()
    );
    let entry = client.sim.journal().pop().unwrap();
    assert_eq!(
        (entry.status, entry.correlation_id.to_string()),
        (Some(413), body["contextId"].as_str().unwrap().to_owned())
    );
}
