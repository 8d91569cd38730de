//! What processes that work as the same OAuth clients share: one access token for all, and slices of each client's quota.

use std::{fmt, time::Duration};

use futures_util::future::BoxFuture;
use secrecy::SecretString;

/// The others, as this process sees them: by way of a database that all of them know. An error is a reason to go on alone, or to wait.
pub trait Coordinator: fmt::Debug + Send + Sync {
    /// The access token of a client, unless it is `not`; or whose turn it is to ask for one.
    fn token<'a>(&'a self, client: &'a str, not: Option<i64>) -> BoxFuture<'a, Result<TokenLookup, String>>;

    /// From now on this is the client's token; says its number.
    fn publish_token<'a>(&'a self, client: &'a str, token: IssuedToken) -> BoxFuture<'a, Result<i64, String>>;

    /// It was our turn to ask, and there is no token: somebody else may.
    fn release_refresh_lock<'a>(&'a self, client: &'a str) -> BoxFuture<'a, Result<(), String>>;

    /// A slice of a client's quota, in the place of the one before.
    fn request_quota_lease<'a>(&'a self, client: &'a str, need: QuotaRequest) -> BoxFuture<'a, Result<QuotaLease, String>>;
}

/// What is known of a client's token.
#[derive(Debug)]
pub enum TokenLookup {
    /// Somebody asked for it.
    Cached {
        /// The token, and how long it is good.
        token: IssuedToken,
        /// Counts the client's tokens.
        number: i64,
    },
    /// There is none, and it is our turn to ask.
    RefreshHere,
    /// Somebody else is asking.
    RefreshingElsewhere,
}

/// An access token that the platform gave.
#[derive(Debug)]
pub struct IssuedToken {
    /// The token.
    pub token: SecretString,
    /// How long it is good from now on.
    pub left: Duration,
    /// How long it was good when it was given.
    pub life: Duration,
}

/// How much of a client's quota a process could use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaRequest {
    /// Calls that all processes together may make in a window.
    pub limit: u32,
    /// The window.
    pub window: Duration,
    /// Calls that this process could make in a window.
    pub wanted: u32,
    /// Calls that it made in the window that ends now.
    pub used: u32,
}

/// A slice of a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaLease {
    /// Calls in a window.
    pub calls: u32,
    /// It is no good after that.
    pub lasts: Duration,
    /// When to ask for the next one, if there is a need by then.
    pub again: Duration,
}
