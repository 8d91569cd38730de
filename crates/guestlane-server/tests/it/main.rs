//! Tests of the service through its API, with real sockets, a real store and the simulator.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

mod access;
mod batch;
mod connections;
mod limits;
mod observability;
mod openapi;
mod sessions;
mod shutdown;
mod tls;
