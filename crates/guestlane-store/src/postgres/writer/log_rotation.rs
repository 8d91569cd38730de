//! Transactions that append to an audit log, and the change to the next log.

use guestlane_core::audit::{AuditRecord, Rotation};
use guestlane_runtime::{Clock, FailPoint};
use guestlane_tlog::{Checkpoint, leaf_hash};

use super::{
    super::{
        connection::{Connection, DbResult, is_in_doubt},
        guests,
        log::{Log, number_of},
        rows::as_i64,
    },
    AuditWriter, Names, PendingCommit, Writer, WriterThread,
    plan::{Plan, guests_of},
};
use crate::{Committed, GuestIdMode, StoreError};

impl Writer {
    /// Runs `work` in a transaction of its own and appends the records that it pushes to the audit
    /// log. Repeats `work` only if the transaction was certainly not committed.
    pub(in crate::postgres) async fn transact<T, F>(
        &self,
        work: F,
    ) -> Result<Committed<T>, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Connection, &mut Vec<AuditRecord>) -> DbResult<T> + Send + 'static,
    {
        self.alone(move |thread| thread.transact(work)).await?
    }
}

impl WriterThread {
    /// Assigns each record its index and line in the audit log, and computes the tree after the
    /// last one.
    pub(super) fn seal<'a>(
        &mut self,
        entries: impl Iterator<Item = &'a AuditRecord>,
        names: &Names,
    ) -> DbResult<PendingCommit> {
        let log = self.log()?;
        let (mut tree, mut lines) = (log.tree.clone(), Vec::new());
        for entry in entries {
            let guest = match entry.guest() {
                None => "",
                Some(guest) => names
                    .get(guest.as_str())
                    .map_or(guest.as_str(), String::as_str),
            };
            let line = entry.line(tree.size(), guest);
            tree.push(leaf_hash(line.as_bytes()));
            lines.push(line);
        }
        let batch = fastrand::i64(..);
        Ok(PendingCommit { tree, batch, lines })
    }

    /// Returns the pseudonyms of the records' guests by guest ID. Returns an empty map if the log
    /// contains plain guest IDs.
    pub(super) fn names<'a>(
        &mut self,
        entries: impl Iterator<Item = &'a AuditRecord>,
    ) -> DbResult<Names> {
        if !self.pseudonyms() {
            return Ok(Names::new());
        }
        let guests = guests_of(entries);
        self.connection
            .repeated(|connection| guests::pseudonyms(connection, &guests))
    }

    fn pseudonyms(&self) -> bool {
        self.books
            .as_ref()
            .is_some_and(|books| books.settings.guest_ids == GuestIdMode::Pseudonymous)
    }

    /// See [`Writer::transact`].
    fn transact<T>(
        &mut self,
        mut work: impl FnMut(&mut Connection, &mut Vec<AuditRecord>) -> DbResult<T>,
    ) -> DbResult<Committed<T>> {
        self.begin_next_log_if_full()?;
        let value = self.transact_in_log(&mut work)?;
        Ok(Committed {
            value,
            audit: self.after_commit(),
        })
    }

    fn transact_in_log<T>(
        &mut self,
        work: &mut impl FnMut(&mut Connection, &mut Vec<AuditRecord>) -> DbResult<T>,
    ) -> DbResult<T> {
        let give_up = self.connection.deadline();
        loop {
            self.log()?;
            let mut value = None;
            let attempt = self.transact_once(work, &mut value);
            match (attempt, value) {
                (Ok(()), Some(value)) => return Ok(value),
                (Err(error), value) if is_in_doubt(&error) => {
                    match (self.resolve_in_doubt(), value) {
                        (Some(true), Some(value)) => return Ok(value),
                        (Some(_), _) if Clock::system().monotonic() <= give_up => {}
                        _ => return Err(error),
                    }
                }
                (Err(error), _)
                    if Clock::system().monotonic() > give_up
                        || !self.log_advanced_elsewhere()? =>
                {
                    return Err(error);
                }
                (Err(_), _) => {}
                (Ok(()), None) => return Err(StoreError::Closed),
            }
        }
    }

    fn transact_once<T>(
        &mut self,
        work: &mut impl FnMut(&mut Connection, &mut Vec<AuditRecord>) -> DbResult<T>,
        value: &mut Option<T>,
    ) -> DbResult<()> {
        let mut entries = Vec::new();
        let pseudonyms = self.pseudonyms();
        // All queries run inside `within`: a reconnection would lose the transaction unnoticed.
        let (done, names) = self.connection.within("BEGIN", |connection| {
            let done = work(connection, &mut entries)?;
            let guests = guests_of(entries.iter());
            let names = if pseudonyms {
                guests::pseudonyms(connection, &guests)?
            } else {
                Names::new()
            };
            Ok((done, names))
        })?;
        *value = Some(done);
        let plan = Plan {
            entries: entries.iter().collect(),
            ..Plan::default()
        };
        self.fail_points.hit_blocking(FailPoint::RowsWritten);
        self.fail_points.hit_blocking(FailPoint::RecordsWritten);
        let finished = self
            .seal(entries.iter(), &names)
            .and_then(|sealed| self.finish(Vec::new(), &plan, sealed, &mut []));
        if finished.as_ref().is_err_and(|error| !is_in_doubt(error)) {
            self.connection.discard(); // it may hold an open transaction
        }
        finished
    }

    /// Closes an audit log whose file is full, and begins the next one with a rotation record, in
    /// one transaction.
    pub(super) fn begin_next_log_if_full(&mut self) -> DbResult<()> {
        let limit = self
            .books
            .as_ref()
            .and_then(|books| books.settings.rotate_at);
        let log = self.log()?;
        // If the file cannot be synced, the log stays open, and the next record tries again.
        let full =
            limit.is_some_and(|limit| log.files.length() >= limit && log.files.sync().is_ok());
        if !full {
            return Ok(());
        }
        self.fail_points.hit_blocking(FailPoint::LogSealed);
        let Some(AuditWriter {
            settings,
            signer,
            log,
        }) = &mut self.books
        else {
            return Ok(());
        };
        let Some(old) = log.take() else { return Ok(()) };
        let now = self.clock.now();
        let origin = Checkpoint::origin_of(signer.public(), number_of(old.number)?);
        let continues = Checkpoint {
            origin,
            size: old.tree.size(),
            root: old.tree.root(),
        }
        .sign(signer);
        *log = Some(Log::acquire(&mut self.connection, &self.home, settings)?);
        let (number, size) = (old.number, as_i64(old.tree.size()));
        let mut close = |connection: &mut Connection, entries: &mut Vec<AuditRecord>| {
            let close = "UPDATE audit_log SET closed_at = $2 WHERE log = $1 AND size = $3 AND closed_at IS NULL";
            if connection.execute(close, &[&number, &now.unix_micros(), &size])? == 1 {
                entries.push(AuditRecord::Rotation(Rotation {
                    timestamp: now,
                    continues: continues.clone(),
                }));
            }
            Ok(())
        };
        self.transact_in_log(&mut close)?;
        let _ = std::fs::remove_file(&old.lock); // no process claims a closed log
        Ok(())
    }
}
