//! What looks right to a careless client and is not: refused.

use futures_util::SinkExt;
use guestlane_sim::DEPLOYMENT_ID;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::client::Client;

async fn jwt(client: &Client, code: &str) -> String {
    let body =
        json!({"deploymentId": DEPLOYMENT_ID, "oauth": {"code": code, "redirectUri": "https://shop.example/cb"}}).to_string();
    let path = "/api/v2/webdeployments/token/oauthcodegrantjwtexchange";
    let (status, tokens) = client.send("POST", path, &[("content-type", "application/json")], &body).await;
    assert_eq!(status, 200, "{tokens}");
    tokens["jwt"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_session_of_one_guest_is_not_opened_by_another_guests_jwt() {
    let client = Client::new(|options| options.deployment.authentication = true).await;
    let sign_in = |jwt: String| json!({"deploymentId": DEPLOYMENT_ID, "data": {"code": jwt}});
    let mut alice = client.socket("token").await;
    assert_eq!(alice.ask("configureAuthenticatedSession", sign_in(jwt(&client, "alice.1").await)).await["code"], 200);
    let mut bob = client.socket("token").await;
    assert_eq!(bob.ask("configureAuthenticatedSession", sign_in(jwt(&client, "bob.1").await)).await["code"], 403);
}

#[tokio::test]
async fn who_signed_out_says_nothing_any_more() {
    let client = Client::new(|options| options.deployment.authentication = true).await;
    let jwt = jwt(&client, "alice.1").await;
    let mut guest = client.socket("token").await;
    let signed_in = json!({"deploymentId": DEPLOYMENT_ID, "data": {"code": jwt}});
    assert_eq!(guest.ask("configureAuthenticatedSession", signed_in).await["code"], 200);
    let bearer = format!("bearer {jwt}");
    client.send("DELETE", "/api/v2/webdeployments/token/revoke", &[("authorization", &bearer)], "").await;
    assert_eq!(guest.next().await["class"], "LogoutEvent");
    assert_eq!(guest.text("Hello").await["code"], 4007);
}

#[tokio::test]
async fn what_the_schema_does_not_have_opens_no_conversation() {
    let client = Client::new(|_| {}).await;
    let mut guest = client.guest("token").await;
    for message in [
        json!({"type": "Message"}),
        json!({"type": "Structured", "content": [{"contentType": "Nonsense"}]}),
        json!({"type": "Structured", "content": [{"contentType": "ButtonResponse"}]}),
        json!({"type": "Structured", "content": [{"contentType": "ButtonResponse", "buttonResponse": {"type": "QuickReply", "text": "Yes"}}]}),
        json!({"type": "Event", "events": [{"eventType": "Nonsense"}]}),
        json!({"type": "Event", "events": [{"eventType": "Presence"}]}),
        json!({"type": "Text", "text": 5}),
        json!({"type": "Text", "text": "Hello", "metadata": {"n": 1}}),
        json!({"type": "Text", "text": "Hello", "channel": {"metadata": {"customAttributes": {"n": 1}}}}),
        json!({"type": "Text", "text": "Hello", "channel": {"metadata": {"customAttributes": ["n"]}}}),
    ] {
        client.sim.advance_clock(std::time::Duration::from_secs(2));
        assert_eq!(guest.ask("onMessage", json!({"message": message})).await["code"], 400, "{message}");
    }
    assert_eq!(client.sim.state().conversations, 0);
}

#[tokio::test]
async fn frames_are_text_and_not_endless() {
    let client = Client::new(|_| {}).await;
    let mut guest = client.guest("token").await;
    guest.socket.send(Message::Binary(br#"{"action":"echo","token":"token"}"#.as_slice().into())).await.unwrap();
    assert_eq!(guest.next_text().await, None, "the connection is closed");
    let mut guest = client.guest("token").await;
    let long = json!({"action": "echo", "token": "token", "message": {"type": "Text", "text": "x".repeat(200 * 1024)}});
    let _ = guest.socket.send(Message::text(long.to_string())).await;
    assert_eq!(guest.next_text().await, None, "the connection is closed");
}

#[tokio::test]
async fn an_official_contact_is_official_whatever_headers_come_with_it() {
    let client = Client::new(|_| {}).await;
    let bearer = client.sign_in().await;
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json"), ("idempotency-key", "k")];
    let body = r#"{"firstName":"Ada"}"#;
    let (status, first) = client.send("POST", "/api/v2/externalcontacts/contacts", &headers, body).await;
    let (_, second) = client.send("POST", "/api/v2/externalcontacts/contacts", &headers, body).await;
    assert_eq!(status, 200);
    assert_ne!(first["id"], second["id"], "the public platform does not look at a key");
}

#[tokio::test]
async fn a_clock_is_moved_as_far_as_it_goes_and_no_farther() {
    let client = Client::new(|_| {}).await;
    for _ in 0..3 {
        let body = format!(r#"{{"advanceSeconds":{}}}"#, u64::MAX);
        assert_eq!(client.send("POST", "/_sim/clock", &[], &body).await.0, 200);
    }
    assert_eq!(client.send("GET", "/_sim/state", &[], "").await.0, 200);
}

#[tokio::test]
async fn the_journal_shows_no_credentials_and_keeps_the_beginning_of_what_is_long() {
    let client = Client::new(|_| {}).await;
    let bearer = client.sign_in().await;
    client.send("GET", "/nowhere", &[("authorization", &bearer)], "").await;
    client.send("POST", "/nowhere", &[], &"x".repeat(500_000)).await;
    let secret = bearer.split(' ').nth(1).unwrap();
    let (_, journal) = client.send("GET", "/_sim/journal", &[], "").await;
    let Value::Array(entries) = &journal else { panic!() };
    assert!(!journal.to_string().contains(secret));
    assert!(entries.iter().all(|entry| entry["body"].as_str().unwrap().len() < 20_000));
}
