//! FailPoints: every place between two durable writes or calls, by name, where the process may die.
//!
//! In debug builds a test says which fail point is the last one that is passed. In release builds a fail point is nothing: [`FailPoints`] has no size, and
//! passing one is no code.

use std::fmt;

macro_rules! fail_points {
    ($($(#[doc = $about:literal])+ $fail_point:ident = $name:literal,)+) => {
        /// A place between two durable writes or calls.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum FailPoint {
            $($(#[doc = $about])+ $fail_point,)+
        }

        impl FailPoint {
            /// All of them, in the order of a session's life.
            pub const ALL: &'static [Self] = &[$(Self::$fail_point),+];

            /// The name in tests and in tables.
            pub fn name(self) -> &'static str {
                match self { $(Self::$fail_point => $name),+ }
            }
        }
    };
}

fail_points! {
    /// The master key is written, and is not yet in its place.
    MasterKeyDrafted = "master-key-drafted",
    /// The master key is in its place; nothing is encrypted with it.
    MasterKeyMade = "master-key-made",
    /// The master key that is replaced is kept as the previous one; it is still the current one, too.
    PreviousMasterKeyKept = "previous-master-key-kept",
    /// The next master key is the current one; every value is still sealed under the previous one.
    MasterKeyReplaced = "master-key-replaced",
    /// Some values are sealed under the current master key; others may still be sealed under the previous one.
    ChunkResealed = "chunk-resealed",
    /// The first signing key is in the store.
    SigningKeyStored = "signing-key-stored",
    /// The next signing key is in the store; nobody was told.
    NextKeyStored = "next-key-stored",
    /// A signing key is revoked, and another signs; nobody was told.
    KeyRevoked = "key-revoked",
    /// The audit log's key is in the store.
    AuditKeyStored = "audit-key-stored",
    /// The store knows its platform.
    PlatformStored = "platform-stored",
    /// The store knows its organization.
    OrganizationStored = "organization-stored",
    /// The CRM's secret is in the store.
    WebhookSecretStored = "webhook-secret-stored",
    /// The platform gave an access token; the call that needed it is not yet sent.
    SignedIn = "signed-in",
    /// An attempt at a call failed; the next one is not yet made.
    AttemptFailed = "attempt-failed",
    /// The queue exists; nobody has the key.
    QueueLookedUp = "queue-looked-up",
    /// A refusal is on record; nobody was told.
    RefusalStored = "refusal-stored",
    /// A transaction's rows are written, its audit records are not.
    RowsWritten = "rows-written",
    /// A transaction is written, and not yet committed.
    RecordsWritten = "records-written",
    /// A transaction is committed; the audit log's files know nothing of it.
    Committed = "committed",
    /// The audit log's lines are in the file, their hashes are not.
    LinesAppended = "lines-appended",
    /// The hashes are in the file, the checkpoint is still the old one.
    HashesAppended = "hashes-appended",
    /// All is in the files; nobody was told.
    CheckpointWritten = "checkpoint-written",
    /// The session has the key; nothing is sent.
    Admitted = "admitted",
    /// The platform made the contact; the ledger does not know it.
    ContactMade = "contact-made",
    /// The contact is in the ledger; the conversation is not asked for.
    ContactStored = "contact-stored",
    /// The guest socket is open; no session is begun.
    GuestConnected = "guest-connected",
    /// The guest's session is there; nothing is said.
    GuestConfigured = "guest-configured",
    /// The platform has the first message; the ledger does not know it.
    MessageSent = "message-sent",
    /// The first message is in the ledger; its conversation is not known.
    MessageStored = "message-stored",
    /// The first message's conversation is found; the ledger does not know it.
    ConversationFound = "conversation-found",
    /// The conversation is in the ledger; contact and queue are not seen to.
    ConversationStored = "conversation-stored",
    /// A contact that the platform has no more is struck out; no other one is asked for.
    ContactForgotten = "contact-forgotten",
    /// The contact is linked; the queue is not seen to.
    ContactLinked = "contact-linked",
    /// The conversation is in its queue; the ledger does not know it.
    QueueReached = "queue-reached",
    /// The platform opened the conversation; the ledger does not know it.
    ConversationOpened = "conversation-opened",
    /// The session is open; nobody was told, and nor was the CRM.
    OpenStored = "open-stored",
    /// A step failed for good or for now; the ledger does not know it.
    StepFailed = "step-failed",
    /// The failure is in the ledger; nobody was told.
    FailureStored = "failure-stored",
    /// A fresh guest token is in the ledger; it was not sent.
    TokenRenewed = "token-renewed",
    /// A session that was left behind is leased; nothing is sent.
    TakenUp = "taken-up",
    /// A session that is too old is set aside; nobody was told.
    SetAside = "set-aside",
    /// The leases of living drivers are renewed.
    LeasesRenewed = "leases-renewed",
    /// Rows of a batch are leased; none is begun.
    RowsTaken = "rows-taken",
    /// Rows of a batch have ended; nobody but their sessions knows.
    RowsEnded = "rows-ended",
    /// A store in a file is marked as moving; no row is copied.
    MoveMarked = "move-marked",
    /// Rows of a store in a file are in a database.
    RowsCopied = "rows-copied",
    /// The file is used no more; the database does not know that all is there.
    StoreMoved = "store-moved",
    /// Events for the CRM are leased; nothing is sent.
    EventsClaimed = "events-claimed",
    /// The CRM was told; the outbox does not know it.
    EventSent = "event-sent",
    /// The outbox knows that the CRM was told.
    EventSettled = "event-settled",
    /// Events are to be sent again; nobody was told.
    EventsReplayed = "events-replayed",
    /// An API key is in the store; nobody has it.
    ApiKeyStored = "api-key-stored",
    /// An API key is revoked; nobody was told.
    ApiKeyRevoked = "api-key-revoked",
    /// A full log is sealed; the next one is not begun.
    LogSealed = "log-sealed",
    /// A guest is erased in the store; the store's file still has the bytes.
    GuestErased = "guest-erased",
    /// The bytes are gone; that they had to go is still noted.
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

    use super::FailPoint;

    /// Told of every fail point; says whether the process dies there.
    type Hook = dyn Fn(FailPoint) -> bool + Send + Sync;

    /// Who is told of the fail points that are passed.
    #[derive(Clone, Default)]
    pub struct FailPoints(Option<Arc<(Box<Hook>, AtomicBool)>>);

    impl fmt::Debug for FailPoints {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("FailPoints")
        }
    }

    impl FailPoints {
        /// `dies_at` is told of every fail point, and says whether the process dies there. Once it is dead, it passes no fail point any more.
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

        /// Passes a fail point. A task that dies here is never heard of again.
        pub async fn hit(&self, fail_point: FailPoint) {
            if self.die(fail_point) {
                std::future::pending::<()>().await;
            }
        }

        /// Passes a fail point on a thread that may wait. A thread that dies here unwinds: what it had not committed is undone, as it would be.
        pub fn hit_blocking(&self, fail_point: FailPoint) {
            if self.die(fail_point) {
                resume_unwind(Box::new(fail_point));
            }
        }
    }
}

#[cfg(not(debug_assertions))]
mod in_release_builds {
    use super::FailPoint;

    /// Nothing.
    #[derive(Debug, Clone, Copy, Default)]
    pub struct FailPoints;

    impl FailPoints {
        /// Nothing.
        #[inline(always)]
        pub async fn hit(&self, _: FailPoint) {}

        /// Nothing.
        #[inline(always)]
        pub fn hit_blocking(&self, _: FailPoint) {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_fail_point_has_a_name_of_its_own() {
        let names: HashSet<_> = FailPoint::ALL.iter().map(|fail_point| fail_point.name()).collect();
        assert_eq!(names.len(), FailPoint::ALL.len());
    }

    #[tokio::test]
    async fn who_died_at_one_fail_point_passes_no_other() {
        let fail_points = FailPoints::new(|fail_point| fail_point == FailPoint::Admitted);
        fail_points.hit(FailPoint::QueueLookedUp).await;
        assert!(futures_util::FutureExt::now_or_never(fail_points.hit(FailPoint::Admitted)).is_none());
        assert!(futures_util::FutureExt::now_or_never(fail_points.hit(FailPoint::ContactMade)).is_none());
    }
}
