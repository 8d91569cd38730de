//! Guest sessions on the WebSocket: conversations, connections, frames, expiry and history.

mod conversations;

use std::time::Duration;

use guestlane_sim::{DEPLOYMENT_ID, Flow, UnknownDeployment};
use serde_json::{Value, json};

use crate::client::{Client, SALES};

#[tokio::test]
async fn session_token_identifies_one_guest_session() {
    let client = Client::new(|_| {}).await;
    let mut guest = client.socket("a").await;
    let new = guest.configure().await;
    assert_eq!(
        (&new["class"], &new["body"]["newSession"]),
        (&json!("SessionResponse"), &json!(true))
    );
    assert_eq!(
        new["body"]["expirationDate"],
        client.clock.now().unix_seconds() + 259_200
    );
    guest.text("Hello").await;
    guest.disconnect().await;
    let mut guest = client.socket("a").await;
    assert_eq!(guest.configure().await["body"]["newSession"], false);
    assert_eq!(guest.text("Hello again").await["code"], 200);
    assert_eq!(client.sim.state().conversations, 1);
    client.guest("b").await.text("Hello").await;
    let state = client.sim.state();
    assert_eq!((state.conversations, state.guest_sessions), (2, 2));
}

#[tokio::test]
async fn a_fourth_connection_closes_the_oldest() {
    let client = Client::new(|_| {}).await;
    let mut guests = Vec::new();
    for _ in 0..4 {
        guests.push(client.guest("t").await);
    }
    let closed = guests[0].next().await;
    assert_eq!(
        (&closed["class"], &closed["body"]),
        (&json!("ConnectionClosedEvent"), &json!({}))
    );
    assert_eq!(guests[0].next_text().await, None);
    assert_eq!(guests[3].text("Hello").await["code"], 200);
    assert_eq!(
        guests[1].next().await["body"]["text"],
        "Hello",
        "all connections of a session hear it"
    );
}

#[tokio::test]
async fn invalid_frames_are_rejected_with_documented_codes() {
    let client = Client::new(|options| options.message_rate = 100).await;
    let mut guest = client.socket("t").await;
    let code = async |guest: &mut crate::guest::Guest, text: String| {
        guest.send_text(text).await;
        let answer = guest.next().await;
        assert_eq!(
            (&answer["class"], &answer["type"]),
            (&json!("string"), &json!("response")),
            "{answer}"
        );
        answer["code"].clone()
    };
    assert_eq!(code(&mut guest, "nonsense".to_owned()).await, 400);
    assert_eq!(code(&mut guest, "[]".to_owned()).await, 400);
    assert_eq!(
        code(
            &mut guest,
            json!({"action": "surprise", "token": "t"}).to_string()
        )
        .await,
        400
    );
    assert_eq!(
        code(&mut guest, json!({"action": "getJwt"}).to_string()).await,
        4020
    );
    assert_eq!(
        code(
            &mut guest,
            json!({"action": "configureSession", "token": "t"}).to_string()
        )
        .await,
        4020
    );
    assert_eq!(
        code(
            &mut guest,
            json!({"action": "getJwt", "token": "t"}).to_string()
        )
        .await,
        4007
    );
    let another = json!({"action": "configureSession", "token": "t", "deploymentId": SALES});
    assert_eq!(code(&mut guest, another.to_string()).await, 400);
    guest.configure().await;
    assert_eq!(
        code(
            &mut guest,
            json!({"action": "getJwt", "token": "u"}).to_string()
        )
        .await,
        4007
    );
    let text = |text: String| {
        json!({"action": "onMessage", "token": "t", "message": {"type": "Text", "text": text}})
            .to_string()
    };
    assert_eq!(code(&mut guest, text("x".repeat(4097))).await, 4011);
    assert_eq!(code(&mut guest, text(String::new())).await, 400);
    let with = |size: usize, place: &str| {
        let channel = json!({"metadata": {"customAttributes": {"a": "x".repeat(size)}}});
        let mut frame =
            json!({"action": "onMessage", "token": "t", "message": {"type": "Text", "text": "hi"}});
        *if place == "new" {
            &mut frame["message"]["channel"]
        } else {
            &mut frame["channel"]
        } = channel;
        frame.to_string()
    };
    assert_eq!(code(&mut guest, with(2048, "new")).await, 4013);
    assert_eq!(client.sim.state().conversations, 0);
    guest.send_text(with(2048, "old")).await;
    assert_eq!(guest.next().await["code"], 200, "the old place is ignored");
    assert_eq!(client.sim.state().conversations, 1);
}

#[tokio::test]
async fn rate_limited_frames_get_429_with_retry_after() {
    let client = Client::new(|_| {}).await;
    let mut guest = client.guest("t").await;
    for _ in 0..2 {
        assert_eq!(guest.text("hi").await["code"], 200);
    }
    let refused = guest.text("hi").await;
    assert_eq!(
        (&refused["class"], &refused["code"]),
        (&json!("TooManyRequestsErrorMessage"), &json!(429))
    );
    assert_eq!(
        (
            &refused["body"]["errorCode"],
            &refused["body"]["retryAfter"]
        ),
        (&json!(4029), &json!(1))
    );
    client.clock.advance(Duration::from_secs(1));
    assert_eq!(guest.text("hi").await["code"], 200);
    let ping = json!({"message": {"type": "Text", "text": "ping"}});
    for code in [200, 200, 429] {
        let answer = guest.ask("echo", ping.clone()).await;
        assert_eq!(answer["code"], code);
        assert_eq!(answer["type"], "response");
    }
    client.clock.advance(Duration::from_secs(60));
    assert_eq!(
        guest.configure().await["code"],
        200,
        "it is one of the sixty"
    );
    for _ in 0..59 {
        assert_eq!(guest.ask("getJwt", json!({})).await["code"], 200);
    }
    assert_eq!(guest.ask("getJwt", json!({})).await["code"], 429);
}

#[tokio::test]
async fn a_session_expires_after_its_last_message() {
    let client = Client::new(|options| options.deployment.session_seconds = 900).await;
    let mut guest = client.guest("t").await;
    client.clock.advance(Duration::from_secs(899));
    assert_eq!(guest.text("still here").await["code"], 200);
    client.clock.advance(Duration::from_secs(899));
    assert_eq!(guest.ask("getJwt", json!({})).await["code"], 200);
    client.clock.advance(Duration::from_secs(1));
    assert_eq!(client.sim.state().queues[&SALES.parse().unwrap()], 1);
    assert_eq!(guest.text("too late").await["class"], "SessionExpiredEvent");
    assert_eq!(
        client.sim.state().queues[&SALES.parse().unwrap()],
        0,
        "the conversation is over, too"
    );
    assert_eq!(guest.configure().await["code"], 4006);
    let mut other = client.guest("u").await;
    other.text("Hello").await;
    let moved = client
        .send("POST", "/_sim/clock", &[], r#"{"advanceSeconds":900}"#)
        .await;
    assert_eq!(moved.0, 200);
    let received = other.next().await;
    assert_eq!(
        (&received["class"], &received["type"]),
        (&json!("SessionExpiredEvent"), &json!("message"))
    );
    assert_eq!(client.sim.state().queues[&SALES.parse().unwrap()], 0);
}

#[tokio::test]
async fn history_requires_a_fresh_jwt_and_lists_newest_first() {
    let client = Client::new(|_| {}).await;
    let bearer = client.sign_in().await;
    let mut guest = client.guest("t").await;
    guest.text("one").await;
    guest.text("two").await;
    let jwt = guest.ask("getJwt", json!({})).await;
    assert_eq!(jwt["body"]["exp"], client.clock.now().unix_seconds() + 60);
    let jwt = format!("Bearer {}", jwt["body"]["jwt"].as_str().unwrap());
    let read = async |bearer: &str, query: &str| {
        client
            .send(
                "GET",
                &format!("/api/v2/webmessaging/messages{query}"),
                &[("authorization", bearer)],
                "",
            )
            .await
    };
    let (status, page) = read(&jwt, "?pageNumber=1&pageSize=1").await;
    assert_eq!(
        (status, &page["total"], &page["pageCount"]),
        (200, &json!(2), &json!(2))
    );
    assert_eq!(page["entities"][0]["text"], "two");
    assert_eq!(
        read(&jwt, "?pageNumber=3&pageSize=1").await.1["entities"],
        json!([])
    );
    assert_eq!(read(&bearer, "").await.1["code"], "bad.credentials");
    let another = client
        .send("GET", "/api/v2/tokens/me", &[("authorization", &jwt)], "")
        .await;
    assert_eq!(another.0, 401, "it opens nothing else");
    client.clock.advance(Duration::from_secs(60));
    assert_eq!(read(&jwt, "").await.1["code"], "credentials.expired");
}

#[tokio::test]
async fn pushed_frames_may_overtake_responses() {
    let client = Client::new(|options| options.pushes_out_of_order = true).await;
    let mut guest = client.socket("t").await;
    assert_eq!(
        guest.configure().await["body"]["events"][0]["eventType"],
        "Typing"
    );
    assert_eq!(guest.next().await["class"], "SessionResponse");
    let first = guest.text("Hello").await;
    assert_eq!(
        (
            &first["body"]["direction"],
            &first["body"]["originatingEntity"]
        ),
        (&json!("Outbound"), &json!("Bot"))
    );
    assert_eq!(guest.next().await["body"]["direction"], "Inbound");
}

#[tokio::test]
async fn upgrade_rejects_foreign_origin_and_unknown_deployment() {
    let client = Client::new(|options| {
        options.deployment.allow_all_domains = false;
        options.deployment.allowed_domains = vec!["example.org".to_owned()];
    });
    let client = client.await;
    let path = format!("/v1?deploymentId={DEPLOYMENT_ID}");
    let status = async |origin| {
        client
            .try_socket("t", &path, origin)
            .await
            .err()
            .map(|status| status.as_u16())
    };
    assert_eq!(status(None).await, Some(403));
    assert_eq!(status(Some("https://evil-example.org")).await, Some(403));
    assert_eq!(status(Some("https://shop.example.org:8443")).await, None);
    assert_eq!(status(Some("http://example.org")).await, None);
    let unknown = format!("/v1?deploymentId={SALES}");
    assert_eq!(
        client.try_socket("t", &unknown, None).await.err().unwrap(),
        400
    );
    assert_eq!(client.send("GET", &path, &[], "").await.0, 426);
    let client =
        Client::new(|options| options.unknown_deployment = UnknownDeployment::Configure).await;
    let mut guest = client
        .try_socket("t", &unknown, None)
        .await
        .unwrap_or_else(|status| panic!("{status}"));
    assert_eq!(
        guest
            .ask("configureSession", json!({"deploymentId": SALES}))
            .await["code"],
        400
    );
}

#[tokio::test]
async fn malformed_messages_are_rejected_and_open_no_conversation() {
    let client = Client::new(|options| options.message_rate = 100).await;
    let mut guest = client.guest("t").await;
    let content =
        |kind: &str, content: Value| json!({"type": kind, "text": "Hello", "content": [content]});
    let event = |event: Value| json!({"type": "Event", "events": [event]});
    let button = |button: Value| {
        content(
            "Structured",
            json!({"contentType": "ButtonResponse", "buttonResponse": button}),
        )
    };
    for message in [
        content("Text", json!({"contentType": "Surprise"})),
        content("Text", json!({})),
        json!({"type": "Text", "text": "Hello", "content": {}}),
        button(Value::Null),
        button(json!({"type": "QuickReply", "text": "Yes"})),
        button(json!({"type": "QuickReply", "payload": "yes"})),
        button(json!({"text": "Yes", "payload": "yes"})),
        event(json!({"eventType": "Surprise"})),
        event(json!({})),
        event(json!({"eventType": "Presence"})),
        event(json!({"eventType": "Presence", "presence": {}})),
        json!({"type": "Text", "text": "Hello", "events": [{"eventType": "Presence"}]}),
        json!({"type": "Message"}),
        json!({"type": "Message", "text": ""}),
    ] {
        let answer = guest.ask("onMessage", json!({"message": message})).await;
        assert_eq!(
            (&answer["class"], &answer["code"]),
            (&json!("string"), &json!(400)),
            "{message}"
        );
    }
    assert_eq!(client.sim.state().conversations, 0);
    let good = button(json!({"type": "QuickReply", "text": "", "payload": "yes"}));
    assert_eq!(
        guest.ask("onMessage", json!({"message": good})).await["code"],
        200
    );
    assert_eq!(client.sim.state().conversations, 1);
}

#[tokio::test]
async fn frames_must_be_text_of_at_most_128_kib() {
    let client = Client::new(|_| {}).await;
    let mut guest = client.guest("t").await;
    let text =
        json!({"action": "onMessage", "token": "t", "message": {"type": "Text", "text": "Hello"}})
            .to_string();
    guest.send_binary(text.into_bytes()).await;
    let answer = guest.next().await;
    assert_eq!(
        (&answer["class"], &answer["code"]),
        (&json!("string"), &json!(400))
    );
    assert_eq!(client.sim.state().conversations, 0);
    guest.send_text(" ".repeat(128 * 1024)).await;
    assert_eq!(
        guest.next().await["code"],
        400,
        "it is read, and is no frame"
    );
    guest.send_text(" ".repeat(128 * 1024 + 1)).await;
    assert_eq!(guest.close_code().await, Some(1009));
}
