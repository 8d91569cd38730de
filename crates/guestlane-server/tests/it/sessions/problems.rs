//! Requests that fail: what the response says.

use super::*;

#[tokio::test]
async fn reused_idempotency_key_is_refused_with_differing_fields() {
    let test_service = TestService::new().await;
    test_service
        .create(
            &[("idempotency-key", "k")],
            &json!({"guestId": "ann", "attributes": {"tier": "gold"}}),
        )
        .await;
    let other = test_service
        .create(
            &[("idempotency-key", "k")],
            &json!({"guestId": "bob", "attributes": {"tier": "basic"}}),
        )
        .await;
    let problem = json(&other);
    assert_eq!(
        (other.status.as_u16(), problem["code"].as_str()),
        (422, Some("idempotency_key_reused"))
    );
    assert_eq!(problem["fields"], json!(["guestId", "attributes.tier"]));
    assert!(problem["sessionId"].is_string());
    test_service.assert_each_guest_once(1);
}

#[tokio::test]
async fn platform_failure_records_session_and_same_key_completes_it() {
    let test_service = TestService::new().await;
    test_service.faults(&["conversation:502-after:first=4"]);
    let headers = [("idempotency-key", "k")];
    let request = json!({"guestId": "ann"});
    let accepted = test_service.create(&headers, &request).await;
    assert_eq!(accepted.status, 202, "{}", json(&accepted));
    assert_eq!(json(&accepted)["error"]["code"], "platform_failing");
    let retry_after: u64 = header(&accepted, "retry-after").parse().unwrap();
    assert!(retry_after > 0);
    let again = test_service.create(&headers, &request).await;
    assert_eq!(json(&again)["state"], "open", "{}", json(&again));
    test_service.assert_each_guest_once(1);

    let path = format!(
        "/v1/sessions/{}/timeline",
        json(&again)["sessionId"].as_str().unwrap()
    );
    let timeline = json(&test_service.get(&path).await);
    let calls: Vec<_> = timeline["entries"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["kind"] == "call")
        .collect();
    assert_eq!(
        calls.len(),
        6,
        "one for the contact, four that failed, one that went well: {timeline}"
    );
    assert!(
        calls.iter().all(|call| call["correlationId"].is_string()),
        "{timeline}"
    );
    assert_eq!(
        calls
            .iter()
            .filter(|call| call["status"] == "retried")
            .count(),
        4
    );
    test_service
        .until(async |test_service| {
            test_service
                .get(&path)
                .await
                .body
                .windows(15)
                .any(|text| text == b"Event delivered")
        })
        .await;
}

#[tokio::test]
async fn platform_rejection_is_returned_with_cause_and_fix() {
    let test_service = TestService::new().await;
    let unknown = test_service
        .create(
            &[],
            &json!({"guestId": "ann", "queueId": "00000000-0000-4000-8000-000000000009"}),
        )
        .await;
    let problem = json(&unknown);
    assert_eq!(
        (
            unknown.status.as_u16(),
            problem["code"].as_str(),
            problem["field"].as_str()
        ),
        (422, Some("unknown_queue"), Some("queueId"))
    );
    // The failures of requirement R18 (docs/requirements.md).
    for (fault, status, code) in [
        ("contact:401:first=9", 502, "auth_failed"),
        ("contact:403:first=9", 502, "forbidden"),
        ("contact:400:first=9", 502, "platform_rejected"),
    ] {
        test_service.faults(&[fault]);
        let refused = test_service.create(&[], &json!({"guestId": "bob"})).await;
        let problem = json(&refused);
        assert_eq!(
            (refused.status.as_u16(), problem["code"].as_str()),
            (status, Some(code)),
            "{problem}"
        );
        for member in [
            "type",
            "title",
            "detail",
            "cause",
            "fix",
            "correlationId",
            "sessionId",
            "idempotencyKey",
        ] {
            assert!(
                problem[member]
                    .as_str()
                    .is_some_and(|text| !text.is_empty()),
                "{fault} {member}: {problem}"
            );
        }
    }
    test_service.faults(&[]);
    // Another key under the same `kid`: the signature does not match.
    let other = TestService::new().await;
    test_service
        .sim
        .register_guest_keys(
            &other
                .engine
                .keyring()
                .jwks(other.engine.clock().now())
                .to_string(),
        )
        .unwrap();
    let refused = test_service.create(&[], &json!({"guestId": "bob"})).await;
    assert_eq!(
        (refused.status.as_u16(), json(&refused)["code"].as_str()),
        (502, Some("guest_token_rejected")),
        "{}",
        json(&refused)
    );
    assert_eq!(test_service.sim.state().conversations, 0);
}

#[tokio::test]
async fn invalid_request_names_the_field_and_creates_nothing() {
    let test_service = TestService::new().await;
    let long = "x".repeat(129);
    for (request, status, field) in [
        (json!({"guestId": ""}), 400, "guestId"),
        (json!({"guestId": long}), 400, "guestId"),
        (json!({"guestId": "a\u{7}b"}), 400, "guestId"),
        (json!({"guestId": 7}), 400, "guestId"),
        (
            json!({"guestId": "ann", "queueId": "sales"}),
            400,
            "queueId",
        ),
        (
            json!({"guestId": "ann", "attributes": {"guestToken": "x"}}),
            400,
            "attributes.guestToken",
        ),
        (
            json!({"guestId": "ann", "attributes": {"tier": 1}}),
            400,
            "attributes.tier",
        ),
        (
            json!({"guestId": "ann", "attributes": {"a": "x".repeat(2048)}}),
            400,
            "attributes",
        ),
        (
            json!({"guestId": "ann", "email": "no-address"}),
            400,
            "email",
        ),
        (
            json!({"guestId": "ann", "idempotencyKey": "a b"}),
            400,
            "idempotencyKey",
        ),
        (json!({"guestId": "ann", "guestid": "bob"}), 400, "guestid"),
    ] {
        let refused = test_service.create(&[], &request).await;
        let problem = json(&refused);
        assert_eq!(
            (refused.status.as_u16(), problem["field"].as_str()),
            (status, Some(field)),
            "{request}: {problem}"
        );
        assert_eq!(header(&refused, "content-type"), "application/problem+json");
    }
    let missing = json(&test_service.create(&[], &json!({})).await);
    assert_eq!(missing["field"], "guestId", "{missing}");
    assert!(
        missing["detail"]
            .as_str()
            .unwrap()
            .starts_with("the member guestId is missing"),
        "{missing}"
    );
    assert_eq!(test_service.sim.state().contacts, 0);
}

#[tokio::test]
async fn problem_has_a_fix_and_a_cause_distinct_from_its_detail() {
    let test_service = TestService::new().await;
    let number = json(
        &test_service
            .create(&[], &json!({"guestId": "ann", "attributes": {"tier": 5}}))
            .await,
    );
    assert_eq!(
        (&number["field"], &number["fix"]),
        (&json!("attributes.tier"), &json!("write \"5\"")),
        "{number}"
    );
    let authorization = bearer(test_service.key(Scope::SessionsWrite));
    let headers = [
        ("authorization", authorization.as_str()),
        ("content-type", "application/json"),
    ];
    let cut = json(
        &test_service
            .send(
                http::Method::POST,
                "/v1/sessions",
                &headers,
                "{\"guestId\":",
            )
            .await,
    );
    assert_eq!(
        cut.get("field"),
        None,
        "the text as a whole breaks off: {cut}"
    );
    let reserved = json(
        &test_service
            .create(&[], &json!({"guestId": "ann", "attributes": {"exp": "1"}}))
            .await,
    );
    let detail = reserved["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("attributes.exp: the name is reserved"),
        "{detail}"
    );

    let unauthorized = json(
        &test_service
            .send(http::Method::GET, "/v1/sessions", &[], "")
            .await,
    );
    let forbidden = json(
        &test_service
            .post(
                "/v1/sessions",
                Scope::SessionsRead,
                &[],
                &json!({"guestId": "ann"}),
            )
            .await,
    );
    let nothing = json(&test_service.get("/v1/nothing").await);
    let method = json(
        &test_service
            .send(http::Method::DELETE, "/v1/sessions", &headers, "")
            .await,
    );
    let media = json(
        &test_service
            .send(http::Method::POST, "/v1/sessions", &headers[..1], "{}")
            .await,
    );
    let queue = json(
        &test_service
            .create(&[], &json!({"guestId": "ann", "queueId": "sales"}))
            .await,
    );
    for problem in [
        number,
        cut,
        reserved,
        unauthorized,
        forbidden,
        nothing,
        method,
        media,
        queue,
    ] {
        let text = |name: &str| problem[name].as_str().unwrap().to_owned();
        assert!(
            !text("cause").is_empty() && text("cause") != text("detail"),
            "{problem}"
        );
    }
}
