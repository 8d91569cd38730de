//! The thread that writes everything that has audit records. It commits all waiting writes together
//! (group commit), in one round trip unless there is a conflict. After a broken connection it finds
//! out whether the in-doubt commit took effect.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    thread,
    time::Duration,
};

use guestlane_genesys::{Attempt, ErrorCounts};
use guestlane_runtime::{Clock, FailPoint, FailPoints, Timestamp};
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::error::SqlState;
use tracing::warn;
use uuid::Uuid;

use super::{
    connection::{Connection, DbResult, Step, is_in_doubt, is_transient},
    deliveries::{DeliveryUpdate, DeliveryUpdates, NewEvents},
    guests,
    log::{Log, NodeIdentity, number_of, open_logs, state},
    migrations,
    rows::{NewSessions, SessionUpdates, as_i64},
};
use crate::{
    AuditSettings, BenchOverrides, Committed, GuestIdMode, PostgresUrl, RestoreOutcome, StoreError,
    summary, write_health::WriteHealth,
};
use guestlane_core::{
    audit::{AuditRecord, Rotation},
    event::Event,
    session::SessionRecord,
};
use guestlane_tlog::{
    AppendedRange, AuditError, Checkpoint, Frontier, NoteSigner, checkpoint_path, hashes_path,
    leaf_hash, lines_path,
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
            audited: true,
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

    /// Runs `work` in a transaction of its own and appends the records that it pushes to the audit
    /// log. Repeats `work` only if the transaction was certainly not committed.
    pub(super) async fn transact<T, F>(&self, work: F) -> Result<Committed<T>, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut Connection, &mut Vec<AuditRecord>) -> DbResult<T> + Send + 'static,
    {
        self.alone(move |thread| thread.transact(work)).await?
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
    audited: bool,
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

    /// Commits all of `writes` in one transaction. A write whose precondition no longer holds is
    /// left out, and its result has `done: false`.
    fn commit(&mut self, writes: &[WriteOp]) -> DbResult<Vec<WriteResult>> {
        self.begin_next_log_if_full()?;
        let names = self.names(writes.iter().filter_map(entry_of))?;
        let give_up = self.connection.deadline();
        let mut hopeful = true;
        loop {
            let mut kept = Vec::new();
            let attempt = if hopeful {
                Self::commit_optimistic
            } else {
                Self::commit_serial
            };
            match attempt(self, writes, &names, &mut kept) {
                Ok(()) => return Ok(kept),
                Err(error) if is_conflict(&error) && hopeful => hopeful = false,
                Err(error) if is_in_doubt(&error) => match self.resolve_in_doubt() {
                    Some(true) => return Ok(kept),
                    Some(false) if Clock::system().monotonic() <= give_up => {}
                    Some(false) | None => return Err(error),
                },
                Err(error) if is_transient(&error) && Clock::system().monotonic() < give_up => {}
                Err(error) => {
                    let moved = self.log_advanced_elsewhere()?;
                    if !moved || Clock::system().monotonic() > give_up {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Whether another process advanced this process's audit log. Two processes have the same log
    /// after a state directory was copied. This process then continues after the other's records.
    fn log_advanced_elsewhere(&mut self) -> DbResult<bool> {
        let Some(AuditWriter { log: Some(log), .. }) = &mut self.books else {
            return Ok(false);
        };
        let (tree, batch) = state(&mut self.connection, log.number)?;
        if batch == log.batch {
            return Ok(false);
        }
        warn!(
            log = log.number,
            "another process writes this process's audit log; the state directory may have been copied"
        );
        (log.tree, log.batch) = (tree, batch);
        log.fresh.clear(); // `sync_files` reads the missing lines from the store
        Ok(true)
    }

    /// Sends the transaction in one round trip and assumes that there is no conflict. On a conflict
    /// nothing is written.
    fn commit_optimistic(
        &mut self,
        writes: &[WriteOp],
        names: &Names,
        kept: &mut Vec<WriteResult>,
    ) -> DbResult<()> {
        *kept = writes.iter().map(WriteResult::optimistic).collect();
        let plan = Plan::of(writes, self.clock.now(), |_| true)?;
        let sealed = self.seal(plan.entries.iter().copied(), names)?;
        self.fail_points.hit_blocking(FailPoint::RowsWritten);
        self.fail_points.hit_blocking(FailPoint::RecordsWritten);
        let (inserts, updates) = (plan.inserts.len() as i64, plan.updates.len() as i64);
        let (mut insert_params, mut update_params) = (plan.inserts.params(), plan.updates.params());
        insert_params.push(&inserts);
        update_params.push(&updates);
        let insert = guarded(NewSessions::statement(), insert_params.len());
        let update = guarded(SessionUpdates::statement(), update_params.len());
        let mut steps = vec![Step::Plain("BEGIN")];
        if inserts > 0 {
            steps.push(Step::Query(&insert, &insert_params));
        }
        if updates > 0 {
            steps.push(Step::Query(&update, &update_params));
        }
        self.finish(steps, &plan, sealed, kept)
    }

    /// Inserts and updates the sessions first, then writes what follows from the rows that took
    /// effect. This takes two round trips.
    fn commit_serial(
        &mut self,
        writes: &[WriteOp],
        names: &Names,
        kept: &mut Vec<WriteResult>,
    ) -> DbResult<()> {
        let plan = Plan::of(writes, self.clock.now(), |_| true)?;
        let (inserts, updates) = (plan.inserts.params(), plan.updates.params());
        let first = [
            Step::Plain("BEGIN"),
            Step::Query(NewSessions::statement(), &inserts),
            Step::Query(SessionUpdates::statement(), &updates),
        ];
        let answers = self.connection.pipeline(&first);
        let answers = answers.inspect_err(|_| self.connection.discard())?;
        let admitted: HashSet<Uuid> = answers[1].iter().map(|row| row.get(0)).collect();
        let updated: HashSet<(Uuid, i64)> = answers[2]
            .iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect();
        let done = |write: &WriteOp| match write {
            WriteOp::Insert(session, _) => admitted.contains(&session.id.0),
            WriteOp::Update(step) => updated.contains(&(step.after.id.0, step.before.into())),
            WriteOp::RecordDelivery(_) | WriteOp::AppendRecord(..) => true,
        };
        let plan = Plan::of(writes, self.clock.now(), done)?;
        let sealed = self.seal(plan.entries.iter().copied(), names)?;
        *kept = writes
            .iter()
            .map(|write| WriteResult {
                done: done(write),
                ..WriteResult::optimistic(write)
            })
            .collect();
        self.fail_points.hit_blocking(FailPoint::RowsWritten);
        self.fail_points.hit_blocking(FailPoint::RecordsWritten);
        self.finish(Vec::new(), &plan, sealed, kept)
    }

    /// Writes events, error counts, audit records and the log's new state, and commits the
    /// transaction.
    fn finish(
        &mut self,
        first: Vec<Step<'_>>,
        plan: &Plan<'_>,
        sealed: PendingCommit,
        kept: &mut [WriteResult],
    ) -> DbResult<()> {
        let log = self.log()?;
        let (number, size, before) = (log.number, as_i64(log.tree.size()), log.batch);
        log.pending = Some(sealed.batch);
        let events = plan.events.params();
        let settled = plan.settle.params();
        let (names, values): (Vec<&str>, Vec<i64>) = plan
            .errors
            .iter()
            .map(|(name, value)| (*name, *value))
            .unzip();
        let counted: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [&number, &names, &values];
        let sessions: Vec<Option<Uuid>> = plan
            .entries
            .iter()
            .map(|entry| entry.session().map(|id| id.0))
            .collect();
        let recorded: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
            [&number, &size, &sessions, &sealed.lines];
        let (new_size, frontier) = (as_i64(sealed.tree.size()), sealed.tree.to_bytes());
        let known = migrations::known_number();
        let advanced: [&(dyn tokio_postgres::types::ToSql + Sync); 7] = [
            &number,
            &size,
            &before,
            &new_size,
            &frontier,
            &sealed.batch,
            &known,
        ];
        let goes_on = first.is_empty();
        let mut steps: Vec<Step<'_>> = first;
        let locks = plan.events.locks();
        let locked: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&locks];
        if plan.events.len() > 0 {
            steps.push(Step::Query(NewEvents::LOCK, &locked));
        }
        let events_at = steps.len();
        if plan.events.len() > 0 {
            steps.push(Step::Query(NewEvents::INSERT, &events));
        }
        if plan.settle.len() > 0 {
            steps.push(Step::Query(DeliveryUpdates::UPDATE, &settled));
        }
        if !names.is_empty() {
            steps.push(Step::Query(COUNT, &counted));
        }
        if self.audited && !plan.entries.is_empty() {
            steps.push(Step::Query(RECORD, &recorded));
        }
        steps.push(Step::Query(ADVANCE_LOG, &advanced));
        steps.push(Step::Plain("COMMIT"));
        let answers = if goes_on {
            self.connection.updates(&steps)
        } else {
            self.connection.pipeline(&steps)
        };
        let answers = match answers {
            Ok(answers) => answers,
            Err(error) => {
                if !is_in_doubt(&error) && !is_conflict(&error) {
                    // the connection may hold a transaction that failed halfway
                    self.connection.discard();
                }
                return Err(error);
            }
        };
        if plan.events.len() > 0 {
            let first: HashSet<(String, i32)> = answers[events_at]
                .iter()
                .filter(|row| row.get(2))
                .map(|row| (row.get(0), row.get(1)))
                .collect();
            for (kept, events) in kept.iter_mut().zip(&plan.events_of) {
                kept.first = events
                    .iter()
                    .map(|event| first.contains(&(event.id.clone(), receiver(event))))
                    .collect();
            }
        }
        self.committed(sealed)
    }

    fn committed(&mut self, sealed: PendingCommit) -> DbResult<()> {
        let log = self.log()?;
        log.tree = sealed.tree;
        log.batch = sealed.batch;
        log.pending = None;
        log.fresh.extend(sealed.lines);
        Ok(())
    }

    /// Finds out whether an in-doubt commit took effect, and reads the state of the log. Returns
    /// `None` if that cannot be determined now. The caller then gets an error that says so, and
    /// nothing is written twice.
    fn resolve_in_doubt(&mut self) -> Option<bool> {
        let resolved = self.query_commit_outcome();
        if let (Err(error), Some(books)) = (&resolved, &mut self.books) {
            crate::log_failure(
                error,
                "the outcome of a transaction is unknown; failing its requests, which callers can repeat",
            );
            books.log = None; // its state is read again before the next write
        }
        resolved.ok()
    }

    fn query_commit_outcome(&mut self) -> DbResult<bool> {
        self.connection.terminate_previous_backend()?;
        let Some(AuditWriter { log: Some(log), .. }) = &mut self.books else {
            return Ok(false);
        };
        let number = log.number;
        let (tree, batch) = state(&mut self.connection, number)?;
        let pending = log.pending.take();
        if batch == log.batch {
            return Ok(false);
        }
        log.tree = tree;
        log.batch = batch;
        log.fresh.clear(); // `sync_files` reads the missing lines from the store
        if pending == Some(batch) {
            // With synchronous replication, the commit may be on this server and not yet on its
            // standby. This later commit returns only after the standby has both.
            self.connection.execute(
                "UPDATE audit_log SET batch = batch WHERE log = $1",
                &[&number],
            )?;
            Ok(true)
        } else {
            Err(StoreError::Commit(
                "another process writes this process's audit log".into(),
            ))
        }
    }

    /// Assigns each record its index and line in the audit log, and computes the tree after the
    /// last one.
    fn seal<'a>(
        &mut self,
        entries: impl Iterator<Item = &'a AuditRecord>,
        names: &Names,
    ) -> DbResult<PendingCommit> {
        let audited = self.audited;
        let log = self.log()?;
        let (mut tree, mut lines) = (log.tree.clone(), Vec::new());
        for entry in entries.filter(|_| audited) {
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
    fn names<'a>(&mut self, entries: impl Iterator<Item = &'a AuditRecord>) -> DbResult<Names> {
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
    fn begin_next_log_if_full(&mut self) -> DbResult<()> {
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

    pub(super) fn override_for_bench(&mut self, guarantees: BenchOverrides) -> DbResult<()> {
        self.audited = guarantees.audited;
        if guarantees.durable {
            Ok(())
        } else {
            self.connection.batch("SET synchronous_commit = off")
        }
    }
}

/// The names of guests in the audit log, by guest ID.
type Names = HashMap<String, String>;

const COUNT: &str = "INSERT INTO counter (log, name, value) SELECT $1, name, value FROM unnest($2::text[], $3::bigint[]) AS t (name, value) \
     ON CONFLICT (log, name) DO UPDATE SET value = counter.value + excluded.value";

const RECORD: &str = "INSERT INTO audit_record (log, idx, session_id, line) SELECT $1, $2 + place - 1, session_id, line \
     FROM unnest($3::uuid[], $4::text[]) WITH ORDINALITY AS t (session_id, line, place)";

/// Advances the log only if its state is the one that this process left. Records of another process
/// are therefore never overwritten.
const ADVANCE_LOG: &str = "WITH done AS (UPDATE audit_log SET size = $4, frontier = $5, batch = $6 \
     WHERE log = $1 AND size = $2 AND batch = $3 AND closed_at IS NULL RETURNING 1) SELECT expect_row_count(count(*), 1), expect_format($7) FROM done";

/// Wraps a statement so that it fails unless it affects the number of rows in parameter `wanted`,
/// the last one.
fn guarded(sql: &str, wanted: usize) -> String {
    format!("WITH done AS ({sql}) SELECT expect_row_count(count(*), ${wanted}) FROM done")
}

/// The rows of all writes, as arrays by column.
#[derive(Default)]
struct Plan<'a> {
    inserts: NewSessions,
    updates: SessionUpdates,
    events: NewEvents,
    /// The events of each write.
    events_of: Vec<&'a [Event]>,
    settle: DeliveryUpdates,
    errors: BTreeMap<&'static str, i64>,
    entries: Vec<&'a AuditRecord>,
}

impl<'a> Plan<'a> {
    /// Builds the plan of the writes for which `done` is true.
    fn of(
        writes: &'a [WriteOp],
        now: Timestamp,
        done: impl Fn(&WriteOp) -> bool,
    ) -> DbResult<Self> {
        let mut plan = Self::default();
        for write in writes {
            let mut events: &[Event] = &[];
            match write {
                _ if !done(write) => {}
                WriteOp::Insert(session, entry) => {
                    plan.inserts.push(session, now)?;
                    plan.entries.push(entry);
                }
                WriteOp::Update(step) => {
                    plan.updates
                        .push(&step.after, step.before, &step.calls, now)?;
                    plan.entries.extend(&step.audit);
                    plan.count(&step.errors);
                    step.events.iter().for_each(|event| plan.events.push(event));
                    events = &step.events;
                }
                WriteOp::RecordDelivery(settled) => plan.settle.push(settled),
                WriteOp::AppendRecord(entry, errors) => {
                    plan.entries.extend(entry);
                    plan.count(errors);
                }
            }
            plan.events_of.push(events);
        }
        Ok(plan)
    }

    fn count(&mut self, errors: &ErrorCounts) {
        for (name, value) in summary::named(errors) {
            *self.errors.entry(name).or_default() += as_i64(value);
        }
    }
}

impl WriteResult {
    fn optimistic(write: &WriteOp) -> Self {
        let events = match write {
            WriteOp::Update(step) => step.events.len(),
            WriteOp::Insert(..) | WriteOp::RecordDelivery(_) | WriteOp::AppendRecord(..) => 0,
        };
        Self {
            done: true,
            first: vec![false; events],
        }
    }
}

fn guests_of<'a>(entries: impl Iterator<Item = &'a AuditRecord>) -> BTreeSet<String> {
    entries
        .filter_map(|entry| entry.guest().map(|guest| guest.as_str().to_owned()))
        .collect()
}

fn key_of(write: &WriteOp) -> (u8, &str, Uuid) {
    match write {
        WriteOp::Insert(session, _) => (0, session.request.key.as_str(), session.id.0),
        WriteOp::Update(step) => (1, "", step.after.id.0),
        WriteOp::RecordDelivery(settled) => (2, &settled.id, Uuid::nil()),
        WriteOp::AppendRecord(..) => (3, "", Uuid::nil()),
    }
}

fn entry_of(write: &WriteOp) -> Option<&AuditRecord> {
    match write {
        WriteOp::Insert(_, entry) => Some(entry),
        WriteOp::Update(step) => step.audit.as_ref(),
        WriteOp::AppendRecord(entry, _) => entry.as_ref(),
        WriteOp::RecordDelivery(_) => None,
    }
}

fn receiver(event: &Event) -> i32 {
    i32::try_from(event.receiver).unwrap_or(i32::MAX)
}

/// Whether a newer version migrated the database to a new format, so that no write can succeed.
fn is_superseded(error: &StoreError) -> bool {
    matches!(error, StoreError::Superseded { .. })
}

/// Whether a row's state differed from what [`WriterThread::commit_optimistic`] assumed.
fn is_conflict(error: &StoreError) -> bool {
    matches!(error, StoreError::Postgres { code: Some(code), .. } if *code == SqlState::from_code("GL001"))
}
