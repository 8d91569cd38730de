//! The durable record of every session: its state, its lease and its legal transitions.

mod lease;
pub mod plan;
mod record;
mod state;
mod surface_binding;
mod transitions;

pub use lease::{LEASE_RENEW_INTERVAL, LEASE_TTL, MAX_CLOCK_OFFSET, MAX_CLOCK_SKEW};
pub use record::{Availability, Failure, SessionId, SessionRecord, StepFailure};
pub use state::{IllegalTransition, SessionState, Transition};
pub use surface_binding::{SessionContext, SurfaceBinding};
