//! Egress policy of requests to hosts that a user configures, against server-side request forgery (SSRF).
//!
//! A host name must not lead a request into a private network.

use std::{
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
};

use crate::resolver;
use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

/// Which addresses may receive requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EgressPolicy {
    /// Only addresses of the public internet.
    Public,
    /// Private and loopback addresses too.
    Any,
}

impl EgressPolicy {
    /// Whether the policy allows a request to `address`.
    pub fn allow(self, address: IpAddr) -> bool {
        self == Self::Any || is_public(address)
    }
}

/// Whether an address is public by the IANA special-purpose address registries (RFC 6890).
///
/// An IPv6 address that embeds an IPv4 address is judged by the latter too.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = match a {
        0 | 10 | 127 | 224..=255 => true, // this network, private, loopback, multicast, reserved, broadcast
        100 => (64..128).contains(&b),    // carrier-grade NAT (RFC 6598)
        169 => b == 254,                  // link-local, cloud metadata services
        172 => (16..32).contains(&b),     // private
        192 => matches!((b, c), (168, _) | (0, 0 | 2) | (88, 99)), // private, IETF, documentation, 6to4 relays
        198 => matches!((b, c), (18 | 19, _) | (51, 100)),         // benchmarks, documentation
        203 => (b, c) == (0, 113),                                 // documentation
        _ => false,
    };
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = match segments {
        // IPv4-mapped (RFC 4291) and IPv4-translated (RFC 6052). The local-use NAT64 prefix (RFC
        // 8215) and the deprecated compatible addresses are never public.
        [0, 0, 0, 0, 0, 0xffff, hi, lo] | [0x64, 0xff9b, 0, 0, 0, 0, hi, lo] => Some((hi, lo)),
        [0x2002, hi, lo, ..] => Some((hi, lo)), // 6to4
        _ => None,
    };
    if let Some((hi, lo)) = embedded {
        let [a, b] = hi.to_be_bytes();
        let [c, d] = lo.to_be_bytes();
        return is_public_v4(Ipv4Addr::new(a, b, c, d));
    }
    // Global unicast is 2000::/3, except the IETF's block (2001::/23) and documentation
    // (2001:db8::/32, 3fff::/20).
    let [first, second, ..] = segments;
    let global = (0x2000..0x4000).contains(&first);
    let ietf = first == 0x2001 && second < 0x200;
    let documentation =
        (first == 0x2001 && second == 0xdb8) || (first == 0x3fff && second < 0x1000);
    global && !ietf && !documentation
}

/// Resolves a host name, and rejects it if the policy forbids any of its addresses.
///
/// The client connects to exactly the checked addresses, so a second lookup cannot change them.
#[derive(Debug, Clone)]
pub struct SsrfGuardResolver {
    /// Which addresses are allowed.
    pub policy: EgressPolicy,
    /// Error message for a forbidden address.
    pub refusal: &'static str,
}

impl Service<Name> for SsrfGuardResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let Self { policy, refusal } = *self;
        Box::pin(async move {
            let addresses = resolver::lookup(name.as_str(), 0).await?;
            match addresses.iter().find(|address| !policy.allow(address.ip())) {
                Some(_) => Err(io::Error::new(io::ErrorKind::PermissionDenied, refusal)),
                None => Ok(addresses.into_iter()),
            }
        })
    }
}

#[cfg(test)]
mod tests;
