//! The service as its callers see it: real sockets, a real store, the simulator for a platform.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

mod access;
mod batch;
mod connections;
mod harness;
mod limits;
mod observability;
mod openapi;
mod sessions;
mod shutdown;
mod tls;
