//! The calls of the public platform (docs/platform.md).

pub(crate) mod contacts;
pub(crate) mod conversations;
pub(crate) mod open_messaging;
pub(crate) mod probe;
