//! Processes that are killed at random, and a fleet whose platform and database fail at random.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

mod fleet;
mod random_kills;
