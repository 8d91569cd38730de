//! What every implementation of [`Backend`](guestlane_store::Backend) does. Each test runs once for
//! each database: on a file, and on a real PostgreSQL (docs/postgres.md).
#![allow(clippy::unwrap_used, clippy::panic, reason = "this is a test")]

mod audit;
mod batches;
mod keys;
mod kit;
mod outbox;
mod retention;
mod secrets;
mod sessions;
