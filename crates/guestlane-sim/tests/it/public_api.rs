//! The public platform's routes: validation, contacts, conversations, routing and open messages.

mod contacts;
mod conversations;

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use guestlane_genesys::Rate;
use guestlane_sim::{
    DEPLOYMENT_ID, EXTERNAL_SOURCE_ID, INTEGRATION_ID, OAuthClient, SCOPE_CONTACTS,
    SCOPE_CONVERSATIONS,
};
use http::StatusCode;
use serde_json::{Value, json};

use crate::client::{Client, SALES};

const CONTACTS: &str = "/api/v2/externalcontacts/contacts";
const ENRICH: &str = "/api/v2/externalcontacts/contacts/enrich";
const UNKNOWN_ID: &str = "00000000-0000-4000-8000-000000000000";

impl Client {
    async fn json(&self, bearer: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let headers = [
            ("authorization", bearer),
            ("content-type", "application/json"),
        ];
        self.send(method, path, &headers, &body.to_string()).await
    }

    async fn get(&self, bearer: &str, path: &str) -> (u16, Value) {
        self.send("GET", path, &[("authorization", bearer)], "")
            .await
    }
}

fn external_id(guest: &str) -> Value {
    json!({"type": "ExternalId", "value": guest, "externalSource": {"id": EXTERNAL_SOURCE_ID}})
}

fn upsert(guest: &str, contact: Value) -> Value {
    json!({"matchingIdentifiers": [external_id(guest)], "action": "Upsert", "contact": contact})
}

#[tokio::test]
async fn oauth_token_request_requires_basic_header_and_form() {
    let client = Client::new(|_| {}).await;
    let basic = |secret: &str| {
        format!(
            "Basic {}",
            BASE64_STANDARD.encode(format!("sim-client:{secret}"))
        )
    };
    let sign_in = async |client: &Client, basic: Option<&str>, form: &str| {
        let mut headers = vec![("content-type", "application/x-www-form-urlencoded")];
        headers.extend(basic.map(|basic| ("authorization", basic)));
        client.send("POST", "/oauth/token", &headers, form).await
    };
    let (good, grant) = (basic("sim-client-secret"), "grant_type=client_credentials");
    let (status, body) = sign_in(&client, Some(&good), grant).await;
    assert_eq!(
        (status, &body["token_type"], &body["expires_in"]),
        (200, &json!("bearer"), &json!(1800))
    );
    let bearer = format!("Bearer {}", body["access_token"].as_str().unwrap());
    assert_eq!(
        client.get(&bearer, "/api/v2/tokens/me").await.1["OAuthClient"]["id"],
        "sim-client"
    );
    let wrong = json!({"error": "invalid_client", "description": "authentication failed", "error_description": "authentication failed"});
    assert_eq!(
        sign_in(&client, Some(&basic("guess")), grant).await,
        (400, wrong)
    );
    let in_form =
        "grant_type=client_credentials&client_id=sim-client&client_secret=sim-client-secret";
    assert_eq!(
        sign_in(&client, None, in_form).await.1["error"],
        "invalid_client"
    );
    assert_eq!(
        sign_in(&client, Some(&good), "").await.1["error"],
        "unsupported_grant_type"
    );
    let journal = serde_json::to_string(&client.sim.journal()).unwrap();
    assert!(!journal.contains(&good) && !journal.contains("sim-client-secret"));
    let client = Client::new(|options| {
        options.bad_client_status = StatusCode::UNAUTHORIZED;
        options.token_quota = Some("1/min".parse::<Rate>().unwrap());
    });
    let client = client.await;
    assert_eq!(sign_in(&client, Some(&basic("guess")), grant).await.0, 401);
    assert_eq!(sign_in(&client, Some(&good), grant).await.0, 200);
    let (status, body) = sign_in(&client, Some(&good), grant).await;
    assert_eq!((status, &body["error"]), (400, &json!("invalid_request")));
    assert!(
        body["error_description"]
            .as_str()
            .unwrap()
            .starts_with("rate limit exceeded;")
    );
    client.clock.advance(Duration::from_secs(60));
    assert_eq!(sign_in(&client, Some(&good), grant).await.0, 200);
}

#[tokio::test]
async fn gateway_routes_are_marked_and_public_routes_are_not() {
    let client = Client::new(|_| {}).await;
    let bearer = client.sign_in().await;
    let marked = async |path: &str, body: &Value| {
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
        ];
        let answer = client
            .try_send("POST", path, &headers, &body.to_string())
            .await
            .unwrap();
        answer
            .headers
            .get("guestlane-sim-route")
            .is_some_and(|value| value == "gateway")
    };
    assert!(marked("/api/v2/oauth/token", &json!({})).await);
    assert!(marked("/api/v2/conversations/messaging", &json!({})).await);
    assert!(marked(CONTACTS, &client.new_contact("ann")).await);
    assert!(!marked(CONTACTS, &json!({"firstName": "Ann"})).await);
    assert!(
        marked(CONTACTS, &json!({"customAttributes": {}})).await
            && marked(CONTACTS, &json!({"externalContactId": "a"})).await
    );
    assert!(!marked(ENRICH, &upsert("ann", json!({}))).await);
    assert!(!marked("/oauth/token", &json!({})).await);
}

#[tokio::test]
async fn permission_is_checked_before_resource_lookup() {
    let client = Client::new(|options| options.clients[0].scopes.clear()).await;
    let bearer = client.sign_in().await;
    let (conversation, participant) = (UNKNOWN_ID, UNKNOWN_ID);
    let calls = [
        (
            "GET",
            "/api/v2/conversations/messages/ffff/details".to_owned(),
            "conversation:message:view",
        ),
        (
            "GET",
            format!("/api/v2/conversations/{conversation}"),
            "conversation:communication:view",
        ),
        (
            "GET",
            format!("{CONTACTS}/{UNKNOWN_ID}"),
            "externalContacts:contact:view",
        ),
        ("POST", ENRICH.to_owned(), "externalContacts:contact:enrich"),
        ("POST", CONTACTS.to_owned(), "externalContacts:contact:add"),
        (
            "PUT",
            format!("/api/v2/externalcontacts/conversations/{UNKNOWN_ID}"),
            "externalContacts:conversation:associate",
        ),
        (
            "POST",
            format!("/api/v2/conversations/messages/{UNKNOWN_ID}/inbound/open/message"),
            "conversation:message:receive",
        ),
        (
            "POST",
            format!(
                "/api/v2/conversations/{conversation}/participants/{participant}/replace/queue"
            ),
            "conversation:communication:blindTransfer",
        ),
        (
            "GET",
            format!("/api/v2/routing/queues/{SALES}"),
            "routing:queue:view",
        ),
    ];
    for (method, path, permission) in calls {
        let (status, body) = client.json(&bearer, method, &path, &json!({})).await;
        assert_eq!(
            (status, &body["code"]),
            (403, &json!("missing.any.permissions")),
            "{path}"
        );
        assert!(
            body["message"].as_str().unwrap().ends_with(permission),
            "{body}"
        );
    }
    assert_eq!(
        client.get(&bearer, "/api/v2/tokens/me").await.0,
        200,
        "of oneself one may ask"
    );
}

#[tokio::test]
async fn organization_configuration_resources_are_served() {
    let client = Client::new(|_| {}).await;
    let bearer = client.sign_in().await;
    let config = format!("/webdeployments/v1/deployments/{DEPLOYMENT_ID}/config.json");
    let (status, config) = client.send("GET", &config, &[], "").await;
    assert_eq!(
        (status, &config["apiEndpoint"]),
        (200, &json!(client.sim.base_url()))
    );
    let socket = client.sim.base_url().replace("http", "ws");
    assert_eq!(
        config["messenger"]["apps"]["conversations"]["messagingEndpoint"],
        socket
    );
    let domains = format!("/webdeployments/v1/deployments/{DEPLOYMENT_ID}/domains.json");
    assert_eq!(
        client.send("GET", &domains, &[], "").await.1,
        json!({"allowAllDomains": true, "allowedDomains": []})
    );
    assert_eq!(
        client
            .send("GET", &domains.replace("dddd", "eeee"), &[], "")
            .await
            .0,
        403
    );
    let queues = client
        .get(&bearer, "/api/v2/routing/queues?pageSize=2&pageNumber=2")
        .await
        .1;
    assert_eq!(
        (&queues["total"], &queues["entities"][0]["name"]),
        (&json!(3), &json!("Billing"))
    );
    let named = client
        .get(&bearer, "/api/v2/routing/queues?name=s*")
        .await
        .1;
    assert_eq!(named["total"], 2);
    for (path, status) in [
        (
            format!("/api/v2/conversations/messaging/integrations/open/{INTEGRATION_ID}"),
            200,
        ),
        (
            format!("/api/v2/conversations/messaging/integrations/open/{UNKNOWN_ID}"),
            404,
        ),
        (
            format!("/api/v2/externalcontacts/externalsources/{EXTERNAL_SOURCE_ID}"),
            200,
        ),
        (
            format!("/api/v2/externalcontacts/externalsources/{UNKNOWN_ID}"),
            404,
        ),
        (
            "/api/v2/organizations/limits/namespaces/web.messaging".to_owned(),
            200,
        ),
        (
            "/api/v2/organizations/limits/namespaces/nonsense".to_owned(),
            404,
        ),
    ] {
        assert_eq!(client.get(&bearer, &path).await.0, status, "{path}");
    }
    assert_eq!(
        client
            .send(
                "HEAD",
                "/api/v2/tokens/me",
                &[("authorization", &bearer)],
                ""
            )
            .await
            .0,
        200
    );
}

#[tokio::test]
async fn disabled_gateway_routes_return_404_and_scopes_grant_nothing() {
    let client = Client::new(|options| {
        options.gateway = false;
        options.clients[0].scopes = vec![SCOPE_CONTACTS.to_owned(), SCOPE_CONVERSATIONS.to_owned()];
        options.clients.push(OAuthClient::new("other", "other"));
    });
    let client = client.await;
    let sign_in = async |pair: &str| {
        let basic = format!("Basic {}", BASE64_STANDARD.encode(pair));
        let headers = [
            ("content-type", "application/x-www-form-urlencoded"),
            ("authorization", basic.as_str()),
        ];
        let (_, body) = client
            .send(
                "POST",
                "/oauth/token",
                &headers,
                "grant_type=client_credentials",
            )
            .await;
        format!("Bearer {}", body["access_token"].as_str().unwrap())
    };
    let gateway_bearer = sign_in("sim-client:sim-client-secret").await;
    for path in ["/api/v2/oauth/token", "/api/v2/conversations/messaging"] {
        assert_eq!(
            client
                .json(&gateway_bearer, "POST", path, &json!({}))
                .await
                .0,
            404,
            "{path}"
        );
        assert_eq!(client.get(&gateway_bearer, path).await.0, 404, "{path}");
    }
    for path in [
        "/api/v2/routing/queues".to_owned(),
        format!("/api/v2/routing/queues/{SALES}"),
    ] {
        let refused = client.get(&gateway_bearer, &path).await;
        assert_eq!(
            (refused.0, &refused.1["code"]),
            (403, &json!("missing.any.permissions"))
        );
    }
    assert_eq!(
        client
            .contact(&gateway_bearer, "key", &client.new_contact("ann"))
            .await
            .0,
        403
    );
    let public_bearer = sign_in("other:other").await;
    assert_eq!(
        client.get(&public_bearer, "/api/v2/routing/queues").await.0,
        200
    );
    let headers = [
        ("authorization", public_bearer.as_str()),
        ("content-type", "application/json"),
    ];
    let body = json!({"type": "webchat", "firstName": "Ann"}).to_string();
    let answer = client
        .try_send("POST", CONTACTS, &headers, &body)
        .await
        .unwrap();
    assert_eq!(answer.status.as_u16(), 200, "a contact is a public one");
    assert!(!answer.headers.contains_key("guestlane-sim-route"));
}
