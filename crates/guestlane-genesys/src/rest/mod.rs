//! The `rest` surface: the brief's calls. The public platform has neither of them (reference, section 0).

pub(crate) mod contacts;
pub(crate) mod conversations;
