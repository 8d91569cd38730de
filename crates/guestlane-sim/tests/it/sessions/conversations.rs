//! The conversations of guest sessions.

use super::*;

const SUPPORT: &str = "5e0c0000-0000-4000-8000-000000000002";

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
    let (status, found) = client.details(&bearer, id).await;
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
    assert_eq!(client.details(&bearer, id).await.1["code"], "not.found");
    client.clock.advance(Duration::from_secs(2));
    assert_eq!(client.details(&bearer, id).await.0, 200);
    assert_eq!(
        client
            .details(&bearer, "ffffffffffffffffffffffffffffffff")
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
        client
            .details(&bearer, echo["body"]["id"].as_str().unwrap())
            .await
            .0,
        200
    );
    let client = Client::new(|options| options.join_opens = false).await;
    let bearer = client.sign_in().await;
    let mut guest = client.guest("t").await;
    let echo = guest.presence("Join").await;
    assert_eq!(
        client
            .details(&bearer, echo["body"]["id"].as_str().unwrap())
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
async fn new_conversation_after_agent_disconnect_needs_closed_session() {
    let client = Client::new(|_| {}).await;
    let bearer = client.sign_in().await;
    let mut guest = client.guest("t").await;
    let echo = guest.text("Hello").await;
    let found = client
        .details(&bearer, echo["body"]["id"].as_str().unwrap())
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
async fn agent_message_extends_the_session_and_typing_does_not() {
    let client = Client::new(|options| options.deployment.session_seconds = 900).await;
    let bearer = client.sign_in().await;
    let mut guest = client.guest("t").await;
    let echo = guest.text("Hello").await;
    let found = client
        .details(&bearer, echo["body"]["id"].as_str().unwrap())
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
