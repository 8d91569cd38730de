//! The simulator refuses what the platform refuses, and remembers what the platform remembers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

mod admin_api;
mod client;
mod faults;
mod files;
mod frame_faults;
mod guest;
mod official;
mod platform;
mod sessions;
mod tls;
