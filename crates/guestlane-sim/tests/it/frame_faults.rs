//! Injected faults on frames of the guest WebSocket and on its upgrade.

use std::time::Duration;

use guestlane_sim::FaultKind;
use serde_json::{Value, json};

use crate::{client::Client, guest::Guest};

async fn with_fault(spec: &str) -> Client {
    let client = Client::new(|options| options.quota = None).await;
    let body = json!({"faults": [spec]}).to_string();
    assert_eq!(
        client.send("PUT", "/_sim/faults", &[], &body).await.0,
        200,
        "{spec}"
    );
    client
}

/// Advances the clock while the simulator withholds something. Returns once it withholds something
/// without a time limit.
async fn meanwhile(client: &Client, kind: FaultKind) {
    loop {
        tokio::task::yield_now().await;
        match client.sim.state().hanging {
            0 => {}
            _ if kind == FaultKind::Slow => client.clock.advance(Duration::from_secs(1)),
            _ => return,
        }
    }
}

/// Waits for the result: `Some(Some(text))` for a frame, `Some(None)` for the connection's end,
/// `None` if nothing will ever come.
async fn outcome(client: &Client, guest: &mut Guest, kind: FaultKind) -> Option<Option<String>> {
    tokio::select! {
        text = guest.next_text() => Some(text),
        () = meanwhile(client, kind) => None,
    }
}

/// The description of each fault on a frame says whether the work is done. A client must never get
/// this wrong.
#[tokio::test]
async fn each_frame_fault_takes_effect_exactly_as_documented() {
    for kind in FaultKind::ALL
        .iter()
        .filter(|kind| **kind != FaultKind::Stale)
    {
        let name = kind.name();
        let client = with_fault(&format!("message:{name}:nth=1")).await;
        let mut guest = client.guest("t").await;
        guest
            .send(
                "onMessage",
                json!({"message": {"type": "Text", "text": "Hello"}}),
            )
            .await;
        let came = outcome(&client, &mut guest, *kind).await;
        assert_eq!(came.is_none(), name.starts_with("hang"), "{name}");
        let done = kind.about().starts_with("the request takes effect")
            || ["token-revoked", "clock-skew"].contains(&name);
        assert_eq!(client.sim.state().conversations == 1, done, "{name}");
        let lost = [
            "reset",
            "answer-lost",
            "reset-after",
            "truncated",
            "not-http",
        ]
        .contains(&name);
        assert_eq!(came == Some(None), lost, "{name}: {came:?}");
        if let Some(Some(text)) = came {
            let code = serde_json::from_str::<Value>(&text)
                .map(|frame| frame["code"].clone())
                .unwrap_or_default();
            let wanted = match name {
                "429" | "429-date" | "429-sentence" => json!(429),
                "redirect" | "400-echo" => json!(400),
                "400" | "401" | "403" | "404" | "409" => json!(name.parse::<u16>().unwrap()),
                "500" | "502" | "503" | "502-after" => json!(5000),
                "504-after" => json!(408),
                "slow" | "token-revoked" | "clock-skew" => json!(200),
                "wrong-types" => json!("200"),
                _ => Value::Null,
            };
            assert_eq!(code, wanted, "{name}: {}", &text[..text.len().min(200)]);
        }
        let journal = client.sim.journal();
        let entry = journal.iter().find(|entry| entry.fault.is_some()).unwrap();
        assert_eq!(
            (entry.method.as_str(), entry.path.as_str()),
            ("FRAME", "onMessage")
        );
        let mut again = client.guest("t").await;
        assert_eq!(
            again.text("Hello").await["code"],
            200,
            "{name}: afterwards all is well"
        );
        assert_eq!(client.sim.state().conversations, 1, "{name}");
    }
}

#[tokio::test]
async fn only_slow_revoked_and_skewed_upgrades_open_a_socket() {
    for kind in FaultKind::ALL
        .iter()
        .filter(|kind| **kind != FaultKind::Stale)
    {
        let name = kind.name();
        let client = with_fault(&format!("socket:{name}:nth=1")).await;
        let opened = tokio::select! {
            opened = client.try_open("t") => Some(opened),
            () = meanwhile(&client, *kind) => None,
        };
        assert_eq!(opened.is_none(), name.starts_with("hang"), "{name}");
        let good = opened.flatten().is_some();
        assert_eq!(
            good,
            ["slow", "token-revoked", "clock-skew"].contains(&name),
            "{name}"
        );
        assert_eq!(client.sim.state().faults[name], 1);
        assert_eq!(
            client.guest("t").await.text("Hello").await["code"],
            200,
            "{name}: afterwards all is well"
        );
    }
}

#[tokio::test]
async fn stale_read_misses_details_and_history_once() {
    let client = with_fault("details:stale:nth=1").await;
    let bearer = client.sign_in().await;
    let mut guest = client.guest("t").await;
    let echo = guest.text("Hello").await;
    let path = format!(
        "/api/v2/conversations/messages/{}/details",
        echo["body"]["id"].as_str().unwrap()
    );
    assert_eq!(
        client
            .send("GET", &path, &[("authorization", &bearer)], "")
            .await
            .0,
        404
    );
    assert_eq!(
        client
            .send("GET", &path, &[("authorization", &bearer)], "")
            .await
            .0,
        200
    );
    let body = json!({"faults": ["history:stale:nth=1"]}).to_string();
    assert_eq!(client.send("PUT", "/_sim/faults", &[], &body).await.0, 200);
    let jwt = guest.ask("getJwt", json!({})).await["body"]["jwt"]
        .as_str()
        .map(|jwt| format!("Bearer {jwt}"))
        .unwrap();
    let history = async || {
        client
            .send(
                "GET",
                "/api/v2/webmessaging/messages",
                &[("authorization", &jwt)],
                "",
            )
            .await
            .1
    };
    assert_eq!(history().await["total"], 0);
    assert_eq!(history().await["total"], 1);
}

#[tokio::test]
async fn lost_configure_response_still_starts_the_session() {
    let client = with_fault("configure:answer-lost:nth=1").await;
    let mut guest = client.socket("t").await;
    guest
        .send(
            "configureSession",
            json!({"deploymentId": guestlane_sim::DEPLOYMENT_ID}),
        )
        .await;
    assert_eq!(guest.next_text().await, None);
    assert_eq!(client.sim.state().guest_sessions, 1);
    assert_eq!(
        client.socket("t").await.configure().await["body"]["newSession"],
        false
    );
    assert_eq!(client.sim.state().calls["configure"], 2);
}
