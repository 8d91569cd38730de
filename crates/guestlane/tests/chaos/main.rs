//! Random faults under load, and databases that break off: no session is lost, none is duplicated.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

mod connection_loss;
mod faults;
