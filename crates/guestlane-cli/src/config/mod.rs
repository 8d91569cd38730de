//! Settings from a file, the environment and flags. A flag overrides the environment, which
//! overrides the file. Each setting is one row of [`SETTINGS`].

mod platform;
mod secret_files;
mod service;
mod unknown;
mod url;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    time::Duration,
};

use guestlane_genesys::{CallPolicy, Rate, RetryPolicy};
use guestlane_runtime::FailPoints;
use secrecy::SecretString;

use guestlane::{
    EngineConfig, Error, MIN_RETENTION, StorageConfig, WebhookConfig, outbox::EndpointKeys,
};
use guestlane_core::{
    request::{QueueId, ValidationError, shorten},
    surface::Surface,
    token::{InvalidRotationPolicy, RotationPolicy},
};
use guestlane_runtime::ssrf::EgressPolicy;
use guestlane_runtime::text::without_bom_str;
use guestlane_store::{AuditSettings, BenchOverrides, Database, GuestIdMode, InvalidDatabase};

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

pub use unknown::UnknownVariable;

/// Source of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueSource {
    /// The setting is not set.
    Default,
    /// The settings file.
    File(PathBuf),
    /// The environment.
    Environment,
    /// A flag of the command line.
    Flag,
}

impl fmt::Display for ValueSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment => f.write_str("environment"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

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
    /// Stores one value; every source passes through here.
    ///
    /// White space at both ends is removed, because secret stores and files with CRLF add it. An
    /// empty value counts as not set.
    fn take(&mut self, env: &'static str, value: &str, origin: ValueSource) {
        let value = value.trim();
        if value.is_empty() {
            return;
        }
        let unquoted = ['"', '\'']
            .into_iter()
            .find_map(|mark| value.strip_prefix(mark)?.strip_suffix(mark));
        if unquoted.is_some() {
            self.quoted.insert(env);
        } else {
            self.quoted.remove(env);
        }
        self.values
            .insert(env, (unquoted.unwrap_or(value).to_owned(), origin));
    }

    /// Parses the text of a settings file and adds its values.
    ///
    /// # Errors
    /// Returns an error if the text is not TOML, or for each unknown setting and each value of
    /// another type.
    pub fn add_file(&mut self, path: &std::path::Path, text: &str) -> Result<(), Error> {
        let invalid = |reason: String, fix: &str| {
            Error::Settings(vec![ValidationError::new(
                path.display().to_string(),
                reason,
                fix,
            )])
        };
        let text = without_bom_str(text);
        let table: toml::Table = toml::from_str(text).map_err(|error| {
            let line = error
                .span()
                .map_or(0, |span| text[..span.start].lines().count().max(1));
            invalid(
                format!("line {line}: {}", error.message()),
                "correct the TOML",
            )
        })?;
        let mut flat = Vec::new();
        flatten("", &table, &mut flat);
        let mut refused = Vec::new();
        for (key, value) in flat {
            let setting = SETTINGS.iter().find(|setting| setting.key == key);
            let text = match &value {
                toml::Value::String(text) => Some(text.clone()),
                toml::Value::Integer(number) => Some(number.to_string()),
                toml::Value::Boolean(yes) => Some(yes.to_string()),
                toml::Value::Float(_)
                | toml::Value::Datetime(_)
                | toml::Value::Array(_)
                | toml::Value::Table(_) => None,
            };
            let field = format!("{} in {}", shorten(&key), path.display());
            match (setting, text) {
                (Some(setting), Some(text)) => {
                    self.take(setting.env, &text, ValueSource::File(path.to_owned()))
                }
                (Some(_), None) => refused.push(ValidationError::new(
                    field,
                    "is not a string, a number or a boolean",
                    "write the value in quotation marks",
                )),
                (None, _) => refused.push(ValidationError::new(
                    field,
                    "is not a setting",
                    "remove it; `guestlane config show` lists all settings",
                )),
            }
        }
        if refused.is_empty() {
            Ok(())
        } else {
            Err(Error::Settings(refused))
        }
    }

    /// Adds the values of the environment. An empty value counts as not set.
    pub fn add_environment(&mut self, get: impl Fn(&str) -> Option<String>) {
        for setting in SETTINGS {
            if let Some(value) = get(setting.env) {
                self.take(setting.env, &value, ValueSource::Environment);
            }
        }
    }

    /// Adds the value of a flag, if it is given.
    pub fn add_flag(&mut self, env: &'static str, value: Option<String>) {
        if let Some(value) = value {
            self.take(env, &value, ValueSource::Flag);
        }
    }

    /// Returns a value or its default, with its source.
    pub fn get(&self, env: &str) -> Option<(&str, ValueSource)> {
        if let Some((value, origin)) = self.values.get(env) {
            return Some((value, origin.clone()));
        }
        let default = SETTINGS
            .iter()
            .find(|setting| setting.env == env)?
            .default?;
        // The public platform allows fewer calls than the surface `rest`
        // (docs/platform.md#rate-limits).
        let default = if env == PLATFORM_RATE_LIMIT && self.is_official() {
            "300/min"
        } else {
            default
        };
        Some((default, ValueSource::Default))
    }

    /// Whether a setting has its default.
    pub fn is_default(&self, env: &str) -> bool {
        self.get(env)
            .is_none_or(|(_, origin)| origin == ValueSource::Default)
    }

    /// Returns a value in the form in which it may be shown: secrets are hidden, as are parts of a
    /// URL that may be secret.
    pub fn display_value(&self, setting: &Setting) -> Option<(String, ValueSource)> {
        let (value, origin) = self.get(setting.env)?;
        if setting.secret {
            return Some(("(hidden)".to_owned(), origin));
        }
        Some((url::shown(setting.env, value), origin))
    }

    /// Whether the surface is one of the public platform's.
    fn is_official(&self) -> bool {
        self.value(SURFACE)
            .is_some_and(|name| Surface::NAMES[1..].contains(&name))
    }

    fn value(&self, env: &str) -> Option<&str> {
        self.get(env).map(|(value, _)| value)
    }

    /// Returns the error for an invalid setting, with the source of its value.
    pub fn invalid(&self, env: &str, reason: impl Into<String>, fix: &str) -> ValidationError {
        let field = match self
            .get(env)
            .map_or(ValueSource::Default, |(_, origin)| origin)
        {
            ValueSource::Default | ValueSource::Environment => env.to_owned(),
            ValueSource::File(path) => {
                let key = SETTINGS
                    .iter()
                    .find(|setting| setting.env == env)
                    .map_or(env, |setting| setting.key);
                format!("{env} ({key} in {})", path.display())
            }
            ValueSource::Flag => format!("{env} (flag)"),
        };
        ValidationError::new(field, reason, fix)
    }

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
            ) => Some(EngineConfig {
                credentials,
                call_policy: patience,
                deadline,
                surface,
                messaging: cloud,
                storage: places,
                retention: keep_sessions,
                key_rotation: keys,
                webhooks: crm,
            }),
            _ => None,
        };
        reader.finish(config)
    }
}

fn flatten(prefix: &str, table: &toml::Table, flat: &mut Vec<(String, toml::Value)>) {
    for (name, value) in table {
        let key = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        match value {
            toml::Value::Table(inner) => flatten(&key, inner, flat),
            other => flat.push((key, other.clone())),
        }
    }
}

/// Parses values, and collects the errors.
struct Reader<'a> {
    settings: &'a Settings,
    refused: Vec<ValidationError>,
}

impl<'a> Reader<'a> {
    fn new(settings: &'a Settings) -> Self {
        let mut reader = Self {
            settings,
            refused: Vec::new(),
        };
        for env in &settings.quoted {
            let fix = "remove the quotation marks; only a shell and TOML interpret them";
            reader.refuse(env, "has quotation marks around its value", fix);
        }
        reader
    }

    fn finish<T>(self, value: Option<T>) -> Result<T, Error> {
        match value {
            Some(value) if self.refused.is_empty() => Ok(value),
            _ => Err(Error::Settings(self.refused)),
        }
    }

    fn missing(&mut self, env: &str, fix: &str) {
        self.refused
            .push(ValidationError::new(env, "is missing", fix));
    }

    fn refuse(&mut self, env: &str, reason: impl Into<String>, fix: &str) {
        self.refused.push(self.settings.invalid(env, reason, fix));
    }

    fn parsed<T>(&mut self, env: &str, fix: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let text = self.settings.value(env)?.to_owned();
        let parsed = parse(&text);
        if parsed.is_none() {
            self.refuse(
                env,
                format!(
                    "`{}` is not a valid value",
                    shorten(&url::shown(env, &text))
                ),
                fix,
            );
        }
        parsed
    }

    fn duration(&mut self, env: &str) -> Option<Duration> {
        self.parsed(env, "write it like 500ms, 5s or 2min", parse_duration)
    }

    fn patience(&mut self) -> Option<CallPolicy> {
        let retries = self.parsed(MAX_RETRIES, "give a number from 0 to 20", |text| {
            text.parse().ok().filter(|n| *n <= 20)
        });
        let (min, max) = (
            self.duration(RETRY_INITIAL_BACKOFF),
            self.duration(RETRY_MAX_BACKOFF),
        );
        let call_timeout = self.duration(ATTEMPT_TIMEOUT);
        let quota = self.parsed(PLATFORM_RATE_LIMIT, "write 100/s, 300/min or off", |text| {
            Rate::parse(text).ok()
        });
        let (retries, min, max) = (retries?, min?, max?);
        if min > max {
            self.refuse(
                RETRY_INITIAL_BACKOFF,
                format!("is longer than {RETRY_MAX_BACKOFF}"),
                "set it to at most that value",
            );
            return None;
        }
        Some(CallPolicy {
            retry: RetryPolicy { retries, min, max },
            call_timeout: call_timeout?,
            quota: quota?,
        })
    }

    fn keep_sessions(&mut self) -> Option<Option<Duration>> {
        let keep = self.parsed(
            SESSION_RETENTION,
            "write it like 72h or 30d, or off",
            parse_days,
        )?;
        if keep.is_some_and(|keep| keep < MIN_RETENTION) {
            let reason = "is shorter than 24h, the time for which the platform remembers an \
                idempotency key: forgetting the key earlier here could create a duplicate session";
            self.refuse(
                SESSION_RETENTION,
                reason,
                "write 24h or more, like 72h or 30d, or off",
            );
            return None;
        }
        Some(keep)
    }

    fn key_schedule(&mut self) -> Option<RotationPolicy> {
        let before = self.parsed(
            SIGNING_KEY_PUBLISH_LEAD,
            "write it like 30min, 24h or 2d",
            |text| parse_days(text).flatten().or_else(|| parse_duration(text)),
        );
        let every = self.parsed(
            SIGNING_KEY_ROTATION_INTERVAL,
            "write it like 30d or 720h, or off",
            parse_days,
        );
        match RotationPolicy::new(before?, every?) {
            Ok(schedule) => Some(schedule),
            Err(error @ InvalidRotationPolicy::PublishLeadTooShort) => {
                self.refuse(
                    SIGNING_KEY_PUBLISH_LEAD,
                    error.to_string(),
                    "write at least 1min; use 24h unless verifiers fetch the key set more often",
                );
                None
            }
            Err(error @ InvalidRotationPolicy::RotationTooFrequent) => {
                let fix = format!(
                    "write a longer interval, like 30d, or off; or shorten \
                     {SIGNING_KEY_PUBLISH_LEAD}"
                );
                self.refuse(SIGNING_KEY_ROTATION_INTERVAL, error.to_string(), &fix);
                None
            }
        }
    }

    fn crm(&mut self) -> Option<WebhookConfig> {
        let private = self.parsed(ALLOW_PRIVATE, "write true or false", |text| {
            text.parse().ok()
        })?;
        let networks = if private {
            EgressPolicy::Any
        } else {
            EgressPolicy::Public
        };
        let text = self.settings.value(WEBHOOK_URL)?.to_owned();
        let mut urls = Vec::new();
        for text in text.split_whitespace() {
            match url::checked(text, url::Extent::WithQuery) {
                Ok(url) => urls.push(url),
                Err(url::Fault { reason, fix }) => {
                    self.refuse(
                        WEBHOOK_URL,
                        reason,
                        fix.unwrap_or("write it like https://crm.example.com/hooks/guestlane"),
                    );
                    return None;
                }
            }
        }
        let secret: Option<SecretString> = self
            .settings
            .value(WEBHOOK_SECRET)
            .map(|text| text.to_owned().into());
        if let Some(Err(error)) = secret
            .as_ref()
            .map(|secret| EndpointKeys::given(secret, urls.len()))
        {
            let fix = "unset it to use generated secrets, or write one entry per endpoint, like \
                whsec_NEW,whsec_OLD";
            self.refuse(WEBHOOK_SECRET, error.to_string(), fix);
            return None;
        }
        let trust = self.trust(CRM_CA_FILE)?;
        Some(WebhookConfig {
            urls,
            secret,
            egress_policy: networks,
            tls_roots: trust,
        })
    }

    fn places(&mut self) -> Option<StorageConfig> {
        let (state_dir, origin) = self.settings.get(STATE_DIR)?;
        let state_dir = PathBuf::from(state_dir);
        let database = match self.settings.value(DATABASE_URL).map(str::to_owned) {
            None => Database::Sqlite(state_dir.join("guestlane.db")),
            Some(url) => match url.parse() {
                Ok(database) => database,
                Err(InvalidDatabase { reason, fix }) => {
                    self.refuse(DATABASE_URL, reason, &fix);
                    return None;
                }
            },
        };
        const LOG: &str = "audit/session-audit.jsonl";
        let audit_log = match self.settings.value(AUDIT_LOG) {
            Some(path) => PathBuf::from(path),
            None if origin == ValueSource::Default => PathBuf::from(LOG),
            None => state_dir.join(LOG),
        };
        let master_key = self
            .settings
            .value(MASTER_KEY)
            .map(|text| text.to_owned().into());
        let master_key_previous = self
            .settings
            .value(MASTER_KEY_PREVIOUS)
            .map(|text| text.to_owned().into());
        if master_key.is_none() && master_key_previous.is_some() {
            let fix =
                "set both, or unset it: a master key in a file has its previous key in a file, too";
            self.refuse(
                MASTER_KEY_PREVIOUS,
                format!("is set without {MASTER_KEY}"),
                fix,
            );
        }
        let guest_ids =
            self.parsed(
                AUDIT_GUEST_ID_MODE,
                "write plain or pseudonym",
                |text| match text {
                    "plain" => Some(GuestIdMode::Plain),
                    "pseudonym" => Some(GuestIdMode::Pseudonymous),
                    _ => None,
                },
            )?;
        let rotate_at = self.parsed(
            AUDIT_MAX_FILE_SIZE,
            "write it like 500KiB, 64MiB or 1GiB, or off",
            parse_size,
        )?;
        Some(StorageConfig {
            database,
            home: state_dir.clone(),
            audit: AuditSettings {
                path: audit_log,
                guest_ids,
                rotate_at,
            },
            master_key_file: state_dir.join("master.key"),
            master_key,
            master_key_previous,
            guarantees: BenchOverrides::default(),
            fail_points: FailPoints::default(),
        })
    }
}

/// Far shorter than the time for which the platform remembers an idempotency key.
const LONGEST_DEADLINE: Duration = Duration::from_secs(1800);

/// Parses a size such as `500KiB`, `64MiB` or `1GiB`; `off` yields `Some(None)`.
fn parse_size(text: &str) -> Option<Option<u64>> {
    if text == "off" {
        return Some(None);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok().filter(|number| *number > 0)?;
    let unit: u64 = match &text[digits..] {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    unit.checked_mul(number).map(Some)
}

/// Parses a span such as `72h` or `30d`; `off` yields `Some(None)`.
fn parse_days(text: &str) -> Option<Option<Duration>> {
    if text == "off" {
        Some(None)
    } else {
        parse_span(text).map(Some)
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

/// Parses a duration such as `500ms`, `5s` or `2min`. Zero is rejected.
fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u32 = text[..digits].parse().ok()?;
    let unit = match &text[digits..] {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "min" | "m" => Duration::from_secs(60),
        _ => return None,
    };
    unit.checked_mul(number)
        .filter(|duration| !duration.is_zero())
}

#[cfg(test)]
mod tests;
