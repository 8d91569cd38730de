//! The settings of an engine that talks to a simulator.

use std::time::Duration;

use guestlane::{
    CallPolicy, Credentials, Endpoints, EngineConfig, OAuthClient, StorageConfig, TokenRequestAuth,
    WebhookConfig, messaging::MessagingConfig,
};
use guestlane_core::{surface::Surface, token::RotationPolicy};
use guestlane_runtime::{TlsRoots, ssrf::EgressPolicy};
use guestlane_sim::Simulator;

/// Returns the settings of an engine on `rest`, without rate limit, with one endpoint for events.
pub(crate) fn engine_config(
    sim: &Simulator,
    client: guestlane_sim::OAuthClient,
    storage: StorageConfig,
    crm_secret: Option<&str>,
) -> EngineConfig {
    EngineConfig {
        credentials: Credentials {
            hosts: Endpoints::one_origin(sim.base_url().parse().unwrap()),
            sign_in: TokenRequestAuth::Form,
            clients: vec![OAuthClient {
                id: client.id,
                secret: client.secret.into(),
            }],
            trust: TlsRoots::System,
        },
        surface: Surface::Rest,
        messaging: MessagingConfig::default(),
        call_policy: CallPolicy {
            quota: None,
            ..CallPolicy::default()
        },
        deadline: Duration::from_secs(60),
        storage,
        retention: None,
        key_rotation: RotationPolicy::default(),
        webhooks: Some(WebhookConfig {
            urls: vec![sim.crm_url().parse().unwrap()],
            secret: crm_secret.map(|secret| secret.to_owned().into()),
            egress_policy: EgressPolicy::Any,
            tls_roots: TlsRoots::System,
        }),
    }
}
