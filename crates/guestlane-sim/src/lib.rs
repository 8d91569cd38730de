//! The Genesys Cloud platform and a CRM, pretended on real sockets.
//!
//! [`Simulator::start`] opens a port and behaves as `docs/simulator.md` says: it checks what the platform checks, remembers what the
//! platform remembers, counts what exists twice, and fails on demand ([`Fault`]).
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
mod guest_token;
mod journal;
mod options;
mod organization;
mod public_api;
mod rate_window;
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
    DEPLOYMENT_ID, Deployment, EXTERNAL_SOURCE_ID, Flow, INTEGRATION_ID, OAuthClient, Options, PERMISSIONS, SCOPE_CONTACTS,
    SCOPE_CONVERSATIONS, Tls, UnknownDeployment,
};
pub use route::Route;
pub use simulation::Snapshot;
pub use webhook_receiver::CrmCounts;

use simulation::{Simulation, lock};

/// A running simulator. It ends when this is dropped.
#[derive(Debug)]
pub struct Simulator {
    world: Arc<Simulation>,
    origin: String,
    ca_pem: Option<String>,
    serving: tokio::task::JoinHandle<()>,
}

/// The simulator could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, #[source] io::Error),
    /// An option makes no sense.
    #[error("{0}")]
    Option(String),
}

impl Simulator {
    /// Listens, and answers from then on.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let listen = options.listen;
        let tls = options.tls.as_ref().map(tls::Identity::new).transpose().map_err(StartError::Option)?;
        let listener = server::bind(listen).await.map_err(|error| StartError::Listen(listen, error))?;
        let address = listener.local_addr().map_err(|error| StartError::Listen(listen, error))?;
        // Listening everywhere includes here, and here is where it is told to be.
        let address = if address.ip().is_unspecified() { (Ipv4Addr::LOCALHOST, address.port()).into() } else { address };
        let origin = format!("{}://{address}", if tls.is_some() { "https" } else { "http" });
        let world = Arc::new(Simulation::new(options, origin.clone()).map_err(StartError::Option)?);
        let (acceptor, ca_pem) = tls.map(|tls| (tls.acceptor, tls.ca_pem)).unzip();
        let serving = tokio::spawn(server::serve(listener, acceptor, Arc::clone(&world)));
        Ok(Self { world, origin, ca_pem, serving })
    }

    /// The origin of everything: the platform's routes, `/crm/events` and `/_sim/…`.
    pub fn base_url(&self) -> String {
        self.origin.clone()
    }

    /// The certificate of its own CA, in PEM; none without [`Options::tls`].
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// Where the CRM takes events.
    pub fn crm_url(&self) -> String {
        format!("{}/crm/events", self.origin)
    }

    /// What exists and what was asked.
    pub fn state(&self) -> Snapshot {
        self.world.state()
    }

    /// The last 10,000 requests and frames.
    pub fn journal(&self) -> Vec<Entry> {
        lock(&self.world.journal).entries()
    }

    /// The first 1,000 events the CRM was told.
    pub fn crm_events(&self) -> Vec<serde_json::Value> {
        lock(&self.world.crm).events().to_vec()
    }

    /// From now on these faults, and no others.
    pub fn set_faults(&self, faults: Vec<Fault>) {
        self.world.set_faults(faults, None);
    }

    /// Registers the public keys of guest tokens, in the place of all before.
    pub fn register_guest_keys(&self, jwks: &str) -> Result<usize, String> {
        lock(&self.world.organization).guest_keys.replace_by_jwks(jwks.as_bytes())
    }

    /// Every access token issued so far is good no longer.
    pub fn revoke_tokens(&self) {
        lock(&self.world.organization).sign_in.revoke_tokens();
    }

    /// Deletes all external contacts, as the platform does with those that had no interaction for 60 days.
    pub fn forget_contacts(&self) {
        lock(&self.world.organization).forget_contacts();
    }

    /// Moves the simulator's time ahead of everybody else's.
    pub fn advance_clock(&self, by: Duration) {
        self.world.advance(by);
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
