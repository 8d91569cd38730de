//! The surface `rest`: the calls of requirements R1, R4 and R5 (docs/requirements.md). The public
//! platform does not offer them in this form (docs/platform.md#not-on-the-platform).

pub(crate) mod contacts;
pub(crate) mod conversations;
