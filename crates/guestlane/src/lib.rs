//! Creates Genesys Cloud web-messaging guest sessions: none lost, none twice, and proof of both.
//!
//! # Life of a session
//!
//! 1. A [`SessionRequest`](request::SessionRequest) is parsed; from here on it cannot be malformed.
//! 2. The queue is looked up, unless it is known. If we stop here, nothing exists.
//! 3. The ledger takes the idempotency key, with the audit record «pending». If we stop here, the same key finds the session and goes on.
//! 4. The guest token is signed and verified. It is not stored: a lost one is signed again, byte for byte.
//! 5. The contact, then the conversation: each is repeated alone, under a key of its own that never changes.
//! 6. One transaction writes «open», the audit record «success» and the CRM's event. Only then the caller is answered.
//! 7. The CRM is told in the background, at least once, under one id.
//!
//! ```no_run
//! # async fn example(config: guestlane::LaneConfig) -> Result<(), Box<dyn std::error::Error>> {
//! use guestlane::{Clock, SessionEngine, request::{Attributes, IdempotencyKey, Person, SessionRequest}};
//!
//! let engine = SessionEngine::open(config, Clock::system()).await?;
//! let opened = engine
//!     .create(SessionRequest {
//!         guest: "user-8842-xyz".parse()?,
//!         person: Person::default(),
//!         queue: "5e0c0000-0000-4000-8000-000000000001".parse()?,
//!         attributes: Attributes::from_pairs([("source", "web-portal"), ("tier", "premium")])?,
//!         key: IdempotencyKey::generate(),
//!     })
//!     .await?;
//! println!("conversation {:?}", opened.session.conversation_id);
//! # Ok(()) }
//! ```

pub mod admission_control;
pub mod api_key;
pub mod audit;
pub mod batch_worker;
pub mod config;
pub mod doctor;
mod durable_fs;
mod engine;
pub mod error;
mod executor;
mod failure;
#[doc(hidden)]
pub mod fuzzing;
pub mod input;
mod key_rotation;
mod master_key_rotation;
mod metrics;
pub mod outbox;
mod reload;
pub mod request;
mod retention;
pub mod session;
mod steps;
pub mod store;
pub mod surface;
mod tenant_binding;
pub mod token;
mod workspace;

pub use engine::{EngineConfig, SessionEngine, WebhookConfig};
pub use error::Error;
pub use executor::CreatedSession;
pub use guestlane_genesys::{
    Attempt, AttemptLog, BaseUrl, CallPolicy, ClientMetrics, ClientUsage, Clock, Credentials, Endpoints, ErrorCounts, FailPoint,
    FailPoints, Histogram, HistogramSnapshot, LatencySample, ManualClock, OAuthClient, Priority, Rate, ReferenceClock,
    RetryPolicy, Timestamp, TlsRoots, TokenRequestAuth, TraceParent, guest::frame::SessionToken, trace_context,
};
pub use master_key_rotation::{
    Resealed, reseal_by_given_keys, rotate_master_key, would_reseal_by_given_keys, would_rotate_master_key,
};
pub use metrics::{FailureCount, SessionMetrics};
pub use reload::Reloaded;
pub use retention::MIN_RETENTION;
pub use workspace::{StorageConfig, Workspace};
