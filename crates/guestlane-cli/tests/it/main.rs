//! End-to-end tests of the executable, with real processes and sockets: output, exit codes and
//! effects.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

mod audit;
mod backup;
mod bad_input;
mod batch;
mod confirm;
mod contention;
mod crash;
mod create;
mod demo;
mod diagnosis;
mod inputs;
mod keys;
mod master_key;
mod ops;
mod outbox;
mod public_surfaces;
mod read_commands;
mod reload;
mod secret_leaks;
mod serve_command;
mod traces;
mod urls;
