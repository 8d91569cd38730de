//! Audit records and audit logs, as the store returns them.

use std::{path::PathBuf, sync::Arc};

use guestlane_core::{request::GuestId, session::SessionId};
use guestlane_tlog::{AuditError, Checkpoint};

/// How the audit log names guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestIdMode {
    /// By guest ID (requirement R11, docs/requirements.md).
    Plain,
    /// By a keyed hash, with a key for each guest that can be deleted.
    Pseudonymous,
}

/// Settings of the audit log.
#[derive(Debug, Clone)]
pub struct AuditSettings {
    /// The path of the first log's file. The files of the others are in the same directory.
    pub path: PathBuf,
    /// How guests are named.
    pub guest_ids: GuestIdMode,
    /// Size in bytes at which a file is full. With `None`, a log is never closed.
    pub rotate_at: Option<u64>,
}

/// An audit record in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// The number of its log.
    pub log: u32,
    /// Its index in the log.
    pub index: u64,
    /// Its line, without the line break.
    pub line: String,
}

/// Selects audit records.
#[derive(Debug, Clone, Default)]
pub struct RecordFilter {
    /// Only records of this session.
    pub session: Option<SessionId>,
    /// Only records of this guest, under its ID or its pseudonym.
    pub guest: Option<GuestId>,
    /// Maximum number of records; the last ones are returned.
    pub limit: u32,
}

/// An audit log in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogInfo {
    /// The number of the log.
    pub log: u32,
    /// The path of its file.
    pub path: PathBuf,
    /// The checkpoint of its present state, which its file must match.
    pub checkpoint: Checkpoint,
    /// Whether the log is closed because its file was full.
    pub closed: bool,
    /// Whether its files belong to another state directory, possibly on another machine.
    pub other_node: bool,
}

/// The outcome of rewriting a log's files.
#[derive(Debug, Clone)]
pub enum RestoreOutcome {
    /// The files were written.
    Restored {
        /// The path of the file with the lines.
        path: PathBuf,
        /// Number of records.
        records: u64,
    },
    /// There is no such log.
    Unknown,
    /// This file exists and must be moved away first.
    FileExists(PathBuf),
    /// Another process owns the log.
    Busy,
    /// The files cannot be written.
    Failed(Arc<AuditError>),
}

/// Returns the timestamp in a record's line, or an empty text if there is none.
pub(super) fn timestamp(line: &str) -> &str {
    line.split_once(r#""timestamp":""#)
        .and_then(|(_, rest)| rest.split('"').next())
        .unwrap_or_default()
}
