//! Request handlers, one file per kind of resource.

pub(crate) mod audit;
pub(crate) mod batch;
pub(crate) mod create;
pub(crate) mod errors;
pub(crate) mod events;
pub(crate) mod health;
pub(crate) mod keys;
pub(crate) mod outbox;
pub(crate) mod pages;
pub(crate) mod sessions;
pub(crate) mod tokens;
