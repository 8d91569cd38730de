//! The JSON models of the API, with their OpenAPI schemas. The command line prints the same types.

mod audit;
mod create_session;
mod errors;
mod outbox;
mod overview;
mod session;
mod timeline;
mod token;

pub use audit::{AuditProof, Checkpoint, ProvenLog};
pub use create_session::{CreateSessionRequest, DefaultKey};
pub use errors::{ErrorRates, RecentError};
pub use outbox::{Event, EventState, Events, Replayed};
pub use overview::{
    AuditStatus, ClientQuota, Latency, OutboxStatus, Overview, Series, SessionCounts,
    SigningKeyStatus,
};
pub use session::{GuestSession, Session, SessionFailure, SessionState, Sessions};
pub use timeline::{Entry, EntryStatus, Timeline};
pub use token::{KeySet, PublicKey, VerifyTokenRequest, VerifyTokenResponse};
