//! Leases of sessions. The process that runs a session's saga renews its lease until it is done.

use std::time::Duration;

/// How long a lease lasts without renewal. A session of a process that died is blocked this long.
pub const LEASE_TTL: Duration = Duration::from_secs(4);

/// The largest tolerated skew between two clocks: twice [`MAX_CLOCK_OFFSET`].
///
/// An expiry beyond `LEASE_TTL + MAX_CLOCK_SKEW` was written before the wall clock moved backwards.
pub const MAX_CLOCK_SKEW: Duration = Duration::from_secs(4);

/// The largest tolerated offset between a node's wall clock and the database's clock.
///
/// Beyond it the node claims nothing and deletes nothing.
pub const MAX_CLOCK_OFFSET: Duration = Duration::from_secs(2);

/// How often a live process renews its leases.
pub const LEASE_RENEW_INTERVAL: Duration = Duration::from_secs(1);
