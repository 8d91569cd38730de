//! The surface `rest`: access tokens, idempotency keys, validation and rate limits.

mod errors;

use std::time::Duration;

use guestlane_genesys::Rate;
use guestlane_sim::SCOPE_CONTACTS;
use serde_json::{Value, json};

use crate::client::{Client, SALES};

const FORM: [(&str, &str); 1] = [("content-type", "application/x-www-form-urlencoded")];

#[tokio::test]
async fn token_request_requires_form_grant_and_known_client() {
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
        sign_in(&FORM, &good.replace("id=sim-client", "id=unknown")).await,
        (401, json!("invalid_client"))
    );
}

#[tokio::test]
async fn access_token_must_be_present_known_unexpired_and_unrevoked() {
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
async fn missing_scope_is_named_in_the_403_response() {
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
async fn queue_lookup_distinguishes_found_missing_and_invalid_ids() {
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
async fn idempotency_key_is_remembered_for_24_hours() {
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
async fn idempotency_key_is_required_and_not_consumed_by_a_rejection() {
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
async fn contact_is_validated_field_by_field() {
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
async fn conversation_requires_matching_contact_queue_and_target() {
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
    let mut another = body.clone();
    another["routingData"]["queueId"] = json!("00000000-0000-4000-8000-000000000000");
    assert_eq!(client.conversation(&bearer, "key", &another).await.0, 403);
    let mut disagree = body.clone();
    disagree["customAttributes"]["routingTarget"] = json!("00000000-0000-4000-8000-000000000000");
    assert_eq!(client.conversation(&bearer, "key", &disagree).await.0, 400);
    assert_eq!(client.conversation(&bearer, "key", &body).await.0, 200);
}

#[tokio::test]
async fn guest_token_is_validated_and_verified_by_registered_keys() {
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
