//! What kind of platform to pretend.

use std::{net::SocketAddr, time::Duration};

use guestlane_genesys::{Clock, Queue, Rate};
use uuid::{Uuid, uuid};

use crate::fault::Fault;

/// What kind of platform to pretend. The default is a healthy one with three queues on a free port of this machine.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The OAuth clients it knows.
    pub clients: Vec<OAuthClient>,
    /// The queues it has.
    pub queues: Vec<Queue>,
    /// How long an access token is good.
    pub token_life: Duration,
    /// Calls allowed to each OAuth client; `None` for any number.
    pub quota: Option<Rate>,
    /// How long every answer takes at least.
    pub latency: Duration,
    /// What goes wrong from the start.
    pub faults: Vec<Fault>,
    /// The same seed and the same calls give the same run.
    pub seed: u64,
    /// The CRM checks signatures against this `whsec_…` secret; without one it takes every event, and counts it as unchecked.
    pub crm_secret: Option<String>,
    /// Its time.
    pub clock: Clock,
}

/// An OAuth client of the pretended organization.
#[derive(Debug, Clone)]
pub struct OAuthClient {
    /// Its id.
    pub id: String,
    /// Its secret.
    pub secret: String,
    /// What it may do.
    pub scopes: Vec<String>,
}

/// May register contacts (the brief's name for the permission).
pub const SCOPE_CONTACTS: &str = "externalcontacts:create";
/// May open conversations (the brief's name for the permission).
pub const SCOPE_CONVERSATIONS: &str = "conversations:messaging";

/// The deployment that the official surfaces will name.
pub const DEPLOYMENT_ID: Uuid = uuid!("dddd0000-0000-4000-8000-000000000001");

/// How long an `Idempotency-Key` is remembered (R6).
pub(crate) const KEY_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The most that a contact's or a conversation's attributes may hold, in bytes of names and values without the guest token. The brief
/// says only «Genesys Cloud size limits»; this is `maxCustomDataBytes` of the guest API (reference, section 8).
pub(crate) const MAX_ATTRIBUTES: usize = 2048;

impl OAuthClient {
    /// A client that may do all that is needed.
    pub fn new(id: &str, secret: &str) -> Self {
        let scopes = [SCOPE_CONTACTS, SCOPE_CONVERSATIONS].map(str::to_owned).to_vec();
        Self { id: id.to_owned(), secret: secret.to_owned(), scopes }
    }
}

impl Default for Options {
    fn default() -> Self {
        let queue = |id, name: &str| Queue { id, name: name.to_owned() };
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            clients: vec![OAuthClient::new("sim-client", "sim-client-secret")],
            queues: vec![
                queue(uuid!("5e0c0000-0000-4000-8000-000000000001"), "Sales"),
                queue(uuid!("5e0c0000-0000-4000-8000-000000000002"), "Support"),
                queue(uuid!("5e0c0000-0000-4000-8000-000000000003"), "Billing"),
            ],
            token_life: Duration::from_secs(1800),
            quota: Some(Rate::REST),
            latency: Duration::ZERO,
            faults: Vec::new(),
            seed: 0,
            crm_secret: None,
            clock: Clock::system(),
        }
    }
}
