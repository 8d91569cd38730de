//! Which responses of an endpoint count as a delivery.

use super::*;

/// The description of an unusual response, and the response.
type Case = (&'static str, fn() -> Reply);

fn close(answer: &str) -> Reply {
    Reply::Close(answer.as_bytes().to_vec())
}

fn hold(answer: &str) -> Reply {
    Reply::Hold(answer.as_bytes().to_vec())
}

#[rstest]
#[tokio::test]
async fn status_line_2xx_counts_as_delivered_whatever_follows(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    const CASES: &[Case] = &[
        ("a blank before a colon", || {
            close("HTTP/1.1 200 OK\r\nServer : IIS\r\nContent-Length: 2\r\n\r\nok")
        }),
        ("a folded header", || {
            close("HTTP/1.1 200 OK\r\nX-A: a\r\n b\r\nContent-Length: 0\r\n\r\n")
        }),
        ("a blank in a header's name", || {
            close("HTTP/1.1 200 OK\r\nX Name: a\r\nContent-Length: 0\r\n\r\n")
        }),
        ("a line without a colon", || {
            close("HTTP/1.1 200 OK\r\nwhat is this\r\nContent-Length: 0\r\n\r\n")
        }),
        ("a control character", || {
            close("HTTP/1.1 200 OK\r\nX-A: a\u{1}b\r\nContent-Length: 0\r\n\r\n")
        }),
        ("Latin-1", || {
            Reply::Close(b"HTTP/1.1 200 OK\r\nX-A: \xe9\r\nContent-Length: 0\r\n\r\n".to_vec())
        }),
        ("120 headers", || {
            close(&format!(
                "HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n",
                "X-A: a\r\n".repeat(120)
            ))
        }),
        ("transfer encoding identity", || {
            hold("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok")
        }),
        ("a long body", || {
            close(&format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 2097152\r\n\r\n{}",
                "x".repeat(2_097_152)
            ))
        }),
        ("a body without an end", || {
            hold("HTTP/1.1 200 OK\r\n\r\nok")
        }),
        ("a body that does not come", || {
            hold("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nok")
        }),
        ("a body that breaks off", || {
            close("HTTP/1.1 202 Accepted\r\nContent-Length: 100\r\n\r\nok")
        }),
        ("chunks that are none", || {
            close("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
        }),
        ("HTTP/1.0", || close("HTTP/1.0 200 OK\r\n\r\nok")),
        ("no reason phrase", || close("HTTP/1.1 204\r\n\r\n")),
        ("lines that end in LF", || {
            close("HTTP/1.1 200 OK\nServer: x\n\nok")
        }),
        ("an early hint first", || {
            close(
                "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            )
        }),
    ];
    for (what, answer) in CASES {
        let peer = Peer::start(|_| answer());
        let platform = platform_with_peer(backend, &peer).await;
        let engine = platform.engine().await;
        engine.create(request("ann")).await.unwrap();
        while !engine.outbox().unwrap().wait_for_initial_deliveries().await {}
        let event = first_event(&engine).await;
        assert_eq!(
            event.state,
            DeliveryState::Delivered,
            "{what}: {:?}",
            event.last_error
        );
        assert_eq!(peer.asked().len(), 1, "{what}: once");
    }
}

#[rstest]
#[tokio::test]
async fn response_without_a_2xx_status_line_is_not_a_delivery(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    const CASES: &[Case] = &[
        ("a status beyond 2xx with a long body", || {
            hold("HTTP/1.1 500 X\r\nContent-Length: 2097152\r\n\r\nx")
        }),
        ("a redirect", || {
            close("HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n")
        }),
        ("no HTTP", || close("220 mail.example.org ESMTP\r\n")),
        ("half a status line", || close("HTTP/1.1 20")),
        ("nothing", || close("")),
    ];
    for (what, answer) in CASES {
        let peer = Peer::start(|_| answer());
        let platform = platform_with_peer(backend, &peer).await;
        let engine = platform.engine().await;
        engine.create(request("ann")).await.unwrap();
        while !engine.outbox().unwrap().wait_for_initial_deliveries().await {}
        let event = first_event(&engine).await;
        assert!(
            event.state == DeliveryState::Pending && event.event.attempts == 1,
            "{what}: {event:?}"
        );
        assert!(event.last_error.unwrap().chars().count() <= 300, "{what}");
    }
}

/// Limits of the HTTP library, as `docs/crm.md` lists them. If one of these responses counts as
/// delivered in the future, remove it there.
#[rstest]
#[tokio::test]
async fn unparsable_2xx_response_leaves_the_event_pending(
    #[values(Sqlite, Postgres)] backend: Backend,
) {
    const CASES: &[Case] = &[
        ("a length that is no number", || {
            close("HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok")
        }),
        ("two lengths", || {
            close("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok")
        }),
        ("chunks in HTTP/1.0", || {
            close("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        }),
        ("a control character in the reason", || {
            close("HTTP/1.1 200 O\u{1}K\r\nContent-Length: 0\r\n\r\n")
        }),
        ("a head without an end", || {
            close("HTTP/1.1 200 OK\r\nServer: x\r\n")
        }),
        ("a head of a megabyte", || {
            close(&format!(
                "HTTP/1.1 200 OK\r\nX-A: {}\r\n\r\n",
                "a".repeat(1_000_000)
            ))
        }),
    ];
    for (what, answer) in CASES {
        let peer = Peer::start(|_| answer());
        let platform = platform_with_peer(backend, &peer).await;
        let engine = platform.engine().await;
        engine.create(request("ann")).await.unwrap();
        while !engine.outbox().unwrap().wait_for_initial_deliveries().await {}
        let event = first_event(&engine).await;
        assert_eq!(
            (event.state, event.event.attempts),
            (DeliveryState::Pending, 1),
            "{what}: {:?}",
            event.last_error
        );
    }
}

#[rstest]
#[tokio::test]
async fn endpoint_retry_after_is_capped_at_one_day(#[values(Sqlite, Postgres)] backend: Backend) {
    for wait in [
        "4294967295",
        "999999999999999999999",
        "Fri, 22 Nov 2126 15:24:49 GMT",
    ] {
        let answer = format!("HTTP/1.1 503 X\r\nRetry-After: {wait}\r\nContent-Length: 0\r\n\r\n");
        let peer = Peer::start(move |_| close(&answer));
        let platform = platform_with_peer(backend, &peer).await;
        let engine = platform.engine().await;
        engine.create(request("ann")).await.unwrap();
        while !engine.outbox().unwrap().wait_for_initial_deliveries().await {}
        let event = first_event(&engine).await;
        let day = Duration::from_secs(24 * 3600);
        assert!(
            event.event.due_at.since(platform.clock.now()) <= day,
            "{wait}: {}",
            event.event.due_at
        );
        platform.clock.advance(day);
        assert_eq!(
            engine.outbox().unwrap().deliver_due().await.unwrap().failed,
            1,
            "{wait}: it is tried again after a day"
        );
    }
}
