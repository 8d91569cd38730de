use guestlane_genesys::transport::NoAnswer;
use serde_json::json;

use crate::client::Client;

async fn with_faults(specs: &[&str]) -> (Client, String) {
    let client = Client::new(|options| options.quota = None).await;
    let bearer = client.sign_in().await;
    let body = json!({"faults": specs}).to_string();
    assert_eq!(client.send("PUT", "/_sim/faults", &[], &body).await, (200, json!({"faults": specs})));
    (client, bearer)
}

#[tokio::test]
async fn a_lost_answer_is_lost_after_the_work_was_done() {
    let (client, bearer) = with_faults(&["contact:answer-lost:first=1"]).await;
    let body = client.new_contact("ann");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json"), ("idempotency-key", "k")];
    let lost = client.try_send("POST", "/api/v2/externalcontacts/contacts", &headers, &body.to_string()).await;
    assert!(matches!(lost, Err(NoAnswer::Lost(_))), "{lost:?}");
    assert_eq!(client.sim.state().contacts, 1);
    assert_eq!(client.contact(&bearer, "k", &body).await.0, 200);
    let state = client.sim.state();
    assert_eq!((state.contacts, state.faults["answer-lost"]), (1, 1));
    let journal = client.sim.journal();
    let entry = journal.iter().find(|entry| entry.fault.is_some()).unwrap();
    assert_eq!((entry.fault.as_deref(), entry.status), (Some("contact:answer-lost:first=1"), None));
}

#[tokio::test]
async fn a_500_a_429_and_a_reset_do_nothing() {
    let (client, bearer) = with_faults(&["contact:500:nth=1", "contact:429:nth=2,retry-after=7", "contact:reset:nth=3"]).await;
    let body = client.new_contact("ann");
    assert_eq!(client.contact(&bearer, "k", &body).await.1["code"], "internal.server.error");
    assert_eq!(
        client.contact(&bearer, "k", &body).await.1["message"],
        "Rate limit exceeded the maximum. Retry the request in [7] seconds"
    );
    let reset = client.try_send("POST", "/api/v2/externalcontacts/contacts", &[], "").await;
    assert!(matches!(reset, Err(NoAnswer::Lost(_))), "{reset:?}");
    assert_eq!(client.sim.state().contacts, 0);
    assert_eq!(client.contact(&bearer, "k", &body).await.0, 200);
}

#[tokio::test]
async fn the_crm_answers_204_once_and_knows_an_event_again() {
    let (client, _) = with_faults(&["crm:redirect:nth=1"]).await;
    let tell = async || client.send("POST", "/crm/events", &[("webhook-id", "msg_1")], r#"{"data":{"guestId":"ann"}}"#).await.0;
    assert_eq!(tell().await, 302);
    assert_eq!((tell().await, tell().await), (204, 204));
    let crm = client.sim.state().crm;
    assert_eq!((crm.events, crm.repeated, crm.unchecked), (1, 1, 2));
    assert_eq!(client.send("POST", "/crm/events", &[], "{}").await.0, 400, "an event has an id");
}

#[tokio::test]
async fn a_bad_fault_is_refused_and_the_old_ones_stay() {
    let (client, _) = with_faults(&["any:500"]).await;
    let (status, body) = client.send("PUT", "/_sim/faults", &[], r#"{"faults":["any:boom"]}"#).await;
    assert_eq!(status, 400);
    assert!(body["message"].as_str().unwrap().contains("KIND is 429, 500, answer-lost"));
    assert_eq!(client.send("GET", "/_sim/faults", &[], "").await.1, json!({"faults": ["any:500"]}));
}
