//! Name resolution in which `localhost` and its subdomains always mean the local machine, whatever
//! the system's resolver returns (RFC 6761, section 6.3).

use std::{
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    vec,
};

use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

/// The system's resolver, except for names of the local machine: see [`lookup`].
#[derive(Debug, Clone, Copy)]
pub struct SystemResolver;

impl Service<Name> for SystemResolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(async move { Ok(lookup(name.as_str(), 0).await?.into_iter()) })
    }
}

/// Resolves a host name. A name of the local machine resolves to loopback addresses only: plain
/// http is sent there, so other addresses from the system's resolver are ignored.
///
/// # Errors
///
/// Fails if the system's resolver fails or knows no address.
pub async fn lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if !is_this_machine(host) {
        return Ok(tokio::net::lookup_host((host, port)).await?.collect());
    }
    let asked = match host.eq_ignore_ascii_case("localhost") {
        true => tokio::net::lookup_host((host, port))
            .await
            .map(Iterator::collect)
            .unwrap_or_default(),
        false => Vec::new(),
    };
    let mut here: Vec<_> = asked
        .into_iter()
        .filter(|address: &SocketAddr| address.ip().is_loopback())
        .collect();
    if here.is_empty() {
        here.push(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    Ok(here)
}

/// Whether a name means the local machine: `localhost` or a subdomain of it.
fn is_this_machine(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn localhost_names_resolve_to_loopback_addresses() {
        for name in [
            "localhost",
            "LOCALHOST",
            "localhost.",
            "crm.localhost",
            "Crm.LocalHost.",
        ] {
            assert!(is_this_machine(name), "{name}");
            let addresses = SystemResolver
                .call(name.parse().unwrap())
                .await
                .unwrap()
                .collect::<Vec<_>>();
            assert!(
                !addresses.is_empty() && addresses.iter().all(|address| address.ip().is_loopback()),
                "{name}: {addresses:?}"
            );
        }
        for name in ["localhost.example", "notlocalhost", "crm.example"] {
            assert!(!is_this_machine(name), "{name}");
        }
    }
}
