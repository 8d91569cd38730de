//! The threads that own the database connections. One writes: it commits together whatever is waiting (group commit). One reads.

use std::{
    cell::RefCell,
    io,
    ops::Deref,
    sync::{Arc, mpsc as std_mpsc},
    thread,
};

use guestlane_genesys::{Clock, Seam, Seams, Timestamp};
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::{audit::Logs, migrations};
use crate::{
    audit::{AuditError, Entry},
    store::{Committed, Guarantees, StoreError, trusted_time::Mark},
};

/// The most writes in one transaction.
const MOST: usize = 512;

/// The most writes that wait; who comes then waits for room.
const WAITING: usize = 1024;

/// A write, and afterwards the word to whoever asked for it. Without a transaction there is no write: its transaction is lost.
type Write = Box<dyn FnOnce(Option<&Tx<'_>>) -> (bool, Settle) + Send>;
type Settle = Box<dyn FnOnce(Outcome) + Send>;

enum Job {
    /// A part of a transaction.
    Write(Write),
    /// What no transaction may be around.
    Alone(Box<dyn FnOnce(&mut Thread) + Send>),
}

#[derive(Clone)]
enum Outcome {
    Committed(Result<(), Arc<AuditError>>),
    Lost(String),
    Superseded { found: u32, known: u32 },
}

/// A transaction, as the one who writes in it sees it.
pub(super) struct Tx<'a> {
    connection: &'a Connection,
    records: RefCell<Vec<Entry>>,
    mark: Mark,
}

impl Tx<'_> {
    /// What the audit log shall say of this: it gets its place when the transaction ends.
    pub(super) fn record(&self, entry: Entry) {
        self.records.borrow_mut().push(entry);
    }

    /// The time with which retention compares rows.
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

/// The way to the writing thread.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
    clock: Clock,
}

impl Writer {
    pub(super) fn start(connection: Connection, mark: Mark, clock: Clock, seams: Seams) -> Result<Self, StoreError> {
        let (jobs, receiver) = mpsc::channel(WAITING);
        let mut thread = Thread { connection, logs: None, audited: true, receiver, mark, clock: clock.clone(), seams };
        spawn("guestlane-write", move || thread.run())?;
        Ok(Self { jobs, clock })
    }

    /// Runs `job` in a transaction, and answers once that is committed. A job that fails undoes its own changes and nobody else's.
    pub(super) async fn run<T, F>(&self, job: F) -> Result<Committed<T>, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let _busy = self.clock.busy();
        let (answer, answered) = oneshot::channel();
        let job: Write = Box::new(move |tx| {
            let done = tx.map_or(Err(StoreError::Closed), job);
            let good = done.is_ok();
            let settle: Settle = Box::new(move |outcome| {
                let answered = match outcome {
                    Outcome::Committed(audit) => done.map(|value| Committed { value, audit }),
                    Outcome::Lost(reason) => Err(StoreError::Commit(reason)),
                    Outcome::Superseded { found, known } => Err(StoreError::Superseded { found, known }),
                };
                let _ = answer.send(answered);
            });
            (good, settle)
        });
        self.jobs.send(Job::Write(job)).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// Runs `job` between two transactions.
    pub(super) async fn run_alone<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.alone(move |thread| job(&thread.connection)).await?
    }

    /// From now on records have a place to go to. With `mend`, what other processes left out of the files is in them when this returns.
    pub(super) async fn keep(&self, mut logs: Logs, mend: bool) -> Result<(), StoreError> {
        let keep = move |thread: &mut Thread| {
            if mend {
                let _ = told(logs.catch_up_all(&thread.connection)); // a record that must be in the file finds out for itself
            }
            thread.logs = Some(logs);
        };
        self.alone(keep).await
    }

    pub(super) async fn go_without(&self, guarantees: Guarantees) -> Result<(), StoreError> {
        let go = move |thread: &mut Thread| -> Result<(), StoreError> {
            thread.audited = guarantees.audited;
            if !guarantees.durable {
                thread.connection.pragma_update(None, "synchronous", "off")?;
            }
            Ok(())
        };
        self.alone(go).await?
    }

    /// Runs `job` on the logs, between two transactions.
    pub(super) async fn with_logs<T, F>(&self, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Logs, &Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let job = move |thread: &mut Thread| match &mut thread.logs {
            Some(logs) => job(logs, &thread.connection),
            None => Err(StoreError::NoAuditLog),
        };
        self.alone(job).await?
    }

    async fn alone<T: Send + 'static>(&self, job: impl FnOnce(&mut Thread) -> T + Send + 'static) -> Result<T, StoreError> {
        let _busy = self.clock.busy();
        let (answer, answered) = oneshot::channel();
        let job = Job::Alone(Box::new(move |thread| {
            let _ = answer.send(job(thread));
        }));
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)
    }
}

struct Thread {
    connection: Connection,
    logs: Option<Logs>,
    audited: bool,
    receiver: mpsc::Receiver<Job>,
    mark: Mark,
    clock: Clock,
    seams: Seams,
}

impl Thread {
    fn run(&mut self) {
        while let Some(job) = self.receiver.blocking_recv() {
            let mut alone = None;
            let mut writes = Vec::new();
            match job {
                Job::Write(write) => writes.push(write),
                Job::Alone(job) => alone = Some(job),
            }
            while alone.is_none()
                && writes.len() < MOST
                && let Ok(next) = self.receiver.try_recv()
            {
                match next {
                    Job::Write(write) => writes.push(write),
                    Job::Alone(job) => alone = Some(job),
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
                self.seams.pass_blocking(Seam::Committed);
                let in_files = self.logs.as_mut().map_or(Ok(()), |logs| logs.catch_up(&self.connection));
                let outcome = Outcome::Committed(told(in_files));
                self.seams.pass_blocking(Seam::CheckpointWritten);
                outcome
            }
            Err(error) => {
                if let Some(logs) = &mut self.logs {
                    logs.lost();
                }
                match error {
                    StoreError::Superseded { found, known } => Outcome::Superseded { found, known },
                    error => Outcome::Lost(crate::error::chain(&error)),
                }
            }
        };
        waiting.into_iter().for_each(|settle| settle(outcome.clone()));
    }

    fn commit(&mut self, writes: Vec<Write>, waiting: &mut Vec<Settle>) -> Result<(), StoreError> {
        let mut writes = writes.into_iter();
        let committed = self.run_together(&mut writes, waiting);
        waiting.extend(writes.map(|write| write(None).1)); // only after an error: each must hear of it
        committed
    }

    fn run_together(&mut self, writes: &mut dyn Iterator<Item = Write>, waiting: &mut Vec<Settle>) -> Result<(), StoreError> {
        let mark = self.mark.advanced(self.clock.now(), self.clock.boot());
        let mut transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
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
            let tx = Tx { connection: &savepoint, records: RefCell::default(), mark };
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
        self.seams.pass_blocking(Seam::RowsWritten);
        if self.audited && !records.is_empty() {
            let logs = self.logs.as_mut().ok_or(StoreError::NoAuditLog)?;
            logs.append(&transaction, records)?;
        }
        self.seams.pass_blocking(Seam::RecordsWritten);
        Ok(transaction.commit()?)
    }
}

fn told(in_files: Result<(), AuditError>) -> Result<(), Arc<AuditError>> {
    in_files.map_err(|error| {
        warn!(
            error = crate::error::chain(&error),
            "the audit log's files are behind the store; it is tried again with the next record"
        );
        Arc::new(error)
    })
}

type Question = Box<dyn FnOnce(&Connection) + Send>;

/// The way to the reading thread.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    questions: std_mpsc::SyncSender<Question>,
    clock: Clock,
}

impl Reader {
    pub(super) fn start(connection: Connection, clock: Clock) -> Result<Self, StoreError> {
        let (questions, receiver) = std_mpsc::sync_channel::<Question>(WAITING);
        spawn("guestlane-read", move || receiver.iter().for_each(|question| question(&connection)))?;
        Ok(Self { questions, clock })
    }

    pub(super) async fn ask<T, F>(&self, question: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let _busy = self.clock.busy();
        let (answer, answered) = oneshot::channel();
        let question: Question = Box::new(move |connection| {
            let _ = answer.send(question(connection));
        });
        self.questions.send(question).map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
    let spawned: io::Result<_> = thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map(drop).map_err(|error| StoreError::Open(name.into(), error))
}
