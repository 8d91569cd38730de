//! Second opinions: programs of others, in other languages, that use what guestlane writes and serves
//! (interop/README.md). `.ci/run` installs them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

mod browser;
mod interop;
mod monitoring;
mod pools;
mod proxy;
mod service;
