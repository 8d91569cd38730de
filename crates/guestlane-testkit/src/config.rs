//! The settings of an engine that talks to a simulator.

use guestlane::{
    Credentials, Endpoints, EngineConfig, OAuthClient, StorageConfig, Surface, TokenRequestAuth,
    WebhookConfig,
};
use guestlane_runtime::{TlsRoots, ssrf::EgressPolicy};
use guestlane_server::diagnosis;
use guestlane_sim::Simulator;

/// Returns the settings of an engine on `rest`, without rate limit, with one endpoint for events.
pub(crate) fn engine_config(
    sim: &Simulator,
    client: guestlane_sim::OAuthClient,
    storage: StorageConfig,
    crm_secret: Option<&str>,
) -> EngineConfig {
    let credentials = Credentials {
        hosts: Endpoints::one_origin(sim.base_url().parse().unwrap()),
        sign_in: TokenRequestAuth::Form,
        clients: vec![OAuthClient {
            id: client.id,
            secret: client.secret.into(),
        }],
        trust: TlsRoots::System,
    };
    let mut webhooks =
        WebhookConfig::new(vec![sim.crm_url().parse().unwrap()]).egress_policy(EgressPolicy::Any); // the simulator is on this machine
    webhooks.secret = crm_secret.map(|secret| secret.to_owned().into());
    let mut config = EngineConfig::new(credentials, Surface::Rest, storage).webhooks(webhooks);
    config.call_policy.quota = None;
    config.diagnose = diagnosis::of;
    config
}
