//! The service: sessions over HTTP for programs in any language, watched by people and machines.
//!
//! [`Service::open`] has what it holds, `router` what it answers, [`listen`](listen::serve) how it is reached.

mod access;
mod body;
mod connections;
mod door;
mod figures;
#[doc(hidden)]
pub mod fuzzing;
mod headers;
pub mod listen;
mod log_limit;
mod metrics;
pub mod model;
mod observe;
mod openapi;
mod problem;
mod readiness;
mod router;
mod routes;
mod security_headers;
mod service;
mod timeline;
mod watch;

pub use body::{MAX_BODY, MAX_DEPTH};
pub use problem::Problem;
pub use service::Service;
pub use timeline::timeline;
