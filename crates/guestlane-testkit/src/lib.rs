//! The kit of the tests: a simulated platform with an engine or a service, a store in either
//! database, and real PostgreSQL servers. Not published.
#![allow(clippy::unwrap_used, clippy::panic, reason = "part of tests")]

pub mod batch;
pub mod cli;
mod config;
pub mod platform;
mod postgres;
pub mod serve;
pub mod service;
pub mod service_process;
pub mod simulator_process;

use std::path::{Path, PathBuf};

pub use postgres::{Pool, Proxy, Server, TableLock, column, execute, new_schema, schema_in};

/// A database that can have a store. Tests of both run once for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// A file.
    Sqlite,
    /// A schema of a real server.
    Postgres,
}

impl Backend {
    /// Returns the location of an empty database: a file in `directory`, or a new schema.
    pub fn new_database(self, directory: &Path) -> String {
        match self {
            Self::Sqlite => format!("sqlite:{}", directory.join("guestlane.db").display()),
            Self::Postgres => postgres::new_schema(),
        }
    }
}

/// Returns the root of the repository.
pub fn repository() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap()
}
