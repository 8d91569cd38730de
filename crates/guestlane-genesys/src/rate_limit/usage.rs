//! Usage of the rate limit, for each OAuth client.

use crate::rate::Rate;

/// Rate limit usage of one OAuth client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientUsage {
    /// The client ID.
    pub client_id: String,
    /// Calls sent in the last window.
    pub used: u32,
    /// The rate limit, or `None` without one.
    pub allowed: Option<Rate>,
    /// Number of calls sent with this client.
    pub calls: u64,
    /// Number of those calls that the platform answered with 429.
    pub throttled: u64,
    /// Whether the client is quarantined, because it was rejected or could not authenticate.
    pub quarantined: bool,
}
