//! Processes on bad ground: a full or locked disk, a hung database, clients that stall.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

mod bad_disk;
mod operation;
