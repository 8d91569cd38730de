//! The Web Messaging Guest API: JSON frames on a WebSocket (reference, section 8).

pub mod event;
pub mod frame;
