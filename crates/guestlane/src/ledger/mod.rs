//! The durable record of every session and how far it got.

mod lease;
mod session;
mod state;
mod way;

pub use lease::{CLOCKS, Driving, LEASE, MAX_CLOCK_OFFSET, RENEW_EVERY};
pub use session::{Failure, Session, SessionId, Setback, Standing};
pub use state::{IllegalMove, Move, State};
pub use way::{Start, Way};
