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
        if name.as_str().ends_with(".localhost") {
            let here = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
            return Box::pin(async { Ok(here.into_iter()) });
        }
        let asking = self.0.call(name);
        Box::pin(async { Ok(asking.await?.collect::<Vec<_>>().into_iter()) })
    }
}
