//! Domain types of guestlane. They are pure: no I/O, no clock, no store.
//!
//! - [`request`]: the request of a caller, parsed and validated once at the edge.
//! - [`session`]: the durable record of a session, its states and its legal transitions.
//! - [`surface`]: which API of the platform opens the conversation.
//! - [`token`]: guest tokens, signing keys and their life cycle, the master key.
//! - [`api_key`]: API keys of the HTTP service.
//! - [`event`] and [`audit`]: what the outbox delivers, and what the audit log contains.

pub mod api_key;
pub mod audit;
pub mod event;
pub mod request;
pub mod session;
pub mod session_proof;
pub mod surface;
pub mod token;
