//! The Web Messaging Guest API: JSON frames on a WebSocket (reference, section 8).

pub(crate) mod connection;
pub mod event;
pub mod frame;
pub(crate) mod session;
