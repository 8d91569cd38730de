//! The saga: the sequence of calls to the platform that creates one session.
//!
//! [`next_step`](guestlane_core::session::plan::next_step) decides which step comes next,
//! [`executor`] runs it and commits its transition, and [`failure`] decides what a failed step does
//! to the session. [`steps`] has the calls.

pub(crate) mod executor;
pub(crate) mod failure;
mod guest_token;
mod step_error;
mod steps;

pub(crate) use executor::{SagaExecutor, SagaRun};
