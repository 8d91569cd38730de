//! The service as its callers see it: real sockets, a real store, the simulator for a platform.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

mod access;
mod batch;
mod connections;
mod documents;
mod ending;
mod limits;
mod sessions;
mod tls;
mod watched;
mod world;
