//! The listener for metrics and probes.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use axum_server::{Handle, accept::DefaultAcceptor};

use super::{BindError, HEADER_READ_TIMEOUT, apply_limits, listen};
use crate::{
    accept::LimitingAcceptor,
    connections::{Connections, Limits},
    metrics, request_log,
    router::probes,
    service::Service,
};

/// Maximum number of connections to the metrics listener.
const METRICS_CONNECTIONS: usize = 64;

/// The listener for metrics and probes, which requires no API key.
#[derive(Debug)]
pub struct MetricsServer {
    pub(super) handle: Handle<SocketAddr>,
    serving: tokio::task::JoinHandle<io::Result<()>>,
    pub(super) address: SocketAddr,
}

impl MetricsServer {
    /// Binds the address and serves `/metrics`, `/healthz` and `/readyz` there. A worker has only
    /// this listener.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn bind(service: &Arc<Service>, address: SocketAddr) -> Result<Self, BindError> {
        let listener = listen("GUESTLANE_METRICS_LISTEN", address)?;
        Ok(Self::start(service, listener, "http")?)
    }

    pub(super) fn start(
        service: &Arc<Service>,
        listener: TcpListener,
        scheme: &'static str,
    ) -> io::Result<Self> {
        let (handle, address) = (Handle::new(), listener.local_addr()?);
        let limits = Limits {
            connections: METRICS_CONNECTIONS,
            per_address: None,
        };
        let clock = service.clock().clone();
        let connections = Connections::new(limits, clock.clone());
        let door = LimitingAcceptor {
            inner: DefaultAcceptor::new(),
            connections,
            clock,
            limit: HEADER_READ_TIMEOUT,
        };
        let server = apply_limits(
            axum_server::from_tcp(listener)?
                .handle(handle.clone())
                .acceptor(door),
        );
        let stalls =
            axum::middleware::from_fn_with_state(Arc::clone(service), request_log::limit_stalls);
        let router = metrics::router(service, scheme)
            .merge(probes(service))
            .layer(stalls);
        Ok(Self {
            handle,
            serving: tokio::spawn(server.serve(router.into_make_service())),
            address,
        })
    }

    /// The address of the listener, with the port that the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the listener and its connections.
    pub async fn end(self) {
        self.handle.shutdown();
        let _ = self.serving.await;
    }
}
