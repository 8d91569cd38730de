//! The operations of the store, in five parts. Each database implements them in its own SQL.

mod audit;
mod batches;
mod keys;
mod outbox;
mod sessions;

/// Runs an operation on the database that the store is in.
macro_rules! either {
    ($self:ident, $store:ident => $ask:expr) => {
        match &$self.kind {
            Kind::Sqlite($store) => $ask.await,
            Kind::Postgres($store) => $ask.await,
        }
    };
}

/// Runs an operation that only PostgreSQL has. A store in a file returns
/// [`StoreError::NotShared`](crate::StoreError::NotShared).
macro_rules! shared {
    ($self:ident, $store:ident => $ask:expr) => {
        match &$self.kind {
            Kind::Sqlite(_) => Err(StoreError::NotShared),
            Kind::Postgres($store) => $ask.await,
        }
    };
}

use {either, shared};
