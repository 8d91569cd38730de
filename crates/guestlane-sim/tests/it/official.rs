//! The public platform's routes: validation, contacts, conversations, routing and open messages.

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
const SUPPORT: &str = "5e0c0000-0000-4000-8000-000000000002";

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
async fn contact_create_trims_fields_and_is_not_idempotent() {
    let client = Client::new(|_| {}).await;
    let bearer = client.sign_in().await;
    let contact = json!({"firstName": " Ada ", "personalEmail": "ada@example.org", "cellPhone": {"display": "+31 20 555 0100"}});
    let (status, made) = client.json(&bearer, "POST", CONTACTS, &contact).await;
    assert_eq!((status, &made["firstName"]), (200, &json!("Ada")));
    assert_eq!(made["cellPhone"]["e164"], "+31205550100");
    let path = format!("{CONTACTS}/{}", made["id"].as_str().unwrap());
    assert_eq!(client.get(&bearer, &path).await, (200, made));
    assert_eq!(
        client
            .get(&bearer, &format!("{CONTACTS}/{UNKNOWN_ID}"))
            .await
            .0,
        404
    );
    assert_eq!(
        client.json(&bearer, "POST", CONTACTS, &contact).await.0,
        200
    );
    let state = client.sim.state();
    assert_eq!(
        (state.contacts, state.guests, state.duplicates.contacts),
        (2, 1, 1)
    );
    assert_eq!(state.duplicates.guests[0].guest_id, "ada@example.org");
}

#[tokio::test]
async fn an_external_id_belongs_to_one_contact() {
    let client = Client::new(|_| {}).await;
    let bearer = client.sign_in().await;
    let contact =
        json!({"externalIds": [{"externalSource": {"id": EXTERNAL_SOURCE_ID}, "value": "ann"}]});
    assert_eq!(
        client.json(&bearer, "POST", CONTACTS, &contact).await.0,
        200
    );
    let (status, refused) = client.json(&bearer, "POST", CONTACTS, &contact).await;
    assert_eq!((status, &refused["code"]), (409, &json!("conflict")));
    assert_eq!(client.sim.state().contacts, 1);
}

#[tokio::test]
async fn public_contact_is_validated_field_by_field() {
    let client = Client::new(|options| options.quota = None).await;
    let bearer = client.sign_in().await;
    let id = |source: &str, value: &str| json!({"externalSource": {"id": source}, "value": value});
    let source = EXTERNAL_SOURCE_ID.to_string();
    let bad = [
        json!([]),
        json!({"firstName": 5}),
        json!({"firstName": "x".repeat(1001)}),
        json!({"workEmail": "nobody"}),
        json!({"workEmail": "no body@example.org"}),
        json!({"workEmail": format!("{}@example.org", "x".repeat(250))}),
        json!({"cellPhone": "+31"}),
        json!({"cellPhone": {"display": "1".repeat(513)}}),
        json!({"externalSystemUrl": "shop"}),
        json!({"externalSystemUrl": format!("https://example.org/{}", "x".repeat(1000))}),
        json!({"externalIds": (0..11).map(|n| id(&source, &n.to_string())).collect::<Vec<_>>()}),
        json!({"externalIds": [id(&source, &"x".repeat(256))]}),
        json!({"externalIds": [id(UNKNOWN_ID, "ann")]}),
    ];
    for contact in bad {
        let (status, answer) = client.json(&bearer, "POST", CONTACTS, &contact).await;
        assert!([400, 422].contains(&status), "{contact}: {answer}");
    }
    assert_eq!(client.sim.state().contacts, 0);
    assert_eq!(
        client.json(&bearer, "POST", CONTACTS, &json!({})).await.0,
        200,
        "no field is required"
    );
    let plain = client
        .send("POST", CONTACTS, &[("authorization", &bearer)], "{}")
        .await;
    assert_eq!(plain.1["code"], "unsupported.media.type");
}

#[tokio::test]
async fn upsert_inserts_first_and_updates_afterwards() {
    let client = Client::new(|_| {}).await;
    let bearer = client.sign_in().await;
    let dry = format!("{ENRICH}?dryRun=true");
    let (status, shown) = client
        .json(
            &bearer,
            "POST",
            &dry,
            &upsert("ann", json!({"firstName": "Ann"})),
        )
        .await;
    assert_eq!(
        (status, &shown["firstName"], &shown["id"]),
        (201, &json!("Ann"), &Value::Null)
    );
    assert_eq!(client.sim.state().contacts, 0, "a dry run changes nothing");
    let (status, made) = client
        .json(
            &bearer,
            "POST",
            ENRICH,
            &upsert("ann", json!({"firstName": "Ann"})),
        )
        .await;
    assert_eq!(status, 201);
    let (status, again) = client
        .json(
            &bearer,
            "POST",
            ENRICH,
            &upsert("ann", json!({"lastName": "Guest"})),
        )
        .await;
    assert_eq!((status, &again["id"]), (200, &made["id"]));
    assert_eq!(
        (&again["firstName"], &again["lastName"]),
        (&json!("Ann"), &json!("Guest"))
    );
    let lookup = "/api/v2/externalcontacts/identifierlookup/contacts";
    assert_eq!(
        client
            .json(&bearer, "POST", lookup, &external_id("ann"))
            .await
            .1["id"],
        made["id"]
    );
    assert_eq!(
        client
            .json(&bearer, "POST", lookup, &external_id("bob"))
            .await
            .0,
        404
    );
    let action = |action: &str, guest: &str| json!({"matchingIdentifiers": [external_id(guest)], "action": action});
    assert_eq!(
        client
            .json(&bearer, "POST", ENRICH, &action("Insert", "ann"))
            .await
            .0,
        409
    );
    assert_eq!(
        client
            .json(&bearer, "POST", ENRICH, &action("Update", "bob"))
            .await
            .0,
        404
    );
    assert_eq!(
        client
            .json(&bearer, "POST", ENRICH, &action("Surprise", "ann"))
            .await
            .0,
        400
    );
    assert_eq!(
        client
            .json(
                &bearer,
                "POST",
                ENRICH,
                &json!({"matchingIdentifiers": [], "action": "Upsert"})
            )
            .await
            .0,
        400
    );
    let nowhere = json!({"type": "ExternalId", "value": "ann"});
    let body = json!({"matchingIdentifiers": [nowhere], "action": "Upsert"});
    assert_eq!(
        client.json(&bearer, "POST", ENRICH, &body).await.0,
        400,
        "an external id is one of a source"
    );
    assert_eq!(client.json(&bearer, "POST", lookup, &nowhere).await.0, 400);
    let state = client.sim.state();
    assert_eq!(
        (state.contacts, state.guests, state.duplicates.contacts),
        (1, 1, 0)
    );
}

#[tokio::test]
async fn upsert_matching_two_contacts_merges_them() {
    let client = Client::new(|_| {}).await;
    let bearer = client.sign_in().await;
    let first = client
        .json(
            &bearer,
            "POST",
            ENRICH,
            &upsert("ann", json!({"firstName": "Ann"})),
        )
        .await
        .1;
    let email = json!({"type": "Email", "value": "Ann@example.org"});
    let other =
        json!({"matchingIdentifiers": [email], "action": "Upsert", "contact": {"title": "Dr"}});
    let second = client.json(&bearer, "POST", ENRICH, &other).await.1;
    assert_eq!(client.sim.state().contacts, 2);
    let update = json!({"matchingIdentifiers": [external_id("ann"), email], "action": "Update"});
    assert_eq!(
        client.json(&bearer, "POST", ENRICH, &update).await.0,
        409,
        "an update is of one contact"
    );
    assert_eq!(client.sim.state().contacts, 2);
    let both = json!({"matchingIdentifiers": [external_id("ann"), email], "action": "Upsert", "contact": {}});
    let (status, merged) = client.json(&bearer, "POST", ENRICH, &both).await;
    assert_eq!(
        (status, &merged["id"], &merged["title"]),
        (200, &first["id"], &json!("Dr"))
    );
    let state = client.sim.state();
    assert_eq!((state.contacts, state.guests), (1, 1));
    let path = format!("{CONTACTS}/{}", second["id"].as_str().unwrap());
    assert_eq!(client.get(&bearer, &path).await.1["id"], first["id"]);
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
    let found = client
        .get(
            &bearer,
            &format!("/api/v2/conversations/messages/{message}/details"),
        )
        .await
        .1;
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
    let found = client
        .get(
            &bearer,
            &format!("/api/v2/conversations/messages/{message}/details"),
        )
        .await
        .1;
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
    let found = client
        .get(
            &bearer,
            &format!("/api/v2/conversations/messages/{message}/details"),
        )
        .await
        .1;
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
async fn idempotency_header_is_ignored_for_public_contacts() {
    let client = Client::new(|_| {}).await;
    let bearer = client.sign_in().await;
    let contact = json!({"firstName": "Ann"});
    let first = client.contact(&bearer, "key", &contact).await;
    assert_eq!((first.0, &first.1["firstName"]), (200, &json!("Ann")));
    assert_ne!(
        client.contact(&bearer, "key", &contact).await.1["id"],
        first.1["id"],
        "the key means nothing"
    );
    assert_eq!(client.sim.state().contacts, 2);
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
    assert_eq!(answer.status.as_u16(), 200, "a contact is an official one");
    assert!(!answer.headers.contains_key("guestlane-sim-route"));
}

#[tokio::test]
async fn contacts_without_guest_data_count_as_separate_guests() {
    let client = Client::new(|_| {}).await;
    let bearer = client.sign_in().await;
    for _ in 0..2 {
        assert_eq!(
            client
                .json(&bearer, "POST", CONTACTS, &json!({"title": "Dr"}))
                .await
                .0,
            200
        );
    }
    let state = client.sim.state();
    assert_eq!(
        (state.contacts, state.guests, state.duplicates.contacts),
        (2, 2, 0)
    );
}
