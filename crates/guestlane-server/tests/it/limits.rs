//! Requests that are too large, too deep, too slow or of the wrong type cost little, and their
//! errors name the reason.

use guestlane_core::api_key::Scope;
use http::Method;
use serde_json::json;

use guestlane_testkit::service::{TestService, bearer, json};

#[tokio::test]
async fn request_body_is_limited_in_length_depth_and_media_type() {
    let test_service = TestService::new().await;
    let authorization = bearer(test_service.key(Scope::SessionsWrite));
    let post = async |kind: &str, body: String| {
        let headers = [
            ("authorization", authorization.as_str()),
            ("content-type", kind),
        ];
        let answer = test_service
            .send(Method::POST, "/v1/sessions", &headers, body)
            .await;
        (
            answer.status.as_u16(),
            json(&answer)["code"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        )
    };
    let is = |status: u16, code: &str| (status, code.to_owned());
    let padded = |length: usize| format!("{{\"guestId\":\"ann\"{}}}", " ".repeat(length));
    assert_eq!(
        post("application/json", padded(70 * 1024)).await,
        is(413, "payload_too_large")
    );
    assert_eq!(
        post("application/json", padded(10 * 1024 * 1024)).await,
        is(413, "payload_too_large")
    );
    assert_eq!(
        post("application/json", "[".repeat(60_000)).await,
        is(400, "invalid_request")
    );
    assert_eq!(
        post(
            "application/json",
            format!("{}1{}", "{\"a\":".repeat(33), "}".repeat(33))
        )
        .await,
        is(400, "invalid_request")
    );
    assert_eq!(
        post("application/json", "{\"guestId\":".to_owned()).await,
        is(400, "invalid_request")
    );
    assert_eq!(
        post("application/json", "{\"guestId\":\"ann\"} more".to_owned()).await,
        is(400, "invalid_request")
    );
    assert_eq!(
        post(
            "application/json",
            "{\"guestId\":\"ann\",\"guestId\":\"bob\"}".to_owned()
        )
        .await,
        is(400, "invalid_request")
    );
    assert_eq!(
        post("text/plain", "{\"guestId\":\"ann\"}".to_owned()).await,
        is(415, "unsupported_media_type")
    );
    assert_eq!(test_service.sim.state().contacts, 0);
    assert_eq!(
        post("application/json; charset=utf-8", padded(10)).await.0,
        201
    );
}

#[tokio::test]
async fn oversized_headers_get_431_and_invalid_http_gets_400() {
    let test_service = TestService::new().await;
    let huge = format!(
        "GET /healthz HTTP/1.1\r\nhost: x\r\nx-huge: {}\r\n\r\n",
        "x".repeat(200 * 1024)
    );
    assert!(test_service.raw(&huge).await.starts_with("HTTP/1.1 431"));
    let many = format!(
        "GET /healthz HTTP/1.1\r\nhost: x\r\n{}\r\n",
        "x-a: b\r\n".repeat(500)
    );
    assert!(test_service.raw(&many).await.starts_with("HTTP/1.1 431"));
    assert!(
        test_service
            .raw("what is this?\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 400")
    );
    assert!(
        test_service
            .raw("GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 200")
    );
}

#[tokio::test]
async fn request_id_is_echoed_if_it_is_safe_to_log() {
    let test_service = TestService::new().await;
    let id = async |given: &str| {
        let answer = test_service
            .send(Method::GET, "/healthz", &[("x-request-id", given)], "")
            .await;
        answer.headers["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(id("req-1.a_B").await, "req-1.a_B");
    for odd in ["a b", &"x".repeat(65), "ann@example.com"] {
        assert_ne!(id(odd).await, odd);
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_return_problem_details() {
    let test_service = TestService::new().await;
    let read = bearer(test_service.key(Scope::Admin));
    let headers = [("authorization", read.as_str())];
    for (method, path, status, code) in [
        (Method::GET, "/v1/nowhere", 404, "not_found"),
        (Method::GET, "/v1/sessions/x", 404, "not_found"),
        (
            Method::GET,
            "/v1/sessions/019ab123-4567-7000-8000-0123456789ab",
            404,
            "not_found",
        ),
        (Method::POST, "/v1/outbox/msg_1:replay", 404, "not_found"),
        (Method::POST, "/v1/outbox/msg_1", 404, "not_found"),
        (Method::DELETE, "/v1/sessions", 405, "method_not_allowed"),
        (Method::POST, "/healthz", 405, "method_not_allowed"),
        (Method::GET, "/assets/nothing.js", 404, "not_found"),
        (Method::GET, "/problems/nothing", 404, "not_found"),
    ] {
        let answer = test_service.send(method.clone(), path, &headers, "").await;
        let problem = json(&answer);
        assert_eq!(
            (answer.status.as_u16(), problem["code"].as_str()),
            (status, Some(code)),
            "{method} {path}"
        );
        assert_eq!(problem["type"], json!(format!("/problems/{code}")));
    }
}

/// Problems, JSON responses and documents need the headers as well as pages do.
#[tokio::test]
async fn every_response_has_the_security_headers() {
    let test_service = TestService::new().await;
    let paths = [
        "/",
        "/docs",
        "/assets/style.css",
        "/healthz",
        "/readyz",
        "/openapi.json",
        "/problems/internal_error",
        "/v1/sessions",
        "/nowhere",
    ];
    for path in paths {
        let answer = test_service.send(Method::GET, path, &[], "").await;
        let has = |name: &str, value: &str| {
            assert_eq!(
                guestlane_testkit::service::header(&answer, name),
                value,
                "{path}"
            )
        };
        has("x-content-type-options", "nosniff");
        has("referrer-policy", "no-referrer");
        has("cross-origin-opener-policy", "same-origin");
        has("cross-origin-resource-policy", "same-origin");
        let policy = guestlane_testkit::service::header(&answer, "content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{path}: {policy}"
        );
        assert!(
            !answer.headers.contains_key("strict-transport-security"),
            "{path}: without TLS a browser must not keep it"
        );
        assert!(
            !String::from_utf8_lossy(&answer.body).contains("\"version\": \"0.1.0\"")
                || path == "/openapi.json",
            "{path}"
        );
    }
}

/// Without these headers, a reverse proxy would buffer the lines of a batch.
#[tokio::test]
async fn batch_response_disables_proxy_buffering() {
    let test_service = TestService::new().await;
    let key = guestlane_testkit::service::bearer(
        test_service.key(guestlane_core::api_key::Scope::SessionsWrite),
    );
    let headers = [
        ("authorization", key.as_str()),
        ("content-type", "application/jsonl"),
    ];
    let answer = test_service
        .send(
            Method::POST,
            "/v1/sessions:batch",
            &headers,
            "{\"guestId\":\"ann\"}\n",
        )
        .await;
    assert_eq!(
        guestlane_testkit::service::header(&answer, "x-accel-buffering"),
        "no"
    );
    assert_eq!(
        guestlane_testkit::service::header(&answer, "cache-control"),
        "no-store, no-transform"
    );
}
