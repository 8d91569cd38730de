//! Where events may go: never into somebody's private network by way of a host name (server-side request forgery).

use std::{
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
};

use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

/// Which addresses a webhook may be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Networks {
    /// Only those that everybody can reach.
    Public,
    /// Private ones and this machine, too: `CRM_ALLOW_PRIVATE_NETWORKS=true`.
    Any,
}

impl Networks {
    /// Whether a webhook may go there.
    pub fn allow(self, address: IpAddr) -> bool {
        self == Self::Any || is_public(address)
    }
}

/// Whether an address is one of the public internet's (IANA special-purpose address registries, RFC 6890). An IPv6 address that carries an
/// IPv4 address is judged by that, too.
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
        100 => (64..128).contains(&b),    // shared by carriers (RFC 6598)
        169 => b == 254,                  // link-local, and the clouds' metadata services
        172 => (16..32).contains(&b),     // private
        192 => matches!((b, c), (168, _) | (0, 0 | 2) | (88, 99)), // private, IETF, documentation, 6to4 relays
        198 => matches!((b, c), (18 | 19, _) | (51, 100)), // benchmarks, documentation
        203 => (b, c) == (0, 113),        // documentation
        _ => false,
    };
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = match segments {
        // mapped, compatible, translated (RFC 6052, RFC 8215)
        [0, 0, 0, 0, 0, 0 | 0xffff, hi, lo] | [0x64, 0xff9b, 0, 0, 0, 0, hi, lo] | [0x64, 0xff9b, 1, _, _, _, hi, lo] => {
            Some((hi, lo))
        }
        [0x2002, hi, lo, ..] => Some((hi, lo)), // 6to4
        _ => None,
    };
    if let Some((hi, lo)) = embedded {
        let [a, b] = hi.to_be_bytes();
        let [c, d] = lo.to_be_bytes();
        return is_public_v4(Ipv4Addr::new(a, b, c, d));
    }
    // Global unicast is 2000::/3; of it, not the IETF's (2001::/23), documentation (2001:db8::/32, 3fff::/20).
    let [first, second, ..] = segments;
    let global = (0x2000..0x4000).contains(&first);
    let ietf = first == 0x2001 && second < 0x200;
    let documentation = (first == 0x2001 && second == 0xdb8) || (first == 0x3fff && second < 0x1000);
    global && !ietf && !documentation
}

/// Resolves a name, and refuses it when any of its addresses is not allowed. What was vetted is what is connected to.
#[derive(Debug, Clone)]
pub(super) struct VettingResolver(pub(super) Networks);

impl Service<Name> for VettingResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let networks = self.0;
        Box::pin(async move {
            let addresses: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            match addresses.iter().find(|address| !networks.allow(address.ip())) {
                Some(_) => Err(io::Error::new(io::ErrorKind::PermissionDenied, NOT_PUBLIC)),
                None => Ok(addresses.into_iter()),
            }
        })
    }
}

/// What a refused address is told by.
pub(super) const NOT_PUBLIC: &str = "the address is in a private network (CRM_ALLOW_PRIVATE_NETWORKS=true allows that)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_and_special_addresses_are_not_public() {
        let hostile = [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.8.8.8",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a00:1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a00:1::",
            "3fff::1",
            "fc00::1",
            "fd00::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ];
        for address in hostile {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn the_public_internet_is_public() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "2606:4700::1111",
            "2a00::1",
            "64:ff9b::808:808",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }
}
