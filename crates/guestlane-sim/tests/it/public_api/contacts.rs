//! External contacts of the public platform.

use super::*;

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
        json!({"workEmail": "no-address"}),
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
