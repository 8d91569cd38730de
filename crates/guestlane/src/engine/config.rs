//! Settings of the engine.

use std::time::Duration;

use guestlane_core::{surface::Surface, token::RotationPolicy};
use guestlane_genesys::{CallPolicy, Credentials};
use guestlane_runtime::{TlsRoots, ssrf::EgressPolicy};
use secrecy::SecretString;
use url::Url;

use crate::{Error, StorageConfig, error::Diagnosis, messaging::MessagingConfig};

/// Settings of the outbox: where webhooks go, and how they are signed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WebhookConfig {
    /// URLs of the endpoints. Each event is sent to each of them.
    pub urls: Vec<Url>,
    /// Signing keys, `whsec_` and base64: one entry for all endpoints, or one entry for each,
    /// separated by spaces. If `None`, the store generates and keeps a secret for each endpoint.
    pub secret: Option<SecretString>,
    /// Networks that webhooks may reach (protection against SSRF).
    pub egress_policy: EgressPolicy,
    /// Root certificates that are trusted for the endpoints.
    pub tls_roots: TlsRoots,
}

/// Settings of a [`SessionEngine`](crate::SessionEngine).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EngineConfig {
    /// Hosts of the platform, and the OAuth clients that sign in there.
    pub credentials: Credentials,
    /// Timeouts and retries of calls to the platform.
    pub call_policy: CallPolicy,
    /// Time limit of one call of [`SessionEngine::create`](crate::SessionEngine::create).
    pub deadline: Duration,
    /// API of the platform that opens conversations.
    pub surface: Surface,
    /// Settings that only the surfaces of the public platform use.
    pub messaging: MessagingConfig,
    /// Places of the store, the audit log and the master key.
    pub storage: StorageConfig,
    /// How long completed sessions are kept. `None` keeps them without limit.
    pub retention: Option<Duration>,
    /// When signing keys are rotated.
    pub key_rotation: RotationPolicy,
    /// Webhooks. `None` disables the outbox.
    pub webhooks: Option<WebhookConfig>,
    /// Describes the errors that the engine stores and counts, for people. The default is
    /// [`Diagnosis::by_kind`]. A program that knows its settings and commands can name them.
    pub diagnose: fn(&Error) -> Diagnosis,
}

impl EngineConfig {
    /// The shortest [`retention`](Self::retention): as long as the platform remembers an idempotency
    /// key.
    pub const MIN_RETENTION: Duration = crate::retention::MIN_RETENTION;

    /// Returns a configuration with defaults: a deadline of 60 s, no webhooks, no retention limit, and
    /// no rotation of signing keys.
    pub fn new(credentials: Credentials, surface: Surface, storage: StorageConfig) -> Self {
        Self {
            credentials,
            call_policy: CallPolicy::default(),
            deadline: Duration::from_secs(60),
            surface,
            messaging: MessagingConfig::default(),
            storage,
            retention: None,
            key_rotation: RotationPolicy::default(),
            webhooks: None,
            diagnose: Diagnosis::by_kind,
        }
    }

    /// Sets the time limit of one call of [`SessionEngine::create`](crate::SessionEngine::create).
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sends the events of sessions to webhook endpoints.
    #[must_use]
    pub fn webhooks(mut self, webhooks: WebhookConfig) -> Self {
        self.webhooks = Some(webhooks);
        self
    }
}

impl WebhookConfig {
    /// Returns a configuration with defaults for endpoints on the public internet: the store
    /// generates a secret for each, and the system's root certificates are trusted.
    pub fn new(urls: Vec<Url>) -> Self {
        Self {
            urls,
            secret: None,
            egress_policy: EgressPolicy::Public,
            tls_roots: TlsRoots::System,
        }
    }

    /// Sets the signing keys, which are otherwise generated: see [`secret`](Self::secret).
    #[must_use]
    pub fn secret(mut self, secret: SecretString) -> Self {
        self.secret = Some(secret);
        self
    }

    /// Sets the networks that webhooks may reach.
    #[must_use]
    pub fn egress_policy(mut self, policy: EgressPolicy) -> Self {
        self.egress_policy = policy;
        self
    }

    /// Sets the root certificates that are trusted for the endpoints.
    #[must_use]
    pub fn tls_roots(mut self, roots: TlsRoots) -> Self {
        self.tls_roots = roots;
        self
    }
}
