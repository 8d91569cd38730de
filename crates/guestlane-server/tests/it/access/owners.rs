//! API keys see the sessions of their owner.

use super::*;

/// Creates an API key with its own owner, and waits until the running service accepts it.
async fn accepted_key(
    test_service: &TestService,
    change: impl FnOnce(&mut StoredApiKey),
) -> String {
    let key = new_key(&test_service.engine, "sessions:write", change).await;
    test_service
        .until(async |test_service| {
            let status = test_service
                .send(
                    Method::GET,
                    "/v1/sessions",
                    &[("authorization", &bearer(&key))],
                    "",
                )
                .await
                .status;
            status != 401
        })
        .await;
    key
}

/// Creates a session for a key's owner, under a fixed idempotency key.
async fn create_as(
    test_service: &TestService,
    key: &str,
    guest: &str,
    email: &str,
) -> HttpResponse {
    let body = json!({"guestId": guest, "attributes": {"email": email}});
    let headers = [
        ("authorization", bearer(key)),
        ("idempotency-key", "order-1".to_owned()),
    ];
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let headers = [&[("content-type", "application/json")], headers.as_slice()].concat();
    test_service
        .send(Method::POST, "/v1/sessions", &headers, body.to_string())
        .await
}

/// Otherwise another integrator with the same idempotency key would receive the guest's tokens, or
/// learn which fields differ.
#[tokio::test]
async fn idempotency_keys_are_scoped_to_their_owner() {
    let test_service = TestService::new().await;
    let (shop, bank) = (
        accepted_key(&test_service, |_| {}).await,
        accepted_key(&test_service, |_| {}).await,
    );
    let first = create_as(&test_service, &shop, "ann", "ann@example.org").await;
    assert_eq!(first.status, 201);
    let other = create_as(&test_service, &bank, "ann", "ann@example.org").await;
    assert_eq!(other.status, 201, "not the shop's session");
    let (first, other) = (json(&first), json(&other));
    assert!(first["sessionId"] != other["sessionId"] && first["guestToken"] != other["guestToken"]);
    assert_eq!(
        create_as(&test_service, &shop, "ann", "ann@example.org")
            .await
            .status,
        200,
        "replayed to its owner"
    );
    let differs = create_as(&test_service, &bank, "bob", "bob@example.org").await;
    assert_eq!(differs.status, 422);
    assert_eq!(
        json(&differs)["sessionId"],
        other["sessionId"],
        "of its own session, not of the shop's"
    );
}

#[tokio::test]
async fn replacement_api_key_replays_sessions_of_the_same_owner() {
    let test_service = TestService::new().await;
    let old = accepted_key(&test_service, |_| {}).await;
    let first = json(&create_as(&test_service, &old, "ann", "ann@example.org").await);
    let owner_of_old = test_service
        .engine
        .store()
        .api_keys()
        .await
        .unwrap()
        .into_iter()
        .find(|key| old[3..].starts_with(&key.id))
        .unwrap()
        .owner;
    let new = accepted_key(&test_service, |key| key.owner = owner_of_old).await;
    let replayed = create_as(&test_service, &new, "ann", "ann@example.org").await;
    assert_eq!(
        (replayed.status.as_u16(), &json(&replayed)["sessionId"]),
        (200, &first["sessionId"])
    );
}

#[tokio::test]
async fn write_scope_reads_only_sessions_of_its_owner() {
    let test_service = TestService::new().await;
    let (shop, bank) = (
        accepted_key(&test_service, |_| {}).await,
        accepted_key(&test_service, |_| {}).await,
    );
    let created = create_as(&test_service, &shop, "ann", "ann@example.org").await;
    let location = header(&created, "location").to_owned();
    let get_as = async |key: &str, path: &str| {
        test_service
            .send(Method::GET, path, &[("authorization", &bearer(key))], "")
            .await
    };
    let seen = get_as(&shop, &location).await;
    assert_eq!(seen.status, 200);
    assert!(json(&seen).get("guestToken").is_none(), "without tokens");
    let hidden = get_as(&bank, &location).await;
    let missing = get_as(&bank, "/v1/sessions/019ab123-4567-7000-8000-0123456789ab").await;
    assert_eq!(
        (hidden.status.as_u16(), missing.status.as_u16()),
        (404, 404)
    );
    assert_eq!(
        json(&hidden)["detail"],
        json(&missing)["detail"],
        "the other owner does not learn that there is one"
    );
    assert_eq!(
        get_as(&shop, "/v1/sessions").await.status,
        403,
        "to list them needs sessions:read"
    );
    assert_eq!(
        get_as(test_service.key(Scope::SessionsRead), &location)
            .await
            .status,
        200
    );
}
