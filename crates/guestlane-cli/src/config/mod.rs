//! Settings from a file, the environment and flags. A flag overrides the environment, which
//! overrides the file. Each setting is one row of [`SETTINGS`].

mod platform;
mod reader;
mod secret_files;
mod service;
mod unknown;
mod url;
mod values;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use guestlane::{EngineConfig, Error, StorageConfig, WebhookConfig};
use guestlane_core::{
    request::{QueueId, ValidationError, shorten},
    surface::Surface,
    token::RotationPolicy,
};
use guestlane_genesys::Rate;
use guestlane_server::diagnosis;

/// Description of one setting.
#[derive(Debug)]
pub struct Setting {
    /// Name in the environment.
    pub env: &'static str,
    /// Name in `guestlane.toml`, with its table as prefix.
    pub key: &'static str,
    /// Value that applies if the setting is not set.
    pub default: Option<&'static str>,
    /// Whether the value is hidden when settings are shown.
    pub secret: bool,
    /// Description for users.
    pub about: &'static str,
}

macro_rules! settings {
    ($($name:ident: $env:literal, $key:literal, $default:expr, $secret:literal, $about:literal;)*) => {
        $(#[doc = $about] pub const $name: &str = $env;)*
        /// All settings, in the order in which they are shown.
        pub const SETTINGS: &[Setting] = &[
            $(Setting { env: $env, key: $key, default: $default, secret: $secret, about: $about }),*
        ];
    };
}

settings! {
    ORG_DOMAIN: "GENESYS_ORG_DOMAIN", "genesys.org_domain", None, false,
        "Domain of the organization, like acme.mygenesyscloud.com.";
    REGION: "GENESYS_REGION", "genesys.region", None, false,
        "Region of the public platform: its domain, like mypurecloud.ie, or its AWS name, like \
         eu-west-1. For web-messaging and open-messaging.";
    BASE_URL: "GENESYS_BASE_URL", "genesys.base_url", None, false,
        "Origin for all calls, such as a simulator or a gateway; replaces \
         https://GENESYS_ORG_DOMAIN and the region's hosts.";
    LOGIN_URL: "GENESYS_LOGIN_URL", "genesys.login_url", None, false,
        "URL of the OAuth server; replaces https://login.GENESYS_REGION.";
    API_URL: "GENESYS_API_URL", "genesys.api_url", None, false,
        "URL of the platform API; replaces https://api.GENESYS_REGION.";
    WEBMESSAGING_URL: "GENESYS_WEBMESSAGING_URL", "genesys.webmessaging_url", None, false,
        "URL of the guest WebSocket; replaces wss://webmessaging.GENESYS_REGION.";
    CDN_URL: "GENESYS_CDN_URL", "genesys.cdn_url", None, false,
        "URL of deployment configurations; replaces https://api-cdn.GENESYS_REGION.";
    CA_FILE: "GENESYS_CA_FILE", "genesys.ca_file", None, false,
        "PEM file of the certificate authorities that may sign the platform's certificate; by \
         default the system's trusted roots.";
    CLIENT_ID: "GENESYS_CLIENT_ID", "genesys.client_id", None, false,
        "ID of the OAuth client; several, separated by spaces, are used as a pool, each with its \
         own rate limit.";
    CLIENT_SECRET: "GENESYS_CLIENT_SECRET", "genesys.client_secret", None, true,
        "Secret of the OAuth client; several, separated by spaces, in the order of the IDs.";
    CLIENT_SECRET_FILE: "GENESYS_CLIENT_SECRET_FILE", "genesys.client_secret_file", None, false,
        "File that contains GENESYS_CLIENT_SECRET.";
    QUEUE_ID: "GENESYS_QUEUE_ID", "genesys.queue_id", None, false,
        "Default queue, for sessions that name none.";
    WEBHOOK_URL: "CRM_WEBHOOK_URL", "crm.webhook_url", None, false,
        "URL of the CRM's webhook endpoint; several, separated by spaces, each receive every \
         event; without it, no event is sent.";
    WEBHOOK_SECRET: "CRM_WEBHOOK_SECRET", "crm.webhook_secret", None, true,
        "Secrets that sign webhooks (whsec_…), one per endpoint, separated by spaces; NEW,OLD \
         during a rotation. By default they are generated and kept in the store (`guestlane \
         outbox secret`).";
    WEBHOOK_SECRET_FILE: "CRM_WEBHOOK_SECRET_FILE", "crm.webhook_secret_file", None, false,
        "File that contains CRM_WEBHOOK_SECRET.";
    ALLOW_PRIVATE: "CRM_ALLOW_PRIVATE_NETWORKS", "crm.allow_private_networks", Some("false"), false,
        "Whether webhook endpoints may have private or loopback addresses.";
    CRM_CA_FILE: "CRM_CA_FILE", "crm.ca_file", None, false,
        "PEM file of the certificate authorities that may sign the CRM's certificate; by default \
         the system's trusted roots.";
    SURFACE: "GUESTLANE_SURFACE", "surface", Some("rest"), false,
        "Platform API that opens the conversation: rest, web-messaging or open-messaging.";
    DEPLOYMENT_ID: "GENESYS_DEPLOYMENT_ID", "genesys.deployment_id", None, false,
        "ID of the web deployment. For web-messaging.";
    ORIGIN: "GENESYS_ORIGIN", "genesys.origin", None, false,
        "Origin header, which the deployment must allow; by default the origin of the guest \
         WebSocket. For web-messaging.";
    INTEGRATION_ID: "GENESYS_INTEGRATION_ID", "genesys.integration_id", None, false,
        "ID of the Open Messaging integration. For open-messaging.";
    EXTERNAL_SOURCE_ID: "GENESYS_EXTERNAL_SOURCE_ID", "genesys.external_source_id", None, false,
        "ID of the external source in which a guest ID is a contact's external ID. Without it, \
         only an e-mail address or a telephone number prevents a duplicate contact.";
    FIRST_MESSAGE: "GENESYS_FIRST_MESSAGE", "genesys.first_message", Some("Hello"), false,
        "First message of the guest, which opens the conversation; join sends a Presence event \
         instead. For web-messaging and open-messaging.";
    LINK_CONTACT: "GENESYS_LINK_CONTACT", "genesys.link_contact", Some("true"), false,
        "Whether the contact is linked to the conversation, which takes two calls. For \
         web-messaging and open-messaging.";
    MOVE_TO_QUEUE: "GENESYS_MOVE_TO_QUEUE", "genesys.move_to_queue", Some("false"), false,
        "Whether the conversation is moved to its queue, for inbound flows that do not read \
         routingTarget. For web-messaging and open-messaging.";
    SEND_GUEST_TOKEN: "GENESYS_SEND_GUEST_TOKEN", "genesys.send_guest_token", Some("false"), false,
        "Whether the guest token is sent to the inbound flow as an attribute, if it fits into \
         2,048 bytes. For web-messaging and open-messaging.";
    STATE_DIR: "GUESTLANE_STATE_DIR", "state_dir", Some(".guestlane"), false,
        "Directory of the store and the master key.";
    DATABASE_URL: "GUESTLANE_DATABASE_URL", "database_url", None, false,
        "URL of the store: sqlite:PATH, or postgres://USER:PASSWORD@HOST:5432/DATABASE, which \
         several machines can share; by default a file in the state directory.";
    DATABASE_URL_FILE: "GUESTLANE_DATABASE_URL_FILE", "database_url_file", None, false,
        "File that contains GUESTLANE_DATABASE_URL.";
    AUDIT_LOG: "GUESTLANE_AUDIT_LOG", "audit_log", None, false,
        "Path of the audit log; by default audit/session-audit.jsonl, in the working directory, \
         or in the state directory if that is set.";
    AUDIT_GUEST_ID_MODE: "GUESTLANE_AUDIT_GUEST_ID_MODE", "audit.guest_id_mode", Some("plain"), false,
        "Form of guest IDs in the audit log: plain, or pseudonym, which can be erased.";
    AUDIT_MAX_FILE_SIZE: "GUESTLANE_AUDIT_MAX_FILE_SIZE", "audit.max_file_size", Some("64MiB"), false,
        "Size at which the audit log is rotated: like 64MiB, or off.";
    SESSION_RETENTION: "GUESTLANE_SESSION_RETENTION", "retention.sessions", Some("off"), false,
        "How long open and failed sessions are kept with their idempotency keys: like 72h or 30d; \
         off keeps them forever. Audit records are not deleted.";
    SIGNING_KEY_PUBLISH_LEAD: "GUESTLANE_SIGNING_KEY_PUBLISH_LEAD", "signing_keys.publish_lead", Some("24h"), false,
        "How long a signing key is published before it signs. Choose at least the time for which \
         verifiers cache the key set.";
    SIGNING_KEY_ROTATION_INTERVAL: "GUESTLANE_SIGNING_KEY_ROTATION_INTERVAL", "signing_keys.rotation_interval", Some("off"), false,
        "Age of the active signing key at which the next one replaces it: like 30d, or off.";
    LISTEN: "GUESTLANE_LISTEN", "serve.listen", Some("127.0.0.1:8971"), false,
        "Address and port of the service. An address other than loopback requires an API key and \
         TLS.";
    METRICS_LISTEN: "GUESTLANE_METRICS_LISTEN", "serve.metrics_listen", Some("127.0.0.1:8972"), false,
        "Address and port of the service's metrics, which need no API key; or off.";
    METRICS_ALLOW_PUBLIC: "GUESTLANE_METRICS_ALLOW_PUBLIC", "serve.metrics_allow_public", Some("false"), false,
        "Whether metrics may be served on an address other than loopback. They have neither \
         authentication nor TLS.";
    TLS_CERT_FILE: "GUESTLANE_TLS_CERT_FILE", "serve.tls_cert_file", None, false,
        "PEM file of the service's certificate chain; reloaded on SIGHUP and when it changes.";
    TLS_KEY_FILE: "GUESTLANE_TLS_KEY_FILE", "serve.tls_key_file", None, false,
        "PEM file of the private key of the service's certificate.";
    TLS_TERMINATED_UPSTREAM: "GUESTLANE_TLS_TERMINATED_UPSTREAM", "serve.tls_terminated_upstream", Some("false"), false,
        "Whether a proxy in front of the service terminates TLS. The service may then listen \
         beyond loopback without a certificate.";
    API_KEY_RATE_LIMIT: "GUESTLANE_API_KEY_RATE_LIMIT", "serve.api_key_rate_limit", Some("1000/s"), false,
        "Rate limit of requests per API key: N/s, N/min or off.";
    MAX_CONCURRENT_SESSIONS: "GUESTLANE_MAX_CONCURRENT_SESSIONS", "serve.max_concurrent_sessions", Some("1024"), false,
        "Maximum sessions in flight in the service; the actual number follows the rate limit and \
         the platform's latency.";
    DRAIN_PERIOD: "GUESTLANE_DRAIN_PERIOD", "serve.drain_period", Some("5s"), false,
        "How long the service continues to serve after SIGTERM, while its readiness check fails: \
         like 5s, or off.";
    OTLP_ENDPOINT: "GUESTLANE_OTLP_ENDPOINT", "traces.otlp_endpoint", None, false,
        "URL of the trace collector (OTLP over HTTP), like http://127.0.0.1:4318/v1/traces; \
         without it, no traces are collected.";
    LOG_FORMAT: "GUESTLANE_LOG_FORMAT", "log.format", Some("text"), false,
        "Format of the log on standard error: text or json.";
    LOG_LEVEL: "GUESTLANE_LOG_LEVEL", "log.level", Some("warn"), false,
        "Lowest level that is logged: error, warn, info or debug. The default of the service is \
         info.";
    MASTER_KEY: "GUESTLANE_MASTER_KEY", "master_key", None, true,
        "Key that encrypts the secrets in the store, base64 of 32 bytes; by default a file in the \
         state directory.";
    MASTER_KEY_PREVIOUS: "GUESTLANE_MASTER_KEY_PREVIOUS", "master_key_previous", None, true,
        "Previous master key during a rotation, base64 of 32 bytes. It decrypts secrets that \
         GUESTLANE_MASTER_KEY does not.";
    MASTER_KEY_FILE: "GUESTLANE_MASTER_KEY_FILE", "master_key_file", None, false,
        "File that contains GUESTLANE_MASTER_KEY.";
    MASTER_KEY_PREVIOUS_FILE: "GUESTLANE_MASTER_KEY_PREVIOUS_FILE", "master_key_previous_file", None, false,
        "File that contains GUESTLANE_MASTER_KEY_PREVIOUS.";
    PLATFORM_RATE_LIMIT: "GUESTLANE_PLATFORM_RATE_LIMIT", "platform_rate_limit", Some("100/s"), false,
        "Rate limit of the platform per OAuth client: N/s, N/min or off; 300/min by default on \
         web-messaging and open-messaging.";
    MAX_RETRIES: "GUESTLANE_MAX_RETRIES", "retry.max_retries", Some("3"), false,
        "Maximum number of retries of a call.";
    RETRY_INITIAL_BACKOFF: "GUESTLANE_RETRY_INITIAL_BACKOFF", "retry.initial_backoff", Some("1s"), false,
        "Shortest backoff before a retry.";
    RETRY_MAX_BACKOFF: "GUESTLANE_RETRY_MAX_BACKOFF", "retry.max_backoff", Some("5s"), false,
        "Longest backoff before a retry; a longer Retry-After of the platform is honoured.";
    ATTEMPT_TIMEOUT: "GUESTLANE_ATTEMPT_TIMEOUT", "attempt_timeout", Some("10s"), false,
        "Timeout of one attempt of a call.";
    SESSION_TIMEOUT: "GUESTLANE_SESSION_TIMEOUT", "session_timeout", Some("60s"), false,
        "Timeout of one session, including retries and backoff.";
}

use reader::{LONGEST_DEADLINE, Reader, parse_duration};
pub use unknown::UnknownVariable;
pub use values::ValueSource;

/// The values that were set, each with its source.
#[derive(Clone, Default)]
pub struct Settings {
    values: BTreeMap<&'static str, (String, ValueSource)>,
    /// Settings whose whole value is enclosed in quotation marks, which are part of the value.
    quoted: BTreeSet<&'static str>,
    unknown: Vec<UnknownVariable>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.values.iter().map(|(name, (_, origin))| (name, origin)))
            .finish()
    }
}

impl Settings {
    /// Places of the store, the audit log and the master key. Settings of the platform are not
    /// needed.
    ///
    /// # Errors
    /// Returns all invalid settings of these places.
    pub fn storage(&self) -> Result<StorageConfig, Error> {
        let mut reader = Reader::new(self);
        let places = reader.places();
        reader.finish(places)
    }

    /// Settings of webhooks, if `CRM_WEBHOOK_URL` is set.
    ///
    /// # Errors
    /// Returns all settings of webhooks that are invalid.
    pub fn crm(&self) -> Result<Option<WebhookConfig>, Error> {
        let mut reader = Reader::new(self);
        let crm = reader.crm();
        reader.finish(Some(crm))
    }

    /// Queue of sessions that do not name one.
    ///
    /// # Errors
    /// Returns an error if `GENESYS_QUEUE_ID` is not a UUID.
    pub fn default_queue(&self) -> Result<Option<QueueId>, Error> {
        let parse = |text: &str| {
            text.parse().map_err(|invalid: ValidationError| {
                self.invalid(QUEUE_ID, invalid.reason, &invalid.fix)
            })
        };
        self.value(QUEUE_ID)
            .map(parse)
            .transpose()
            .map_err(|invalid| Error::Settings(vec![invalid]))
    }

    /// Rate limit of the platform for each OAuth client. `None` means no limit.
    ///
    /// # Errors
    /// Returns an error if the setting is invalid.
    pub fn quota(&self) -> Result<Option<Rate>, Error> {
        let mut reader = Reader::new(self);
        let quota = reader.parsed(PLATFORM_RATE_LIMIT, "write 100/s, 300/min or off", |text| {
            Rate::parse(text).ok()
        });
        reader.finish(quota)
    }

    /// API of the platform that opens conversations. Credentials are not needed.
    ///
    /// # Errors
    /// Returns an error if the surface is unknown, or has no valid deployment or integration.
    pub fn surface(&self) -> Result<Surface, Error> {
        let mut reader = Reader::new(self);
        let surface = reader.surface();
        reader.finish(surface)
    }

    /// Schedule of signing key rotation. Settings of the platform are not needed.
    ///
    /// # Errors
    /// Returns an error if a period is invalid, or the two periods do not fit together.
    pub fn key_schedule(&self) -> Result<RotationPolicy, Error> {
        let mut reader = Reader::new(self);
        let schedule = reader.key_schedule();
        reader.finish(schedule)
    }

    /// All settings of a [`SessionEngine`](guestlane::SessionEngine). `needs_queue` makes the queue
    /// mandatory, for a caller that names none itself.
    ///
    /// # Errors
    /// Returns all settings that are missing or invalid, at once.
    pub fn engine(&self, needs_queue: bool) -> Result<EngineConfig, Error> {
        let mut reader = Reader::new(self);
        let surface = reader.surface();
        let credentials = reader.credentials();
        let cloud = reader.cloud(credentials.as_ref().map(|credentials| &credentials.hosts));
        let patience = reader.patience();
        let deadline = reader.parsed(
            SESSION_TIMEOUT,
            "write it like 500ms, 5s or 2min, at most 30min",
            |text| parse_duration(text).filter(|deadline| *deadline <= LONGEST_DEADLINE),
        );
        let crm = reader.crm();
        let places = reader.places();
        let kept = reader.keep_sessions().zip(reader.key_schedule());
        if needs_queue && self.value(QUEUE_ID).is_none() {
            reader.missing(QUEUE_ID, "set it, or name a queue with --queue");
        }
        if let Err(Error::Settings(invalid)) = self.default_queue() {
            reader.refused.extend(invalid);
        }
        let config = match (
            credentials,
            patience,
            deadline,
            surface.zip(cloud),
            places.zip(kept),
        ) {
            (
                Some(credentials),
                Some(patience),
                Some(deadline),
                Some((surface, cloud)),
                Some((places, (keep_sessions, keys))),
            ) => {
                let mut config = EngineConfig::new(credentials, surface, places).deadline(deadline);
                config.call_policy = patience;
                config.messaging = cloud;
                config.retention = keep_sessions;
                config.key_rotation = keys;
                config.webhooks = crm;
                config.diagnose = diagnosis::of;
                Some(config)
            }
            _ => None,
        };
        reader.finish(config)
    }
}

/// Parses a span in hours or days, such as `12h` or `90d`.
pub fn parse_span(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u32 = text[..digits].parse().ok()?;
    let hours = match &text[digits..] {
        "h" => 1,
        "d" => 24,
        _ => return None,
    };
    Some(Duration::from_secs(3600 * hours).saturating_mul(number))
}

#[cfg(test)]
mod tests;
