//! Names of hosts: `localhost` and what is under it is this machine, whatever the resolver of the system says (RFC 6761, section 6.3).

use std::{
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    vec,
};

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower_service::Service;

/// The system's resolver, but for names of this machine.
#[derive(Debug, Clone)]
pub struct SystemResolver(GaiResolver);

impl SystemResolver {
    pub(crate) fn new() -> Self {
        Self(GaiResolver::new())
    }
}

impl Service<Name> for SystemResolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        if is_this_machine(name.as_str()) {
            return Box::pin(async move { Ok(addresses_here(name.as_str()).await.into_iter()) });
        }
        let asking = self.0.call(name);
        Box::pin(async { Ok(asking.await?.collect::<Vec<_>>().into_iter()) })
    }
}

/// Whether a name is one of this machine: `localhost`, or one under it.
pub fn is_this_machine(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// The addresses of a name of this machine, each with port 0. What the system's resolver says
/// counts only as far as it is loopback: plain http is sent there.
pub async fn addresses_here(name: &str) -> Vec<SocketAddr> {
    let asked = match name.eq_ignore_ascii_case("localhost") {
        true => tokio::net::lookup_host((name, 0)).await.map(Iterator::collect).unwrap_or_default(),
        false => Vec::new(),
    };
    let mut here: Vec<_> = asked.into_iter().filter(|address: &SocketAddr| address.ip().is_loopback()).collect();
    if here.is_empty() {
        here.push(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    }
    here
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_under_localhost_are_this_machine_whatever_the_system_says() {
        for name in ["localhost", "LOCALHOST", "localhost.", "crm.localhost", "Crm.LocalHost."] {
            assert!(is_this_machine(name), "{name}");
            let addresses = SystemResolver::new().call(name.parse().unwrap()).await.unwrap().collect::<Vec<_>>();
            assert!(!addresses.is_empty() && addresses.iter().all(|address| address.ip().is_loopback()), "{name}: {addresses:?}");
        }
        for name in ["localhost.example", "notlocalhost", "crm.example"] {
            assert!(!is_this_machine(name), "{name}");
        }
    }
}
