//! What happened, in order (R11).

mod entry;
mod log;

pub use entry::{Entry, ErrorRates, Status};
pub use log::{AuditError, AuditFile, Lines};
