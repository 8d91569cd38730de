//! The Web Messaging Guest API: JSON frames on a WebSocket (docs/platform.md#guest-socket).

pub(crate) mod connection;
pub mod event;
pub mod frame;
pub(crate) mod session;
