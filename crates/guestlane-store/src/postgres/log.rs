//! The audit log that this process owns: its state in the database, and its files on this machine.

use std::{
    cell::RefCell,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use guestlane_runtime::FailPoints;
use uuid::Uuid;

use super::connection::{Connection, DbResult};
use crate::{AuditSettings, StoreError, queries};
use guestlane_tlog::{
    AppendedRange, AuditError, Checkpoint, Frontier, LineSource, LogFiles, NoteSigner, ONE_WRITE,
    lines_path,
};

/// The identity of a state directory in the database. Audit logs belong to the state directory
/// beside which their files are.
#[derive(Debug, Clone)]
pub(crate) struct NodeIdentity {
    pub id: Uuid,
    pub(super) directory: PathBuf,
}

impl NodeIdentity {
    /// Returns the identity that `directory` holds. The first process there creates it.
    pub(crate) fn in_directory(directory: PathBuf) -> DbResult<Self> {
        let file = directory.join("home.id");
        let failed = |error: io::Error| StoreError::Open(file.clone(), error);
        if !file.exists() {
            guestlane_runtime::durable_fs::make_once(
                &file,
                Uuid::new_v4().to_string().as_bytes(),
                || (),
            )
            .map_err(failed)?;
        }
        let text = fs::read_to_string(&file).map_err(failed)?;
        let id = text.trim().parse().map_err(|_| {
            let reason = "it does not contain a UUID; if it is removed, no process appends to the existing logs of this directory";
            failed(io::Error::new(io::ErrorKind::InvalidData, reason))
        })?;
        Ok(Self { id, directory })
    }
}

/// An audit log that this process owns until it ends.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) number: i64,
    pub(super) tree: Frontier,
    /// The random number of the log's last transaction.
    pub(super) batch: i64,
    /// The random number of a transaction that was sent and whose result is not known yet.
    pub(super) pending: Option<i64>,
    /// Lines that are committed and not yet in a file.
    pub(super) fresh: Vec<String>,
    pub(super) files: LogFiles,
    pub(super) lock: PathBuf,
    /// The locked file. The operating system releases the lock however the process ends.
    _held: File,
}

impl Log {
    /// Acquires the first log of this state directory that no process owns, or a new one.
    pub(super) fn acquire(
        connection: &mut Connection,
        home: &NodeIdentity,
        settings: &AuditSettings,
    ) -> DbResult<Self> {
        loop {
            for number in open_logs(connection, home)? {
                if let Some(log) = Self::claim(connection, home, settings, number)? {
                    return Ok(log);
                }
            }
            begin(connection, home)?;
        }
    }

    /// Takes the file lock of the log `number` and reads its state. Returns `None` if another
    /// process owns the log.
    pub(super) fn claim(
        connection: &mut Connection,
        home: &NodeIdentity,
        settings: &AuditSettings,
        number: i64,
    ) -> DbResult<Option<Self>> {
        let lock = home.directory.join(format!("log-{number}.lock"));
        let failed = |error: io::Error| StoreError::Open(lock.clone(), error);
        let held = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock)
            .map_err(failed)?;
        match held.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(None),
            Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
        let files = LogFiles::new(lines_path(&settings.path, number_of(number)?));
        let (tree, batch) = state(connection, number)?;
        Ok(Some(Self {
            number,
            tree,
            batch,
            pending: None,
            fresh: Vec::new(),
            files,
            lock,
            _held: held,
        }))
    }

    /// Appends the committed records to the files. `fresh` holds the last lines, which need not be
    /// read from the database.
    pub(super) fn sync_files(
        &mut self,
        connection: &mut Connection,
        fresh: &[String],
        signer: &NoteSigner,
        fail_points: &FailPoints,
    ) -> Result<AppendedRange, AuditError> {
        let number = number_of(self.number).unwrap_or_default();
        let origin = Checkpoint::origin_of(signer.public(), number);
        let note = Checkpoint {
            origin,
            size: self.tree.size(),
            root: self.tree.root(),
        }
        .sign(signer);
        let lines = StoredLines {
            connection: RefCell::new(connection),
            log: self.number,
            fresh,
            first: self.tree.size().saturating_sub(fresh.len() as u64),
        };
        self.files.catch_up(&lines, &note, fail_points)
    }
}

pub(super) fn number_of(log: i64) -> DbResult<u32> {
    u32::try_from(log).map_err(|_| StoreError::Row("audit_log.log"))
}

/// Returns a log's tree, and the random number of its last transaction.
pub(super) fn state(connection: &mut Connection, log: i64) -> DbResult<(Frontier, i64)> {
    let row = connection.query_one(
        "SELECT size, frontier, batch FROM audit_log WHERE log = $1",
        &[&log],
    )?;
    let size =
        u64::try_from(row.try_get::<_, i64>(0)?).map_err(|_| StoreError::Row("audit_log.size"))?;
    let tree =
        Frontier::from_bytes(size, row.try_get(1)?).ok_or(StoreError::Row("audit_log.frontier"))?;
    Ok((tree, row.try_get(2)?))
}

pub(super) fn open_logs(connection: &mut Connection, home: &NodeIdentity) -> DbResult<Vec<i64>> {
    let select = "SELECT log FROM audit_log WHERE home = $1 AND closed_at IS NULL ORDER BY log";
    connection
        .query(select, &[&home.id])?
        .iter()
        .map(|row| Ok(row.try_get(0)?))
        .collect()
}

/// Creates a new log. The table lock serializes processes, so that the numbers have no gaps.
fn begin(connection: &mut Connection, home: &NodeIdentity) -> DbResult<()> {
    connection.transaction(|tx| {
        tx.batch("LOCK TABLE audit_log IN SHARE ROW EXCLUSIVE MODE")?;
        let insert =
            "INSERT INTO audit_log (log, home, size, frontier) SELECT coalesce(max(log), 0) + 1, $1, 0, '' FROM audit_log";
        tx.execute(insert, &[&home.id]).map(drop)
    })
}

/// The committed lines of a log, as a source for its file.
struct StoredLines<'a> {
    connection: RefCell<&'a mut Connection>,
    log: i64,
    fresh: &'a [String],
    /// The index of the first line in `fresh`.
    first: u64,
}

/// Number of lines that one query reads. It is mostly fewer than one write to the file takes.
const CHUNK: i64 = 2000;

impl StoredLines<'_> {
    fn unsynced_lines(&self, index: u64) -> Option<&[String]> {
        let skipped = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.fresh.get(skipped..)
    }

    fn select(&self, sql: &str, index: u64) -> Result<Vec<String>, String> {
        let index = i64::try_from(index).unwrap_or(i64::MAX);
        let rows = self
            .connection
            .borrow_mut()
            .query(sql, &[&self.log, &index])
            .map_err(|error| guestlane_runtime::text::display_chain(&error))?;
        rows.iter()
            .map(|row| row.try_get(0).map_err(|error| error.to_string()))
            .collect()
    }
}

impl LineSource for StoredLines<'_> {
    fn line(&self, index: u64) -> Result<Option<String>, String> {
        if let Some([line, ..]) = self.unsynced_lines(index) {
            return Ok(Some(line.clone()));
        }
        Ok(self.select(queries::SELECT_AUDIT_LINE, index)?.pop())
    }

    fn append_from(&self, index: u64, text: &mut Vec<u8>) -> Result<u64, String> {
        let asked;
        let lines = match self.unsynced_lines(index) {
            Some(fresh) => fresh,
            None => {
                let sql = format!(
                    "SELECT line FROM audit_record WHERE log = $1 AND idx >= $2 ORDER BY idx LIMIT {CHUNK}"
                );
                asked = self.select(&sql, index)?;
                &asked
            }
        };
        let mut count = 0;
        for line in lines {
            if text.len() >= ONE_WRITE {
                break;
            }
            text.extend_from_slice(line.as_bytes());
            text.push(b'\n');
            count += 1;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All processes that start at once get the same identity. The file is complete or absent,
    /// whenever a process dies.
    #[test]
    fn concurrent_starts_share_one_node_identity() {
        for _ in 0..50 {
            let directory = tempfile::tempdir().unwrap();
            let start = std::sync::Barrier::new(8);
            let name = || {
                start.wait();
                NodeIdentity::in_directory(directory.path().to_owned())
                    .unwrap()
                    .id
            };
            let names: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(name)).collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap())
                    .collect()
            });
            assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
            assert_eq!(
                fs::read_dir(directory.path()).unwrap().count(),
                1,
                "no draft is left"
            );
        }
    }
}
