//! The threads that own the database connections. The writer thread commits all queued writes in
//! one transaction (group commit); a reader thread runs queries.

mod reader;

use std::{cell::RefCell, io, ops::Deref, sync::Arc, thread};

use guestlane_core::audit::AuditRecord;
use guestlane_runtime::{Clock, FailPoint, FailPoints, Timestamp};
use guestlane_tlog::AuditError;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::{audit::Logs, migrations};
use crate::{Committed, StoreError, trusted_time::Mark, write_health::WriteHealth};
pub(super) use reader::Reader;

/// Maximum number of writes in one transaction.
const MAX_GROUP_COMMIT: usize = 512;

/// Maximum number of queued writes. Further callers wait for capacity: back-pressure.
const MAX_QUEUED_WRITES: usize = 1024;

/// A write that returns whether it succeeded, and the acknowledgement of its caller. It gets
/// `None`, and writes nothing, if the transaction was lost.
type Write = Box<dyn FnOnce(Option<&Tx<'_>>) -> (bool, Ack) + Send>;
type Ack = Box<dyn FnOnce(Outcome) + Send>;

enum WriterCommand {
    /// A write that shares a transaction with others.
    Write(Write),
    /// A job that must run outside a transaction.
    Alone(Box<dyn FnOnce(&mut WriterThread) + Send>),
}

#[derive(Clone)]
enum Outcome {
    Committed(Result<(), Arc<AuditError>>),
    Lost(String),
    Superseded { found: u32, known: u32 },
}

/// A transaction, as seen by the code that writes in it.
pub(super) struct Tx<'a> {
    connection: &'a Connection,
    records: RefCell<Vec<AuditRecord>>,
    mark: Mark,
}

impl Tx<'_> {
    /// Queues an audit record. It gets its index in the audit log at the end of the transaction.
    pub(super) fn record(&self, entry: AuditRecord) {
        self.records.borrow_mut().push(entry);
    }

    /// The trusted time that retention compares with the stamps of rows.
    pub(super) fn trusted_now(&self) -> Timestamp {
        self.mark.time()
    }

    /// The stamp of a row that is written now.
    pub(super) fn stamp(&self) -> Timestamp {
        self.mark.stamp()
    }
}

impl Deref for Tx<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

/// Handle to the writer thread.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    jobs: mpsc::Sender<WriterCommand>,
    clock: Clock,
}

impl Writer {
    pub(super) fn start(
        connection: Connection,
        mark: Mark,
        health: WriteHealth,
        clock: Clock,
        fail_points: FailPoints,
    ) -> Result<Self, StoreError> {
        let (jobs, receiver) = mpsc::channel(MAX_QUEUED_WRITES);
        let mut thread = WriterThread {
            connection,
            logs: None,
            receiver,
            mark,
            health,
            clock: clock.clone(),
            fail_points,
        };
        spawn("guestlane-write", move || thread.run())?;
        Ok(Self { jobs, clock })
    }

    /// Runs `job` in a transaction and returns after the commit. A failing job rolls back only its
    /// own changes (a savepoint).
    pub(super) async fn run<T, F>(&self, job: F) -> Result<Committed<T>, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let _busy = self.clock.pause_auto_advance();
        let (answer, answered) = oneshot::channel();
        let job: Write = Box::new(move |tx| {
            let done = tx.map_or(Err(StoreError::Closed), job);
            let good = done.is_ok();
            let settle: Ack = Box::new(move |outcome| {
                let answered = match outcome {
                    Outcome::Committed(audit) => done.map(|value| Committed { value, audit }),
                    Outcome::Lost(reason) => Err(StoreError::Commit(reason)),
                    Outcome::Superseded { found, known } => {
                        Err(StoreError::Superseded { found, known })
                    }
                };
                let _ = answer.send(answered);
            });
            (good, settle)
        });
        self.jobs
            .send(WriterCommand::Write(job))
            .await
            .map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// Runs `job` between two transactions.
    pub(super) async fn exclusive<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.alone(move |thread| job(&thread.connection)).await?
    }

    /// Sets the audit logs that records are appended to. With `mend`, it first appends to the log
    /// files the committed records that other processes did not write.
    pub(super) async fn keep(&self, mut logs: Logs, mend: bool) -> Result<(), StoreError> {
        let keep = move |thread: &mut WriterThread| {
            if mend {
                // Continue after an error: the next record that is written to the files reports its
                // own error.
                let _ = shared_error(logs.catch_up_all(&thread.connection));
            }
            thread.logs = Some(logs);
        };
        self.alone(keep).await
    }

    /// Runs `job` on the audit logs, between two transactions.
    pub(super) async fn with_logs<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Logs, &Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let job = move |thread: &mut WriterThread| match &mut thread.logs {
            Some(logs) => job(logs, &thread.connection),
            None => Err(StoreError::NoAuditLog),
        };
        self.alone(job).await?
    }

    async fn alone<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut WriterThread) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let _busy = self.clock.pause_auto_advance();
        let (answer, answered) = oneshot::channel();
        let job = WriterCommand::Alone(Box::new(move |thread| {
            let _ = answer.send(job(thread));
        }));
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)
    }
}

struct WriterThread {
    connection: Connection,
    logs: Option<Logs>,
    receiver: mpsc::Receiver<WriterCommand>,
    mark: Mark,
    health: WriteHealth,
    clock: Clock,
    fail_points: FailPoints,
}

impl WriterThread {
    fn run(&mut self) {
        while let Some(job) = self.receiver.blocking_recv() {
            let mut alone = None;
            let mut writes = Vec::new();
            match job {
                WriterCommand::Write(write) => writes.push(write),
                WriterCommand::Alone(job) => alone = Some(job),
            }
            while alone.is_none()
                && writes.len() < MAX_GROUP_COMMIT
                && let Ok(next) = self.receiver.try_recv()
            {
                match next {
                    WriterCommand::Write(write) => writes.push(write),
                    WriterCommand::Alone(job) => alone = Some(job),
                }
            }
            if !writes.is_empty() {
                self.write(writes);
            }
            if let Some(job) = alone {
                job(self);
            }
        }
    }

    fn write(&mut self, writes: Vec<Write>) {
        let mut waiting = Vec::with_capacity(writes.len());
        let outcome = match self.commit(writes, &mut waiting) {
            Ok(()) => {
                self.fail_points.hit_blocking(FailPoint::Committed);
                let in_files = self
                    .logs
                    .as_mut()
                    .map_or(Ok(()), |logs| logs.catch_up(&self.connection));
                match &in_files {
                    Ok(()) => self.health.succeeded(self.clock.monotonic()),
                    Err(_) => self.health.audit_failed(self.clock.monotonic()),
                }
                let outcome = Outcome::Committed(shared_error(in_files));
                self.fail_points.hit_blocking(FailPoint::CheckpointWritten);
                outcome
            }
            Err(error) => {
                if let Some(logs) = &mut self.logs {
                    logs.invalidate();
                }
                self.health.failed(&error, self.clock.monotonic());
                match error {
                    StoreError::Superseded { found, known } => Outcome::Superseded { found, known },
                    error => Outcome::Lost(guestlane_runtime::text::display_chain(&error)),
                }
            }
        };
        waiting
            .into_iter()
            .for_each(|settle| settle(outcome.clone()));
    }

    fn commit(&mut self, writes: Vec<Write>, waiting: &mut Vec<Ack>) -> Result<(), StoreError> {
        let mut writes = writes.into_iter();
        let committed = self.run_together(&mut writes, waiting);
        // Writes are left over only after an error. Fail them too, so that every caller gets a
        // result.
        waiting.extend(writes.map(|write| write(None).1));
        committed
    }

    fn run_together(
        &mut self,
        writes: &mut dyn Iterator<Item = Write>,
        waiting: &mut Vec<Ack>,
    ) -> Result<(), StoreError> {
        let mark = self.mark.advanced(self.clock.now(), self.clock.boot());
        let mut transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        if let Err(error) = migrations::expect_known(&transaction) {
            writes.for_each(|write| waiting.push(write(None).1));
            return Err(error);
        }
        let mut records = Vec::new();
        for write in writes {
            let mut savepoint = match transaction.savepoint() {
                Ok(savepoint) => savepoint,
                Err(error) => {
                    waiting.push(write(None).1);
                    return Err(error.into());
                }
            };
            let tx = Tx {
                connection: &savepoint,
                records: RefCell::default(),
                mark,
            };
            let (good, settle) = write(Some(&tx));
            let recorded = tx.records.into_inner();
            waiting.push(settle);
            if good {
                records.extend(recorded);
            } else {
                savepoint.rollback()?;
            }
            savepoint.commit()?;
        }
        self.fail_points.hit_blocking(FailPoint::RowsWritten);
        if !records.is_empty() {
            let logs = self.logs.as_mut().ok_or(StoreError::NoAuditLog)?;
            logs.append(&transaction, records)?;
        }
        self.fail_points.hit_blocking(FailPoint::RecordsWritten);
        Ok(transaction.commit()?)
    }
}

fn shared_error(in_files: Result<(), AuditError>) -> Result<(), Arc<AuditError>> {
    in_files.map_err(|error| {
        warn!(
            error = guestlane_runtime::text::display_chain(&error),
            "the audit log's files are behind the store; retrying with the next record"
        );
        Arc::new(error)
    })
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
    let spawned: io::Result<_> = thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned
        .map(drop)
        .map_err(|error| StoreError::Open(name.into(), error))
}

#[cfg(test)]
mod tests;
