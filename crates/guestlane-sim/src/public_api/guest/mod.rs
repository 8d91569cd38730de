//! The operations of guests: the WebSocket's frames, and the HTTP requests beside it.

mod attachments;
mod authenticated;
mod echo;
pub(crate) mod frames;
mod history;
mod message;
mod session;
pub(crate) mod upgrade;
