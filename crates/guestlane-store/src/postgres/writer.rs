//! The thread that writes everything that has audit records. It commits all waiting writes together
//! (group commit), in one round trip unless there is a conflict. After a broken connection it finds
//! out whether the in-doubt commit took effect.

mod group_commit;
mod log_rotation;
mod plan;

use std::{collections::HashMap, sync::Arc, thread, time::Duration};

use guestlane_core::{audit::AuditRecord, event::Event, session::SessionRecord};
use guestlane_genesys::{Attempt, ErrorCounts};
use guestlane_runtime::{Clock, FailPoint, FailPoints, Timestamp};
use guestlane_tlog::{
    AppendedRange, AuditError, Frontier, NoteSigner, checkpoint_path, hashes_path, lines_path,
};
use plan::{is_superseded, key_of};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::{
    connection::{Connection, DbResult, is_transient},
    delivery_columns::DeliveryUpdate,
    log::{Log, NodeIdentity, open_logs},
};
use crate::{
    AuditSettings, Committed, PostgresUrl, RestoreOutcome, StoreError, write_health::WriteHealth,
};

/// Maximum number of writes in one transaction.
const MAX_GROUP_COMMIT: usize = 512;

/// Maximum number of waiting writes. Further callers wait until there is room (back-pressure).
const MAX_QUEUED_WRITES: usize = 1024;

/// Time limit of one statement or pipeline.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Settings of each new connection. The server ends a transaction whose client process is gone, so
/// that its locks block no other process.
const SETTINGS: &str = "SET statement_timeout = '10s'; SET lock_timeout = '5s'; SET idle_in_transaction_session_timeout = '5s'";

/// A write that can share a transaction with others.
pub(super) enum WriteOp {
    /// Inserts a session, unless its idempotency key exists.
    Insert(Box<SessionRecord>, AuditRecord),
    /// Updates a session, unless another process has claimed it.
    Update(Box<UpdateSession>),
    /// Records the outcome of a delivery, unless another process has claimed the event.
    RecordDelivery(DeliveryUpdate),
    /// Appends an audit record that belongs to no session, and adds to the error counts.
    AppendRecord(Option<AuditRecord>, ErrorCounts),
}

/// The values of [`WriteOp::Update`].
pub(super) struct UpdateSession {
    pub(super) before: u32,
    pub(super) after: SessionRecord,
    pub(super) audit: Option<AuditRecord>,
    pub(super) events: Vec<Event>,
    pub(super) errors: ErrorCounts,
    pub(super) calls: Vec<Attempt>,
}

/// The result of one write.
#[derive(Debug, Clone, Default)]
pub(super) struct WriteResult {
    /// Whether the write took effect: the idempotency key was new, or the session's epoch had not
    /// changed.
    pub(super) done: bool,
    /// For each event of the write: whether this process holds the lease of the initial delivery.
    pub(super) first: Vec<bool>,
}

type Answer = oneshot::Sender<Result<Committed<WriteResult>, StoreError>>;

/// A command for the writing thread, with the time at which it was requested.
enum WriterCommand {
    Write(WriteOp, Answer, Timestamp),
    /// Runs between two transactions.
    Alone(Box<dyn FnOnce(&mut WriterThread) + Send>, Timestamp),
}

/// A handle for sending commands to the writing thread.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    jobs: mpsc::Sender<WriterCommand>,
    clock: Clock,
}

impl Writer {
    pub(super) fn start(
        connection: Connection,
        home: NodeIdentity,
        health: WriteHealth,
        clock: Clock,
        fail_points: FailPoints,
    ) -> DbResult<Self> {
        let (jobs, receiver) = mpsc::channel(MAX_QUEUED_WRITES);
        let books = None;
        let mut thread = WriterThread {
            connection,
            home,
            books,
            receiver,
            health,
            clock: clock.clone(),
            fail_points,
        };
        let spawned = thread::Builder::new()
            .name("guestlane-write".to_owned())
            .spawn(move || thread.run());
        spawned.map_err(|error| StoreError::Open("guestlane-write".into(), error))?;
        Ok(Self { jobs, clock })
    }

    /// Creates a connection with [`SETTINGS`] and the time limit [`STATEMENT_TIMEOUT`].
    pub(super) fn connection(url: &PostgresUrl) -> DbResult<Connection> {
        Connection::new(url.clone(), SETTINGS, STATEMENT_TIMEOUT)
    }

    /// Commits `write` together with other waiting writes. Returns after the commit.
    pub(super) async fn write(&self, write: WriteOp) -> Result<Committed<WriteResult>, StoreError> {
        let _busy = self.clock.pause_auto_advance();
        let (answer, answered) = oneshot::channel();
        self.jobs
            .send(WriterCommand::Write(
                write,
                answer,
                Clock::system().monotonic(),
            ))
            .await
            .map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// Runs `work` between two transactions.
    pub(super) async fn alone<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut WriterThread) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let _busy = self.clock.pause_auto_advance();
        let (answer, answered) = oneshot::channel();
        let job = Box::new(move |thread: &mut WriterThread| {
            let _ = answer.send(work(thread));
        });
        let job = WriterCommand::Alone(job, Clock::system().monotonic());
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)
    }
}

/// The audit log's settings, signer and state.
struct AuditWriter {
    settings: AuditSettings,
    signer: Arc<NoteSigner>,
    /// `None` before the first record, and when the state of the log is unknown.
    log: Option<Log>,
}

pub(super) struct WriterThread {
    pub(super) connection: Connection,
    home: NodeIdentity,
    books: Option<AuditWriter>,
    receiver: mpsc::Receiver<WriterCommand>,
    health: WriteHealth,
    clock: Clock,
    fail_points: FailPoints,
}

/// A transaction that is being sent: the audit log's state after its commit.
struct PendingCommit {
    tree: Frontier,
    batch: i64,
    lines: Vec<String>,
}

impl WriterThread {
    fn run(&mut self) {
        while let Some(job) = self.receiver.blocking_recv() {
            let (mut writes, mut alone) = (Vec::new(), None);
            let mut next = Some(job);
            while let Some(job) = next {
                match job {
                    WriterCommand::Write(write, answer, asked_at) => {
                        // the latest request has the latest deadline
                        self.connection.asked_at(asked_at);
                        writes.push((write, answer));
                    }
                    WriterCommand::Alone(job, asked_at) => alone = Some((job, asked_at)),
                }
                let room = alone.is_none() && writes.len() < MAX_GROUP_COMMIT;
                next = if room {
                    self.receiver.try_recv().ok()
                } else {
                    None
                };
            }
            if !writes.is_empty() {
                self.write(writes);
            }
            if let Some((job, asked_at)) = alone {
                self.connection.asked_at(asked_at);
                job(self);
            }
        }
    }

    fn write(&mut self, mut writes: Vec<(WriteOp, Answer)>) {
        // Sort by key so that all writers lock rows in the same order and cannot deadlock.
        writes.sort_by(|(a, _), (b, _)| key_of(a).cmp(&key_of(b)));
        let (writes, answers): (Vec<_>, Vec<_>) = writes.into_iter().unzip();
        match self.commit(&writes) {
            Ok(kept) => {
                let audit = self.after_commit();
                for (kept, answer) in kept.into_iter().zip(answers) {
                    let _ = answer.send(Ok(Committed {
                        value: kept,
                        audit: audit.clone(),
                    }));
                }
            }
            // One write may be invalid; write each one alone so that the others succeed.
            Err(error) if writes.len() > 1 && !is_transient(&error) && !is_superseded(&error) => {
                warn!(
                    error = guestlane_runtime::text::display_chain(&error),
                    "a transaction failed; retrying its writes one by one"
                );
                writes
                    .into_iter()
                    .zip(answers)
                    .for_each(|alone| self.write(vec![alone]));
            }
            Err(error) => {
                self.health.failed(&error, self.clock.monotonic());
                let reason = guestlane_runtime::text::display_chain(&error);
                for answer in answers {
                    let _ = answer.send(Err(match error {
                        StoreError::Superseded { found, known } => {
                            StoreError::Superseded { found, known }
                        }
                        _ => StoreError::Commit(reason.clone()),
                    }));
                }
            }
        }
    }

    /// Appends the committed records to the audit log's files.
    fn after_commit(&mut self) -> Result<(), Arc<AuditError>> {
        self.fail_points.hit_blocking(FailPoint::Committed);
        let in_files = self.sync_files();
        self.fail_points.hit_blocking(FailPoint::CheckpointWritten);
        match &in_files {
            Ok(()) => self.health.succeeded(self.clock.monotonic()),
            Err(_) => self.health.audit_failed(self.clock.monotonic()),
        }
        in_files.map_err(|error| {
            warn!(
                error = guestlane_runtime::text::display_chain(&error),
                "the audit log's files are behind the store; retrying with the next record"
            );
            Arc::new(error)
        })
    }

    fn sync_files(&mut self) -> Result<(), AuditError> {
        let Some(AuditWriter {
            signer,
            log: Some(log),
            ..
        }) = &mut self.books
        else {
            return Ok(());
        };
        let fresh = std::mem::take(&mut log.fresh);
        log.sync_files(&mut self.connection, &fresh, signer, &self.fail_points)
            .map(drop)
    }

    /// Returns this process's audit log. Acquires one and reads its state if the state is unknown.
    fn log(&mut self) -> DbResult<&mut Log> {
        let books = self.books.as_mut().ok_or(StoreError::NoAuditLog)?;
        if books.log.is_none() {
            // An in-doubt transaction of the broken connection may still commit; terminate it
            // before reading the log's state.
            self.connection.terminate_previous_backend()?;
            books.log = Some(Log::acquire(
                &mut self.connection,
                &self.home,
                &books.settings,
            )?);
        }
        books.log.as_mut().ok_or(StoreError::NoAuditLog)
    }

    /// Attaches the audit log. With `mend`, first appends the committed records that other
    /// processes did not write to the files of their logs.
    pub(super) fn keep(
        &mut self,
        settings: AuditSettings,
        signer: Arc<NoteSigner>,
        mend: bool,
    ) -> DbResult<()> {
        if mend {
            for number in open_logs(&mut self.connection, &self.home)? {
                let Some(mut log) =
                    Log::claim(&mut self.connection, &self.home, &settings, number)?
                else {
                    continue;
                };
                match log.sync_files(&mut self.connection, &[], &signer, &self.fail_points) {
                    Ok(added) if added == AppendedRange::default() => {}
                    Ok(AppendedRange { lines, .. }) => {
                        let file = log.files.path().display();
                        warn!(%file, lines, "the audit log's files were behind the store (a process was killed, or the files were changed); appended the missing lines");
                    }
                    Err(error) => {
                        warn!(
                            error = guestlane_runtime::text::display_chain(&error),
                            "the audit log's files are behind the store; continuing"
                        )
                    }
                }
            }
        }
        self.books = Some(AuditWriter {
            settings,
            signer,
            log: None,
        });
        Ok(())
    }

    /// Rewrites the files of a log from the store. The log may be closed, or belong to another
    /// node. The old files must have been moved away, and no other process may hold the log.
    pub(super) fn restore(&mut self, number: u32) -> DbResult<RestoreOutcome> {
        let books = self.books.as_ref().ok_or(StoreError::NoAuditLog)?;
        let path = lines_path(&books.settings.path, number);
        let log = i64::from(number);
        if self
            .connection
            .query_opt("SELECT 1 FROM audit_log WHERE log = $1", &[&log])?
            .is_none()
        {
            return Ok(RestoreOutcome::Unknown);
        }
        if let Some(there) = [checkpoint_path(&path), hashes_path(&path), path.clone()]
            .into_iter()
            .find(|file| file.exists())
        {
            return Ok(RestoreOutcome::FileExists(there));
        }
        let Some(mut log) = Log::claim(&mut self.connection, &self.home, &books.settings, log)?
        else {
            return Ok(RestoreOutcome::Busy);
        };
        match log.sync_files(&mut self.connection, &[], &books.signer, &self.fail_points) {
            Ok(added) => Ok(RestoreOutcome::Restored {
                path,
                records: added.lines,
            }),
            Err(error) => Ok(RestoreOutcome::Failed(Arc::new(error))),
        }
    }
}

/// The names of guests in the audit log, by guest ID.
type Names = HashMap<String, String>;
