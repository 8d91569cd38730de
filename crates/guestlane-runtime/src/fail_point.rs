//! Fail points: named places between two durable effects at which tests crash the process.
//!
//! In debug builds a test selects the fail point at which the process dies. In release builds
//! [`FailPoints`] has no size, and passing a fail point compiles to no code.

use std::fmt;

macro_rules! fail_points {
    ($($(#[doc = $about:literal])+ $fail_point:ident = $name:literal,)+) => {
        /// A place between two durable writes or calls.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum FailPoint {
            $($(#[doc = $about])+ $fail_point,)+
        }

        impl FailPoint {
            /// All fail points, in the order of a session's life.
            pub const ALL: &'static [Self] = &[$(Self::$fail_point),+];

            /// Returns the name used in tests and tables.
            pub fn name(self) -> &'static str {
                match self { $(Self::$fail_point => $name),+ }
            }
        }
    };
}

fail_points! {
    /// The new master key is written to a temporary file that is not yet in place.
    MasterKeyDrafted = "master-key-drafted",
    /// The master key is in place; nothing is encrypted with it.
    MasterKeyMade = "master-key-made",
    /// The master key to be replaced is saved as the previous one; it is still the current one as
    /// well.
    PreviousMasterKeyKept = "previous-master-key-kept",
    /// The new master key is the current one; every value is still encrypted with the previous one.
    MasterKeyReplaced = "master-key-replaced",
    /// Some values are encrypted with the current master key; others may still use the previous
    /// one.
    ChunkResealed = "chunk-resealed",
    /// The first signing key is in the store.
    SigningKeyStored = "signing-key-stored",
    /// The next signing key is in the store; the rotation is not yet reported.
    NextKeyStored = "next-key-stored",
    /// A signing key is revoked and another one signs; the revocation is not yet reported.
    KeyRevoked = "key-revoked",
    /// The audit log's signing key is in the store.
    AuditKeyStored = "audit-key-stored",
    /// The store is bound to its platform.
    PlatformStored = "platform-stored",
    /// The store is bound to its organization.
    OrganizationStored = "organization-stored",
    /// The webhook secret is in the store.
    WebhookSecretStored = "webhook-secret-stored",
    /// The platform issued an access token; the call that needed it is not yet sent.
    SignedIn = "signed-in",
    /// An attempt at a call failed; the next one is not yet made.
    AttemptFailed = "attempt-failed",
    /// The queue exists; the idempotency key is not yet admitted.
    QueueLookedUp = "queue-looked-up",
    /// A rejection is in the audit log; the caller has no response yet.
    RefusalStored = "refusal-stored",
    /// A transaction's rows are written, its audit records are not.
    RowsWritten = "rows-written",
    /// A transaction is written and not yet committed.
    RecordsWritten = "records-written",
    /// A transaction is committed; the files of the audit log do not contain its records.
    Committed = "committed",
    /// The lines of the audit log are in the file, their hashes are not.
    LinesAppended = "lines-appended",
    /// The hashes are in the file, the checkpoint is still the old one.
    HashesAppended = "hashes-appended",
    /// The audit files are complete; the commit is not yet reported.
    CheckpointWritten = "checkpoint-written",
    /// The session is admitted with its idempotency key; nothing is sent.
    Admitted = "admitted",
    /// The platform created the contact; the session record does not contain it.
    ContactCreated = "contact-created",
    /// The contact is in the session record; the request for the conversation is not sent.
    ContactStored = "contact-stored",
    /// The guest socket is open; no guest session is configured.
    GuestConnected = "guest-connected",
    /// The guest session is configured; no message is sent.
    GuestConfigured = "guest-configured",
    /// The platform accepted the first message; the session record does not contain it.
    MessageSent = "message-sent",
    /// The first message is in the session record; its conversation is not known.
    MessageStored = "message-stored",
    /// The conversation of the first message is found; the session record does not contain it.
    ConversationFound = "conversation-found",
    /// The conversation is in the session record; contact link and queue are not yet set.
    ConversationStored = "conversation-stored",
    /// A contact that no longer exists on the platform is removed from the record; no new one is
    /// requested.
    ContactRemoved = "contact-removed",
    /// The contact is linked; the queue is not yet set.
    ContactLinked = "contact-linked",
    /// The conversation is in its queue; the session record does not contain that.
    QueueReached = "queue-reached",
    /// The platform opened the conversation; the session record does not contain it.
    ConversationOpened = "conversation-opened",
    /// The session is open; neither the caller nor the webhook receiver has been notified.
    OpenStored = "open-stored",
    /// A step failed, for good or temporarily; the session record does not contain the failure.
    StepFailed = "step-failed",
    /// The failure is in the session record; the caller has no response yet.
    FailureStored = "failure-stored",
    /// A new guest token is in the session record; it was not sent.
    TokenRenewed = "token-renewed",
    /// An interrupted session is claimed; nothing is sent.
    SessionClaimed = "session-claimed",
    /// A session that is too old is set aside; that is not yet reported.
    NeedsAttentionStored = "needs-attention-stored",
    /// The leases of live executors are renewed.
    LeasesRenewed = "leases-renewed",
    /// Batch rows are claimed; none is begun.
    RowsClaimed = "rows-claimed",
    /// Batch rows have ended; only their session records say so.
    RowsEnded = "rows-ended",
    /// A SQLite store is marked as moving; no row is copied.
    MoveMarked = "move-marked",
    /// Some rows of a SQLite store are in the database.
    RowsCopied = "rows-copied",
    /// The SQLite store is no longer used; the database does not yet record that the copy is
    /// complete.
    StoreMoved = "store-moved",
    /// Outbox events are claimed; nothing is sent.
    EventsClaimed = "events-claimed",
    /// The webhook receiver got the event; the outbox does not record it.
    EventSent = "event-sent",
    /// The outbox records that the event was delivered.
    DeliveryRecorded = "delivery-recorded",
    /// Events are scheduled for another delivery; the caller has no response yet.
    EventsReplayed = "events-replayed",
    /// An API key is in the store; the caller does not have it yet.
    ApiKeyStored = "api-key-stored",
    /// An API key is revoked; the caller has no response yet.
    ApiKeyRevoked = "api-key-revoked",
    /// A full audit log file is sealed; the next one is not begun.
    LogSealed = "log-sealed",
    /// A guest is erased in the store; the store's file still contains the bytes.
    GuestErased = "guest-erased",
    /// The bytes are gone; the note that they must be removed still exists.
    StoreVacuumed = "store-vacuumed",
}

impl fmt::Display for FailPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(debug_assertions)]
pub use in_debug_builds::FailPoints;
#[cfg(not(debug_assertions))]
pub use in_release_builds::FailPoints;

#[cfg(debug_assertions)]
mod in_debug_builds {
    use std::{
        fmt,
        panic::resume_unwind,
        sync::{Arc, atomic::AtomicBool, atomic::Ordering},
    };

    use crate::FailPoint;

    /// Called at every fail point; returns whether the process dies there.
    type Hook = dyn Fn(FailPoint) -> bool + Send + Sync;

    /// The hook that decides at which fail point the process dies.
    #[derive(Clone, Default)]
    pub struct FailPoints(Option<Arc<(Box<Hook>, AtomicBool)>>);

    impl fmt::Debug for FailPoints {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("FailPoints")
        }
    }

    impl FailPoints {
        /// Creates fail points with the hook `dies_at`, which returns whether the process dies at a
        /// fail point. After the process has died, every further fail point stops its task or
        /// thread as well.
        pub fn new(dies_at: impl Fn(FailPoint) -> bool + Send + Sync + 'static) -> Self {
            Self(Some(Arc::new((Box::new(dies_at), AtomicBool::new(false)))))
        }

        fn die(&self, fail_point: FailPoint) -> bool {
            self.0.as_ref().is_some_and(|hook| {
                if !hook.1.load(Ordering::SeqCst) && hook.0(fail_point) {
                    hook.1.store(true, Ordering::SeqCst);
                }
                hook.1.load(Ordering::SeqCst)
            })
        }

        /// Passes a fail point in a task. If the process dies here, the task never continues.
        pub async fn hit(&self, fail_point: FailPoint) {
            if self.die(fail_point) {
                std::future::pending::<()>().await;
            }
        }

        /// Passes a fail point on a blocking thread. If the process dies here, the thread unwinds
        /// and rolls back what it had not committed.
        pub fn hit_blocking(&self, fail_point: FailPoint) {
            if self.die(fail_point) {
                resume_unwind(Box::new(fail_point));
            }
        }
    }
}

#[cfg(not(debug_assertions))]
mod in_release_builds {
    use crate::FailPoint;

    /// Fail points of release builds, without any effect.
    #[derive(Debug, Clone, Copy, Default)]
    pub struct FailPoints;

    impl FailPoints {
        /// Has no effect.
        #[inline(always)]
        pub async fn hit(&self, _: FailPoint) {}

        /// Has no effect.
        #[inline(always)]
        pub fn hit_blocking(&self, _: FailPoint) {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn fail_point_names_are_unique() {
        let names: HashSet<_> = FailPoint::ALL
            .iter()
            .map(|fail_point| fail_point.name())
            .collect();
        assert_eq!(names.len(), FailPoint::ALL.len());
    }

    #[tokio::test]
    async fn crashed_process_passes_no_further_fail_point() {
        let fail_points = FailPoints::new(|fail_point| fail_point == FailPoint::Admitted);
        fail_points.hit(FailPoint::QueueLookedUp).await;
        assert!(
            futures_util::FutureExt::now_or_never(fail_points.hit(FailPoint::Admitted)).is_none()
        );
        assert!(
            futures_util::FutureExt::now_or_never(fail_points.hit(FailPoint::ContactCreated))
                .is_none()
        );
    }
}
