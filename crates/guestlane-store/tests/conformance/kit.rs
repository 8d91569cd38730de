//! A store with its audit log, and the values that tests put into it.

use std::{sync::Arc, time::Duration};

use guestlane_core::{
    audit::{AuditRecord, Status},
    event::Event,
    request::SessionRequest,
    session::{SessionContext, SessionRecord, SurfaceBinding},
    token::TokenIdentity,
};
use guestlane_genesys::{ErrorCounts, PlatformId};
use guestlane_runtime::{Clock, FailPoints, ManualClock, Timestamp};
use guestlane_store::{
    AuditSettings, BeginOutcome, CommitRequest, CommitResult, Database, GuestIdMode, Store,
    StoreError,
};
pub(crate) use guestlane_testkit::{
    Backend::{self, Postgres, Sqlite},
    platform::request,
};
use guestlane_tlog::{NoteSigner, VerifierKey};
use tempfile::TempDir;

const SEED: [u8; 32] = [7; 32];

/// One second, the unit of most waits in tests.
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// A store, opened as a process opens it.
pub(crate) struct TestStore {
    pub(crate) store: Store,
    pub(crate) clock: ManualClock,
    database: Database,
    directory: TempDir,
}

impl TestStore {
    pub(crate) async fn open(backend: Backend) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = backend.new_database(directory.path()).parse().unwrap();
        let clock = ManualClock::new(Timestamp::from_unix_micros(1_795_361_029_000_000));
        let store = open(&database, &directory, &clock, true).await;
        Self {
            store,
            clock,
            database,
            directory,
        }
    }

    /// Opens the same store once more, as another process does that has never seen it.
    pub(crate) async fn opened_again(&self) -> Store {
        open(&self.database, &self.directory, &self.clock, true).await
    }

    /// Closes the store, and keeps its directory.
    pub(crate) fn close(self) -> TempDir {
        self.directory
    }

    /// Opens the same store as a command that repairs nothing.
    pub(crate) async fn opened_to_look(&self) -> Store {
        open(&self.database, &self.directory, &self.clock, false).await
    }

    pub(crate) fn now(&self) -> Timestamp {
        Clock::from(self.clock.clone()).now()
    }

    pub(crate) fn log_file(&self) -> std::path::PathBuf {
        self.directory.path().join("audit.ndjson")
    }

    /// Admits a session, as its first caller.
    pub(crate) async fn admit(&self, request: SessionRequest) -> SessionRecord {
        match self.begin(request).await {
            BeginOutcome::Acquired(session) => session,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn begin(&self, request: SessionRequest) -> BeginOutcome {
        self.begin_on(request, SurfaceBinding::Rest.into()).await
    }

    pub(crate) async fn begin_on(
        &self,
        request: SessionRequest,
        context: SessionContext,
    ) -> BeginOutcome {
        let token = TokenIdentity::new("a-key", self.now());
        let new = SessionRecord::new(request, context, token, self.now());
        let begun = self.store.begin(new, ErrorCounts::default()).await.unwrap();
        begun.audit.unwrap();
        begun.value
    }

    /// Commits a transition without audit record and events.
    pub(crate) async fn commit(
        &self,
        before: &SessionRecord,
        after: SessionRecord,
    ) -> Result<SessionRecord, StoreError> {
        let request = transition(before, after);
        Ok(self.store.commit_transition(request).await?.value.session)
    }

    /// Drives an admitted session to its end, with its audit record and one event for each of
    /// `endpoints` endpoints.
    pub(crate) async fn complete(&self, session: SessionRecord, endpoints: u32) -> CommitResult {
        let now = self.now();
        let ready = session
            .clone()
            .contact_ready(Some(platform_id("contact")), 1, now)
            .unwrap();
        let open = self.commit(&session, ready).await.unwrap();
        let done = open
            .clone()
            .completed(platform_id("conversation"), 1, open.admitted_at, now)
            .unwrap();
        let audit = AuditRecord::for_session(&done, Status::Success, ErrorCounts::default(), now);
        let events = (1..=endpoints)
            .map(|number| Event::session_created(&done, number, now))
            .collect();
        let request = CommitRequest {
            audit: Some(audit),
            events,
            ..transition(&open, done)
        };
        let committed = self.store.commit_transition(request).await.unwrap();
        committed.audit.unwrap();
        committed.value
    }
}

async fn open(database: &Database, directory: &TempDir, clock: &ManualClock, mend: bool) -> Store {
    let (clock, fail_points) = (clock.clone().into(), FailPoints::default());
    let store = Store::open(database, directory.path(), &clock, &fail_points)
        .await
        .unwrap();
    let settings = AuditSettings {
        path: directory.path().join("audit.ndjson"),
        guest_ids: GuestIdMode::Plain,
        rotate_at: None,
    };
    let signer = Arc::new(NoteSigner::from_seed(&SEED).unwrap());
    store
        .attach_audit_log(settings, signer, mend)
        .await
        .unwrap();
    store
}

pub(crate) fn verifier() -> VerifierKey {
    NoteSigner::from_seed(&SEED).unwrap().public().clone()
}

pub(crate) fn platform_id(text: &str) -> PlatformId {
    text.parse().unwrap()
}

pub(crate) fn transition(before: &SessionRecord, after: SessionRecord) -> CommitRequest {
    CommitRequest {
        epoch: before.epoch,
        after,
        audit: None,
        events: Vec::new(),
        errors: ErrorCounts::default(),
        calls: Vec::new(),
    }
}
