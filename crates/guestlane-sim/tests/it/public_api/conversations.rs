//! Conversations of the public platform: counted, linked, transferred.

use super::*;

const SUPPORT: &str = "5e0c0000-0000-4000-8000-000000000002";

#[tokio::test]
async fn guest_is_counted_once_across_surfaces_and_contact_is_linked() {
    let client = Client::new(|options| options.link_delay = Duration::from_secs(1)).await;
    let bearer = client.sign_in().await;
    let contact = client
        .json(&bearer, "POST", ENRICH, &upsert("ann", json!({})))
        .await
        .1;
    let echo = client
        .guest("t")
        .await
        .text_with(json!({"guestId": "ann", "routingTarget": SUPPORT}))
        .await;
    let state = client.sim.state();
    assert_eq!(
        (
            state.contacts,
            state.conversations,
            state.guests,
            state.linked
        ),
        (1, 1, 1, 0)
    );
    let message = echo["body"]["id"].as_str().unwrap();
    let found = client.details(&bearer, message).await.1;
    let conversation = found["conversationId"].as_str().unwrap();
    let read = async || {
        client
            .get(&bearer, &format!("/api/v2/conversations/{conversation}"))
            .await
            .1
    };
    let shown = read().await;
    let link = format!("/api/v2/externalcontacts/conversations/{conversation}");
    let good = json!({
        "externalContactId": contact["id"], "conversationId": conversation, "mediaType": "MESSAGE",
        "communicationId": shown["participants"][0]["messages"][0]["id"],
    });
    for (field, value, status) in [
        ("conversationId", json!(UNKNOWN_ID), 400),
        ("mediaType", json!("message"), 400),
        (
            "communicationId",
            shown["participants"][0]["id"].clone(),
            400,
        ),
        ("externalContactId", json!(UNKNOWN_ID), 404),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        assert_eq!(
            client.json(&bearer, "PUT", &link, &bad).await.0,
            status,
            "{field}"
        );
    }
    assert_eq!(
        client.json(&bearer, "PUT", &link, &good).await,
        (202, Value::Null)
    );
    assert_eq!(
        read().await["participants"][0]["externalContactId"],
        Value::Null,
        "it is processed later"
    );
    client.clock.advance(Duration::from_secs(1));
    assert_eq!(
        read().await["participants"][0]["externalContactId"],
        contact["id"]
    );
    assert_eq!(client.sim.state().linked, 1);
    let other = client
        .json(&bearer, "POST", ENRICH, &upsert("bob", json!({})))
        .await
        .1;
    let mut again = good.clone();
    again["externalContactId"] = other["id"].clone();
    assert_eq!(client.json(&bearer, "PUT", &link, &again).await.0, 202);
    assert_eq!(
        read().await["participants"][0]["externalContactId"],
        contact["id"],
        "the old one, until the new one is seen"
    );
    client.clock.advance(Duration::from_secs(1));
    assert_eq!(
        read().await["participants"][0]["externalContactId"],
        other["id"]
    );
}

#[tokio::test]
async fn conversation_is_transferred_once_by_its_waiting_participant() {
    let client = Client::new(|_| {}).await;
    let bearer = client.sign_in().await;
    let echo = client.guest("t").await.text("Hello").await;
    let message = echo["body"]["id"].as_str().unwrap();
    let found = client.details(&bearer, message).await.1;
    let path = format!(
        "/api/v2/conversations/{}",
        found["conversationId"].as_str().unwrap()
    );
    let shown = client.get(&bearer, &path).await.1;
    let id = |at: usize| shown["participants"][at]["id"].as_str().unwrap().to_owned();
    let transfer = async |participant: &str, body: Value| {
        client
            .json(
                &bearer,
                "POST",
                &format!("{path}/participants/{participant}/replace/queue"),
                &body,
            )
            .await
            .0
    };
    let support = json!({"queueId": SUPPORT});
    assert_eq!(
        transfer(&id(0), support.clone()).await,
        400,
        "the customer stays"
    );
    assert_eq!(
        transfer(&id(1), support.clone()).await,
        409,
        "the flow is over"
    );
    assert_eq!(transfer(UNKNOWN_ID, support.clone()).await, 404);
    assert_eq!(transfer(&id(2), json!({"queueId": UNKNOWN_ID})).await, 404);
    assert_eq!(transfer(&id(2), json!({"queueName": "Nowhere"})).await, 400);
    assert_eq!(transfer(&id(2), json!({})).await, 400);
    assert_eq!(transfer(&id(2), json!({"queueName": "Support"})).await, 202);
    assert_eq!(transfer(&id(2), support).await, 409);
    let state = client.sim.state();
    assert_eq!(
        (
            state.transfers,
            state.queues[&SUPPORT.parse().unwrap()],
            state.queues[&SALES.parse().unwrap()]
        ),
        (1, 1, 0)
    );
    let attributes = format!("{path}/participants/{}/attributes", id(0));
    let set = client
        .json(
            &bearer,
            "PATCH",
            &attributes,
            &json!({"attributes": {"tier": "gold"}}),
        )
        .await;
    assert_eq!(set, (202, Value::Null));
    assert_eq!(
        client
            .json(
                &bearer,
                "PATCH",
                &attributes,
                &json!({"attributes": {"tier": 5}})
            )
            .await
            .0,
        400
    );
    let of_acd = format!("{path}/participants/{}/attributes", id(2));
    assert_eq!(
        client
            .json(
                &bearer,
                "PATCH",
                &of_acd,
                &json!({"attributes": {"tier": "lead"}})
            )
            .await
            .0,
        202
    );
    let unknown_participant = format!("{path}/participants/{UNKNOWN_ID}/attributes");
    assert_eq!(
        client
            .json(
                &bearer,
                "PATCH",
                &unknown_participant,
                &json!({"attributes": {"tier": "tin"}})
            )
            .await
            .0,
        404
    );
    let shown = client.get(&bearer, &path).await.1;
    let tiers: Vec<_> = (0..4)
        .map(|at| shown["participants"][at]["attributes"]["tier"].clone())
        .collect();
    assert_eq!(
        tiers,
        [json!("gold"), Value::Null, json!("lead"), Value::Null],
        "each has its own"
    );
}

#[tokio::test]
async fn transferred_conversation_gets_another_agent() {
    let client = Client::new(|_| {}).await;
    let bearer = client.sign_in().await;
    let echo = client.guest("t").await.text("Hello").await;
    let message = echo["body"]["id"].as_str().unwrap();
    let found = client.details(&bearer, message).await.1;
    let path = format!(
        "/api/v2/conversations/{}",
        found["conversationId"].as_str().unwrap()
    );
    let agent_message =
        json!({"say": "Good morning", "conversationId": found["conversationId"]}).to_string();
    let waiting = |queue: &str| client.sim.state().queues[&queue.parse().unwrap()];
    for _ in 0..2 {
        assert_eq!(
            client
                .send("POST", "/_sim/agent", &[], &agent_message)
                .await
                .0,
            204
        );
    }
    let shown = client.get(&bearer, &path).await.1;
    assert_eq!(
        shown["participants"].as_array().unwrap().len(),
        4,
        "one agent says two things"
    );
    assert_eq!(shown["participants"][3]["purpose"], "agent");
    let transfer = format!(
        "{path}/participants/{}/replace/queue",
        shown["participants"][3]["id"].as_str().unwrap()
    );
    assert_eq!(
        client
            .json(&bearer, "POST", &transfer, &json!({"queueId": SUPPORT}))
            .await
            .0,
        202
    );
    assert_eq!((waiting(SALES), waiting(SUPPORT)), (0, 1));
    assert_eq!(
        client
            .send("POST", "/_sim/agent", &[], &agent_message)
            .await
            .0,
        204
    );
    assert_eq!((waiting(SALES), waiting(SUPPORT)), (0, 0));
    let shown = client.get(&bearer, &path).await.1;
    assert_eq!(
        (
            &shown["participants"][5]["purpose"],
            &shown["participants"][5]["queueId"]
        ),
        (&json!("agent"), &json!(SUPPORT))
    );
}

fn open_message(id: &str) -> Value {
    json!({
        "channel": {
            "from": {"id": "guest-42", "idType": "Opaque"}, "messageId": id, "time": "2026-07-01T10:00:00.000Z",
            "metadata": {"customAttributes": {"guestId": "ann", "routingTarget": SUPPORT}},
        },
        "text": "Hello",
    })
}

#[tokio::test]
async fn open_messages_of_one_sender_share_a_conversation() {
    let client = Client::new(|_| {}).await;
    let bearer = client.sign_in().await;
    let path = format!("/api/v2/conversations/messages/{INTEGRATION_ID}/inbound/open/message");
    let prefetch = format!("{path}?prefetchConversationId=true");
    let (status, first) = client
        .json(&bearer, "POST", &prefetch, &open_message("m1"))
        .await;
    assert_eq!(status, 200);
    assert_eq!(
        client
            .json(&bearer, "POST", &prefetch, &open_message("m2"))
            .await
            .1["conversationId"],
        first["conversationId"]
    );
    assert_eq!(
        client
            .json(&bearer, "POST", &path, &open_message("m1"))
            .await
            .1["conversationId"],
        Value::Null
    );
    let state = client.sim.state();
    assert_eq!(
        (
            state.conversations,
            state.guests,
            state.repeated_first_messages
        ),
        (1, 1, 2)
    );
    let mut lower_case = open_message("m1");
    lower_case["channel"]["from"]["idType"] = json!("opaque");
    assert_eq!(
        client.json(&bearer, "POST", &path, &lower_case).await.0,
        200,
        "the platform took `email`"
    );
    assert_eq!(state.queues[&SUPPORT.parse().unwrap()], 1);
    let details = format!(
        "/api/v2/conversations/messages/{}/details",
        first["id"].as_str().unwrap()
    );
    let found = client.get(&bearer, &details).await.1;
    assert_eq!(
        (&found["conversationId"], &found["providerMessageId"]),
        (&first["conversationId"], &json!("m1"))
    );
    let another = format!("/api/v2/conversations/messages/{UNKNOWN_ID}/inbound/open/message");
    assert_eq!(
        client
            .json(&bearer, "POST", &another, &open_message("m1"))
            .await
            .0,
        404
    );
    for (pointer, value) in [
        ("/channel/from/id", json!("")),
        ("/channel/from/idType", json!("Cookie")),
        ("/channel/time", json!("now")),
        (
            "/channel/metadata/customAttributes",
            json!({"a": {"b": "c"}}),
        ),
        ("/text", json!("")),
    ] {
        let mut bad = open_message("m3");
        *bad.pointer_mut(pointer).unwrap() = value;
        assert_eq!(
            client.json(&bearer, "POST", &path, &bad).await.0,
            400,
            "{pointer}"
        );
    }
}

#[tokio::test]
async fn prefetch_and_message_deduplication_are_optional() {
    let client =
        Client::new(|options| (options.prefetch, options.dedupe_open_messages) = (false, true))
            .await;
    let bearer = client.sign_in().await;
    let path = format!(
        "/api/v2/conversations/messages/{INTEGRATION_ID}/inbound/open/message?prefetchConversationId=true"
    );
    let first = client
        .json(&bearer, "POST", &path, &open_message("m1"))
        .await;
    assert_eq!(first.1["conversationId"], Value::Null);
    assert_eq!(
        client
            .json(&bearer, "POST", &path, &open_message("m1"))
            .await,
        first
    );
    assert_eq!(client.sim.state().repeated_first_messages, 0);
}
