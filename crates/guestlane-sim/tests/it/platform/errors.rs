//! Responses to requests that fail.

use super::*;

#[tokio::test]
async fn rate_limit_headers_are_sent_and_the_limit_is_enforced() {
    let client = Client::new(|options| options.quota = Some("3/s".parse::<Rate>().unwrap())).await;
    let bearer = client.sign_in().await;
    let queue = format!("/api/v2/routing/queues/{SALES}");
    let get = async || {
        client
            .try_send("GET", &queue, &[("authorization", &bearer)], "")
            .await
            .unwrap()
    };
    for count in ["1", "2", "3"] {
        let answer = get().await;
        assert_eq!(
            (
                answer.status.as_u16(),
                answer.headers["inin-ratelimit-count"].to_str().unwrap()
            ),
            (200, count)
        );
        assert_eq!(answer.headers["inin-ratelimit-allowed"], "3");
        assert_eq!(answer.headers["inin-ratelimit-reset"], "1");
        assert_eq!(answer.headers["inin-correlation-id"].len(), 36);
    }
    let refused = get().await;
    assert_eq!(
        (
            refused.status.as_u16(),
            refused.headers["retry-after"].to_str().unwrap()
        ),
        (429, "1")
    );
    let body: Value = serde_json::from_slice(&refused.body).unwrap();
    assert_eq!(body["code"], "too.many.requests.retry.after");
    assert_eq!(
        refused.headers["inin-correlation-id"].to_str().unwrap(),
        body["contextId"].as_str().unwrap()
    );
    client.clock.advance(Duration::from_secs(1));
    assert_eq!(get().await.status.as_u16(), 200);
    assert_eq!(client.sim.state().throttled, 1);
}

#[tokio::test]
async fn unknown_paths_get_404_and_wrong_methods_405() {
    let client = Client::new(|_| {}).await;
    for (method, path, status) in [
        ("GET", "/api/v2/users/me", 404),
        ("GET", "/", 404),
        ("GET", "/api/v2/conversations/messaging", 405),
        ("GET", "/_sim/nothing", 404),
    ] {
        assert_eq!(client.send(method, path, &[], "").await.0, status, "{path}");
    }
}

#[tokio::test]
async fn error_responses_have_correlation_id_and_rate_limit_headers() {
    let client =
        Client::new(|options| options.quota = Some("9/min".parse::<Rate>().unwrap())).await;
    let bearer = client.sign_in().await;
    let queue = format!("/api/v2/routing/queues/{SALES}");
    let get = async |path: &str| {
        client
            .try_send("GET", path, &[("authorization", &bearer)], "")
            .await
            .unwrap()
    };
    assert_eq!(get(&queue).await.status.as_u16(), 200);
    for (fault, status, count) in [
        ("429", 429, "1"),
        ("429-date", 429, "1"),
        ("503", 503, "1"),
        ("504-after", 504, "2"),
    ] {
        client
            .sim
            .set_faults(vec![format!("queue:{fault}").parse().unwrap()]);
        let answer = get(&queue).await;
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(answer.status.as_u16(), status, "{fault}");
        assert_eq!(
            answer.headers["inin-correlation-id"].to_str().unwrap(),
            body["contextId"].as_str().unwrap(),
            "{fault}"
        );
        assert_ne!(
            answer.headers["inin-correlation-id"],
            "00000000-0000-0000-0000-000000000000"
        );
        let received = ["count", "allowed"].map(|name| {
            answer.headers[format!("inin-ratelimit-{name}")]
                .to_str()
                .unwrap()
        });
        assert_eq!(received, [count, "9"], "{fault}");
    }
    client
        .sim
        .set_faults(vec!["deployment:503".parse().unwrap()]);
    let open = get(&format!(
        "/webdeployments/v1/deployments/{SALES}/config.json"
    ))
    .await;
    assert!(
        open.status == 503 && !open.headers.contains_key("inin-ratelimit-count"),
        "no guest is counted"
    );
    let too_large = client
        .try_send("POST", "/crm/events", &[], &"x".repeat(1024 * 1024 + 1))
        .await
        .unwrap();
    let body: Value = serde_json::from_slice(&too_large.body).unwrap();
    assert_eq!(
        (too_large.status.as_u16(), &body["code"]),
        (413, &json!("request.too.large"))
    );
    assert_eq!(
        too_large.headers["inin-correlation-id"].to_str().unwrap(),
        body["contextId"].as_str().unwrap()
    );
    let entry = client.sim.journal().pop().unwrap();
    assert_eq!(
        (entry.status, entry.correlation_id.to_string()),
        (Some(413), body["contextId"].as_str().unwrap().to_owned())
    );
}
