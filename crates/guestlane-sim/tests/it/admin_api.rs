//! The admin API under `/_sim/…`: what it returns, and which secrets it must not return.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::Client;

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const JSON: (&str, &str) = ("content-type", "application/json");

fn last_body(client: &Client) -> String {
    client.sim.journal().last().unwrap().body.clone()
}

#[tokio::test]
async fn excessive_clock_advance_is_refused_and_simulator_stays_up() {
    let client = Client::new(|_| {}).await;
    let advance = async |seconds: u64| {
        client
            .send(
                "POST",
                "/_sim/clock",
                &[],
                &json!({"advanceSeconds": seconds}).to_string(),
            )
            .await
            .0
    };
    assert_eq!(advance(100 * 365 * 24 * 3600 + 1).await, 400);
    assert_eq!(advance(u64::MAX).await, 400);
    for _ in 0..100 {
        assert_eq!(advance(100 * 365 * 24 * 3600).await, 200);
    }
    client.sim.advance_clock(Duration::MAX);
    client.sign_in().await;
    client.guest("t").await;
}

#[tokio::test]
async fn journal_masks_credentials_and_keeps_the_auth_scheme() {
    let client = Client::new(|_| {}).await;
    for path in [
        "/api/v2/tokens/me",
        "/oauth/token",
        "/nowhere",
        "/api/v2/conversations/messaging",
    ] {
        for (given, shown) in [
            ("Basic c2VjcmV0", "Basic ***"),
            ("Bearer secret", "Bearer ***"),
            ("bearer secret", "bearer ***"),
            ("secret", "***"),
            ("secret of mine", "***"),
        ] {
            client
                .send("GET", path, &[("authorization", given)], "")
                .await;
            assert_eq!(
                client.sim.journal().last().unwrap().headers["authorization"],
                shown,
                "{path}"
            );
        }
    }
}

#[tokio::test]
async fn journal_masks_client_secret_in_every_encoding() {
    let client = Client::new(|_| {}).await;
    for path in ["/oauth/token", "/api/v2/oauth/token", "/login/oauth/token"] {
        for body in [
            "grant_type=client_credentials&client_secret=hush",
            "client_secret=a&client_secret=hush",
            "x_client_secret=1&client%5Fsecret=hush",
            "%63lient_secret=hush&a=b",
            "Client_Secret=hush",
            "a=b\r\nclient_secret=hush",
            r#"{"client_secret":"hush"}"#,
            r#"{"client\u005fsecret":"hush"}"#,
            "Content-Disposition: form-data; name=\"client_secret\"\r\n\r\nhush",
        ] {
            client.send("POST", path, &[FORM], body).await;
            assert!(
                !last_body(&client).contains("hush"),
                "{path}: {body}: {}",
                last_body(&client)
            );
        }
    }
    client
        .send(
            "POST",
            "/oauth/token",
            &[FORM],
            "grant_type=a%20b&client_secret=hush&client_id=c",
        )
        .await;
    assert_eq!(
        last_body(&client),
        "grant_type=a%20b&client_secret=***&client_id=c",
        "the rest is as it was sent"
    );
    client
        .send("POST", "/oauth/token?client_secret=hush", &[FORM], "")
        .await;
    assert_eq!(
        client.sim.journal().last().unwrap().path,
        "/oauth/token?client_secret=***"
    );
}

#[tokio::test]
async fn journal_masks_guest_tokens_and_codes() {
    let client = Client::new(|_| {}).await;
    let secrets = json!({
        "deploymentId": "d", "refreshToken": "hush", "jwt": "hush",
        "oauth": {"code": "hush", "idToken": "hush", "codeVerifier": "hush", "redirectUri": "https://example.org"},
    });
    for path in ["oauthcodegrantjwtexchange", "refresh", "revoke"] {
        client
            .send(
                "POST",
                &format!("/api/v2/webdeployments/token/{path}"),
                &[JSON],
                &secrets.to_string(),
            )
            .await;
        let shown: Value = serde_json::from_str(&last_body(&client)).unwrap();
        assert!(!shown.to_string().contains("hush"), "{shown}");
        assert_eq!(
            (&shown["deploymentId"], &shown["oauth"]["redirectUri"]),
            (&json!("d"), &json!("https://example.org"))
        );
    }
    client
        .send(
            "POST",
            "/api/v2/webdeployments/token/refresh",
            &[JSON],
            r#"{"refreshToken":"hush""#,
        )
        .await;
    assert_eq!(
        last_body(&client),
        "***",
        "what cannot be read is not shown"
    );
    client.send("GET", "/_upload/a1?sig=hush", &[], "").await;
    assert_eq!(
        client.sim.journal().last().unwrap().path,
        "/_upload/a1?sig=***"
    );
}

#[tokio::test]
async fn journal_truncates_long_bodies_and_stays_bounded() {
    let client = Client::new(|_| {}).await;
    client
        .send("POST", "/crm/events", &[], &"é".repeat(300_000))
        .await;
    let body = last_body(&client);
    assert_eq!(
        (body.len(), body.ends_with('…')),
        (16 * 1024 + '…'.len_utf8(), true)
    );
    client
        .send("POST", "/crm/events", &[], &"x".repeat(16 * 1024))
        .await;
    assert_eq!(last_body(&client).len(), 16 * 1024, "what fits is whole");
    for _ in 0..2100 {
        client
            .send("POST", "/crm/events", &[], &"x".repeat(16 * 1024))
            .await;
    }
    let journal = client.sim.journal();
    assert!(
        journal.len() < 2050 && journal.last().unwrap().n == 2102,
        "{} are kept",
        journal.len()
    );
}
