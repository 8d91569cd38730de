//! The HTTP service: creates sessions for clients in any language, and serves the dashboard, the
//! metrics and the OpenAPI document.
//!
//! [`Service::open`] builds the state that all routes share. `router` maps paths to handlers, and
//! [`Server`](server::Server) binds the sockets and serves them.

mod accept;
mod auth;
mod background;
mod connections;
pub mod diagnosis;
pub mod error_pages;
mod error_responses;
mod extract;
#[doc(hidden)]
pub mod fuzzing;
mod headers;
pub mod input;
mod key_rate_limiter;
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
mod samples;
mod security_headers;
pub mod server;
mod service;
mod settings;
mod timeline;

pub use extract::{MAX_BODY, MAX_DEPTH};
pub use problem::Problem;
pub use service::Service;
pub use settings::{ServiceSettings, TlsFiles};
pub use timeline::timeline;
