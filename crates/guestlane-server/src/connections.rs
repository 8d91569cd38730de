//! Counts the open connections, in total and per client address, and closes old ones at a limit.
//!
//! A connection that has not presented an API key costs memory and a file descriptor. At a limit,
//! the oldest such connection is closed for the new one. So clients with an API key are served
//! however many connections other clients hold open.

mod stall_guard;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::poll_fn,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use guestlane_runtime::{Clock, Timestamp};
use tracing::warn;

use crate::log_limit::LogLimit;
pub(crate) use stall_guard::Owed;

/// How long a peer may leave sent data unread.
pub(crate) const MAX_STALL: Duration = Duration::from_secs(30);

/// The connection limits of one listener.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Maximum number of open connections.
    pub(crate) connections: usize,
    /// Maximum number of open connections from one address. `None` means no limit: behind a proxy,
    /// all clients share the proxy's address.
    pub(crate) per_address: Option<usize>,
}

/// All open connections of one listener.
#[derive(Debug)]
pub(crate) struct Connections {
    limits: Limits,
    clock: Clock,
    table: Mutex<Table>,
    /// Counts connections that were refused, or closed for a newer one.
    rejected: AtomicU64,
    log: LogLimit,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: usize,
    /// Connections that have not presented an accepted API key, oldest first.
    anonymous: BTreeMap<u64, Arc<Connection>>,
    addresses: HashMap<IpAddr, Address>,
}

#[derive(Debug, Default)]
struct Address {
    open: usize,
    anonymous: BTreeSet<u64>,
}

impl Connections {
    pub(crate) fn new(limits: Limits, clock: Clock) -> Arc<Self> {
        let log = LogLimit::new(1, Duration::from_secs(60));
        Arc::new(Self {
            limits,
            clock,
            table: Mutex::default(),
            rejected: AtomicU64::new(0),
            log,
        })
    }

    /// Number of open connections.
    pub(crate) fn open(&self) -> usize {
        self.lock().open
    }

    /// Number of connections that were refused, or closed for a newer one.
    pub(crate) fn turned_away(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// Registers a new connection, and closes an older one at a limit. Returns `None` at a limit if
    /// every connection that counts towards it has presented an API key.
    pub(crate) fn admit(self: &Arc<Self>, peer: SocketAddr) -> Option<Admitted> {
        let network = network(peer.ip());
        let mut table = self.lock();
        let oldest = match table.addresses.get(&network) {
            Some(address)
                if self
                    .limits
                    .per_address
                    .is_some_and(|most| address.open >= most) =>
            {
                Some(address.anonymous.first().copied())
            }
            _ if table.open >= self.limits.connections => {
                Some(table.anonymous.keys().next().copied())
            }
            _ => None,
        };
        if let Some(oldest) = oldest {
            self.rejected.fetch_add(1, Ordering::Relaxed);
            if let Some(left_out) = self.log.allow(self.clock.monotonic()) {
                warn!(
                    open = table.open,
                    left_out,
                    "connection limit reached; closing the oldest unauthenticated connections to \
                     accept new ones"
                );
            }
            table.close(oldest?);
        }
        let number = table.next;
        let connection = Arc::new(Connection::new(number, peer, self.clock.monotonic()));
        table.next += 1;
        table.open += 1;
        table.anonymous.insert(number, Arc::clone(&connection));
        let address = table.addresses.entry(network).or_default();
        address.open += 1;
        address.anonymous.insert(number);
        Some(Admitted {
            connections: Arc::clone(self),
            connection,
        })
    }

    /// Marks the connection as authenticated: it has presented an accepted API key, and is no
    /// longer closed for a newer one.
    pub(crate) fn authenticated(&self, connection: &Connection) {
        if !connection.authenticated.swap(true, Ordering::Relaxed) {
            let mut table = self.lock();
            table.anonymous.remove(&connection.number);
            if let Some(address) = table.addresses.get_mut(&network(connection.peer.ip())) {
                address.anonymous.remove(&connection.number);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn close(&mut self, number: u64) {
        if let Some(connection) = self.anonymous.get(&number).cloned() {
            self.leave(&connection);
            connection.close();
        }
    }

    /// Removes the connection from the counts. Further calls have no effect.
    fn leave(&mut self, connection: &Connection) {
        if connection.has_left.swap(true, Ordering::Relaxed) {
            return;
        }
        let network = network(connection.peer.ip());
        self.open -= 1;
        self.anonymous.remove(&connection.number);
        if let Some(address) = self.addresses.get_mut(&network) {
            address.open -= 1;
            address.anonymous.remove(&connection.number);
            if address.open == 0 {
                self.addresses.remove(&network);
            }
        }
    }
}

/// The key under which connections of one address are counted: an IPv4 address, or the first 64
/// bits of an IPv6 address (RFC 4291, section 2.5.4). One subscriber usually has one of either.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// Guard of a counted connection: dropping it removes the connection from the counts.
#[derive(Debug)]
pub(crate) struct Admitted {
    connections: Arc<Connections>,
    pub(crate) connection: Arc<Connection>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.connections.lock().leave(&self.connection);
    }
}

/// One connection, shared with its requests.
#[derive(Debug)]
pub(crate) struct Connection {
    number: u64,
    /// The peer's address: the client's, or the proxy's.
    pub(crate) peer: SocketAddr,
    authenticated: AtomicBool,
    has_left: AtomicBool,
    closed: AtomicBool,
    waker: AtomicWaker,
    /// Number of response bodies with data to send, plus the pieces that the peer has not read yet.
    owed: AtomicI64,
    /// When the peer last read a piece of a response, by the monotonic clock, in microseconds.
    taken_at: AtomicI64,
}

impl Connection {
    fn new(number: u64, peer: SocketAddr, now: Timestamp) -> Self {
        Self {
            number,
            peer,
            authenticated: AtomicBool::new(false),
            has_left: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            owed: AtomicI64::new(0),
            taken_at: AtomicI64::new(now.unix_micros()),
        }
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.waker.wake();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Waits until the connection is closed for a newer one.
    pub(crate) async fn until_closed(&self) {
        poll_fn(|context| {
            self.wake_on_close(context);
            if self.is_closed() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    pub(crate) fn wake_on_close(&self, context: &Context<'_>) {
        self.waker.register(context.waker());
    }

    /// Whether the peer has left a response unread for longer than [`MAX_STALL`], for example
    /// because it keeps HTTP/2's flow-control window closed.
    pub(crate) fn is_stalled(&self, now: Timestamp) -> bool {
        self.owed.load(Ordering::Relaxed) > 0
            && now.since(Timestamp::from_unix_micros(
                self.taken_at.load(Ordering::Relaxed),
            )) > MAX_STALL
    }

    /// Counts something that the peer has to read. It does not restart the timer of earlier data. A
    /// peer that keeps its HTTP/2 window closed could otherwise extend its time with each request.
    fn owe(&self, now: Timestamp) {
        if self.owed.load(Ordering::Relaxed) <= 0 {
            self.took(now);
        }
        self.owed.fetch_add(1, Ordering::Relaxed);
    }

    /// Removes one item from what the peer has to read.
    fn owe_less(&self) {
        self.owed.fetch_sub(1, Ordering::Relaxed);
    }

    /// Records that the peer has read something, which restarts its timer.
    fn took(&self, now: Timestamp) {
        self.taken_at.store(now.unix_micros(), Ordering::Relaxed);
    }
}

/// A callback at the end of a response.
pub(crate) type AtEnd = Box<dyn FnOnce() + Send>;

#[cfg(test)]
mod tests;
