//! What goes over the wire, and how it is described. The command line prints the same.

mod audit;
mod errors;
mod outbox;
mod overview;
mod session;
mod timeline;
mod token;
mod wish;

pub use audit::{AuditProof, Checkpoint, ProvenLog};
pub use errors::{ErrorRates, KnownProblem};
pub use outbox::{Event, EventState, Events, Replayed};
pub use overview::{AuditStanding, ClientQuota, KeyStanding, Latency, OutboxStanding, Overview, Series, SessionCounts};
pub use session::{GuestSession, Session, SessionFailure, SessionState, Sessions};
pub use timeline::{Entry, EntryStatus, Timeline};
pub use token::{KeySet, PublicKey, TokenToVerify, TokenVerdict};
pub use wish::{KeyIfNone, NewSession};
