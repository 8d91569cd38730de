//! The audit logs of a file: which log this process owns, the index of each record, and the log
//! files.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    sync::Arc,
};

use guestlane_runtime::{Clock, FailPoint, FailPoints};
use rusqlite::{Connection, OptionalExtension, params};
use tracing::warn;

use super::guests;
use crate::{AuditSettings, GuestIdMode, RestoreOutcome, StoreError, queries};
use guestlane_core::audit::{AuditRecord, Rotation};
use guestlane_tlog::{
    AppendedRange, AuditError, Checkpoint, Frontier, Hash, LineSource, LogFiles, NoteSigner,
    ONE_WRITE, checkpoint_path, hashes_path, leaf_hash, lines_path,
};

/// The audit logs, as the writer thread keeps them.
#[derive(Debug)]
pub(super) struct Logs {
    pub(super) settings: AuditSettings,
    pub(super) signer: Arc<NoteSigner>,
    pub(super) database: PathBuf,
    pub(super) clock: Clock,
    pub(super) fail_points: FailPoints,
    ours: Option<Log>,
}

/// An audit log that this process owns until the process ends or the log is closed.
#[derive(Debug)]
struct Log {
    number: u32,
    files: LogFiles,
    lock: PathBuf,
    /// Exclusive file lock. The operating system releases it however the process ends.
    _held: File,
}

impl Logs {
    pub(super) fn new(
        settings: AuditSettings,
        signer: Arc<NoteSigner>,
        database: PathBuf,
        clock: Clock,
        fail_points: FailPoints,
    ) -> Self {
        Self {
            settings,
            signer,
            database,
            clock,
            fail_points,
            ours: None,
        }
    }

    /// Assigns each record its index, in the transaction of the change that it records.
    pub(super) fn append(
        &mut self,
        connection: &Connection,
        records: Vec<AuditRecord>,
    ) -> Result<(), StoreError> {
        // A log whose files cannot be synced to disk stays open; the next append tries the rotation
        // again.
        let full = match (&self.ours, self.settings.rotate_at) {
            (Some(log), Some(limit)) => log.files.length() >= limit && log.files.sync().is_ok(),
            _ => false,
        };
        let rotation = if full {
            Some(self.close(connection)?)
        } else {
            None
        };
        let number = self.current_log(connection)?.number;
        let mut tree = tree(connection, number)?;
        let insert =
            "INSERT INTO audit_record (log, idx, session_id, line) VALUES (?1, ?2, ?3, ?4)";
        let mut insert = connection.prepare_cached(insert)?;
        for entry in rotation.into_iter().chain(records) {
            let guest = match entry.guest() {
                None => String::new(),
                Some(guest) if self.settings.guest_ids == GuestIdMode::Plain => {
                    guest.as_str().to_owned()
                }
                Some(guest) => guests::pseudonym_or_new(connection, guest)?,
            };
            let line = entry.line(tree.size(), &guest);
            insert.execute(params![
                number,
                tree.size(),
                entry.session().map(|id| id.0.into_bytes()),
                line
            ])?;
            tree.push(leaf_hash(line.as_bytes()));
        }
        let update = "UPDATE audit_log SET size = ?2, frontier = ?3 WHERE log = ?1";
        connection.prepare_cached(update)?.execute(params![
            number,
            tree.size(),
            tree.to_bytes()
        ])?;
        Ok(())
    }

    /// Gives up the log of this process after a lost transaction, which may have created that log.
    pub(super) fn invalidate(&mut self) {
        self.ours = None;
    }

    /// Appends to the files of this process's log the records that only the store has.
    pub(super) fn catch_up(&mut self, connection: &Connection) -> Result<(), AuditError> {
        let Some(log) = &mut self.ours else {
            return Ok(());
        };
        sync_files(log, connection, &self.signer, &self.fail_points).map(drop)
    }

    /// Completes the files of all open logs without an owner. A process that died between its
    /// commit and the write to the files leaves them incomplete.
    pub(super) fn catch_up_all(&mut self, connection: &Connection) -> Result<(), AuditError> {
        let failed = |error: StoreError| {
            AuditError::Store(
                self.settings.path.clone(),
                guestlane_runtime::text::display_chain(&error),
            )
        };
        let mut outcome = Ok(());
        for number in open_logs(connection).map_err(failed)? {
            let Some(mut log) = self.claim(number).map_err(failed)? else {
                continue;
            };
            match sync_files(&mut log, connection, &self.signer, &self.fail_points) {
                Ok(added) if added == AppendedRange::default() => {}
                Ok(AppendedRange { lines, .. }) => {
                    let file = log.files.path().display();
                    warn!(%file, lines, "the audit log's files were behind the store (a process was killed, or the files were changed); appended the missing lines");
                }
                // Continue with the other logs; the error is returned at the end.
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }

    /// Writes the files of a log again, open or closed. The old files must have been moved away,
    /// and no other process may own the log.
    pub(super) fn restore(
        &mut self,
        connection: &Connection,
        number: u32,
    ) -> Result<RestoreOutcome, StoreError> {
        let path = lines_path(&self.settings.path, number);
        if !logs(connection)?.contains(&number) {
            return Ok(RestoreOutcome::Unknown);
        }
        if let Some(there) = [checkpoint_path(&path), hashes_path(&path), path.clone()]
            .into_iter()
            .find(|file| file.exists())
        {
            return Ok(RestoreOutcome::FileExists(there));
        }
        let Some(mut log) = self.claim(number)? else {
            return Ok(RestoreOutcome::Busy);
        };
        match sync_files(&mut log, connection, &self.signer, &self.fail_points) {
            Ok(added) => Ok(RestoreOutcome::Restored {
                path,
                records: added.lines,
            }),
            Err(error) => Ok(RestoreOutcome::Failed(Arc::new(error))),
        }
    }

    /// Acquires a log for this process: the first one without an owner, or a new one.
    fn current_log(&mut self, connection: &Connection) -> Result<&Log, StoreError> {
        if self.ours.is_none() {
            let free = open_logs(connection)?
                .into_iter()
                .find_map(|number| self.claim(number).transpose())
                .transpose()?;
            self.ours = match free {
                Some(log) => Some(log),
                None => self.begin(connection)?,
            };
        }
        self.ours.as_ref().ok_or(StoreError::Row("audit_log"))
    }

    fn begin(&self, connection: &Connection) -> Result<Option<Log>, StoreError> {
        let insert = "INSERT INTO audit_log (log, size, frontier) SELECT coalesce(max(log), 0) + 1, 0, x'' FROM audit_log RETURNING log";
        let number = connection.query_row(insert, [], |row| row.get(0))?;
        // No other process sees the new log before the commit, so its lock is free.
        self.claim(number)
    }

    /// Locks a log for this process. Returns `None` if another process holds the lock.
    fn claim(&self, number: u32) -> Result<Option<Log>, StoreError> {
        let mut lock = self.database.clone().into_os_string();
        lock.push(format!(".log-{number}.lock"));
        let lock = PathBuf::from(lock);
        let failed = |error: io::Error| StoreError::Open(lock.clone(), error);
        let held = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock)
            .map_err(failed)?;
        match held.try_lock() {
            Ok(()) => {
                let files = LogFiles::new(lines_path(&self.settings.path, number));
                Ok(Some(Log {
                    number,
                    files,
                    lock,
                    _held: held,
                }))
            }
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Closes the log of this process, whose files are complete and synced to disk. Returns the
    /// record that the next log begins with.
    fn close(&mut self, connection: &Connection) -> Result<AuditRecord, StoreError> {
        let log = self.ours.take().ok_or(StoreError::Row("audit_log"))?;
        self.fail_points.hit_blocking(FailPoint::LogSealed);
        let now = self.clock.now();
        let close = "UPDATE audit_log SET closed_at = ?2 WHERE log = ?1";
        connection.execute(close, params![log.number, now.unix_micros()])?;
        let continues = seal(connection, log.number, &self.signer)?;
        // No process acquires a closed log, so its lock file is not needed.
        let _ = fs::remove_file(&log.lock);
        Ok(AuditRecord::Rotation(Rotation {
            timestamp: now,
            continues,
        }))
    }
}

fn sync_files(
    log: &mut Log,
    connection: &Connection,
    signer: &NoteSigner,
    fail_points: &FailPoints,
) -> Result<AppendedRange, AuditError> {
    let failed = |error: StoreError| {
        AuditError::Store(
            log.files.path().to_owned(),
            guestlane_runtime::text::display_chain(&error),
        )
    };
    let note = seal(connection, log.number, signer).map_err(failed)?;
    log.files.catch_up(
        &StoredLines {
            connection,
            log: log.number,
        },
        &note,
        fail_points,
    )
}

/// Returns the signed checkpoint of a log at its present size.
fn seal(connection: &Connection, log: u32, signer: &NoteSigner) -> Result<String, StoreError> {
    let tree = tree(connection, log)?;
    let origin = Checkpoint::origin_of(signer.public(), log);
    Ok(Checkpoint {
        origin,
        size: tree.size(),
        root: tree.root(),
    }
    .sign(signer))
}

pub(super) fn tree(connection: &Connection, log: u32) -> Result<Frontier, StoreError> {
    let mut select =
        connection.prepare_cached("SELECT size, frontier FROM audit_log WHERE log = ?1")?;
    let (size, frontier): (u64, Vec<u8>) =
        select.query_row([log], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Frontier::from_bytes(size, &frontier).ok_or(StoreError::Row("audit_log.frontier"))
}

fn open_logs(connection: &Connection) -> Result<Vec<u32>, StoreError> {
    let mut select = connection
        .prepare_cached("SELECT log FROM audit_log WHERE closed_at IS NULL ORDER BY log")?;
    Ok(select
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?)
}

/// Returns the numbers of all logs, open and closed.
pub(super) fn logs(connection: &Connection) -> Result<Vec<u32>, StoreError> {
    let mut select = connection.prepare_cached("SELECT log FROM audit_log ORDER BY log")?;
    Ok(select
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?)
}

pub(super) fn leaves(connection: &Connection, log: u32) -> Result<Vec<Hash>, StoreError> {
    let mut select =
        connection.prepare_cached("SELECT line FROM audit_record WHERE log = ?1 ORDER BY idx")?;
    let mut rows = select.query([log])?;
    let mut leaves = Vec::new();
    while let Some(row) = rows.next()? {
        leaves.push(leaf_hash(
            row.get_ref(0)?.as_bytes().map_err(rusqlite::Error::from)?,
        ));
    }
    Ok(leaves)
}

/// The lines of one log in the store, as the source for its files.
struct StoredLines<'a> {
    connection: &'a Connection,
    log: u32,
}

impl LineSource for StoredLines<'_> {
    fn line(&self, index: u64) -> Result<Option<String>, String> {
        let line = || {
            let mut statement = self.connection.prepare_cached(queries::SELECT_AUDIT_LINE)?;
            statement
                .query_row(params![self.log, index], |row| row.get(0))
                .optional()
        };
        line().map_err(|error: rusqlite::Error| error.to_string())
    }

    fn append_from(&self, index: u64, text: &mut Vec<u8>) -> Result<u64, String> {
        let mut append = || {
            let select = "SELECT line FROM audit_record WHERE log = ?1 AND idx >= ?2 ORDER BY idx";
            let mut statement = self.connection.prepare_cached(select)?;
            let mut rows = statement.query(params![self.log, index])?;
            let mut count = 0;
            while text.len() < ONE_WRITE
                && let Some(row) = rows.next()?
            {
                text.extend_from_slice(row.get_ref(0)?.as_bytes()?);
                text.push(b'\n');
                count += 1;
            }
            Ok(count)
        };
        append().map_err(|error: rusqlite::Error| error.to_string())
    }
}
