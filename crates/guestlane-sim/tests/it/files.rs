use std::time::Duration;

use guestlane_sim::DEPLOYMENT_ID;
use serde_json::{Value, json};

use crate::{client::Client, guest::Guest};

fn file(name: &str, kind: &str, size: u64) -> Value {
    json!({"attachmentId": "a1", "fileName": name, "fileType": kind, "fileSize": size})
}

async fn put(client: &Client, answer: &Value, with_headers: bool, body: &str) -> u16 {
    let url = answer["body"]["url"].as_str().unwrap().to_owned();
    let path = url.strip_prefix(&client.sim.base_url()).unwrap();
    let listed = answer["body"]["headers"].as_object().unwrap().clone();
    let mut headers = vec![("content-type", "image/png")];
    headers.extend(listed.iter().filter(|_| with_headers).map(|(name, value)| (name.as_str(), value.as_str().unwrap())));
    client.send("PUT", path, &headers, body).await.0
}

#[tokio::test]
async fn a_file_goes_up_is_sent_and_comes_down() {
    let client = Client::new(|_| {}).await;
    let mut guest = client.guest("t").await;
    let answer = guest.ask("onAttachment", file("photo.png", "image/png", 5)).await;
    assert_eq!(answer["class"], "PresignedUrlResponse");
    let attached = json!({"message": {"type": "Text", "content": [{"contentType": "Attachment", "attachment": {"id": "a1"}}]}});
    assert_eq!(guest.ask("onMessage", attached.clone()).await["code"], 4010, "it is not there yet");
    assert_eq!(put(&client, &answer, false, "12345").await, 403, "the listed headers are needed");
    assert_eq!(put(&client, &answer, true, "12345").await, 200);
    assert_eq!(guest.next().await["class"], "UploadSuccessEvent");
    let echo = guest.ask("onMessage", attached).await;
    assert_eq!(echo["body"]["content"][0]["attachment"]["filename"], "photo.png");
    let answer = guest.ask("getAttachment", json!({"attachmentId": "a1"})).await;
    assert_eq!((&answer["body"]["fileSize"], &answer["body"]["headers"]), (&json!(5), &json!({})));
    let path = answer["body"]["url"].as_str().unwrap().strip_prefix(&client.sim.base_url()).unwrap();
    assert_eq!(client.send("GET", path, &[], "").await, (200, json!(12345)));
    client.clock.advance(Duration::from_secs(600));
    assert_eq!(client.send("GET", path, &[], "").await.0, 403, "an address is good for ten minutes");
    assert_eq!(guest.ask("deleteAttachment", json!({"attachmentId": "a1"})).await["class"], "AttachmentDeletedResponse");
    assert_eq!(guest.ask("getAttachment", json!({"attachmentId": "a1"})).await["code"], 4009);
}

#[tokio::test]
async fn a_file_is_refused_before_and_after_it_goes_up() {
    let client = Client::new(|_| {}).await;
    let mut guest = client.guest("t").await;
    for (name, kind, size, code) in [
        ("photo", "image/png", 5, 4004),
        (&*format!("{}.png", "x".repeat(1024)), "image/png", 5, 4005),
        ("photo.exe", "image/png", 5, 4001),
        ("song.mp3", "audio/mpeg", 5, 4001),
        ("photo.png", "image/png", 0, 4102),
        ("photo.png", "image/png", 10_485_761, 4002),
    ] {
        let refused = guest.ask("onAttachment", file(name, kind, size)).await;
        assert_eq!((&refused["class"], &refused["code"]), (&json!("GenerateUrlError"), &json!(400)));
        assert_eq!(refused["body"]["errorCode"], code, "{name}");
    }
    let mut as_json = file("photo", "image/png", 5);
    as_json["errorsAsJson"] = json!(true);
    assert_eq!(guest.ask("onAttachment", as_json).await["code"], 200);
    let answer = guest.ask("onAttachment", file("photo.png", "image/png", 5)).await;
    assert_eq!(put(&client, &answer, true, "123456").await, 200);
    let failed = guest.next().await;
    assert_eq!((&failed["class"], &failed["body"]["errorCode"]), (&json!("UploadFailureEvent"), &json!(4002)));
}

async fn exchange(client: &Client, code: &str) -> (u16, Value) {
    let body = json!({"deploymentId": DEPLOYMENT_ID, "oauth": {"code": code, "redirectUri": "https://shop.example.org/cb"}});
    let path = "/api/v2/webdeployments/token/oauthcodegrantjwtexchange";
    client.send("POST", path, &[("content-type", "application/json")], &body.to_string()).await
}

async fn sign_in(guest: &mut Guest, jwt: &Value) -> Value {
    guest.ask("configureAuthenticatedSession", json!({"deploymentId": DEPLOYMENT_ID, "data": {"code": jwt}})).await
}

#[tokio::test]
async fn a_guest_signs_in_is_refreshed_and_signs_out() {
    let client = Client::new(|_| {}).await;
    assert_eq!(exchange(&client, "bad-code").await.0, 401);
    assert_eq!(exchange(&client, "").await.0, 400);
    let (status, tokens) = exchange(&client, "ann.1").await;
    assert_eq!(status, 200);
    let mut guest = client.socket("t").await;
    assert_eq!(sign_in(&mut guest, &json!("nonsense")).await["code"], 401);
    assert_eq!(sign_in(&mut guest, &tokens["jwt"]).await["body"]["newSession"], true);
    assert_eq!(guest.configure().await["code"], 4017);
    let journal = serde_json::to_string(&client.sim.journal()).unwrap();
    assert!(!journal.contains(tokens["jwt"].as_str().unwrap()), "the JWT is a secret");
    let mut elsewhere = client.socket("u").await;
    assert_eq!(sign_in(&mut elsewhere, &tokens["jwt"]).await["body"]["clearedExistingSession"], true);
    assert_eq!(guest.next().await["body"]["reason"], "signedIn");
    let refresh = json!({"refreshToken": tokens["refreshToken"], "deploymentId": DEPLOYMENT_ID}).to_string();
    let refresh = async || {
        client.send("POST", "/api/v2/webdeployments/token/refresh", &[("content-type", "application/json")], &refresh).await
    };
    assert!(refresh().await.1["jwt"].is_string());
    let bearer = format!("Bearer {}", tokens["jwt"].as_str().unwrap());
    let revoke = "/api/v2/webdeployments/token/revoke";
    assert_eq!(client.send("DELETE", revoke, &[("authorization", &bearer)], "").await.0, 204);
    assert_eq!(elsewhere.next().await["class"], "LogoutEvent");
    assert_eq!(client.send("DELETE", revoke, &[("authorization", &bearer)], "").await.0, 401);
    assert_eq!(refresh().await.0, 401);
}

#[tokio::test]
async fn a_session_is_stepped_up() {
    let client = Client::new(|_| {}).await;
    let jwt = exchange(&client, "ann").await.1["jwt"].clone();
    let mut other = client.guest("t").await;
    let mut guest = client.guest("t").await;
    assert_eq!(sign_in(&mut guest, &jwt).await["body"]["events"][0]["presence"]["type"], "SignIn");
    assert_eq!(guest.next().await["body"]["newSession"], false);
    assert_eq!(other.next().await["body"]["reasonCode"], "signedIn");
    let client = Client::new(|options| options.deployment.session_upgrade = false).await;
    let jwt = exchange(&client, "ann").await.1["jwt"].clone();
    assert_eq!(sign_in(&mut client.guest("t").await, &jwt).await["code"], 403);
}

#[tokio::test]
async fn what_is_asked_without_a_session_and_what_nobody_knows_is_answered() {
    let client = Client::new(|_| {}).await;
    let mut guest = client.socket("t").await;
    let limits = guest.ask("getConfiguration", json!({"deploymentId": DEPLOYMENT_ID})).await;
    assert_eq!((&limits["class"], &limits["body"]["maxCustomDataBytes"]), (&json!("GetConfigurationResponse"), &json!(2048)));
    guest.configure().await;
    assert_eq!(guest.ask("resumeToken", json!({})).await["class"], "ResumeTokenResponse");
    assert_eq!(guest.ask("disconnectCustomer", json!({})).await["code"], 4000);
}
