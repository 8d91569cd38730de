//! Audit records and logs, as the store knows them.

use std::{path::PathBuf, sync::Arc};

use guestlane_core::{request::GuestId, session::SessionId};
use guestlane_tlog::{AuditError, Checkpoint};

/// How the audit log calls guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestIdMode {
    /// By their ids (requirement R11, docs/requirements.md).
    Plain,
    /// By a keyed hash, with a key for each guest that can be thrown away.
    Pseudonymous,
}

/// What the audit log must know.
#[derive(Debug, Clone)]
pub struct AuditSettings {
    /// The file of the first log's lines; the others stand beside it.
    pub path: PathBuf,
    /// How guests are called.
    pub guest_ids: GuestIdMode,
    /// A file of this many bytes is full; `None`: never.
    pub rotate_at: Option<u64>,
}

/// A record as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// Its log.
    pub log: u32,
    /// Its place in it.
    pub index: u64,
    /// Its line, without the end.
    pub line: String,
}

/// Which records to look at.
#[derive(Debug, Clone, Default)]
pub struct RecordFilter {
    /// Of this session.
    pub session: Option<SessionId>,
    /// Of this guest, whatever the log calls them.
    pub guest: Option<GuestId>,
    /// At most so many: the last ones.
    pub limit: u32,
}

/// A log as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogInfo {
    /// Its number.
    pub log: u32,
    /// The file of its lines.
    pub path: PathBuf,
    /// Its state, which its file must have.
    pub checkpoint: Checkpoint,
    /// Whether it is full.
    pub closed: bool,
    /// Whether its files are beside another state directory, on another machine perhaps.
    pub elsewhere: bool,
}

/// What came of writing a log's files anew.
#[derive(Debug, Clone)]
pub enum RestoreOutcome {
    /// They are there.
    Restored {
        /// The file of the lines.
        path: PathBuf,
        /// How many.
        records: u64,
    },
    /// There is no such log.
    Unknown,
    /// This file must be moved away first.
    FileExists(PathBuf),
    /// Another process writes it.
    Busy,
    /// They cannot be written.
    Failed(Arc<AuditError>),
}

/// Of a record.
pub(super) fn timestamp(line: &str) -> &str {
    line.split_once(r#""timestamp":""#)
        .and_then(|(_, rest)| rest.split('"').next())
        .unwrap_or_default()
}
