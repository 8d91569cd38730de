//! All that the store does, on one page; each database does it in its own SQL.

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

macro_rules! either {
    ($self:ident, $store:ident => $ask:expr) => {
        match &$self.kind {
            Kind::Sqlite($store) => $ask.await,
            Kind::Postgres($store) => $ask.await,
        }
    };
}

macro_rules! shared {
    ($self:ident, $store:ident => $ask:expr) => {
        match &$self.kind {
            Kind::Sqlite(_) => Err(StoreError::NotShared),
            Kind::Postgres($store) => $ask.await,
        }
    };
}

/// Batches that several processes work on. A store in a file has none: [`StoreError::NotShared`].
impl Store {
    /// Begins a batch, whose rows come next. One of the same name whose rows never were all in is gone.
    pub async fn begin_batch(
        &self,
        id: BatchId,
        name: String,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        shared!(self, store => store.begin_batch(id, name, now))
    }

    /// Adds rows to a batch.
    pub async fn add_rows(
        &self,
        id: BatchId,
        rows: Vec<NewRow>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        shared!(self, store => store.add_rows(id, rows, now))
    }

    /// All rows are in: they may begin.
    pub async fn complete_batch(&self, id: BatchId, now: Timestamp) -> Result<(), StoreError> {
        shared!(self, store => store.complete_batch(id, now))
    }

    /// Claims up to `limit` rows that have no lease, or whose lease has expired.
    pub async fn claim_rows(
        &self,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<ClaimedRow>, StoreError> {
        let limit = if self.may_claim() { limit } else { 0 };
        shared!(self, store => store.claim_rows(limit, now))
    }

    /// Renews the leases of rows that are still this process's.
    pub async fn renew_rows(&self, held: Vec<RowLease>, now: Timestamp) -> Result<(), StoreError> {
        shared!(self, store => store.renew_rows(held, now))
    }

    /// Gives back rows that were not begun.
    pub async fn release_rows(
        &self,
        held: Vec<RowLease>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        shared!(self, store => store.release_rows(held, now))
    }

    /// Records the outcomes of rows whose lease this process still holds.
    pub async fn complete_rows(
        &self,
        ended: Vec<(RowLease, RowOutcome)>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        shared!(self, store => store.complete_rows(ended, now))
    }

    /// Cancels the rows of a batch that no worker has claimed. Returns false if there is no such batch.
    pub async fn cancel_batch(&self, id: BatchId, now: Timestamp) -> Result<bool, StoreError> {
        shared!(self, store => store.cancel_batch(id, now))
    }

    /// Batches, the newest first; or that one.
    pub async fn batches(
        &self,
        id: Option<BatchId>,
        limit: u32,
    ) -> Result<Vec<BatchStatus>, StoreError> {
        shared!(self, store => store.batches(id, limit))
    }

    /// What came of a batch's rows after `after`, in their order.
    pub async fn row_results(
        &self,
        id: BatchId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<RowResult>, StoreError> {
        shared!(self, store => store.row_results(id, after, limit))
    }
}

impl Store {
    /// Inserts a session under its idempotency key, in one transaction with the audit record "pending".
    /// If the key exists, returns the state of its session.
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

    /// The session that has the key, if one has; nothing is taken.
    pub async fn find_by_key(
        &self,
        key: IdempotencyKey,
    ) -> Result<Option<SessionRecord>, StoreError> {
        either!(self, store => store.find_by_key(key))
    }

    /// Commits a transition, unless another process has claimed the session since.
    pub async fn commit_transition(
        &self,
        transition: CommitRequest,
    ) -> Result<Committed<CommitResult>, StoreError> {
        either!(self, store => store.commit_transition(transition))
    }

    /// Renews the leases of sessions that are still driven by those epochs.
    pub async fn renew_leases(
        &self,
        leases: Vec<(SessionId, u32)>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        either!(self, store => store.renew_leases(leases, now))
    }

    /// Claims up to `limit` unfinished sessions whose lease has expired.
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
    /// lease, or if its guest was erased.
    pub async fn claim(
        &self,
        id: SessionId,
        now: Timestamp,
    ) -> Result<Option<SessionRecord>, StoreError> {
        either!(self, store => store.claim(id, now))
    }

    /// The contact of a guest, as the latest session other than `except` knows it.
    pub async fn latest_contact_id(
        &self,
        guest: GuestId,
        except: SessionId,
    ) -> Result<Option<String>, StoreError> {
        either!(self, store => store.latest_contact_id(guest, except))
    }

    /// One session.
    pub async fn session(&self, id: SessionId) -> Result<Option<SessionRecord>, StoreError> {
        either!(self, store => store.session(id))
    }

    /// A page of sessions, newest first. It may have fewer than `limit`, or none, and go on all the same: so much was looked at.
    pub async fn sessions(&self, filter: SessionFilter) -> Result<SessionPage, StoreError> {
        either!(self, store => store.sessions(filter))
    }

    /// All unfinished sessions, the next due first, at most `limit`.
    pub async fn unfinished_sessions(&self, limit: u32) -> Result<Vec<SessionRecord>, StoreError> {
        either!(self, store => store.unfinished_sessions(limit))
    }

    /// How many sessions are unfinished.
    pub async fn unfinished(&self) -> Result<u64, StoreError> {
        either!(self, store => store.unfinished())
    }

    /// What the calls of a session came to, oldest first.
    pub async fn calls(&self, session: SessionId) -> Result<Vec<CallRecord>, StoreError> {
        either!(self, store => store.calls(session))
    }

    /// The last records, oldest first.
    pub async fn records(&self, filter: RecordFilter) -> Result<Vec<StoredRecord>, StoreError> {
        either!(self, store => store.records(filter))
    }

    /// All logs of this store.
    pub async fn logs(&self, first: &Path, key: &VerifierKey) -> Result<Vec<LogInfo>, StoreError> {
        either!(self, store => store.logs(first, key))
    }

    /// The hashes of a log's lines. They must lead to the root that was kept with them: nobody may have changed a row since.
    pub async fn leaves(&self, log: u32) -> Result<Vec<Hash>, StoreError> {
        either!(self, store => store.leaves(log))
    }

    /// Writes the files of a log anew.
    pub async fn restore_log(&self, log: u32) -> Result<RestoreOutcome, StoreError> {
        either!(self, store => store.restore_log(log))
    }

    /// Records a change of what the store trusts that was made past the store, such as files that were written again.
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

    /// Records changes that were made where no audit log could be written: a finished or abandoned move.
    pub async fn record_unrecorded(&self, now: Timestamp) -> Result<(), StoreError> {
        either!(self, store => store.record_unrecorded(now))
    }

    /// An attempt that ended before there was a session is recorded too.
    pub async fn record_refusal(
        &self,
        entry: AuditRecord,
        errors: ErrorCounts,
    ) -> Result<(), StoreError> {
        either!(self, store => store.record_refusal(entry, errors))
    }

    /// Takes up to `limit` events for a receiver whose time has come, leased from now. Of each guest only the first that waits: their order is
    /// kept.
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

    /// First tries whose lease would end later than any lease can: it was given by a clock that was set back since, and holds nobody.
    pub async fn release_stale_initial_leases(&self, now: Timestamp) -> Result<(), StoreError> {
        either!(self, store => store.release_stale_initial_leases(now))
    }

    /// Makes all pending events due now, and returns their number: an operator asked for delivery.
    pub async fn expedite_events(&self, now: Timestamp) -> Result<usize, StoreError> {
        either!(self, store => store.expedite_events(now))
    }

    /// Records the outcome of a delivery, unless the event was replayed or claimed by another process since.
    pub async fn record_delivery(
        &self,
        event: Event,
        settlement: DeliveryOutcome,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        either!(self, store => store.record_delivery(event, settlement, now))
    }

    /// How many events [`replay`](Self::replay) would send again: one for each receiver.
    pub async fn replayable(&self, replay: ReplayFilter) -> Result<u64, StoreError> {
        either!(self, store => store.replayable(replay))
    }

    /// Starts events over, whatever became of them: the same ids and the same bodies. Says how many.
    pub async fn replay(&self, replay: ReplayFilter, now: Timestamp) -> Result<usize, StoreError> {
        either!(self, store => store.replay(replay, now))
    }

    /// Events, newest first. With `before`, those that were written before the one that has it.
    pub async fn events(
        &self,
        state: Option<DeliveryState>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Delivery>, StoreError> {
        either!(self, store => store.events(state, before, limit))
    }

    /// One event, as it stands with each of its receivers.
    pub async fn event(&self, id: String) -> Result<Vec<Delivery>, StoreError> {
        either!(self, store => store.event(id))
    }

    /// When the next event that was never tried may be: its first try is somebody else's until then, or was, if they died.
    pub async fn next_initial_delivery_at(
        &self,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        either!(self, store => store.next_initial_delivery_at(now))
    }

    /// Returns the number of pending events for endpoints with a higher number, which are not delivered.
    pub async fn pending_events_after(&self, receivers: u32) -> Result<u64, StoreError> {
        either!(self, store => store.pending_events_after(receivers))
    }

    /// How many events wait.
    pub async fn pending_events(&self) -> Result<u64, StoreError> {
        either!(self, store => store.pending_events())
    }

    /// What [`erase_guest`](Self::erase_guest) would come to now. Nothing is changed.
    pub async fn would_erase_guest(
        &self,
        guest: GuestId,
        now: Timestamp,
    ) -> Result<ErasureOutcome, StoreError> {
        either!(self, store => store.would_erase_guest(guest, now))
    }

    /// Makes a guest unreadable: in sessions, events, dead letters, and, where it has pseudonyms, in the audit log.
    pub async fn erase_guest(
        &self,
        guest: GuestId,
        now: Timestamp,
    ) -> Result<ErasureOutcome, StoreError> {
        either!(self, store => store.erase_guest(guest, now))
    }

    /// Records how much time has passed, and returns the moment before which sessions are deleted now if they are kept for `keep`.
    /// `None` without `keep`, and while this machine's clock differs from the database's.
    pub async fn advance_retention(
        &self,
        keep: Option<Duration>,
    ) -> Result<Option<Timestamp>, StoreError> {
        if !self.may_claim() {
            return Ok(None);
        }
        either!(self, store => store.advance_retention(keep))
    }

    /// Deletes some rows of batches that ended before `until`, and returns how many; zero when none is left.
    pub async fn prune_batches(&self, until: Timestamp) -> Result<u64, StoreError> {
        match &self.kind {
            Kind::Sqlite(_) => Ok(0), // a store in a file has no batches
            Kind::Postgres(store) => store.prune_batches(until).await,
        }
    }

    /// Looks at up to `limit` sessions after `from`, oldest first, and deletes those whose last transition was before `until`: in one
    /// transaction, with their events. A session stays while it is unfinished or needs attention, while an event of it is not
    /// delivered, and while a row of a batch may ask for its idempotency key.
    pub async fn prune(
        &self,
        from: Option<SessionId>,
        until: Timestamp,
        limit: u32,
    ) -> Result<Pruned, StoreError> {
        either!(self, store => store.prune(from, until, limit))
    }

    /// What waits now.
    pub async fn gauges(&self) -> Result<StoreGauges, StoreError> {
        either!(self, store => store.gauges())
    }

    /// Error counts of all processes that used this store.
    pub async fn error_counts(&self) -> Result<ErrorCounts, StoreError> {
        either!(self, store => store.error_counts())
    }

    /// Adds error counts that no transition will carry any more.
    pub async fn add_errors(&self, counts: ErrorCounts) -> Result<(), StoreError> {
        either!(self, store => store.add_errors(counts))
    }

    /// All counts and the latency.
    pub async fn summary(&self) -> Result<Summary, StoreError> {
        either!(self, store => store.summary())
    }

    /// All signing keys.
    pub async fn signing_keys(&self) -> Result<Vec<SealedSigningKey>, StoreError> {
        either!(self, store => store.signing_keys())
    }

    /// Adds a key unless one of that id is there: of two processes that start at once, the first one's key is the key.
    pub async fn add_signing_key(&self, key: SealedSigningKey) -> Result<(), StoreError> {
        either!(self, store => store.add_signing_key(key))
    }

    /// Adds the key that signs next, unless there is one already: of two processes that want one at once, the first one's is the next.
    /// Says which key that is.
    pub async fn add_next_key(
        &self,
        key: SealedSigningKey,
        life: impl FnOnce() -> KeyLifecycle + Send + 'static,
        now: Timestamp,
    ) -> Result<SealedSigningKey, StoreError> {
        either!(self, store => store.add_next_key(key, life, now))
    }

    /// Revokes a key and, where it signed, lets another sign from now on, in one transaction: there is always one that signs. Says what it came
    /// to; nothing is changed where the key is unknown or revoked already, or where a `spare` is needed and is not there.
    pub async fn revoke_signing_key(
        &self,
        kid: String,
        spare: Option<SealedSigningKey>,
        now: Timestamp,
    ) -> Result<Option<RevocationPlan>, StoreError> {
        either!(self, store => store.revoke_signing_key(kid, spare, now))
    }

    /// The platform this store belongs to: the one it was first used with, else `new` from now on.
    pub async fn get_or_insert_platform(&self, new: String) -> Result<String, StoreError> {
        either!(self, store => store.get_or_insert_platform(new))
    }

    /// The platform this store belongs to, if it was used with one.
    pub async fn platform(&self) -> Result<Option<String>, StoreError> {
        either!(self, store => store.platform())
    }

    /// The OAuth client that this store was last used with, and its organization, where the platform said.
    pub async fn organization(&self) -> Result<Option<(String, String)>, StoreError> {
        either!(self, store => store.organization())
    }

    /// From now on this store belongs to that organization, as the platform said of that OAuth client.
    pub async fn set_organization(
        &self,
        client_id: String,
        organization: String,
    ) -> Result<(), StoreError> {
        either!(self, store => store.set_organization(client_id, organization))
    }

    /// A sealed secret: the one of that name, else `new`, which is then kept.
    pub async fn get_or_insert_secret(
        &self,
        name: &str,
        new: Option<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        either!(self, store => store.get_or_insert_secret(name.to_owned(), new))
    }

    /// Puts a sealed secret in the place of `before`, with its audit record. Returns whether it is there now; false where another
    /// process changed the secret meanwhile.
    pub async fn replace_secret(&self, change: SecretChange) -> Result<bool, StoreError> {
        either!(self, store => store.replace_secret(change))
    }

    /// The webhook endpoints that are disabled.
    pub async fn disabled_endpoints(&self) -> Result<Vec<DisabledEndpoint>, StoreError> {
        either!(self, store => store.disabled_endpoints())
    }

    /// Disables a webhook endpoint. Returns whether it was enabled before.
    pub async fn disable_endpoint(&self, endpoint: DisabledEndpoint) -> Result<bool, StoreError> {
        either!(self, store => store.disable_endpoint(endpoint))
    }

    /// Enables a webhook endpoint. Returns whether it was disabled.
    pub async fn enable_endpoint(&self, number: u32) -> Result<bool, StoreError> {
        either!(self, store => store.enable_endpoint(number))
    }

    /// All keys, oldest first, those that are not accepted any more included.
    pub async fn api_keys(&self) -> Result<Vec<StoredApiKey>, StoreError> {
        either!(self, store => store.api_keys())
    }

    /// Adds a key. With `replaces`, that one ends at `until`, unless it ends before: the two overlap, so that callers can change over.
    pub async fn add_api_key(
        &self,
        key: StoredApiKey,
        replaces: Option<(String, Timestamp)>,
    ) -> Result<(), StoreError> {
        either!(self, store => store.add_api_key(key, replaces))
    }

    /// From now on the key is not accepted. Says how it stands; `None`: there is no such key.
    pub async fn revoke_api_key(
        &self,
        id: String,
        now: Timestamp,
    ) -> Result<Option<StoredApiKey>, StoreError> {
        either!(self, store => store.revoke_api_key(id, now))
    }

    /// When keys were last used.
    pub async fn touch_api_keys(&self, used: Vec<(String, Timestamp)>) -> Result<(), StoreError> {
        either!(self, store => store.touch_api_keys(used))
    }
}
