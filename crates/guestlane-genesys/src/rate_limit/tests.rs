use super::*;
use crate::priority::Priority;

/// All clients have an access token.
const ALL: u64 = u64::MAX;

const START: Timestamp = Timestamp::from_unix_micros(1_000_000_000);

fn turns(rate: Option<Rate>, clients: usize) -> Schedule {
    let states = (0..clients).map(|_| ClientState::new(rate)).collect();
    Schedule {
        rate: None,
        clients: states,
        waiting: BTreeMap::new(),
        came: 0,
        served: false,
    }
}

impl Schedule {
    fn wait(
        &mut self,
        priority: Priority,
        operation: Operation,
    ) -> oneshot::Receiver<Option<usize>> {
        let (go, gone) = oneshot::channel();
        self.came += 1;
        let waiter = Waiter {
            came: self.came,
            go,
        };
        self.waiting
            .entry((priority, operation, 0))
            .or_default()
            .push_back(waiter);
        gone
    }

    /// Uses up the burst allowance.
    fn exhaust(&mut self, now: Timestamp) {
        while let Choice::Now(client) = self.choose(Operation::Contact, 0, ALL, now) {
            self.clients[client].take(Operation::Contact, now);
        }
    }
}

#[test]
fn interactive_calls_precede_background_calls_in_fifo_order() {
    let mut turns = turns(Some(Rate::REST), 1);
    turns.exhaust(START);
    let mut rows: Vec<_> = (0..50)
        .map(|_| turns.wait(Priority::Background, Operation::Contact))
        .collect();
    let mut person = turns.wait(Priority::Interactive, Operation::OpenConversation);
    let mut other = turns.wait(Priority::Interactive, Operation::Contact);
    let mut now = START;
    for expected in ["person", "other", "row"] {
        while now < START + Duration::from_secs(1) {
            let next = turns.dispatch(ALL, now).unwrap();
            if next > now {
                now = next;
            }
            let gone = |gone: &mut oneshot::Receiver<Option<usize>>| gone.try_recv().is_ok();
            let went = if gone(&mut person) {
                "person"
            } else if gone(&mut other) {
                "other"
            } else if gone(&mut rows[0]) {
                "row"
            } else {
                continue;
            };
            assert_eq!(went, expected);
            break;
        }
    }
    assert!(rows[1].try_recv().is_err(), "one at a time");
}

#[test]
fn calls_are_spread_evenly_over_oauth_clients() {
    let mut turns = turns(Some(Rate::REST), 4);
    let mut now = START;
    for n in 1..=4000_u64 {
        let client = loop {
            match turns.choose(Operation::Contact, 0, ALL, now) {
                Choice::Now(client) => break client,
                Choice::At(at) => now = at,
                Choice::RefreshToken(_) => panic!(),
            }
        };
        turns.clients[client].take(Operation::Contact, now);
        let calls: Vec<_> = turns.clients.iter().map(|state| state.calls).collect();
        let spread = calls.iter().max().unwrap() - calls.iter().min().unwrap();
        assert!(spread <= 1, "{calls:?} after {n}");
    }
    let seconds = now.since(START).as_secs_f64();
    assert!(4000.0 / seconds >= 4.0 * 97.0, "{seconds}");
}

#[test]
fn throttled_or_quarantined_client_is_skipped_until_recovery() {
    let mut turns = turns(Some(Rate::REST), 2);
    turns.clients[0].throttled(Operation::Contact, Duration::from_secs(7), START);
    assert!((0..5).all(|_| matches!(
        turns.choose(Operation::Contact, 0, ALL, START),
        Choice::Now(1)
    )));
    assert!(matches!(
        turns.choose(Operation::Contact, 0, ALL, START + Duration::from_secs(7)),
        Choice::Now(0)
    ));

    turns.clients[1].quarantine(START);
    assert!(
        matches!(turns.choose(Operation::Contact, 0, ALL, START), Choice::At(at) if at == START + Duration::from_secs(7))
    );
    turns.clients[0].quarantine(START);
    assert!(
        matches!(
            turns.choose(Operation::Contact, 0, 0, START),
            Choice::RefreshToken(0)
        ),
        "when all are out, one is tried"
    );
    // Each quarantine is longer, up to five minutes.
    let mut now = START;
    let rests: Vec<_> = (0..5)
        .map(|_| {
            let rest = turns.clients[1].quarantine(now);
            now = now + rest;
            rest.as_secs()
        })
        .collect();
    assert_eq!(rests, [30, 60, 120, 240, 300]);
}

#[test]
fn endpoint_with_a_lower_limit_is_paced_separately() {
    let mut turns = turns(Some(Rate::PLATFORM_DEFAULT), 1);
    let minute = Duration::from_secs(60);
    turns.clients[0].take(Operation::Contact, START);
    turns.clients[0].observed(Operation::Contact, (1, 60), minute, START, START);
    let mut now = START;
    let mut contacts = 0;
    // Request contacts continuously for two minutes.
    while now < START + minute * 2 {
        match turns.choose(Operation::Contact, 0, ALL, now) {
            Choice::Now(client) => {
                turns.clients[client].take(Operation::Contact, now);
                contacts += 1;
            }
            Choice::At(at) => now = at,
            Choice::RefreshToken(_) => panic!(),
        }
        assert!(
            turns.clients[0].due(Operation::Queue, now) <= now,
            "others are not held back"
        );
    }
    assert!((110..=120).contains(&contacts), "{contacts}");
    // A 429 of this endpoint closes only this endpoint.
    turns.clients[0].throttled(Operation::Contact, minute, now);
    assert!(turns.clients[0].due(Operation::Contact, now) >= now + minute);
    assert!(turns.clients[0].due(Operation::Queue, now) <= now);
    // The endpoint's lower limit is gone.
    turns.clients[0].observed(Operation::Contact, (1, 300), minute, now, now);
    assert!(turns.clients[0].due(Operation::Contact, now) <= now);
}

#[test]
fn exhausted_window_delays_calls_until_its_reset() {
    let mut state = ClientState::new(Some(Rate::PLATFORM_DEFAULT));
    state.observed(
        Operation::Contact,
        (299, 300),
        Duration::from_secs(40),
        START,
        START,
    );
    assert_eq!(state.due(Operation::Contact, START), START);
    state.observed(
        Operation::Contact,
        (300, 300),
        Duration::from_secs(40),
        START,
        START,
    );
    assert_eq!(
        state.due(Operation::Contact, START),
        START + Duration::from_secs(40)
    );
}

#[test]
fn cancelled_waiter_consumes_no_call() {
    let mut turns = turns(Some(Rate::REST), 1);
    turns.exhaust(START);
    let before = turns.clients[0].calls;
    drop(turns.wait(Priority::Interactive, Operation::Contact));
    assert_eq!(turns.dispatch(ALL, START + Duration::from_secs(1)), None);
    assert_eq!(turns.clients[0].calls, before);
}

/// Without a rate limit, calls wait only after a 429.
#[test]
fn calls_without_a_rate_limit_wait_only_after_429() {
    let mut turns = turns(None, 1);
    for _ in 0..10_000 {
        assert!(matches!(
            turns.choose(Operation::Contact, 0, ALL, START),
            Choice::Now(0)
        ));
        turns.clients[0].take(Operation::Contact, START);
    }
    turns.clients[0].throttled(Operation::Contact, Duration::from_secs(3), START);
    assert!(matches!(
        turns.choose(Operation::Contact, 0, ALL, START),
        Choice::At(_)
    ));
}
