//! The tests of the session engine on a store that several processes share: the SQLite suite again,
//! on a real PostgreSQL server. Tests that do not depend on the store (rate limiting within a
//! process, HTTP/2, the contract) are left out.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

#[path = "../it/audit.rs"]
mod audit;
mod batches;
#[path = "../it/chaos.rs"]
mod chaos;
#[path = "../it/clock_skew.rs"]
mod clock_skew;
#[path = "../it/clock_walk.rs"]
mod clock_walk;
mod clocks;
mod connection_loss;
#[cfg(debug_assertions)]
#[path = "../it/crash_recovery.rs"]
mod crash_recovery;
#[path = "../it/create_session.rs"]
mod create_session;
mod fleet;
#[path = "../it/foreign.rs"]
mod foreign;
#[path = "../it/harness.rs"]
mod harness;
#[path = "../it/master_key.rs"]
mod master_key;
#[path = "../it/model_check.rs"]
mod model_check;
#[path = "../it/peer.rs"]
mod peer;
#[path = "../it/public_surfaces.rs"]
mod public_surfaces;
#[path = "../it/recovery.rs"]
mod recovery;
#[path = "../it/regressions.rs"]
mod regressions;
#[path = "../it/retention.rs"]
mod retention;
#[path = "../it/rotation.rs"]
mod rotation;
#[cfg(debug_assertions)]
mod store_migrate;
mod tls;
#[path = "../it/webhooks.rs"]
mod webhooks;

/// The store of this test binary: PostgreSQL.
const STORE: harness::Backend = harness::Backend::Postgres;
