//! Tests of the session engine against the simulator, with real sockets, a real database and a
//! clock that passes an hour in a millisecond.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

mod audit;
mod clock_skew;
mod contract;
mod create_session;
mod foreign;
mod http2;
mod master_key;
mod peer;
mod postgres;
mod public_surfaces;
mod recovery;
mod regressions;
mod retention;
mod webhooks;
