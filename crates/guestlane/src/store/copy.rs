//! Moving: all that a store in a file has goes into a database, and the file is used no more.
//!
//! The file is locked for as long as it takes, and both refuse to be opened until all is there and was compared. Whoever is interrupted begins
//! again with the same command: what is there already is not copied twice.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use guestlane_genesys::{Seam, Seams, Timestamp};
use rusqlite::{Connection as File, OpenFlags, TransactionBehavior, types::ValueRef};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{
    PostgresUrl, StoreError,
    postgres::{Connection, Home, is_served_by_one, migrate},
    sqlite,
};
use crate::audit::{Frontier, leaf_hash, lines_path};

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Rows of each table, the same here and there.
    pub rows: BTreeMap<&'static str, u64>,
    /// Of those, rows that were copied now, and not before.
    pub copied_now: u64,
    /// Logs, each with its size; their roots are the same here and there.
    pub logs: Vec<(u32, u64)>,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyProgress {
    /// The table.
    pub table: &'static str,
    /// Its rows that are there.
    pub done: u64,
    /// All of its rows.
    pub of: u64,
}

/// Why not.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// One of the stores cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database is somebody else's.
    #[error("the database has another store in it already")]
    NotEmpty,
    /// A process has the file open.
    #[error("another process uses the store {}", .0.display())]
    InUse(PathBuf),
    /// It was copied before, and the database may have been used since.
    #[error("this store was copied into the database before")]
    Done,
    /// The audit log's files are not beside this state directory.
    #[error("the audit log's file {} is not there", .0.display())]
    NoAuditFile(PathBuf),
    /// What arrived is not what was sent.
    #[error("{what} is not the same in both: {from} in the file, {to} in the database")]
    Differs {
        /// A table, or a log.
        what: String,
        /// In the file.
        from: String,
        /// In the database.
        to: String,
    },
}

impl From<rusqlite::Error> for CopyError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A column, and what it is in PostgreSQL.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Uuid,
    Text,
    Bytes,
    Number,
    Small,
    Bool,
}

/// A table of both stores, with the columns in which they agree.
struct Table {
    name: &'static str,
    /// In this order rows are copied; the first of them are there when somebody was interrupted.
    key: &'static [&'static str],
    columns: &'static [(&'static str, Kind)],
}

use Kind::{Bool, Bytes, Number, Small, Text};

const TABLES: &[Table] = &[
    Table {
        name: "platform",
        key: &["one"],
        columns: &[("one", Small), ("base_url", Text), ("client_id", Text), ("organization", Text)],
    },
    Table { name: "secret", key: &["name"], columns: &[("name", Text), ("sealed", Bytes)] },
    Table {
        name: "signing_key",
        key: &["kid"],
        columns: &[("kid", Text), ("sealed", Bytes), ("created_at", Number), ("active_from", Number), ("revoked_at", Number)],
    },
    Table {
        name: "api_key",
        key: &["id"],
        columns: &[
            ("id", Text),
            ("name", Text),
            ("hash", Bytes),
            ("scopes", Text),
            ("created_at", Number),
            ("expires_at", Number),
            ("revoked_at", Number),
            ("last_used_at", Number),
        ],
    },
    Table { name: "guest_key", key: &["guest_id"], columns: &[("guest_id", Text), ("key", Bytes)] },
    Table { name: "counter", key: &["name"], columns: &[("name", Text), ("value", Number)] },
    Table { name: "pruned_latency", key: &["latency_us"], columns: &[("latency_us", Number), ("sessions", Number)] },
    Table {
        name: "session",
        key: &["id"],
        columns: &[
            ("id", Kind::Uuid),
            ("idempotency_key", Text),
            ("fingerprint", Bytes),
            ("guest_id", Text),
            ("queue_id", Kind::Uuid),
            ("attributes", Text),
            ("state", Text),
            ("token_kid", Text),
            ("token_jti", Kind::Uuid),
            ("token_iat", Number),
            ("contact_id", Text),
            ("conversation_id", Text),
            ("attempts", Number),
            ("epoch", Number),
            ("admitted_at", Number),
            ("step_since", Number),
            ("due_at", Number),
            ("opened_at", Number),
            ("latency_us", Number),
            ("failure_code", Text),
            ("failure_message", Text),
            ("uncertain", Bool),
            ("surface", Text),
            ("door", Kind::Uuid),
            ("guest_session", Bytes),
            ("guest_session_ends", Number),
            ("message_id", Text),
            ("contact_unknown", Bool),
            ("person", Text),
            ("plain_contact", Bool),
            ("traceparent", Text),
            ("calls", Text),
        ],
    },
    Table {
        name: "outbox",
        key: &["seq"],
        columns: &[
            ("seq", Number),
            ("id", Text),
            ("receiver", Small),
            ("session_id", Kind::Uuid),
            ("guest_id", Text),
            ("body", Text),
            ("state", Text),
            ("tries", Number),
            ("epoch", Number),
            ("created_at", Number),
            ("due_at", Number),
            ("settled_at", Number),
            ("last_error", Text),
        ],
    },
    Table {
        name: "audit_log",
        key: &["log"],
        columns: &[("log", Number), ("size", Number), ("frontier", Bytes), ("closed_at", Number)],
    },
    Table {
        name: "audit_entry",
        key: &["log", "idx"],
        columns: &[("log", Number), ("idx", Number), ("session_id", Kind::Uuid), ("line", Text)],
    },
];

/// Rows of one statement.
const AT_ONCE: usize = 1000;

/// How long an answer of the database may take: an index over all may be looked at.
const LIMIT: Duration = Duration::from_secs(600);

/// Copies the store in `from` into the database `to`, compares both, and lets nobody use the file from then on. The logs belong to the state
/// directory `home` afterwards: there their files are, the first of them `audit_log`. Blocks.
pub fn copy(
    from: &Path,
    to: &PostgresUrl,
    home: &Path,
    audit_log: &Path,
    now: Timestamp,
    seams: &Seams,
    mut progress: impl FnMut(CopyProgress),
) -> Result<Copied, CopyError> {
    let users = sqlite::users(from)?;
    users.try_lock().map_err(|_| CopyError::InUse(from.to_owned()))?;
    let mut file = File::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    file.busy_timeout(Duration::from_secs(5))?;
    sqlite::bring_up(&mut file, from)?;
    // Nobody writes there meanwhile, and nobody has begun to.
    let file = file.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if let Some(missing) = missing_audit_file(&file, audit_log)? {
        return Err(CopyError::NoAuditFile(missing));
    }
    let home = Home::in_directory(home.to_owned())?;
    let mut database = Connection::new(to.clone(), "", LIMIT)?;
    database.be_open()?;
    is_served_by_one(&mut database, &mut Connection::new(to.clone(), "", LIMIT)?)?;
    migrate(&mut database, &to.to_string())?;
    begin(&file, &mut database, now)?;

    let mut copied = Copied { rows: BTreeMap::new(), copied_now: 0, logs: Vec::new() };
    for table in TABLES {
        let of = count(&file, table.name)?;
        let before = count_there(&mut database, table.name)?;
        let mut done = before;
        table.copy(&file, &mut database, &home, |rows| {
            done += rows;
            progress(CopyProgress { table: table.name, done: done.min(of), of });
            seams.pass_blocking(Seam::RowsCopied);
        })?;
        let there = count_there(&mut database, table.name)?;
        if there != of {
            return Err(differs(table.name, of, there));
        }
        copied.rows.insert(table.name, of);
        copied.copied_now += there - before;
    }
    database
        .execute("SELECT setval(pg_get_serial_sequence('outbox', 'seq'), (SELECT coalesce(max(seq), 0) + 1 FROM outbox))", &[])?;
    copied.logs = compare_logs(&file, &mut database)?;
    // From here on nobody opens either, until the last word is there.
    file.execute("INSERT INTO chore (name) VALUES (?1) ON CONFLICT DO NOTHING", [format!("{}{to}", sqlite::MOVED)])?;
    file.commit()?;
    seams.pass_blocking(Seam::StoreMoved);
    database.execute("UPDATE copied SET done_at = $1 WHERE done_at IS NULL", &[&now.unix_micros()])?;
    Ok(copied)
}

/// The database is empty, or has what an earlier copy of the same file left there.
fn begin(file: &File, database: &mut Connection, now: Timestamp) -> Result<(), CopyError> {
    // Every store has a key of its own.
    let source: Option<Vec<u8>> =
        file.query_row("SELECT sealed FROM signing_key ORDER BY created_at, kid LIMIT 1", [], |row| row.get(0)).ok();
    let source = source.unwrap_or_default();
    let known = database.query_opt("SELECT source, done_at IS NOT NULL FROM copied", &[])?;
    match known.map(|row| (row.get::<_, Vec<u8>>(0), row.get::<_, bool>(1))) {
        Some((known, true)) if known == source => return Err(CopyError::Done),
        Some((known, false)) if known == source => return Ok(()),
        Some(_) => return Err(CopyError::NotEmpty),
        None => {}
    }
    for table in ["session", "signing_key", "platform", "audit_log"] {
        if count_there(database, table)? > 0 {
            return Err(CopyError::NotEmpty);
        }
    }
    database.execute("INSERT INTO copied (source, begun_at) VALUES ($1, $2)", &[&source, &now.unix_micros()])?;
    Ok(())
}

/// The file of a log that goes on, if it is not where it should.
fn missing_audit_file(file: &File, first: &Path) -> Result<Option<PathBuf>, CopyError> {
    let mut open = file.prepare("SELECT log FROM audit_log WHERE closed_at IS NULL AND size > 0 ORDER BY log")?;
    let logs = open.query_map([], |row| row.get(0))?.collect::<Result<Vec<u32>, _>>()?;
    Ok(logs.into_iter().map(|log| lines_path(first, log)).find(|path| !path.exists()))
}

fn differs(what: impl Into<String>, from: impl ToString, to: impl ToString) -> CopyError {
    CopyError::Differs { what: what.into(), from: from.to_string(), to: to.to_string() }
}

fn count(file: &File, table: &str) -> Result<u64, CopyError> {
    Ok(file.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?)
}

fn count_there(database: &mut Connection, table: &str) -> Result<u64, CopyError> {
    let row = database.query_one(&format!("SELECT count(*) FROM {table}"), &[])?;
    Ok(row.get::<_, i64>(0).unsigned_abs())
}

/// Each log's lines, as they arrived, lead to the root that the file signed.
fn compare_logs(file: &File, database: &mut Connection) -> Result<Vec<(u32, u64)>, CopyError> {
    let mut logs = Vec::new();
    let mut select = file.prepare("SELECT log, size, frontier FROM audit_log ORDER BY log")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (log, size, frontier): (u32, u64, Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let wanted = Frontier::from_bytes(size, &frontier).ok_or(StoreError::Row("audit_log.frontier"))?;
        let mut found = Frontier::default();
        loop {
            let from = i64::try_from(found.size()).unwrap_or(i64::MAX);
            let lines = "SELECT line FROM audit_entry WHERE log = $1 AND idx >= $2 ORDER BY idx LIMIT 10000";
            let lines = database.query(lines, &[&i64::from(log), &from])?;
            if lines.is_empty() {
                break;
            }
            lines.iter().for_each(|row| found.push(leaf_hash(row.get::<_, &str>(0).as_bytes())));
        }
        if found != wanted {
            return Err(differs(format!("the audit log {log}"), hex(&wanted.root()), hex(&found.root())));
        }
        logs.push((log, size));
    }
    Ok(logs)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Table {
    fn copy(&self, file: &File, database: &mut Connection, home: &Home, mut copied: impl FnMut(u64)) -> Result<(), CopyError> {
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| *name).collect();
        let key = self.key.join(", ");
        let after = self.last(database)?;
        let from = if after.is_empty() {
            String::new()
        } else {
            let marks: Vec<_> = (1..=after.len()).map(|n| format!("?{n}")).collect();
            format!("WHERE ({key}) > ({})", marks.join(", "))
        };
        let mut select = file.prepare(&format!("SELECT {} FROM {} {from} ORDER BY {key}", names.join(", "), self.name))?;
        let mut rows = select.query(rusqlite::params_from_iter(after))?;
        let insert = self.insert();
        let mut columns: Vec<Column> = self.columns.iter().map(|(_, kind)| Column::new(*kind)).collect();
        let mut waiting = 0;
        loop {
            let row = rows.next()?;
            if let Some(row) = row {
                for (index, column) in columns.iter_mut().enumerate() {
                    column.push(row.get_ref(index)?)?;
                }
                waiting += 1;
            } else if waiting == 0 {
                return Ok(());
            }
            if row.is_none() || waiting == AT_ONCE {
                let mut params: Vec<&(dyn ToSql + Sync)> = columns.iter().map(Column::param).collect();
                if self.name == "audit_log" {
                    params.push(&home.id);
                }
                database.repeated(|database| database.execute(&insert, &params).map(drop))?;
                drop(params);
                columns.iter_mut().for_each(Column::clear);
                copied(std::mem::take(&mut waiting) as u64);
            }
        }
    }

    /// What is only in the database has its value here: whose logs they are, and that counts are of no log.
    fn insert(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| *name).collect();
        let arrays: Vec<_> = (1..).zip(self.columns).map(|(n, (_, kind))| format!("${n}::{}[]", kind.name())).collect();
        let (more, value) = match self.name {
            "audit_log" => (", home", format!(", ${}::uuid", self.columns.len() + 1)),
            "counter" => (", log", ", 0".to_owned()),
            _ => ("", String::new()),
        };
        let (names, arrays) = (names.join(", "), arrays.join(", "));
        format!("INSERT INTO {} ({names}{more}) SELECT t.*{value} FROM unnest({arrays}) AS t ON CONFLICT DO NOTHING", self.name)
    }

    /// The key of the last row that is there, where rows are many: the others are copied anew, and found to be there.
    fn last(&self, database: &mut Connection) -> Result<Vec<rusqlite::types::Value>, CopyError> {
        let sql = |by: &str| format!("SELECT {} FROM {} ORDER BY {by} LIMIT 1", self.key.join(", "), self.name);
        Ok(match self.name {
            "session" => match database.query_opt(&sql("id DESC"), &[])? {
                Some(row) => vec![row.get::<_, Uuid>(0).into_bytes().to_vec().into()],
                None => Vec::new(),
            },
            "outbox" => match database.query_opt(&sql("seq DESC"), &[])? {
                Some(row) => vec![row.get::<_, i64>(0).into()],
                None => Vec::new(),
            },
            "audit_entry" => match database.query_opt(&sql("log DESC, idx DESC"), &[])? {
                Some(row) => vec![row.get::<_, i64>(0).into(), row.get::<_, i64>(1).into()],
                None => Vec::new(),
            },
            _ => Vec::new(),
        })
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Uuid => "uuid",
            Self::Text => "text",
            Self::Bytes => "bytea",
            Self::Number => "bigint",
            Self::Small => "integer",
            Self::Bool => "boolean",
        }
    }
}

/// Values of one column.
enum Column {
    Uuid(Vec<Option<Uuid>>),
    Text(Vec<Option<String>>),
    Bytes(Vec<Option<Vec<u8>>>),
    Number(Vec<Option<i64>>),
    Small(Vec<Option<i32>>),
    Bool(Vec<Option<bool>>),
}

impl Column {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Uuid => Self::Uuid(Vec::new()),
            Kind::Text => Self::Text(Vec::new()),
            Kind::Bytes => Self::Bytes(Vec::new()),
            Kind::Number => Self::Number(Vec::new()),
            Kind::Small => Self::Small(Vec::new()),
            Kind::Bool => Self::Bool(Vec::new()),
        }
    }

    fn push(&mut self, value: ValueRef<'_>) -> Result<(), CopyError> {
        let strange = || StoreError::Row("a value of another kind than its column's");
        let number = || value.as_i64_or_null().map_err(|_| strange());
        match self {
            Self::Uuid(values) => {
                let bytes = value.as_blob_or_null().map_err(|_| strange())?;
                values.push(bytes.map(Uuid::from_slice).transpose().map_err(|_| strange())?);
            }
            Self::Text(values) => {
                let text = value.as_str_or_null().map_err(|_| strange())?;
                values.push(text.map(|text| text.replace('\0', "\u{fffd}"))); // which PostgreSQL keeps in no text
            }
            Self::Bytes(values) => values.push(value.as_blob_or_null().map_err(|_| strange())?.map(<[u8]>::to_vec)),
            Self::Number(values) => values.push(number()?),
            Self::Small(values) => values.push(number()?.map(i32::try_from).transpose().map_err(|_| strange())?),
            Self::Bool(values) => values.push(number()?.map(|number| number != 0)),
        }
        Ok(())
    }

    fn param(&self) -> &(dyn ToSql + Sync) {
        match self {
            Self::Uuid(values) => values,
            Self::Text(values) => values,
            Self::Bytes(values) => values,
            Self::Number(values) => values,
            Self::Small(values) => values,
            Self::Bool(values) => values,
        }
    }

    fn clear(&mut self) {
        match self {
            Self::Uuid(values) => values.clear(),
            Self::Text(values) => values.clear(),
            Self::Bytes(values) => values.clear(),
            Self::Number(values) => values.clear(),
            Self::Small(values) => values.clear(),
            Self::Bool(values) => values.clear(),
        }
    }
}
