//! The calls of the public platform (docs/platform.md).

pub(crate) mod contacts;
pub(crate) mod conversations;
pub(crate) mod doors;
pub(crate) mod open_messaging;
