//! A simulator of the Genesys Cloud platform and of a webhook receiver (CRM), on real sockets.
//!
//! [`Simulator::start`] listens on a port and behaves as `docs/simulator.md` specifies. It
//! validates requests as the platform does, keeps the platform's state, counts duplicate contacts
//! and conversations, and injects faults on request ([`Fault`]).
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), guestlane_sim::StartError> {
//! use guestlane_sim::{Options, Simulator};
//!
//! let simulator = Simulator::start(Options::default()).await?;
//! println!("the platform is at {}", simulator.base_url());
//! assert_eq!(simulator.state().contacts, 0);
//! # Ok(()) }
//! ```

mod admin;
mod duplicates;
mod fault;
mod fault_injection;
mod frame;
mod guest_token;
mod journal;
mod options;
mod organization;
mod public_api;
mod rate_window;
mod request;
mod response;
mod route;
mod server;
mod simulation;
mod tls;
mod webhook_receiver;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

pub use duplicates::{Duplicates, GuestCounts};
pub use fault::{Fault, FaultKind, InvalidFault, When};
pub use journal::Entry;
pub use options::{
    DEPLOYMENT_ID, Deployment, EXTERNAL_SOURCE_ID, Flow, INTEGRATION_ID, OAuthClient, Options,
    PERMISSIONS, SCOPE_CONTACTS, SCOPE_CONVERSATIONS, Tls, UnknownDeployment,
};
pub use route::Route;
pub use simulation::Snapshot;
pub use webhook_receiver::WebhookCounts;

use simulation::{Simulation, lock};

/// A running simulator. Dropping this value stops it.
#[derive(Debug)]
pub struct Simulator {
    simulation: Arc<Simulation>,
    origin: String,
    ca_pem: Option<String>,
    serving: tokio::task::JoinHandle<()>,
}

/// The reason why the simulator could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is in use, or does not belong to this machine.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, #[source] io::Error),
    /// An option has an invalid value.
    #[error("{0}")]
    Option(String),
}

impl Simulator {
    /// Starts to listen and to serve requests.
    ///
    /// # Errors
    ///
    /// Fails if an option is invalid or the address cannot be bound.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let listen = options.listen;
        let tls = options
            .tls
            .as_ref()
            .map(tls::Identity::new)
            .transpose()
            .map_err(StartError::Option)?;
        let listener = server::bind(listen)
            .await
            .map_err(|error| StartError::Listen(listen, error))?;
        let address = listener
            .local_addr()
            .map_err(|error| StartError::Listen(listen, error))?;
        // A listener on all interfaces includes loopback, which the base URL names.
        let address = if address.ip().is_unspecified() {
            (Ipv4Addr::LOCALHOST, address.port()).into()
        } else {
            address
        };
        let origin = format!(
            "{}://{address}",
            if tls.is_some() { "https" } else { "http" }
        );
        let simulation =
            Arc::new(Simulation::new(options, origin.clone()).map_err(StartError::Option)?);
        let (acceptor, ca_pem) = tls.map(|tls| (tls.acceptor, tls.ca_pem)).unzip();
        let serving = tokio::spawn(server::serve(listener, acceptor, Arc::clone(&simulation)));
        Ok(Self {
            simulation,
            origin,
            ca_pem,
            serving,
        })
    }

    /// Returns the origin of all routes: the platform's, `/crm/events` and `/_sim/…`.
    pub fn base_url(&self) -> String {
        self.origin.clone()
    }

    /// Returns the certificate of the simulator's CA in PEM, or `None` without [`Options::tls`].
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// Returns the URL of the webhook receiver.
    pub fn crm_url(&self) -> String {
        format!("{}/crm/events", self.origin)
    }

    /// Returns the counts of what exists and of the requests that were made.
    pub fn state(&self) -> Snapshot {
        self.simulation.state()
    }

    /// Returns the last 10,000 requests and frames.
    pub fn journal(&self) -> Vec<Entry> {
        lock(&self.simulation.journal).entries()
    }

    /// Returns the first 1,000 events that the webhook receiver received.
    pub fn crm_events(&self) -> Vec<serde_json::Value> {
        lock(&self.simulation.crm).events().to_vec()
    }

    /// Replaces all faults by these.
    pub fn set_faults(&self, faults: Vec<Fault>) {
        self.simulation.set_faults(faults, None);
    }

    /// Registers the public keys of guest tokens. They replace all keys that were registered
    /// before.
    ///
    /// # Errors
    ///
    /// Fails if `jwks` is not a valid JWK set.
    pub fn register_guest_keys(&self, jwks: &str) -> Result<usize, String> {
        lock(&self.simulation.organization)
            .guest_keys
            .replace_by_jwks(jwks.as_bytes())
    }

    /// Revokes every access token that was issued so far.
    pub fn revoke_tokens(&self) {
        lock(&self.simulation.organization).oauth.revoke_tokens();
    }

    /// Deletes all external contacts, as the platform does with those that had no interaction for 60 days.
    pub fn forget_contacts(&self) {
        lock(&self.simulation.organization).forget_contacts();
    }

    /// Advances the simulator's clock by this duration. No other clock changes.
    pub fn advance_clock(&self, by: Duration) {
        self.simulation.advance(by);
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
