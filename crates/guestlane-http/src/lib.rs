//! The service: sessions over HTTP for programs in any language, watched by people and machines.
//!
//! [`Service::open`] has what it holds, `router` what it answers, [`listen`](server::serve) how it is reached.

mod accept;
mod auth;
mod connections;
mod extract;
#[doc(hidden)]
pub mod fuzzing;
mod headers;
mod log_limit;
mod metrics;
pub mod model;
mod openapi;
mod problem;
mod readiness;
mod request_log;
mod request_metrics;
mod router;
mod routes;
mod sampler;
mod security_headers;
pub mod server;
mod service;
mod timeline;

pub use extract::{MAX_BODY, MAX_DEPTH};
pub use problem::Problem;
pub use service::Service;
pub use timeline::timeline;
