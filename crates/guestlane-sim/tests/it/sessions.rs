//! Guest sessions on the WebSocket: conversations, connections, frames, expiry and history.

use std::time::Duration;

use guestlane_sim::{DEPLOYMENT_ID, Flow, UnknownDeployment};
use serde_json::{Value, json};

use crate::client::{Client, SALES};

const SUPPORT: &str = "5e0c0000-0000-4000-8000-000000000002";

async fn details(client: &Client, bearer: &str, message: &str) -> (u16, Value) {
    client
        .send(
            "GET",
            &format!("/api/v2/conversations/messages/{message}/details"),
            &[("authorization", bearer)],
            "",
        )
        .await
}

#[tokio::test]
async fn first_message_opens_a_conversation_in_the_routed_queue() {
    let client = Client::new(|_| {}).await;
    let bearer = client.sign_in().await;
    let mut guest = client.socket("secret-token").await;
    let journey = json!({"customer": {"id": "secret-token", "idType": "cookie"}});
    let configured = guest
        .ask(
            "configureSession",
            json!({"deploymentId": DEPLOYMENT_ID, "journeyContext": journey}),
        )
        .await;
    assert_eq!(configured["code"], 200);
    assert_eq!(
        client.sim.state().conversations,
        0,
        "a session is no conversation"
    );
    let echo = guest
        .text_with(json!({"routingTarget": SUPPORT, "guestId": "ann"}))
        .await;
    assert_eq!(
        (&echo["type"], &echo["class"], &echo["tracingId"]),
        (&json!("message"), &json!("StructuredMessage"), &json!("t"))
    );
    assert_eq!(
        (&echo["body"]["direction"], &echo["body"]["text"]),
        (&json!("Inbound"), &json!("Hello"))
    );
    let id = echo["body"]["id"].as_str().unwrap();
    assert_eq!(id.len(), 32);
    assert_eq!(guest.text("again").await["code"], 200);
    let (status, found) = details(&client, &bearer, id).await;
    assert_eq!(
        (status, &found["messengerType"], &found["direction"]),
        (200, &json!("webmessaging"), &json!("inbound"))
    );
    let path = format!(
        "/api/v2/conversations/{}",
        found["conversationId"].as_str().unwrap()
    );
    let (_, shown) = client
        .send("GET", &path, &[("authorization", &bearer)], "")
        .await;
    let part = |purpose: &str| {
        let all = shown["participants"].as_array().unwrap();
        all.iter()
            .find(|part| part["purpose"] == purpose)
            .cloned()
            .unwrap()
    };
    assert_eq!(
        part("customer")["attributes"],
        json!({"routingTarget": SUPPORT, "guestId": "ann"})
    );
    assert_eq!(
        part("customer")["messages"][0]["messages"][0]["messageId"],
        id
    );
    assert!(part("workflow")["endTime"].is_string());
    assert_eq!(
        (&part("acd")["queueId"], &part("acd")["state"]),
        (&json!(SUPPORT), &json!("connected"))
    );
    let state = client.sim.state();
    assert_eq!(
        (
            state.conversations,
            state.guests,
            state.sockets,
            state.guest_sessions
        ),
        (1, 1, 1, 1)
    );
    assert_eq!(
        (
            state.repeated_first_messages,
            state.queues[&SUPPORT.parse().unwrap()]
        ),
        (1, 1)
    );
    let journal = serde_json::to_string(&client.sim.journal()).unwrap();
    assert!(
        !journal.contains("secret-token") && journal.contains("FRAME"),
        "the token is a secret"
    );
}

#[tokio::test]
async fn unusable_routing_target_falls_back_to_the_first_queue() {
    let client = Client::new(|options| options.flow = Flow::Ignores).await;
    assert_eq!(
        client
            .guest("t")
            .await
            .text_with(json!({"routingTarget": SUPPORT}))
            .await["code"],
        200
    );
    assert_eq!(client.sim.state().queues[&SALES.parse().unwrap()], 1);
    let client = Client::new(|_| {}).await;
    assert_eq!(
        client
            .guest("t")
            .await
            .text_with(json!({"routingTarget": "nonsense"}))
            .await["code"],
        200
    );
    assert_eq!(client.sim.state().queues[&SALES.parse().unwrap()], 1);
}

#[tokio::test]
async fn message_details_appear_after_a_delay_only_for_known_messages() {
    let client = Client::new(|options| options.details_delay = Duration::from_secs(2)).await;
    let bearer = client.sign_in().await;
    let echo = client.guest("t").await.text("Hello").await;
    let id = echo["body"]["id"].as_str().unwrap();
    assert_eq!(details(&client, &bearer, id).await.1["code"], "not.found");
    client.clock.advance(Duration::from_secs(2));
    assert_eq!(details(&client, &bearer, id).await.0, 200);
    assert_eq!(
        details(&client, &bearer, "ffffffffffffffffffffffffffffffff")
            .await
            .0,
        404
    );
}

#[tokio::test]
async fn join_opens_a_conversation_only_if_configured() {
    let client = Client::new(|_| {}).await;
    let bearer = client.sign_in().await;
    let echo = client.guest("t").await.presence("Join").await;
    assert_eq!(
        details(&client, &bearer, echo["body"]["id"].as_str().unwrap())
            .await
            .0,
        200
    );
    let client = Client::new(|options| options.join_opens = false).await;
    let bearer = client.sign_in().await;
    let mut guest = client.guest("t").await;
    let echo = guest.presence("Join").await;
    assert_eq!(
        details(&client, &bearer, echo["body"]["id"].as_str().unwrap())
            .await
            .0,
        404
    );
    assert_eq!(client.sim.state().conversations, 0);
    guest.text("Hello").await;
    let state = client.sim.state();
    assert_eq!((state.conversations, state.repeated_first_messages), (1, 0));
}

#[tokio::test]
async fn conversation_is_attributed_when_the_guest_id_arrives_later() {
    let client = Client::new(|_| {}).await;
    for (token, guests) in [("a", 1), ("b", 1), ("c", 2)] {
        let mut guest = client.guest(token).await;
        guest.presence("Join").await;
        guest
            .text_with(json!({"guestId": if token == "c" { "bob" } else { "ann" }}))
            .await;
        assert_eq!(client.sim.state().guests, guests);
    }
    let state = client.sim.state();
    assert_eq!(
        (state.conversations, state.duplicates.conversations),
        (3, 1)
    );
    assert_eq!(state.duplicates.guests[0].guest_id, "ann");
}

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
async fn new_conversation_after_agent_disconnect_needs_closed_session() {
    let client = Client::new(|_| {}).await;
    let bearer = client.sign_in().await;
    let mut guest = client.guest("t").await;
    let echo = guest.text("Hello").await;
    let found = details(&client, &bearer, echo["body"]["id"].as_str().unwrap())
        .await
        .1;
    let conversation = &found["conversationId"];
    let agent = async |body: Value| {
        client
            .send("POST", "/_sim/agent", &[], &body.to_string())
            .await
            .0
    };
    assert_eq!(
        agent(json!({"say": "Good morning", "conversationId": conversation})).await,
        204
    );
    let pushed = guest.next().await;
    assert_eq!(
        (
            &pushed["body"]["originatingEntity"],
            &pushed["body"]["direction"]
        ),
        (&json!("Human"), &json!("Outbound"))
    );
    assert_eq!(
        client.sim.state().queues[&SALES.parse().unwrap()],
        0,
        "no session waits"
    );
    assert_eq!(agent(json!({"disconnect": conversation})).await, 204);
    assert_eq!(guest.next().await["body"]["metadata"]["readOnly"], "true");
    assert_eq!(
        agent(json!({"say": "one more thing", "conversationId": conversation})).await,
        404
    );
    assert_eq!(guest.text("wait").await["code"], 409);
    let anew = json!({"deploymentId": DEPLOYMENT_ID, "startNew": true});
    let early = guest.ask("configureSession", anew.clone()).await;
    assert_eq!(
        (&early["body"]["readOnly"], &early["body"]["newSession"]),
        (&json!(true), &json!(false))
    );
    let closed = guest
        .ask("closeSession", json!({"closeAllConnections": true}))
        .await;
    assert_eq!(
        closed["body"],
        json!({"connected": false, "newSession": false, "readOnly": true})
    );
    let new = guest.ask("configureSession", anew).await;
    assert_eq!(
        (&new["body"]["readOnly"], &new["body"]["newSession"]),
        (&json!(false), &json!(true))
    );
    client.clock.advance(Duration::from_secs(1));
    assert_eq!(guest.text("Hello again").await["code"], 200);
    assert_eq!(client.sim.state().conversations, 2);
}

#[tokio::test]
async fn clear_closes_the_connection_and_next_session_is_new() {
    let client = Client::new(|_| {}).await;
    let mut guest = client.guest("t").await;
    guest.text("Hello").await;
    assert_eq!(
        guest.presence("Clear").await["body"]["events"][0]["presence"]["type"],
        "Clear"
    );
    assert_eq!(guest.next().await["class"], "SessionClearedEvent");
    assert_eq!(guest.next().await["class"], "ConnectionClosedEvent");
    assert_eq!(guest.next_text().await, None);
    assert_eq!(
        client.socket("t").await.configure().await["body"]["newSession"],
        true
    );
    let client = Client::new(|options| options.deployment.clear = false).await;
    assert_eq!(client.guest("t").await.presence("Clear").await["code"], 403);
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

#[tokio::test]
async fn agent_message_extends_the_session_and_typing_does_not() {
    let client = Client::new(|options| options.deployment.session_seconds = 900).await;
    let bearer = client.sign_in().await;
    let mut guest = client.guest("t").await;
    let echo = guest.text("Hello").await;
    let found = details(&client, &bearer, echo["body"]["id"].as_str().unwrap())
        .await
        .1;
    client.clock.advance(Duration::from_secs(800));
    let agent_message =
        json!({"say": "Good morning", "conversationId": found["conversationId"]}).to_string();
    assert_eq!(
        client
            .send("POST", "/_sim/agent", &[], &agent_message)
            .await
            .0,
        204
    );
    guest.next().await;
    client.clock.advance(Duration::from_secs(800));
    let typing = json!({"message": {"type": "Event", "events": [{"eventType": "Typing", "typing": {"type": "On"}}]}});
    assert_eq!(
        guest.ask("onMessage", typing).await["code"],
        200,
        "still alive"
    );
    client.clock.advance(Duration::from_secs(100));
    assert_eq!(guest.text("too late").await["class"], "SessionExpiredEvent");
    assert_eq!(
        client
            .send("POST", "/_sim/agent", &[], &agent_message)
            .await
            .0,
        404,
        "no session exists"
    );
    let path = format!(
        "/api/v2/conversations/{}",
        found["conversationId"].as_str().unwrap()
    );
    let shown = client
        .send("GET", &path, &[("authorization", &bearer)], "")
        .await
        .1;
    assert!(shown["endTime"].is_string() && shown["participants"][0]["endTime"].is_string());
}

#[tokio::test]
async fn join_marks_the_session_as_auto_started() {
    let client = Client::new(|_| {}).await;
    let mut guest = client.guest("a").await;
    guest.text("Hello").await;
    assert_eq!(guest.configure().await["body"]["autoStarted"], false);
    guest.presence("Join").await;
    assert_eq!(guest.configure().await["body"]["autoStarted"], true);
}
