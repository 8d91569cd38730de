//! Tests that try every case: each crash with each fault, each interleaving, clock jumps, half an hour
//! at the rate limit, years of key rotation.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

mod clock_walk;
#[cfg(debug_assertions)]
mod crash_recovery;
mod model_check;
mod rate_limit;
mod rotation;
