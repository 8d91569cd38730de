//! Tests of the session engine against the simulator, with real sockets, a real database and a
//! clock that passes an hour in a millisecond.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

mod audit;
mod chaos;
mod clock_skew;
mod clock_walk;
mod contract;
#[cfg(debug_assertions)]
mod crash_recovery;
mod create_session;
mod foreign;
mod harness;
mod http2;
mod master_key;
mod model_check;
mod peer;
mod public_surfaces;
mod rate_limit;
mod recovery;
mod regressions;
mod retention;
mod rotation;
mod sqlite_only;
mod webhooks;

/// The store of this test binary: SQLite.
const STORE: harness::Backend = harness::Backend::Sqlite;
