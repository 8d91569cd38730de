//! The tables that a migration copies, and how it reads their rows from both stores.

use guestlane_runtime::{FailPoint, FailPoints};
use rusqlite::Connection as File;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{
    MigrationError,
    rows::{KeyValue, Kind, Rows},
};
use crate::postgres::Connection;

/// A table of both stores, with the columns that both have.
pub(super) struct Table {
    pub(super) name: &'static str,
    /// Number of leading columns that form the primary key. Rows are copied in its order.
    key: usize,
    columns: &'static [(&'static str, Kind)],
}

use Kind::{Bool, Bytes, Number, Small, Text};

/// All tables of a file except `maintenance_task`, whose rows concern the file itself.
pub(super) const TABLES: &[Table] = &[
    Table {
        name: "platform",
        key: 1,
        columns: &[
            ("one", Small),
            ("base_url", Text),
            ("client_id", Text),
            ("organization", Text),
        ],
    },
    Table {
        name: "property",
        key: 1,
        columns: &[("name", Text), ("value", Text)],
    },
    Table {
        name: "secret",
        key: 1,
        columns: &[("name", Text), ("sealed", Bytes)],
    },
    Table {
        name: "signing_key",
        key: 1,
        columns: &[
            ("kid", Text),
            ("sealed", Bytes),
            ("created_at", Number),
            ("active_from", Number),
            ("revoked_at", Number),
        ],
    },
    Table {
        name: "api_key",
        key: 1,
        columns: &[
            ("id", Text),
            ("name", Text),
            ("hash", Bytes),
            ("scopes", Text),
            ("created_at", Number),
            ("expires_at", Number),
            ("revoked_at", Number),
            ("last_used_at", Number),
            ("owner", Text),
        ],
    },
    Table {
        name: "pseudonym_key",
        key: 1,
        columns: &[("guest_id", Text), ("key", Bytes)],
    },
    Table {
        name: "counter",
        key: 1,
        columns: &[("name", Text), ("value", Number)],
    },
    Table {
        name: "pruned_latency",
        key: 1,
        columns: &[("latency_us", Number), ("sessions", Number)],
    },
    Table {
        name: "session",
        key: 1,
        columns: &[
            ("id", Kind::Uuid),
            ("owner", Text),
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
            ("step_started_at", Number),
            ("lease_expires_at", Number),
            ("next_attempt_at", Number),
            ("ended_at", Number),
            ("latency_us", Number),
            ("failure_code", Text),
            ("failure_message", Text),
            ("outcome_unknown", Bool),
            ("surface", Text),
            ("surface_target_id", Kind::Uuid),
            ("guest_session", Bytes),
            ("guest_session_expires_at", Number),
            ("message_id", Text),
            ("contact_id_lost", Bool),
            ("contact_details", Text),
            ("contact_without_identifier", Bool),
            ("traceparent", Text),
            ("calls", Text),
            ("recorded_at", Number),
        ],
    },
    Table {
        name: "outbox",
        key: 1,
        columns: &[
            ("seq", Number),
            ("id", Text),
            ("endpoint", Small),
            ("session_id", Kind::Uuid),
            ("guest_id", Text),
            ("body", Text),
            ("state", Text),
            ("attempts", Number),
            ("epoch", Number),
            ("created_at", Number),
            ("due_at", Number),
            ("ended_at", Number),
            ("last_error", Text),
        ],
    },
    Table {
        name: "audit_log",
        key: 1,
        columns: &[
            ("log", Number),
            ("size", Number),
            ("frontier", Bytes),
            ("closed_at", Number),
        ],
    },
    Table {
        name: "audit_record",
        key: 2,
        columns: &[
            ("log", Number),
            ("idx", Number),
            ("session_id", Kind::Uuid),
            ("line", Text),
        ],
    },
];

/// Maximum number of rows that one statement reads or inserts.
const CHUNK: usize = 1000;

/// Key after which the next chunk starts. `None` is the start of the table.
type After = Option<Vec<KeyValue>>;

impl Table {
    /// Makes the rows in the database equal to those in the file, and returns how many it copied.
    /// It keeps unchanged rows of an earlier run. From the first difference on, it replaces all
    /// rows, so that no stale row remains.
    pub(super) fn copy(
        &self,
        file: &File,
        database: &mut Connection,
        home: Uuid,
        fail_points: &FailPoints,
        mut progress: impl FnMut(u64),
    ) -> Result<u64, MigrationError> {
        let (mut after, kept) = self.common_prefix(file, database, &mut progress)?;
        self.delete_after(database, &after)?;
        let insert = self.insert();
        let (mut done, mut copied) = (kept, 0);
        loop {
            let rows = self.rows_of_file(file, &after)?;
            if rows.len() == 0 {
                return Ok(copied);
            }
            let mut params = rows.params();
            if self.name == "audit_log" {
                params.push(&home);
            }
            database.repeated(|database| database.execute(&insert, &params).map(drop))?;
            after = rows.last_key(self.key);
            copied += rows.len() as u64;
            done += rows.len() as u64;
            progress(done);
            fail_points.hit_blocking(FailPoint::RowsCopied);
        }
    }

    /// Returns the digests of the table in the file and in the database, over all columns that both
    /// have.
    pub(super) fn digests(
        &self,
        file: &File,
        database: &mut Connection,
    ) -> Result<(String, String), MigrationError> {
        let in_file = self.digest(|after| self.rows_of_file(file, after))?;
        let in_database = self.digest(|after| self.rows_of_database(database, after))?;
        Ok((in_file, in_database))
    }

    fn digest(
        &self,
        mut next: impl FnMut(&After) -> Result<Rows, MigrationError>,
    ) -> Result<String, MigrationError> {
        let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        let mut after = None;
        loop {
            let rows = next(&after)?;
            if rows.len() == 0 {
                return Ok(super::hex(digest.finish().as_ref()));
            }
            rows.hash_into(&mut digest);
            after = rows.last_key(self.key);
        }
    }

    /// Returns the key after the last chunk that is equal in both stores, and the number of rows up
    /// to it.
    fn common_prefix(
        &self,
        file: &File,
        database: &mut Connection,
        progress: &mut impl FnMut(u64),
    ) -> Result<(After, u64), MigrationError> {
        let (mut after, mut equal) = (None, 0);
        loop {
            let (ours, theirs) = (
                self.rows_of_file(file, &after)?,
                self.rows_of_database(database, &after)?,
            );
            if ours.len() == 0 || ours != theirs {
                return Ok((after, equal));
            }
            equal += ours.len() as u64;
            progress(equal);
            after = ours.last_key(self.key);
        }
    }

    fn rows_of_file(&self, file: &File, after: &After) -> Result<Rows, MigrationError> {
        let mark = |n: usize| format!("?{n}");
        let (names, key) = (self.names(), self.key_columns("").join(", "));
        let sql = format!(
            "SELECT {names} FROM {}{} ORDER BY {key} LIMIT {CHUNK}",
            self.name,
            self.behind(after, &key, mark)
        );
        let mut select = file.prepare_cached(&sql)?;
        let after = after.iter().flatten().map(KeyValue::for_file);
        let mut found = select.query(rusqlite::params_from_iter(after))?;
        let mut rows = self.empty();
        while let Some(row) = found.next()? {
            rows.push_from_file(row)?;
        }
        Ok(rows)
    }

    fn rows_of_database(
        &self,
        database: &mut Connection,
        after: &After,
    ) -> Result<Rows, MigrationError> {
        let mark = |n: usize| format!("${n}");
        // Order text by its bytes, as SQLite does.
        let (names, key) = (self.names(), self.key_columns(" COLLATE \"C\"").join(", "));
        let sql = format!(
            "SELECT {names} FROM {}{} ORDER BY {key} LIMIT {CHUNK}",
            self.name,
            self.behind(after, &key, mark)
        );
        let params: Vec<&(dyn ToSql + Sync)> =
            after.iter().flatten().map(KeyValue::for_database).collect();
        let found = database.repeated(|database| database.query(&sql, &params))?;
        let mut rows = self.empty();
        found
            .iter()
            .try_for_each(|row| rows.push_from_database(row))?;
        Ok(rows)
    }

    fn delete_after(&self, database: &mut Connection, after: &After) -> Result<(), MigrationError> {
        let key = self.key_columns(" COLLATE \"C\"").join(", ");
        let sql = format!(
            "DELETE FROM {}{}",
            self.name,
            self.behind(after, &key, |n| format!("${n}"))
        );
        let params: Vec<&(dyn ToSql + Sync)> =
            after.iter().flatten().map(KeyValue::for_database).collect();
        Ok(database.repeated(|database| database.execute(&sql, &params).map(drop))?)
    }

    /// Returns the `INSERT` statement. It also sets columns that only the database has: the state
    /// directory of a log, and log 0 for counters.
    fn insert(&self) -> String {
        let arrays: Vec<_> = (1..)
            .zip(self.columns)
            .map(|(n, (_, kind))| format!("${n}::{}[]", kind.name()))
            .collect();
        let (more, value) = match self.name {
            "audit_log" => (", home", format!(", ${}::uuid", self.columns.len() + 1)),
            "counter" => (", log", ", 0".to_owned()),
            _ => ("", String::new()),
        };
        let (names, arrays) = (self.names(), arrays.join(", "));
        // A statement that is repeated after a lost connection may find its rows already inserted.
        format!(
            "INSERT INTO {} ({names}{more}) SELECT t.*{value} FROM unnest({arrays}) AS t ON CONFLICT DO NOTHING",
            self.name
        )
    }

    fn empty(&self) -> Rows {
        Rows::new(self.columns.iter().map(|(_, kind)| *kind))
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| *name).collect();
        names.join(", ")
    }

    /// Returns the columns of the key, with `collation` for text columns.
    fn key_columns(&self, collation: &str) -> Vec<String> {
        let collated = |(name, kind): &(&str, Kind)| match kind {
            Kind::Text => format!("{name}{collation}"),
            _ => (*name).to_owned(),
        };
        self.columns[..self.key].iter().map(collated).collect()
    }

    /// Returns the `WHERE` clause for rows after `after`.
    fn behind(&self, after: &After, key: &str, mark: impl Fn(usize) -> String) -> String {
        let Some(after) = after else {
            return String::new();
        };
        let marks: Vec<String> = (1..=after.len()).map(mark).collect();
        format!(" WHERE ({key}) > ({})", marks.join(", "))
    }
}

#[cfg(test)]
mod tests;
