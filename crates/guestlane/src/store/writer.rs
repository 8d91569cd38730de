//! The threads that own the database connections. One writes: it commits together whatever is waiting (group commit). One reads.

use std::{
    io,
    sync::{Arc, mpsc as std_mpsc},
    thread,
};

use guestlane_genesys::Clock;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::{Committed, StoreError, audit::StoredLines};
use crate::audit::{AuditError, AuditFile};

/// The most writes in one transaction.
const MOST: usize = 512;

/// The most writes that wait; who comes then waits for room.
const WAITING: usize = 1024;

/// A write, and afterwards the word to whoever asked for it. Without a connection there is no write: its transaction is lost.
type Job = Box<dyn FnOnce(Option<&Connection>) -> (bool, Settle) + Send>;
type Settle = Box<dyn FnOnce(Outcome) + Send>;

#[derive(Clone)]
enum Outcome {
    Committed(Result<(), Arc<AuditError>>),
    Lost(String),
}

/// The way to the writing thread.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
    clock: Clock,
}

impl Writer {
    pub(super) fn start(connection: Connection, audit: AuditFile, clock: Clock) -> Result<Self, StoreError> {
        let (jobs, receiver) = mpsc::channel(WAITING);
        let mut thread = Thread { connection, audit, receiver };
        spawn("guestlane-write", move || thread.run())?;
        Ok(Self { jobs, clock })
    }

    /// Runs `job` in a transaction, and answers once that is committed. A job that fails undoes its own changes and nobody else's.
    pub(super) async fn run<T, F>(&self, job: F) -> Result<Committed<T>, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let _busy = self.clock.busy();
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let done = connection.map_or(Err(StoreError::Closed), job);
            let good = done.is_ok();
            let settle: Settle = Box::new(move |outcome| {
                let answered = match outcome {
                    Outcome::Committed(audit) => done.map(|value| Committed { value, audit }),
                    Outcome::Lost(reason) => Err(StoreError::Commit(reason)),
                };
                let _ = answer.send(answered);
            });
            (good, settle)
        });
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }
}

struct Thread {
    connection: Connection,
    audit: AuditFile,
    receiver: mpsc::Receiver<Job>,
}

impl Thread {
    fn run(&mut self) {
        // Records that a process left behind when it died between the commit and the file.
        if let Err(error) = self.audit.catch_up(&StoredLines(&self.connection)) {
            warn!(
                error = crate::error::chain(&error),
                "the audit log is behind the store; it is tried again with the next record"
            );
        }
        while let Some(first) = self.receiver.blocking_recv() {
            let mut jobs = vec![first];
            while jobs.len() < MOST
                && let Ok(next) = self.receiver.try_recv()
            {
                jobs.push(next);
            }
            let mut waiting = Vec::with_capacity(jobs.len());
            let outcome = match self.commit(jobs, &mut waiting) {
                Ok(()) => Outcome::Committed(self.bring_up_audit()),
                Err(error) => Outcome::Lost(error.to_string()),
            };
            waiting.into_iter().for_each(|settle| settle(outcome.clone()));
        }
    }

    fn commit(&mut self, jobs: Vec<Job>, waiting: &mut Vec<Settle>) -> Result<(), rusqlite::Error> {
        let mut jobs = jobs.into_iter();
        let committed = self.run_together(&mut jobs, waiting);
        waiting.extend(jobs.map(|job| job(None).1)); // only after an error: each must hear of it
        committed
    }

    fn run_together(&mut self, jobs: &mut dyn Iterator<Item = Job>, waiting: &mut Vec<Settle>) -> Result<(), rusqlite::Error> {
        let mut transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for job in jobs {
            let mut savepoint = match transaction.savepoint() {
                Ok(savepoint) => savepoint,
                Err(error) => {
                    waiting.push(job(None).1);
                    return Err(error);
                }
            };
            let (good, settle) = job(Some(&savepoint));
            waiting.push(settle);
            if !good {
                savepoint.rollback()?;
            }
            savepoint.commit()?;
        }
        transaction.commit()
    }

    fn bring_up_audit(&mut self) -> Result<(), Arc<AuditError>> {
        self.audit.catch_up(&StoredLines(&self.connection)).map_err(|error| {
            warn!(
                error = crate::error::chain(&error),
                "the audit log is behind the store; it is tried again with the next record"
            );
            Arc::new(error)
        })
    }
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
