//! The `rest` surface: the calls of requirements R1, R4 and R5 (docs/requirements.md). The public
//! platform does not have them as they are (docs/platform.md#not-on-the-platform).

pub(crate) mod contacts;
pub(crate) mod conversations;
