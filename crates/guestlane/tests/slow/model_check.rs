//! Model check of every interleaving of two callers, two workers and one crash, on the product's
//! own transition table and leases.
//!
//! The search is exhaustive. From one idempotency key and an empty platform it visits every
//! reachable state, with a bounded number of faults and of leaps of time. The transitions are the
//! product's own ([`Session`]). The store and the platform are modelled here. The store is a row
//! that a worker with an older epoch cannot write. On `rest` the platform remembers a key for 24
//! hours. On `web-messaging` an identifier belongs to one contact, and a session's token to one
//! conversation, without expiry. The invariants are listed in ARCHITECTURE.md.

mod invariants;
mod model;
mod platform;

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use guestlane_core::{
    session::{
        Availability, Failure, LEASE_TTL, SessionRecord, SessionState, StepFailure, SurfaceBinding,
        plan,
    },
    token::TokenIdentity,
};
use guestlane_runtime::Timestamp;
use guestlane_testkit::platform::{request, tell};

use model::*;
use platform::*;

/// Visits every reachable state and returns the number of states.
fn walk(way: &SurfaceBinding, faults: u8, leaps: u8) -> usize {
    let mut seen = HashSet::new();
    let mut queue = VecDeque::from([Model::new(way.clone(), faults, leaps)]);
    seen.insert(queue[0].key());
    let mut next = Vec::new();
    while let Some(state) = queue.pop_front() {
        state.assert_invariants();
        state.next(&mut next);
        for state in next.drain(..) {
            if seen.insert(state.key()) {
                queue.push_back(state);
            }
        }
        assert!(state.terminates(), "I11: a session does not come to rest");
    }
    seen.len()
}

#[test]
fn rest_model_keeps_every_invariant_in_every_interleaving() {
    for (faults, leaps) in [(0, 2), (1, 2), (2, 1)] {
        let states = walk(&SurfaceBinding::Rest, faults, leaps);
        assert!(states > 1000, "{states}");
        tell(&format!(
            "{faults} faults, {leaps} leaps of time: {states} states"
        ));
    }
}

#[test]
fn web_messaging_model_keeps_every_invariant_in_every_interleaving() {
    let way = SurfaceBinding::WebMessaging {
        deployment: guestlane_sim::DEPLOYMENT_ID,
        token: b"sealed".to_vec(),
    };
    for (faults, leaps) in [(0, 2), (1, 1), (2, 1)] {
        let states = walk(&way, faults, leaps);
        assert!(states > 1000, "{states}");
        tell(&format!(
            "web-messaging: {faults} faults, {leaps} leaps of time: {states} states"
        ));
    }
}
