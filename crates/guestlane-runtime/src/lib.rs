//! What every layer of guestlane needs and none of them owns.
//!
//! - Time: [`Clock`] (system or manual), [`Timestamp`], [`ReferenceClock`].
//! - HTTP: [`http_client`], [`tls_roots`](TlsRoots), [`resolver`], and [`ssrf`], which keeps
//!   requests out of private networks.
//! - Observability: [`trace_context`], [`Histogram`], [`Outage`] (one log line when a component
//!   fails and one when it recovers), [`redaction`], [`text`].
//! - [`FailPoints`]: the places at which tests crash the process.
//! - [`durable_fs`]: file operations that survive a crash.
//!
//! Nothing here knows of sessions, stores or the platform.

mod clock;
pub mod durable_fs;
mod fail_point;
mod histogram;
pub mod http_client;
mod outage;
pub mod pem;
pub mod redaction;
pub mod resolver;
pub mod ssrf;
pub mod text;
pub mod tls_error;
mod tls_roots;
pub mod trace_context;
mod trace_parent;

pub use clock::{
    Boot, Busy, Clock, InvalidTimestamp, ManualClock, ReferenceClock, TimedOut, Timestamp,
};
pub use fail_point::{FailPoint, FailPoints};
pub use histogram::{Histogram, HistogramSnapshot};
pub use outage::Outage;
pub use tls_roots::{Authorities, ClientCertificate, InvalidTrust, TlsRoots};
pub use trace_parent::{InvalidTraceParent, TraceParent};
