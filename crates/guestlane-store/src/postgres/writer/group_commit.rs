//! Group commit: writes many transitions in one transaction, and resolves commits in doubt.

use std::collections::HashSet;

use guestlane_runtime::{Clock, FailPoint};
use tracing::warn;
use uuid::Uuid;

use super::{
    super::{
        connection::{DbResult, Step, is_in_doubt, is_transient},
        delivery_columns::{DeliveryUpdates, NewEvents},
        log::state,
        migrations,
        rows::{NewSessions, SessionUpdates, as_i64},
    },
    AuditWriter, Names, PendingCommit, WriteOp, WriteResult, WriterThread,
    plan::{ADVANCE_LOG, COUNT, Plan, RECORD, endpoint_number, entry_of, guarded, is_conflict},
};
use crate::StoreError;

impl WriterThread {
    /// Commits all of `writes` in one transaction. A write whose precondition no longer holds is
    /// left out, and its result has `done: false`.
    pub(super) fn commit(&mut self, writes: &[WriteOp]) -> DbResult<Vec<WriteResult>> {
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
    pub(super) fn log_advanced_elsewhere(&mut self) -> DbResult<bool> {
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
    pub(super) fn finish(
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
        if !plan.entries.is_empty() {
            steps.push(Step::Query(RECORD, &recorded));
        }
        steps.push(Step::Query(ADVANCE_LOG, &advanced));
        steps.push(Step::Plain("COMMIT"));
        let answers = if goes_on {
            self.connection.pipeline_in_transaction(&steps)
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
                    .map(|event| first.contains(&(event.id.clone(), endpoint_number(event))))
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
    pub(super) fn resolve_in_doubt(&mut self) -> Option<bool> {
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
}
