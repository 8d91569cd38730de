//! The same flow with a store that several processes share: the suite of a single machine once more, on a real PostgreSQL,
//! but for what the store has no part in (the pace of one process, HTTP/2, the contract).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

#[path = "../it/audit.rs"]
mod audit;
#[path = "../it/bad_day.rs"]
mod bad_day;
mod batches;
#[path = "../it/clock_walk.rs"]
mod clock_walk;
mod clocks;
#[path = "../it/cloud.rs"]
mod cloud;
mod connections;
#[path = "../it/crm.rs"]
mod crm;
#[path = "../it/defects.rs"]
mod defects;
mod fleet;
#[path = "../it/flow.rs"]
mod flow;
#[path = "../it/foreign.rs"]
mod foreign;
#[path = "../it/master_key.rs"]
mod master_key;
#[path = "../it/model.rs"]
mod model;
#[cfg(debug_assertions)]
mod moving;
#[path = "../it/peer.rs"]
mod peer;
#[path = "../it/recovery.rs"]
mod recovery;
#[path = "../it/retention.rs"]
mod retention;
#[path = "../it/rotation.rs"]
mod rotation;
#[cfg(debug_assertions)]
#[path = "../it/seams.rs"]
mod seams;
#[path = "../it/set_clock.rs"]
mod set_clock;
mod tls;
#[path = "../it/world.rs"]
mod world;

/// The store of several machines.
const STORE: world::Kept = world::Kept::InPostgres;
