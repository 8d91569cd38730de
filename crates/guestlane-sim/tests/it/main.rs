//! The simulator rejects the requests that the platform rejects, and keeps the state that the
//! platform keeps.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

mod admin_api;
mod client;
mod faults;
mod files;
mod frame_faults;
mod guest;
mod platform;
mod public_api;
mod sessions;
mod tls;
