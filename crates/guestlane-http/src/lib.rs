//! The service: sessions over HTTP for programs in any language, watched by people and machines.
//!
//! [`Service::open`] has what it holds, `router` what it answers, [`listen`](listen::serve) how it is reached.

mod access;
mod body;
mod door;
mod figures;
#[doc(hidden)]
pub mod fuzzing;
mod headers;
pub mod listen;
mod metrics;
pub mod model;
mod observe;
mod openapi;
mod problem;
mod router;
mod routes;
mod service;
mod timeline;
mod watch;

pub use body::{MAX_BODY, MAX_DEPTH};
pub use problem::Problem;
pub use service::Service;
pub use timeline::timeline;
