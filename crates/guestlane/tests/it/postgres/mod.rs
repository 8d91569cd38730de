//! What only a database that processes share has.

mod batches;
mod clocks;
mod fleet;
#[cfg(debug_assertions)]
mod store_migrate;
mod tls;
