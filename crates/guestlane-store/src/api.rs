//! The operations of the store. Each database implements them in its own SQL.

use std::{path::Path, time::Duration};

use guestlane_genesys::ErrorCounts;
use guestlane_runtime::Timestamp;

use super::{
    BeginOutcome, CallRecord, CommitRequest, CommitResult, Committed, Delivery, DeliveryState,
    DisabledEndpoint, ErasureOutcome, Kind, LogInfo, Pruned, RecordFilter, ReplayFilter,
    RestoreOutcome, SecretChange, SessionFilter, SessionPage, Store, StoreError, StoreGauges,
    StoredRecord, Summary,
    batch::{BatchId, BatchStatus, ClaimedRow, NewRow, RowLease, RowOutcome, RowResult},
};
use crate::DeliveryOutcome;
use guestlane_core::{
    api_key::StoredApiKey,
    audit::{AuditRecord, ChangeAction},
    event::Event,
    request::{GuestId, IdempotencyKey, SessionRequest},
    session::{SessionContext, SessionId, SessionRecord},
    token::{KeyLifecycle, RevocationPlan, SealedSigningKey, TokenIdentity},
};
use guestlane_tlog::{Hash, VerifierKey};

/// Runs an operation on the database that the store is in.
macro_rules! either {
    ($self:ident, $store:ident => $ask:expr) => {
        match &$self.kind {
            Kind::Sqlite($store) => $ask.await,
            Kind::Postgres($store) => $ask.await,
        }
    };
}

/// Runs an operation that only PostgreSQL has. A store in a file returns
/// [`StoreError::NotShared`].
macro_rules! shared {
    ($self:ident, $store:ident => $ask:expr) => {
        match &$self.kind {
            Kind::Sqlite(_) => Err(StoreError::NotShared),
            Kind::Postgres($store) => $ask.await,
        }
    };
}

/// Batches that several processes work on. A store in a file has no batches.
impl Store {
    /// Begins a batch, to which rows are added next. Replaces a batch of the same name that was
    /// never completed.
    ///
    /// # Errors
    /// Returns [`StoreError::NotShared`] for a store in a file, or the database's error if the
    /// write fails.
    pub async fn begin_batch(
        &self,
        id: BatchId,
        name: String,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        shared!(self, store => store.begin_batch(id, name, now))
    }

    /// Adds rows to a batch. Rows that the batch already has are left as they are.
    ///
    /// # Errors
    /// Returns [`StoreError::NotShared`] for a store in a file. Fails if the batch does not exist,
    /// or if the write fails.
    pub async fn add_rows(
        &self,
        id: BatchId,
        rows: Vec<NewRow>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        shared!(self, store => store.add_rows(id, rows, now))
    }

    /// Marks a batch as complete, so that workers may claim its rows.
    ///
    /// # Errors
    /// Returns [`StoreError::NotShared`] for a store in a file. Returns [`StoreError::Commit`] if
    /// the batch was cancelled or replaced meanwhile, or the database's error if the write fails.
    pub async fn complete_batch(&self, id: BatchId, now: Timestamp) -> Result<(), StoreError> {
        shared!(self, store => store.complete_batch(id, now))
    }

    /// Claims up to `limit` rows that have no lease, or whose lease has expired. Claims none while
    /// this node's clock differs from the database's.
    ///
    /// # Errors
    /// Returns [`StoreError::NotShared`] for a store in a file, or the database's error if the
    /// write fails. A row that cannot be decoded is an error in [`ClaimedRow::request`] only.
    pub async fn claim_rows(
        &self,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<ClaimedRow>, StoreError> {
        let limit = if self.may_claim() { limit } else { 0 };
        shared!(self, store => store.claim_rows(limit, now))
    }

    /// Renews the leases of rows whose epoch has not changed.
    ///
    /// # Errors
    /// Returns [`StoreError::NotShared`] for a store in a file, or the database's error if the
    /// write fails.
    pub async fn renew_rows(&self, held: Vec<RowLease>, now: Timestamp) -> Result<(), StoreError> {
        shared!(self, store => store.renew_rows(held, now))
    }

    /// Releases claimed rows that were not started.
    ///
    /// # Errors
    /// Returns [`StoreError::NotShared`] for a store in a file, or the database's error if the
    /// write fails.
    pub async fn release_rows(
        &self,
        held: Vec<RowLease>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        shared!(self, store => store.release_rows(held, now))
    }

    /// Records the outcomes of rows whose lease this process still holds.
    ///
    /// # Errors
    /// Returns [`StoreError::NotShared`] for a store in a file, or the database's error if the
    /// write fails.
    pub async fn complete_rows(
        &self,
        ended: Vec<(RowLease, RowOutcome)>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        shared!(self, store => store.complete_rows(ended, now))
    }

    /// Cancels the rows of a batch that no worker has claimed. Returns false if there is no such
    /// batch.
    ///
    /// # Errors
    /// Returns [`StoreError::NotShared`] for a store in a file, or the database's error if the
    /// write fails.
    pub async fn cancel_batch(&self, id: BatchId, now: Timestamp) -> Result<bool, StoreError> {
        shared!(self, store => store.cancel_batch(id, now))
    }

    /// Returns batches, newest first, or only the batch `id`.
    ///
    /// # Errors
    /// Returns [`StoreError::NotShared`] for a store in a file, or the database's error if the read
    /// fails.
    pub async fn batches(
        &self,
        id: Option<BatchId>,
        limit: u32,
    ) -> Result<Vec<BatchStatus>, StoreError> {
        shared!(self, store => store.batches(id, limit))
    }

    /// Returns the results of a batch's rows after row number `after`, in their order.
    ///
    /// # Errors
    /// Returns [`StoreError::NotShared`] for a store in a file, [`StoreError::Row`] if a row cannot
    /// be decoded, or the database's error if the read fails.
    pub async fn row_results(
        &self,
        id: BatchId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<RowResult>, StoreError> {
        shared!(self, store => store.row_results(id, after, limit))
    }
}

/// Sessions, outbox events, audit logs, keys and retention.
///
/// The `# Errors` sections say "the read fails" and "the write fails" for failures of the database
/// itself. These are [`StoreError::Database`] for SQLite, [`StoreError::Postgres`] and
/// [`StoreError::Unreachable`] for PostgreSQL, [`StoreError::Commit`] for a write that shares a
/// transaction with others, and [`StoreError::Closed`].
///
/// A read can also fail with [`StoreError::ReadTimeout`] or [`StoreError::Busy`], and a write with
/// [`StoreError::Superseded`]. On PostgreSQL, a write whose result was lost with the connection
/// fails although it may be committed (an in-doubt commit).
impl Store {
    /// Inserts a session under its idempotency key, in one transaction with the audit record
    /// *pending*. If the key exists, returns the state of its session.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if the existing session cannot be decoded, or an error if the
    /// write fails.
    pub async fn begin(
        &self,
        request: SessionRequest,
        start: SessionContext,
        token: TokenIdentity,
        rates: ErrorCounts,
        now: Timestamp,
    ) -> Result<Committed<BeginOutcome>, StoreError> {
        either!(self, store => store.begin(request, start, token, rates, now))
    }

    /// Returns the session that has the idempotency key, without claiming it.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if the session cannot be decoded, or an error if the read fails.
    pub async fn find_by_key(
        &self,
        key: IdempotencyKey,
    ) -> Result<Option<SessionRecord>, StoreError> {
        either!(self, store => store.find_by_key(key))
    }

    /// Commits a transition, unless another process has claimed the session since.
    ///
    /// # Errors
    /// Returns [`StoreError::LeaseLost`] if another process has claimed the session, or an error if
    /// the write fails.
    pub async fn commit_transition(
        &self,
        transition: CommitRequest,
    ) -> Result<Committed<CommitResult>, StoreError> {
        either!(self, store => store.commit_transition(transition))
    }

    /// Renews the leases of sessions whose epoch has not changed.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn renew_leases(
        &self,
        leases: Vec<(SessionId, u32)>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        either!(self, store => store.renew_leases(leases, now))
    }

    /// Claims up to `limit` unfinished sessions whose lease has expired. Claims none while this
    /// node's clock differs from the database's.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if a due session cannot be decoded, or an error if the write
    /// fails.
    pub async fn claim_due(
        &self,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<SessionRecord>, StoreError> {
        if !self.may_claim() {
            return Ok(Vec::new());
        }
        either!(self, store => store.claim_due(limit, now))
    }

    /// Claims one session that is unfinished or failed. Returns `None` if another process holds its
    /// lease, if its guest was erased, or if it does not exist.
    ///
    /// # Errors
    /// Returns [`StoreError::IllegalTransition`] if the state of the session allows no claim,
    /// [`StoreError::Row`] if it cannot be decoded, or an error if the write fails.
    pub async fn claim(
        &self,
        id: SessionId,
        now: Timestamp,
    ) -> Result<Option<SessionRecord>, StoreError> {
        either!(self, store => store.claim(id, now))
    }

    /// Returns the contact ID of a guest's latest session that has one, except session `except` and
    /// sessions on the surface `rest`.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    pub async fn latest_contact_id(
        &self,
        guest: GuestId,
        except: SessionId,
    ) -> Result<Option<String>, StoreError> {
        either!(self, store => store.latest_contact_id(guest, except))
    }

    /// Returns one session, or `None` if it does not exist.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if the session cannot be decoded, or an error if the read fails.
    pub async fn session(&self, id: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        either!(self, store => store.session(id))
    }

    /// Returns a page of sessions, newest first. A page may have fewer than `limit` sessions, or
    /// none, and still have a next page, because the number of scanned rows is limited.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if a session cannot be decoded, or an error if the read fails.
    pub async fn sessions(&self, filter: SessionFilter) -> Result<SessionPage, StoreError> {
        either!(self, store => store.sessions(filter))
    }

    /// Returns up to `limit` unfinished sessions, ordered by the time at which they are due.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if a session cannot be decoded, or an error if the read fails.
    pub async fn unfinished_sessions(&self, limit: u32) -> Result<Vec<SessionRecord>, StoreError> {
        either!(self, store => store.unfinished_sessions(limit))
    }

    /// Returns the number of unfinished sessions.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    pub async fn unfinished(&self) -> Result<u64, StoreError> {
        either!(self, store => store.unfinished())
    }

    /// Returns the attempt log of a session, oldest attempt first.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if the attempt log cannot be decoded, or an error if the read
    /// fails.
    pub async fn calls(&self, session: SessionId) -> Result<Vec<CallRecord>, StoreError> {
        either!(self, store => store.calls(session))
    }

    /// Returns the last audit records that match the filter, oldest first.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    pub async fn records(&self, filter: RecordFilter) -> Result<Vec<StoredRecord>, StoreError> {
        either!(self, store => store.records(filter))
    }

    /// Returns all audit logs of this store. `first` is the path of the first log's file, and `key`
    /// names the logs in their checkpoints.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if the state of a log cannot be decoded, or an error if the read
    /// fails.
    pub async fn logs(&self, first: &Path, key: &VerifierKey) -> Result<Vec<LogInfo>, StoreError> {
        either!(self, store => store.logs(first, key))
    }

    /// Returns the leaf hashes of a log, computed from its lines in the store. Compares them with
    /// the root that was stored with them.
    ///
    /// # Errors
    /// Returns [`StoreError::AuditTampered`] if the lines do not lead to the stored root, because a
    /// row was changed outside guestlane. Returns an error if the read fails.
    pub async fn leaves(&self, log: u32) -> Result<Vec<Hash>, StoreError> {
        either!(self, store => store.leaves(log))
    }

    /// Rewrites the files of a log from the store.
    ///
    /// # Errors
    /// Returns [`StoreError::NoAuditLog`] if no audit log is attached, [`StoreError::Open`] if the
    /// lock file of the log cannot be opened, or an error if the read fails. A failure to write the
    /// files is [`RestoreOutcome::Failed`].
    pub async fn restore_log(&self, log: u32) -> Result<RestoreOutcome, StoreError> {
        either!(self, store => store.restore_log(log))
    }

    /// Appends an audit record of a change that was made outside the store's transactions, such as
    /// rewritten audit files.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn record_change(
        &self,
        action: ChangeAction,
        subject: String,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.record_refusal(
            AuditRecord::change(action, subject, None, now),
            ErrorCounts::default(),
        )
        .await
    }

    /// Appends the audit records of changes that were made without an audit log: a finished or
    /// abandoned migration.
    ///
    /// # Errors
    /// Returns an error if the read or the write fails.
    pub async fn record_unrecorded(&self, now: Timestamp) -> Result<(), StoreError> {
        either!(self, store => store.record_unrecorded(now))
    }

    /// Appends the audit record of an attempt that ended before its session existed.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn record_refusal(
        &self,
        entry: AuditRecord,
        errors: ErrorCounts,
    ) -> Result<(), StoreError> {
        either!(self, store => store.record_refusal(entry, errors))
    }

    /// Claims up to `limit` due events for a webhook endpoint. Claims only the first pending event
    /// of each guest, so that the events of a guest stay in order. Claims none while this node's
    /// clock differs from the database's.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if an event cannot be decoded, or an error if the write fails.
    pub async fn claim_events(
        &self,
        receiver: u32,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<Event>, StoreError> {
        if !self.may_claim() {
            return Ok(Vec::new());
        }
        either!(self, store => store.claim_events(receiver, limit, now))
    }

    /// Makes events due whose initial delivery has a lease beyond the longest possible one. Such an
    /// expiry was written before the wall clock moved backwards; treat the lease as expired.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn release_stale_initial_leases(&self, now: Timestamp) -> Result<(), StoreError> {
        either!(self, store => store.release_stale_initial_leases(now))
    }

    /// Makes all pending events due now whose last delivery failed, and returns their number. An
    /// operator requests this to deliver them before their backoff ends.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn expedite_events(&self, now: Timestamp) -> Result<usize, StoreError> {
        either!(self, store => store.expedite_events(now))
    }

    /// Records the outcome of a delivery, unless the event was replayed or claimed by another
    /// process since.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn record_delivery(
        &self,
        event: Event,
        settlement: DeliveryOutcome,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        either!(self, store => store.record_delivery(event, settlement, now))
    }

    /// Returns the number of events that [`replay`](Self::replay) would send again, counted once
    /// per endpoint.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    pub async fn replayable(&self, replay: ReplayFilter) -> Result<u64, StoreError> {
        either!(self, store => store.replayable(replay))
    }

    /// Makes events due again, whatever their state, with the same IDs and bodies. Returns their
    /// number, counted once per endpoint. Erased events stay erased.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn replay(&self, replay: ReplayFilter, now: Timestamp) -> Result<usize, StoreError> {
        either!(self, store => store.replay(replay, now))
    }

    /// Returns events, newest first. With `before`, returns only events with a lower
    /// [`sequence`](Delivery::sequence).
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if an event cannot be decoded, or an error if the read fails.
    pub async fn events(
        &self,
        state: Option<DeliveryState>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Delivery>, StoreError> {
        either!(self, store => store.events(state, before, limit))
    }

    /// Returns one event, once for each of its endpoints.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if the event cannot be decoded, or an error if the read fails.
    pub async fn event(&self, id: String) -> Result<Vec<Delivery>, StoreError> {
        either!(self, store => store.event(id))
    }

    /// Returns the earliest time at which the lease of an event's initial delivery ends. A worker
    /// looks again at that time, because the process that holds the lease may have died.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    pub async fn next_initial_delivery_at(
        &self,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        either!(self, store => store.next_initial_delivery_at(now))
    }

    /// Returns the number of pending events for endpoints with a higher number, which are not
    /// delivered.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    pub async fn pending_events_after(&self, receivers: u32) -> Result<u64, StoreError> {
        either!(self, store => store.pending_events_after(receivers))
    }

    /// Returns the number of pending events.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    pub async fn pending_events(&self) -> Result<u64, StoreError> {
        either!(self, store => store.pending_events())
    }

    /// Returns what [`erase_guest`](Self::erase_guest) would do now. Changes nothing.
    ///
    /// # Errors
    /// Returns an error if the read or the write that is rolled back fails.
    pub async fn would_erase_guest(
        &self,
        guest: GuestId,
        now: Timestamp,
    ) -> Result<ErasureOutcome, StoreError> {
        either!(self, store => store.would_erase_guest(guest, now))
    }

    /// Erases a guest's data: in sessions, events and dead letters. Where the audit log has
    /// pseudonyms, it also deletes the key of the guest's pseudonym.
    ///
    /// # Errors
    /// Returns an error if the write fails. A failure to remove the bytes from the store's files is
    /// no error; see [`ErasureReport::bytes_removed`](crate::ErasureReport::bytes_removed).
    pub async fn erase_guest(
        &self,
        guest: GuestId,
        now: Timestamp,
    ) -> Result<ErasureOutcome, StoreError> {
        either!(self, store => store.erase_guest(guest, now))
    }

    /// Advances the retention horizon, and returns the time before which sessions that are kept for
    /// `keep` are deleted now. Returns `None` without `keep`, and while this node's clock differs
    /// from the database's.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn advance_retention(
        &self,
        keep: Option<Duration>,
    ) -> Result<Option<Timestamp>, StoreError> {
        if !self.may_claim() {
            return Ok(None);
        }
        either!(self, store => store.advance_retention(keep))
    }

    /// Deletes some rows of batches that ended before `until`, and returns their number; zero when
    /// none is left.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn prune_batches(&self, until: Timestamp) -> Result<u64, StoreError> {
        match &self.kind {
            // A store in a file has no batches.
            Kind::Sqlite(_) => Ok(0),
            Kind::Postgres(store) => store.prune_batches(until).await,
        }
    }

    /// Reads up to `limit` sessions after `from`, oldest first, and deletes those whose last
    /// transition was before `until`, in one transaction with their events.
    ///
    /// A session stays while it is unfinished or needs attention, and while one of its events is
    /// not delivered. It also stays while a batch row can present its idempotency key.
    ///
    /// # Errors
    /// Returns an error if the read or the write fails.
    pub async fn prune(
        &self,
        from: Option<SessionId>,
        until: Timestamp,
        limit: u32,
    ) -> Result<Pruned, StoreError> {
        either!(self, store => store.prune(from, until, limit))
    }

    /// Returns the gauges: what is pending, and for how long.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    pub async fn gauges(&self) -> Result<StoreGauges, StoreError> {
        either!(self, store => store.gauges())
    }

    /// Returns the error counts of all processes that used this store.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    pub async fn error_counts(&self) -> Result<ErrorCounts, StoreError> {
        either!(self, store => store.error_counts())
    }

    /// Adds error counts that no later transition will carry.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn add_errors(&self, counts: ErrorCounts) -> Result<(), StoreError> {
        either!(self, store => store.add_errors(counts))
    }

    /// Returns the counts by state, the error counts and the latency summary.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    pub async fn summary(&self) -> Result<Summary, StoreError> {
        either!(self, store => store.summary())
    }

    /// Returns all signing keys, still sealed.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    pub async fn signing_keys(&self) -> Result<Vec<SealedSigningKey>, StoreError> {
        either!(self, store => store.signing_keys())
    }

    /// Adds a signing key unless its ID exists. When two processes start at once, the first one's
    /// key is kept.
    ///
    /// # Errors
    /// Returns [`StoreError::MigrationIncomplete`] if a migration into the database began
    /// meanwhile, or an error if the write fails.
    pub async fn add_signing_key(&self, key: SealedSigningKey) -> Result<(), StoreError> {
        either!(self, store => store.add_signing_key(key))
    }

    /// Adds the next signing key unless there is one, and returns the next key. When two processes
    /// add one at once, the first one's key is kept.
    ///
    /// # Errors
    /// Returns [`StoreError::Row`] if the key's ID belongs to a revoked or active key, or an error
    /// if the write fails.
    pub async fn add_next_key(
        &self,
        key: SealedSigningKey,
        life: impl FnOnce() -> KeyLifecycle + Send + 'static,
        now: Timestamp,
    ) -> Result<SealedSigningKey, StoreError> {
        either!(self, store => store.add_next_key(key, life, now))
    }

    /// Revokes a signing key. If it was the active key, another key becomes active in the same
    /// transaction, so that there is always one.
    ///
    /// Returns the plan that was carried out. Changes nothing if the key is unknown or revoked
    /// already. Returns `None`, and changes nothing, if a new key is needed and `spare` is not it.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn revoke_signing_key(
        &self,
        kid: String,
        spare: Option<SealedSigningKey>,
        now: Timestamp,
    ) -> Result<Option<RevocationPlan>, StoreError> {
        either!(self, store => store.revoke_signing_key(kid, spare, now))
    }

    /// Returns the platform that this store is bound to. Binds it to `new` if it is not bound.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn get_or_insert_platform(&self, new: String) -> Result<String, StoreError> {
        either!(self, store => store.get_or_insert_platform(new))
    }

    /// Returns the platform that this store is bound to, or `None` if it is not bound.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    pub async fn platform(&self) -> Result<Option<String>, StoreError> {
        either!(self, store => store.platform())
    }

    /// Returns the OAuth clients that this store was last used with, and their organization, if
    /// both are known.
    ///
    /// # Errors
    /// Returns an error if the read fails.
    pub async fn organization(&self) -> Result<Option<(String, String)>, StoreError> {
        either!(self, store => store.organization())
    }

    /// Stores the OAuth clients and the organization that the platform reported for them.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn set_organization(
        &self,
        client_id: String,
        organization: String,
    ) -> Result<(), StoreError> {
        either!(self, store => store.set_organization(client_id, organization))
    }

    /// Returns the sealed secret of that name. If it does not exist, stores and returns `new`.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn get_or_insert_secret(
        &self,
        name: &str,
        new: Option<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        either!(self, store => store.get_or_insert_secret(name.to_owned(), new))
    }

    /// Replaces a sealed secret whose value is still `before`, and appends its audit record.
    /// Returns false if another process changed the secret meanwhile.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn replace_secret(&self, change: SecretChange) -> Result<bool, StoreError> {
        either!(self, store => store.replace_secret(change))
    }

    /// Returns the webhook endpoints that are disabled.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the read fails.
    pub async fn disabled_endpoints(&self) -> Result<Vec<DisabledEndpoint>, StoreError> {
        either!(self, store => store.disabled_endpoints())
    }

    /// Disables a webhook endpoint. Returns whether it was enabled before.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the write fails.
    pub async fn disable_endpoint(&self, endpoint: DisabledEndpoint) -> Result<bool, StoreError> {
        either!(self, store => store.disable_endpoint(endpoint))
    }

    /// Enables a webhook endpoint. Returns whether it was disabled.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the write fails.
    pub async fn enable_endpoint(&self, number: u32) -> Result<bool, StoreError> {
        either!(self, store => store.enable_endpoint(number))
    }

    /// Returns all API keys, oldest first, including expired and revoked ones.
    ///
    /// # Errors
    /// Returns an error if the read fails. A key that cannot be decoded is returned as unreadable.
    pub async fn api_keys(&self) -> Result<Vec<StoredApiKey>, StoreError> {
        either!(self, store => store.api_keys())
    }

    /// Adds an API key. With `replaces`, the replaced key expires at `until` unless it expires
    /// earlier; the two overlap, so that callers can change over.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn add_api_key(
        &self,
        key: StoredApiKey,
        replaces: Option<(String, Timestamp)>,
    ) -> Result<(), StoreError> {
        either!(self, store => store.add_api_key(key, replaces))
    }

    /// Revokes an API key. Returns its present state, or `None` if there is no such key.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn revoke_api_key(
        &self,
        id: String,
        now: Timestamp,
    ) -> Result<Option<StoredApiKey>, StoreError> {
        either!(self, store => store.revoke_api_key(id, now))
    }

    /// Stores when API keys were last used.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    pub async fn touch_api_keys(&self, used: Vec<(String, Timestamp)>) -> Result<(), StoreError> {
        either!(self, store => store.touch_api_keys(used))
    }
}
