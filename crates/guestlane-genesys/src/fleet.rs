//! What processes that work as the same OAuth clients share: one access token for all, and slices of each client's quota.

use std::{fmt, time::Duration};

use futures_util::future::BoxFuture;
use secrecy::SecretString;

/// The others, as this process sees them: by way of a database that all of them know. An error is a reason to go on alone, or to wait.
pub trait Fleet: fmt::Debug + Send + Sync {
    /// The access token of a client, unless it is `not`; or whose turn it is to ask for one.
    fn token<'a>(&'a self, client: &'a str, not: Option<i64>) -> BoxFuture<'a, Result<SharedToken, String>>;

    /// From now on this is the client's token; says its number.
    fn keep_token<'a>(&'a self, client: &'a str, token: NewToken) -> BoxFuture<'a, Result<i64, String>>;

    /// It was our turn to ask, and there is no token: somebody else may.
    fn gave_up<'a>(&'a self, client: &'a str) -> BoxFuture<'a, Result<(), String>>;

    /// A slice of a client's quota, in the place of the one before.
    fn slice<'a>(&'a self, client: &'a str, need: Need) -> BoxFuture<'a, Result<Slice, String>>;
}

/// What is known of a client's token.
#[derive(Debug)]
pub enum SharedToken {
    /// Somebody asked for it.
    Known {
        /// The token, and how long it is good.
        token: NewToken,
        /// Counts the client's tokens.
        number: i64,
    },
    /// There is none, and it is our turn to ask.
    Ours,
    /// Somebody else is asking.
    Asked,
}

/// An access token that the platform gave.
#[derive(Debug)]
pub struct NewToken {
    /// The token.
    pub token: SecretString,
    /// How long it is good from now on.
    pub left: Duration,
    /// How long it was good when it was given.
    pub life: Duration,
}

/// How much of a client's quota a process could use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
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
pub struct Slice {
    /// Calls in a window.
    pub calls: u32,
    /// It is no good after that.
    pub lasts: Duration,
    /// When to ask for the next one, if there is a need by then.
    pub again: Duration,
}
