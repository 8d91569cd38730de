//! Sessions on the surface `open-messaging`.

use super::*;

#[rstest]
#[tokio::test]
async fn open_messaging_conversation_comes_from_response_or_details(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    for (prefetch, looked) in [(true, 0), (false, 1)] {
        let platform = of(backend, OPEN_MESSAGING, |options| {
            options.prefetch = prefetch
        })
        .await;
        let opened = platform
            .engine()
            .await
            .create(request("ann"))
            .await
            .unwrap();
        assert_eq!(platform.sim.state().calls["details"], looked);
        let sent = &bodies(&platform, "open-message")[0];
        let id = opened.session.id.to_string();
        assert_eq!(
            (
                &sent["channel"]["from"]["id"],
                &sent["channel"]["messageId"]
            ),
            (&json!(id), &json!(id))
        );
        assert_eq!(
            sent["channel"]["metadata"]["customAttributes"]["routingTarget"],
            SALES
        );
        platform.assert_each_guest_once(1);
    }
}

#[rstest]
#[tokio::test]
async fn open_messaging_resends_identical_bytes_into_one_conversation(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    for dedupe in [true, false] {
        let platform = of(backend, OPEN_MESSAGING, |options| {
            options.dedupe_open_messages = dedupe
        })
        .await;
        platform.faults(&["open-message:answer-lost:nth=1"]);
        platform
            .engine()
            .await
            .create(request("ann"))
            .await
            .unwrap();
        let sent = platform.journal("open-message");
        assert_eq!((sent.len(), &sent[0].body), (2, &sent[1].body));
        platform.assert_each_guest_once(1);
        assert_eq!(
            platform.sim.state().repeated_first_messages,
            u64::from(!dedupe)
        );
    }
}
