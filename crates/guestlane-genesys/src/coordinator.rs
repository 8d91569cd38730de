//! State shared by the processes that use the same OAuth clients: one access token per client, and
//! the rate-limit leases.

use std::{fmt, time::Duration};

use futures_util::future::BoxFuture;
use secrecy::SecretString;

/// Coordination with the other processes of a fleet through a shared database. On an error, the
/// process continues alone or waits.
pub trait Coordinator: fmt::Debug + Send + Sync {
    /// Returns the client's shared access token, unless its number is `not`. If there is none,
    /// returns which process refreshes it.
    fn token<'a>(
        &'a self,
        client: &'a str,
        not: Option<i64>,
    ) -> BoxFuture<'a, Result<TokenLookup, String>>;

    /// Publishes a new access token for the client and returns its number.
    fn publish_token<'a>(
        &'a self,
        client: &'a str,
        token: IssuedToken,
    ) -> BoxFuture<'a, Result<i64, String>>;

    /// Releases the refresh lock without a new token, so that another process may refresh.
    fn release_refresh_lock<'a>(&'a self, client: &'a str) -> BoxFuture<'a, Result<(), String>>;

    /// Requests a rate-limit lease for the client, which replaces the previous lease of this
    /// process.
    fn request_rate_limit_lease<'a>(
        &'a self,
        client: &'a str,
        need: RateLimitLeaseRequest,
    ) -> BoxFuture<'a, Result<RateLimitLease, String>>;
}

/// Result of looking up a client's shared access token.
#[derive(Debug)]
pub enum TokenLookup {
    /// A process of the fleet has published a token.
    Cached {
        /// The token and its lifetime.
        token: IssuedToken,
        /// The token's number, which increases with each token of the client.
        number: i64,
    },
    /// There is no token, and this process holds the refresh lock.
    RefreshHere,
    /// Another process is refreshing the token.
    RefreshingElsewhere,
}

/// An access token issued by the platform.
#[derive(Debug)]
pub struct IssuedToken {
    /// The token.
    pub token: SecretString,
    /// Remaining lifetime.
    pub left: Duration,
    /// Lifetime at the time of issue.
    pub life: Duration,
}

/// The part of a client's rate limit that this process can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimitLeaseRequest {
    /// Calls per window that all processes together may make.
    pub limit: u32,
    /// Length of the window.
    pub window: Duration,
    /// Calls per window that this process could make.
    pub wanted: u32,
    /// Calls that this process made in the window that ends now.
    pub used: u32,
}

/// A rate-limit lease: the share of a client's rate limit that this process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimitLease {
    /// Calls per window.
    pub calls: u32,
    /// Time until the lease expires.
    pub lasts: Duration,
    /// Time until the next lease should be requested, if there is demand by then.
    pub again: Duration,
}
