//! End-to-end tests of the executable, with real processes and sockets: output, exit codes and
//! effects.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

mod audit;
mod backup;
mod bad_disk;
mod bad_input;
mod batch;
mod browser;
mod confirm;
mod contention;
mod crash;
mod create;
mod demo;
mod diagnosis;
mod fleet;
mod harness;
mod inputs;
mod interop;
mod keys;
mod master_key;
mod operation;
mod ops;
mod ops_interop;
mod outbox;
mod proxy_interop;
mod public_surfaces;
mod random_kills;
mod read_commands;
mod reload;
mod secret_leaks;
mod serve_command;
mod service_harness;
mod service_interop;
mod service_process;
mod traces;
mod urls;
