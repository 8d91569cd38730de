//! Injected faults on calls: whether the work is done, and which calls are affected.

use std::time::Duration;

use guestlane_genesys::CreatedResource;
use guestlane_runtime::http_client::{HttpResponse, TransportError};
use guestlane_sim::FaultKind;
use serde_json::json;

use crate::client::Client;

async fn with_faults(specs: &[&str]) -> (Client, String) {
    let client = Client::new(|options| options.quota = None).await;
    let bearer = client.sign_in().await;
    let body = json!({"faults": specs}).to_string();
    assert_eq!(
        client.send("PUT", "/_sim/faults", &[], &body).await,
        (200, json!({"faults": specs, "seed": 0}))
    );
    (client, bearer)
}

#[tokio::test]
async fn lost_response_fault_applies_the_request_first() {
    let (client, bearer) = with_faults(&["contact:answer-lost:first=1"]).await;
    let body = client.new_contact("ann");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("idempotency-key", "k"),
    ];
    let lost = client
        .try_send(
            "POST",
            "/api/v2/externalcontacts/contacts",
            &headers,
            &body.to_string(),
        )
        .await;
    assert!(matches!(lost, Err(TransportError::Lost(_))), "{lost:?}");
    assert_eq!(client.sim.state().contacts, 1);
    assert_eq!(client.contact(&bearer, "k", &body).await.0, 200);
    let state = client.sim.state();
    assert_eq!((state.contacts, state.faults["answer-lost"]), (1, 1));
    let journal = client.sim.journal();
    let entry = journal.iter().find(|entry| entry.fault.is_some()).unwrap();
    assert_eq!(
        (entry.fault.as_deref(), entry.status),
        (Some("contact:answer-lost:first=1"), None)
    );
}

#[tokio::test]
async fn faults_500_429_and_reset_do_not_apply_the_request() {
    let (client, bearer) = with_faults(&[
        "contact:500:nth=1",
        "contact:429:nth=2,retry-after=7",
        "contact:reset:nth=3",
    ])
    .await;
    let body = client.new_contact("ann");
    assert_eq!(
        client.contact(&bearer, "k", &body).await.1["code"],
        "internal.server.error"
    );
    assert_eq!(
        client.contact(&bearer, "k", &body).await.1["message"],
        "Rate limit exceeded the maximum. Retry the request in [7] seconds"
    );
    let reset = client
        .try_send("POST", "/api/v2/externalcontacts/contacts", &[], "")
        .await;
    assert!(matches!(reset, Err(TransportError::Lost(_))), "{reset:?}");
    assert_eq!(client.sim.state().contacts, 0);
    assert_eq!(client.contact(&bearer, "k", &body).await.0, 200);
}

#[tokio::test]
async fn webhook_receiver_returns_204_and_detects_repeated_events() {
    let (client, _) = with_faults(&["crm:redirect:nth=1"]).await;
    let deliver = async || {
        client
            .send(
                "POST",
                "/crm/events",
                &[("webhook-id", "msg_1")],
                r#"{"data":{"guestId":"ann"}}"#,
            )
            .await
            .0
    };
    assert_eq!(deliver().await, 302);
    assert_eq!((deliver().await, deliver().await), (204, 204));
    let crm = client.sim.state().crm;
    assert_eq!((crm.events, crm.repeated, crm.unchecked), (1, 1, 2));
    assert_eq!(
        client.send("POST", "/crm/events", &[], "{}").await.0,
        400,
        "an event has an id"
    );
}

#[tokio::test]
async fn invalid_fault_is_refused_and_previous_faults_stay() {
    let (client, _) = with_faults(&["any:500"]).await;
    let (status, body) = client
        .send("PUT", "/_sim/faults", &[], r#"{"faults":["any:boom"]}"#)
        .await;
    assert_eq!(status, 400);
    assert!(
        body["message"]
            .as_str()
            .unwrap()
            .contains("KIND must be one of 429, 429-date, 429-sentence, 400")
    );
    assert_eq!(
        client.send("GET", "/_sim/faults", &[], "").await.1,
        json!({"faults": ["any:500"], "seed": 0})
    );
}

/// The description of each fault says whether the work is done. A client must never get this wrong.
#[tokio::test]
async fn each_fault_takes_effect_exactly_as_documented() {
    for kind in FaultKind::ALL {
        let done = kind.about().starts_with("the request takes effect");
        let route = if *kind == FaultKind::Stale {
            "conversation"
        } else {
            "contact"
        };
        let (client, bearer) = with_faults(&[&format!("{route}:{}:nth=1", kind.name())]).await;
        let body = client.new_contact("ann");
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
            ("idempotency-key", "k"),
        ];
        let text = body.to_string();
        let sent = client.try_send("POST", "/api/v2/externalcontacts/contacts", &headers, &text);
        // A withheld response is not awaited, and a slow response needs time to pass.
        let meanwhile = async {
            loop {
                tokio::task::yield_now().await;
                match client.sim.state().hanging {
                    0 => {}
                    _ if *kind == FaultKind::Slow => client.clock.advance(Duration::from_secs(1)),
                    _ => break,
                }
            }
        };
        let answered = tokio::select! { answered = sent => Some(answered), () = meanwhile => None };
        assert_eq!(
            answered.is_none(),
            kind.name().starts_with("hang"),
            "{}",
            kind.name()
        );
        if *kind != FaultKind::Stale {
            let good = |answer: &HttpResponse| {
                answer.status == 200
                    && serde_json::from_slice::<CreatedResource>(&answer.body).is_ok()
            };
            let good = answered.is_some_and(|answered| answered.is_ok_and(|answer| good(&answer)));
            assert_eq!(good, *kind == FaultKind::Slow, "{}", kind.name());
            let state = client.sim.state();
            assert_eq!(state.contacts == 1, done, "{}", kind.name());
            assert_eq!(state.faults[kind.name()], 1);
        }
        let bearer = client.sign_in().await;
        assert_eq!(
            client.contact(&bearer, "k", &body).await.0,
            200,
            "{}: afterwards all is well",
            kind.name()
        );
        assert_eq!(client.sim.state().contacts, 1, "{}", kind.name());
    }
}

#[tokio::test]
async fn fault_sequence_is_determined_by_the_seed() {
    let run = async |seed: u64| {
        let (client, bearer) = with_faults(&[]).await;
        let body = json!({"faults": ["queue:404:p=0.3"], "seed": seed}).to_string();
        assert_eq!(
            client.send("PUT", "/_sim/faults", &[], &body).await.1["seed"],
            seed
        );
        let path = "/api/v2/routing/queues/5e0c0000-0000-4000-8000-000000000001";
        let mut answers = Vec::new();
        for _ in 0..60 {
            answers.push(
                client
                    .send("GET", path, &[("authorization", &bearer)], "")
                    .await
                    .0,
            );
        }
        answers
    };
    assert_eq!(run(7).await, run(7).await);
    assert_ne!(run(7).await, run(8).await);
}

#[tokio::test]
async fn stale_queue_read_returns_404_once() {
    let (client, bearer) = with_faults(&["queue:stale:nth=1"]).await;
    let path = "/api/v2/routing/queues/5e0c0000-0000-4000-8000-000000000001";
    assert_eq!(
        client
            .send("GET", path, &[("authorization", &bearer)], "")
            .await
            .0,
        404
    );
    assert_eq!(
        client
            .send("GET", path, &[("authorization", &bearer)], "")
            .await
            .0,
        200
    );
}

#[test]
fn documentation_lists_every_fault_kind() {
    let documentation = include_str!("../../../../docs/simulator.md");
    for kind in FaultKind::ALL {
        let row = format!("| `{}` | {} |", kind.name(), kind.about());
        assert!(
            documentation.contains(&row),
            "docs/simulator.md lacks: {row}"
        );
    }
    assert!(documentation.contains(&format!("The {} kinds:", FaultKind::ALL.len())));
}
