//! Creates guest sessions in Genesys Cloud: each exactly once, across retries, crashes and
//! restarts.
//!
//! A session is a contact, a conversation in a queue, and a guest token (a JWT) under one
//! idempotency key. The library stores the progress of each session in SQLite or PostgreSQL. It
//! runs the calls to the platform as a saga, writes an audit log, and sends webhooks from an
//! outbox. [`SessionEngine`] is the entry point; the executable `guestlane` and its HTTP service
//! are built on it.
//!
//! # Example
//!
//! ```no_run
//! use guestlane::{
//!     Clock, Credentials, Endpoints, EngineConfig, ErrorKind, OAuthClient, SessionEngine,
//!     StorageConfig, Surface, Workers,
//!     request::{Attributes, ContactDetails, IdempotencyKey, SessionRequest},
//! };
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // Build.
//! let client = OAuthClient::new("client-id", "client-secret");
//! let credentials = Credentials::new(Endpoints::for_region("mypurecloud.ie")?, client);
//! let surface = Surface::OpenMessaging {
//!     integration: "7b0e6c51-0000-4000-8000-000000000001".parse()?,
//! };
//! let storage = StorageConfig::in_directory("/var/lib/app/guestlane".as_ref());
//! let config = EngineConfig::new(credentials, surface, storage);
//! let engine = SessionEngine::open(config, Clock::system()).await?;
//!
//! // Run the workers as long as the process lives.
//! let workers = tokio::spawn(Workers::new(engine.clone()).run());
//!
//! // Create.
//! let request = SessionRequest {
//!     guest: "user-8842-xyz".parse()?,
//!     contact_details: ContactDetails::default(),
//!     queue: "5e0c0000-0000-4000-8000-000000000001".parse()?,
//!     attributes: Attributes::from_pairs([("source", "web-portal"), ("tier", "premium")])?,
//!     key: IdempotencyKey::generate(),
//! };
//! match engine.create(request).await {
//!     Ok(created) => println!("conversation {:?}", created.session.conversation_id),
//!     Err(error) => match error.kind() {
//!         ErrorKind::WillComplete | ErrorKind::InProgress => println!("the session is completed later"),
//!         _ => println!("{error} ({})", error.code()),
//!     },
//! }
//!
//! // Shut down.
//! workers.abort();
//! engine.flush_counters().await?;
//! # Ok(()) }
//! ```
//!
//! The directory `examples` has programs that run against the simulator.
//!
//! # What `create` guarantees
//!
//! - **One session per idempotency key.** Concurrent and repeated calls of
//!   [`SessionEngine::create`] with one key return the same session. A key that was used for
//!   another request is an error.
//! - **No duplicates on the platform.** A step is repeated only if the platform recognizes the
//!   repetition, or if the step certainly did not take effect. Otherwise the session continues
//!   without the step's result if it can. If it cannot, it gets the state
//!   [`NeedsAttention`](session::SessionState::NeedsAttention), and a person must decide.
//! - **Nothing is lost.** The session is durable before its first call that creates something. If
//!   the process crashes or the caller drops the future, background work continues the saga after
//!   the lease has expired: in this process, in its next start, or in another node of the fleet.
//! - **Errors say what exists.** [`Error`] distinguishes sessions that were not created, that the
//!   engine will complete, and that were rejected. [`Error::kind`] says what to do next.
//! - **State, audit record and event agree.** They are written in one transaction, before `create`
//!   returns.
//!
//! # Background work must run
//!
//! [`Workers::run`] must be polled as long as the process lives; spawn it once after
//! [`SessionEngine::open`]. Without it, abandoned sessions are not resumed, webhooks are not
//! delivered, old sessions are not deleted, and signing keys are not rotated. Call
//! [`SessionEngine::flush_counters`] before the process ends; it stores the counters that are not
//! stored yet.
//!
//! # Life of a session
//!
//! 1. A [`SessionRequest`](request::SessionRequest) is parsed; from here on it cannot be malformed.
//! 2. The engine looks the queue up, unless its cache has it. If the process dies here, nothing
//!    exists.
//! 3. One transaction stores the session record under the idempotency key, with the audit record
//!    `pending`. If the process dies here, the session is found by its key and continues.
//! 4. The guest token is signed and verified. The token is not stored: signing is deterministic, so
//!    the stored identity (`kid`, `jti`, `iat`) yields the same bytes again.
//! 5. The contact is created, then the conversation. Each step is retried alone, under a platform
//!    key that does not change between attempts. The public platform takes no such key; there,
//!    identifiers of the guest and the session let it recognize a repetition.
//! 6. One transaction writes the state `open`, the audit record `success` and the webhook event.
//!    Only then does `create` return.
//! 7. The outbox delivers the event in the background, at least once, under one event ID.

pub mod admission_control;
pub mod batch_worker;
mod engine;
pub mod error;
#[doc(hidden)]
pub mod fuzzing;
mod key_rotation;
mod keyring_cache;
mod lease_registry;
mod master_key_file;
mod master_key_rotation;
pub mod messaging;
mod metrics;
pub mod outbox;
mod recovery;
mod reload;
mod retention;
mod saga;
mod setting;
mod workers;
mod workspace;

pub use engine::{CreatedSession, EngineConfig, SessionEngine, WebhookConfig};
pub use error::{Error, ErrorKind};
pub use guestlane_core::surface::Surface;
pub use guestlane_genesys::{
    Attempt, AttemptLog, BaseUrl, CallPolicy, ClientMetrics, ClientUsage, Credentials, Endpoints,
    ErrorCounts, LatencySample, OAuthClient, Priority, Rate, RetryPolicy, TokenRequestAuth,
    guest::frame::SessionToken,
};
pub use guestlane_runtime::{Clock, Timestamp, TlsRoots, TraceParent};
#[cfg(feature = "test-util")]
pub use guestlane_runtime::{FailPoint, FailPoints, ManualClock, ReferenceClock};
pub use guestlane_store::{AuditSettings, Database, GuestIdMode, InvalidDatabase, StoreError};
pub use master_key_rotation::{
    Resealed, reseal_by_given_keys, rotate_master_key, would_reseal_by_given_keys,
    would_rotate_master_key,
};
pub use metrics::{FailureCount, SessionMetrics};
pub use reload::Reloaded;
pub use workers::Workers;
pub use workspace::{StorageConfig, Workspace};

/// What a caller asks for, parsed.
pub mod request {
    pub use guestlane_core::request::{
        Attributes, ContactDetails, GuestId, IdempotencyKey, Owner, QueueId, SessionRequest,
        ValidationError,
    };
}

/// What the store knows of a session.
pub mod session {
    pub use guestlane_core::session::{
        Failure, SessionId, SessionRecord, SessionState, SurfaceBinding,
    };
}
