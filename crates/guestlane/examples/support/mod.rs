//! What the examples share: the simulator in the place of an organization.

use std::path::Path;

use guestlane::{
    Credentials, Endpoints, EngineConfig, OAuthClient, StorageConfig, Surface,
    request::{Attributes, ContactDetails, SessionRequest},
};
use guestlane_sim::{INTEGRATION_ID, Options, Simulator};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Starts a simulator with one OAuth client, and returns it with a configuration for it. The
/// configuration differs from that of a real organization in its URL and credentials only.
pub(crate) async fn simulated(
    directory: &Path,
    faults: &[&str],
) -> Result<(Simulator, EngineConfig)> {
    let faults: std::result::Result<_, _> = faults.iter().map(|fault| fault.parse()).collect();
    let options = Options {
        faults: faults?,
        ..Options::default()
    };
    let client = options.clients[0].clone();
    let simulator = Simulator::start(options).await?;
    let hosts = Endpoints::one_origin(simulator.base_url().parse()?);
    let credentials = Credentials::new(hosts, OAuthClient::new(client.id, client.secret));
    let surface = Surface::OpenMessaging {
        integration: INTEGRATION_ID,
    };
    let storage = StorageConfig::in_directory(directory);
    Ok((simulator, EngineConfig::new(credentials, surface, storage)))
}

/// A request for a guest. The idempotency key is one that the caller can repeat: an order number,
/// or the ID of a form.
pub(crate) fn request(guest: &str, key: &str) -> Result<SessionRequest> {
    Ok(SessionRequest {
        guest: guest.parse()?,
        contact_details: ContactDetails::default(),
        queue: "5e0c0000-0000-4000-8000-000000000001".parse()?,
        attributes: Attributes::from_pairs([("source", "web-portal")])?,
        key: key.parse()?,
    })
}
