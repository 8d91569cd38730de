//! Guests that sign in.

use super::*;

async fn exchange(client: &Client, code: &str) -> (u16, Value) {
    let body = json!({"deploymentId": DEPLOYMENT_ID, "oauth": {"code": code, "redirectUri": "https://shop.example.org/cb"}});
    let path = "/api/v2/webdeployments/token/oauthcodegrantjwtexchange";
    client
        .send(
            "POST",
            path,
            &[("content-type", "application/json")],
            &body.to_string(),
        )
        .await
}

async fn sign_in(guest: &mut Guest, jwt: &Value) -> Value {
    guest
        .ask(
            "configureAuthenticatedSession",
            json!({"deploymentId": DEPLOYMENT_ID, "data": {"code": jwt}}),
        )
        .await
}

#[tokio::test]
async fn guest_sign_in_can_be_refreshed_and_revoked() {
    let client = Client::new(|_| {}).await;
    assert_eq!(exchange(&client, "bad-code").await.0, 401);
    assert_eq!(exchange(&client, "").await.0, 400);
    let (status, tokens) = exchange(&client, "ann.1").await;
    assert_eq!(status, 200);
    let mut guest = client.socket("t").await;
    assert_eq!(sign_in(&mut guest, &json!("nonsense")).await["code"], 401);
    assert_eq!(
        sign_in(&mut guest, &tokens["jwt"]).await["body"]["newSession"],
        true
    );
    assert_eq!(guest.configure().await["code"], 4017);
    let journal = serde_json::to_string(&client.sim.journal()).unwrap();
    assert!(
        !journal.contains(tokens["jwt"].as_str().unwrap()),
        "the JWT is a secret"
    );
    let mut another = client.socket("u").await;
    assert_eq!(
        sign_in(&mut another, &tokens["jwt"]).await["body"]["clearedExistingSession"],
        true
    );
    assert_eq!(guest.next().await["body"]["reason"], "signedIn");
    let refresh =
        json!({"refreshToken": tokens["refreshToken"], "deploymentId": DEPLOYMENT_ID}).to_string();
    let refresh = async || {
        client
            .send(
                "POST",
                "/api/v2/webdeployments/token/refresh",
                &[("content-type", "application/json")],
                &refresh,
            )
            .await
    };
    assert!(refresh().await.1["jwt"].is_string());
    let bearer = format!("Bearer {}", tokens["jwt"].as_str().unwrap());
    let revoke = "/api/v2/webdeployments/token/revoke";
    assert_eq!(
        client
            .send("DELETE", revoke, &[("authorization", &bearer)], "")
            .await
            .0,
        204
    );
    assert_eq!(another.next().await["class"], "LogoutEvent");
    assert_eq!(
        client
            .send("DELETE", revoke, &[("authorization", &bearer)], "")
            .await
            .0,
        401
    );
    assert_eq!(refresh().await.0, 401);
}

#[tokio::test]
async fn session_upgrade_on_sign_in_follows_the_deployment_option() {
    let client = Client::new(|_| {}).await;
    let jwt = exchange(&client, "ann").await.1["jwt"].clone();
    let mut other = client.guest("t").await;
    let mut guest = client.guest("t").await;
    assert_eq!(
        sign_in(&mut guest, &jwt).await["body"]["events"][0]["presence"]["type"],
        "SignIn"
    );
    assert_eq!(guest.next().await["body"]["newSession"], false);
    assert_eq!(other.next().await["body"]["reasonCode"], "signedIn");
    let client = Client::new(|options| options.deployment.session_upgrade = false).await;
    let jwt = exchange(&client, "ann").await.1["jwt"].clone();
    assert_eq!(
        sign_in(&mut client.guest("t").await, &jwt).await["code"],
        403
    );
}

#[tokio::test]
async fn authorization_code_is_redeemed_once() {
    let client = Client::new(|_| {}).await;
    assert_eq!(exchange(&client, "ann.1").await.0, 200);
    assert_eq!(exchange(&client, "ann.1").await.0, 401);
    assert_eq!(exchange(&client, "ann.2").await.0, 200);
}

#[tokio::test]
async fn session_of_one_guest_rejects_sign_in_of_another() {
    let client = Client::new(|_| {}).await;
    let (ann, bob) = (
        exchange(&client, "ann").await.1,
        exchange(&client, "bob").await.1,
    );
    let mut guest = client.socket("t").await;
    assert_eq!(sign_in(&mut guest, &ann["jwt"]).await["code"], 200);
    let refused = sign_in(&mut guest, &bob["jwt"]).await;
    assert_eq!(
        (&refused["class"], &refused["code"]),
        (&json!("string"), &json!(403))
    );
    assert_eq!(refused["body"], "Session authentication failed");
    assert_eq!(
        sign_in(&mut guest, &ann["jwt"]).await["body"]["newSession"],
        false
    );
}

#[tokio::test]
async fn signed_out_session_rejects_messages_until_next_sign_in() {
    let client = Client::new(|_| {}).await;
    let tokens = exchange(&client, "ann.1").await.1;
    let mut guest = client.socket("t").await;
    sign_in(&mut guest, &tokens["jwt"]).await;
    let bearer = format!("Bearer {}", tokens["jwt"].as_str().unwrap());
    let revoke = "/api/v2/webdeployments/token/revoke";
    assert_eq!(
        client
            .send("DELETE", revoke, &[("authorization", &bearer)], "")
            .await
            .0,
        204
    );
    assert_eq!(guest.next().await["class"], "LogoutEvent");
    assert_eq!(guest.text("Hello").await["code"], 4007);
    assert_eq!(client.sim.state().conversations, 0);
    let jwt = exchange(&client, "ann.2").await.1["jwt"].clone();
    assert_eq!(sign_in(&mut guest, &jwt).await["code"], 200);
    assert_eq!(guest.text("Hello").await["code"], 200);
}

#[tokio::test]
async fn sign_in_marks_messages_and_second_sign_in_ends_conversation() {
    let client = Client::new(|_| {}).await;
    let bearer = client.sign_in().await;
    let jwt = exchange(&client, "ann").await.1["jwt"].clone();
    let mut guest = client.guest("t").await;
    let echo = guest.text("Hello").await;
    assert_eq!(echo["body"]["metadata"]["authenticated"], Value::Null);
    let path = format!(
        "/api/v2/conversations/messages/{}/details",
        echo["body"]["id"].as_str().unwrap()
    );
    let found = client
        .send("GET", &path, &[("authorization", &bearer)], "")
        .await
        .1;
    let path = format!(
        "/api/v2/conversations/{}",
        found["conversationId"].as_str().unwrap()
    );
    let read = async || {
        client
            .send("GET", &path, &[("authorization", &bearer)], "")
            .await
            .1
    };
    assert_eq!(
        read().await["participants"][0]["authenticated"],
        Value::Null
    );
    sign_in(&mut guest, &jwt).await;
    guest.next().await;
    assert_eq!(
        guest.text("Hello").await["body"]["metadata"]["authenticated"],
        "true"
    );
    assert_eq!(read().await["participants"][0]["authenticated"], true);
    assert_eq!(client.sim.state().queues.values().sum::<u64>(), 1);
    let mut another = client.socket("u").await;
    assert_eq!(
        sign_in(&mut another, &jwt).await["body"]["clearedExistingSession"],
        true
    );
    assert_eq!(
        client.sim.state().queues.values().sum::<u64>(),
        0,
        "the old conversation has no waiting guest"
    );
    assert!(read().await["endTime"].is_string());
}
