//! The flow against the simulator: real sockets, a real database, a clock that waits an hour in a millisecond.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

mod audit;
mod bad_day;
mod clock_walk;
mod cloud;
mod contract;
mod crm;
mod defects;
mod file;
mod flow;
mod foreign;
mod http2;
mod master_key;
mod model;
mod peer;
mod quota;
mod recovery;
mod retention;
mod rotation;
#[cfg(debug_assertions)]
mod seams;
mod set_clock;
mod world;

/// The store of a single machine: one file.
const STORE: world::Kept = world::Kept::InAFile;
