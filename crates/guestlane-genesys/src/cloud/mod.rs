//! The calls of the public platform (reference, sections 4 to 7).

pub(crate) mod contacts;
pub(crate) mod conversations;
pub(crate) mod doors;
pub(crate) mod open_messaging;
