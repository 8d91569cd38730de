//! Tests of `connections`.

use bytes::Bytes;
use guestlane_runtime::ManualClock;
use http_body::Frame;

use super::*;

fn connections(connections: usize, per_address: Option<usize>) -> Arc<Connections> {
    let clock = ManualClock::new(Timestamp::from_unix_micros(0));
    Connections::new(
        Limits {
            connections,
            per_address,
        },
        clock.into(),
    )
}

fn peer(last: u8) -> SocketAddr {
    ([192, 0, 2, last], 4000).into()
}

#[test]
fn oldest_unauthenticated_connection_is_evicted() {
    let all = connections(3, None);
    let open: Vec<_> = (1..=3).map(|last| all.admit(peer(last)).unwrap()).collect();
    all.authenticated(&open[0].connection);
    let newest = all.admit(peer(4)).unwrap();
    let closed: Vec<_> = open
        .iter()
        .map(|admitted| admitted.connection.is_closed())
        .collect();
    assert_eq!(closed, [false, true, false]);
    assert!(!newest.connection.is_closed());
    assert_eq!((all.open(), all.turned_away()), (3, 1));
    drop(open);
    assert_eq!(all.open(), 1, "a closed connection is counted out once");
}

#[test]
fn new_connection_is_refused_when_all_are_authenticated() {
    let all = connections(2, None);
    let open: Vec<_> = (1..=2).map(|last| all.admit(peer(last)).unwrap()).collect();
    open.iter()
        .for_each(|admitted| all.authenticated(&admitted.connection));
    assert!(all.admit(peer(3)).is_none());
    drop(open);
    assert!(all.admit(peer(3)).is_some());
}

#[test]
fn per_address_limit_evicts_only_connections_of_that_address() {
    let all = connections(8, Some(2));
    let other = all.admit(peer(9)).unwrap();
    let open: Vec<_> = (0..4).map(|_| all.admit(peer(1)).unwrap()).collect();
    let closed: Vec<_> = open
        .iter()
        .map(|admitted| admitted.connection.is_closed())
        .collect();
    assert_eq!(
        (closed, other.connection.is_closed(), all.open()),
        (vec![true, true, false, false], false, 3)
    );
    drop((open, other));
    assert!(all.lock().addresses.is_empty() && all.lock().anonymous.is_empty());
}

#[test]
fn ipv6_addresses_of_one_64_bit_prefix_are_one_network() {
    let address = |text: &str| network(text.parse().unwrap());
    assert_eq!(
        address("2001:db8:1:2:3:4:5:6"),
        address("2001:db8:1:2:ffff::1")
    );
    assert_ne!(address("2001:db8:1:2::1"), address("2001:db8:1:3::1"));
    assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
}

#[tokio::test]
async fn unsent_data_stalls_connection_and_pending_stream_does_not() {
    let hands = ManualClock::new(Timestamp::from_unix_micros(0));
    let clock = Clock::from(hands.clone());
    let connection = Arc::new(Connection::new(0, peer(1), clock.monotonic()));
    let owed = Owed::new(
        http_body_util::Full::new(Bytes::from("x")),
        Arc::clone(&connection),
        clock.clone(),
        None,
    );
    hands.advance(MAX_STALL * 2);
    assert!(connection.is_stalled(clock.monotonic()));
    drop(owed);
    assert!(!connection.is_stalled(clock.monotonic()));

    let news = futures_util::stream::pending::<Result<Frame<Bytes>, std::convert::Infallible>>();
    let body = http_body_util::StreamBody::new(news);
    let mut waiting = Owed::new(body, Arc::clone(&connection), clock.clone(), None);
    assert!(futures_util::poll!(http_body_util::BodyExt::frame(&mut waiting)).is_pending());
    hands.advance(MAX_STALL * 2);
    assert!(!connection.is_stalled(clock.monotonic()));
    drop(waiting);
    assert_eq!(connection.owed.load(Ordering::Relaxed), 0);
}
