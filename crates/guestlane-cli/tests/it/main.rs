//! The executable as its users run it: real processes, real sockets, what is on the screen and with which exit code it ends.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

mod audit;
mod backup;
mod bad_disk;
mod bad_input;
mod batch;
mod canary;
mod confirm;
mod contention;
mod create;
mod demo;
mod diagnosis;
mod fleet;
mod inputs;
mod interop;
mod keys;
mod killed;
mod kills;
mod master_key;
mod office;
mod official;
mod operation;
mod ops;
mod ops_interop;
mod outbox;
mod page;
mod proxy_interop;
mod reload;
mod serve;
mod served;
mod service_interop;
mod serving;
mod state;
mod traces;
mod urls;
