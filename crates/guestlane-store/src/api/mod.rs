//! The operations of the store, by concept. Each database implements them in its own SQL.

mod audit;
mod batches;
mod keys;
mod outbox;
mod retention;
mod secrets;
mod sessions;
mod statistics;

use std::sync::Arc;

use async_trait::async_trait;
use guestlane_core::token::MasterKey;
use guestlane_genesys::Coordinator;
use guestlane_runtime::Clock;
use guestlane_tlog::NoteSigner;
use tokio::sync::watch;

use crate::{AuditSettings, ReadLimits, StoreError, StoredSecret};

pub use audit::AuditLog;
pub use batches::Batches;
pub use keys::{ApiKeys, Binding, SigningKeys};
pub use outbox::{Outbox, WebhookEndpoints};
pub use retention::{Guests, Retention};
pub use secrets::Secrets;
pub use sessions::{Admission, Sessions};
pub use statistics::Statistics;

/// A database that has a store. The tests in `tests/conformance` say what every implementation
/// does.
#[async_trait]
pub trait Backend:
    Admission
    + Sessions
    + Retention
    + Guests
    + Statistics
    + Outbox
    + WebhookEndpoints
    + SigningKeys
    + ApiKeys
    + Binding
    + Secrets
    + AuditLog
    + std::fmt::Debug
    + Send
    + Sync
{
    /// Returns the batches that several processes work on.
    ///
    /// # Errors
    /// Returns [`StoreError::NotShared`] for a store in a file, which has none.
    fn batches(&self) -> Result<&dyn Batches, StoreError>;

    /// Returns the coordinator of a fleet, or `None` for a store in a file, which serves one
    /// machine.
    fn coordinator(&self, master: Arc<MasterKey>, clock: Clock) -> Option<Arc<dyn Coordinator>>;

    /// Attaches the audit log. With `mend`, first completes what an earlier process left
    /// unfinished: records that are missing in the files, and bytes of erased guests in the store.
    /// A read-only command repairs nothing, so that changes of the files stay visible.
    ///
    /// # Errors
    /// Returns [`StoreError::Closed`] if the store is closed. On PostgreSQL, it also fails if the
    /// open logs cannot be read or their lock files cannot be opened.
    async fn attach_audit_log(
        &self,
        settings: AuditSettings,
        signer: Arc<NoteSigner>,
        mend: bool,
    ) -> Result<(), StoreError>;

    /// Returns the same store with a separate connection, thread and `limits` for its reads.
    ///
    /// # Errors
    /// Fails if the file cannot be opened again, or if the thread cannot be started.
    fn with_own_reads(&self, limits: ReadLimits) -> Result<Arc<dyn Backend>, StoreError>;

    /// Commits a row with this value, to test whether the store accepts writes.
    ///
    /// # Errors
    /// Returns an error if the write fails.
    async fn write_probe(&self, value: String) -> Result<(), StoreError>;

    /// Returns the clock for leases, schedules and retention: the database's clock on PostgreSQL,
    /// otherwise the machine's.
    fn clock(&self) -> Clock;

    /// Returns how far this node's wall clock is ahead of the database's, in seconds; a negative
    /// value means behind. Returns `None` for a store in a file.
    fn clock_offset(&self) -> Option<f64>;

    /// Whether this node's wall clock is close enough to the database's. Otherwise the node claims
    /// nothing and deletes nothing.
    fn may_claim(&self) -> bool;

    /// Measures the offset between this node's clock and the database's again.
    ///
    /// # Errors
    /// Fails if the database cannot be reached. The last measurement stays valid then.
    async fn measure_clock(&self) -> Result<(), StoreError>;

    /// Returns the number of change notifications so far, or `None` for a store without
    /// notifications. Must be called within a tokio runtime.
    fn notifications(&self) -> Option<watch::Receiver<u64>>;

    /// Whether a secret that was read through a URL is in this store, and not in a copy of it.
    fn is_home_of(&self, found: &StoredSecret) -> bool;
}
