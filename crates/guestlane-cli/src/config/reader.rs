//! Reads settings, and collects all that are missing or invalid.

use std::{path::PathBuf, time::Duration};

use guestlane::{EngineConfig, Error, StorageConfig, WebhookConfig, outbox::EndpointKeys};
use guestlane_core::{
    request::{ValidationError, shorten},
    token::{InvalidRotationPolicy, RotationPolicy},
};
use guestlane_genesys::{CallPolicy, Rate, RetryPolicy};
use guestlane_runtime::ssrf::EgressPolicy;
use guestlane_store::{AuditSettings, Database, GuestIdMode, InvalidDatabase};
use secrecy::SecretString;

use super::{
    ALLOW_PRIVATE, ATTEMPT_TIMEOUT, AUDIT_GUEST_ID_MODE, AUDIT_LOG, AUDIT_MAX_FILE_SIZE,
    CRM_CA_FILE, DATABASE_URL, MASTER_KEY, MASTER_KEY_PREVIOUS, MAX_RETRIES, PLATFORM_RATE_LIMIT,
    RETRY_INITIAL_BACKOFF, RETRY_MAX_BACKOFF, SESSION_RETENTION, SIGNING_KEY_PUBLISH_LEAD,
    SIGNING_KEY_ROTATION_INTERVAL, STATE_DIR, Settings, ValueSource, WEBHOOK_SECRET, WEBHOOK_URL,
    parse_span, url,
};

/// Parses values, and collects the errors.
pub(super) struct Reader<'a> {
    pub(super) settings: &'a Settings,
    pub(super) refused: Vec<ValidationError>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(settings: &'a Settings) -> Self {
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

    pub(super) fn finish<T>(self, value: Option<T>) -> Result<T, Error> {
        match value {
            Some(value) if self.refused.is_empty() => Ok(value),
            _ => Err(Error::Settings(self.refused)),
        }
    }

    pub(super) fn missing(&mut self, env: &str, fix: &str) {
        self.refused
            .push(ValidationError::new(env, "is missing", fix));
    }

    pub(super) fn refuse(&mut self, env: &str, reason: impl Into<String>, fix: &str) {
        self.refused.push(self.settings.invalid(env, reason, fix));
    }

    pub(super) fn parsed<T>(
        &mut self,
        env: &str,
        fix: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
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

    pub(super) fn patience(&mut self) -> Option<CallPolicy> {
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

    pub(super) fn keep_sessions(&mut self) -> Option<Option<Duration>> {
        let keep = self.parsed(
            SESSION_RETENTION,
            "write it like 72h or 30d, or off",
            parse_days,
        )?;
        if keep.is_some_and(|keep| keep < EngineConfig::MIN_RETENTION) {
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

    pub(super) fn key_schedule(&mut self) -> Option<RotationPolicy> {
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

    pub(super) fn crm(&mut self) -> Option<WebhookConfig> {
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
        let mut config = WebhookConfig::new(urls)
            .egress_policy(networks)
            .tls_roots(trust);
        config.secret = secret;
        Some(config)
    }

    pub(super) fn places(&mut self) -> Option<StorageConfig> {
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
        let mut config = StorageConfig::new(database, &state_dir);
        config.audit = AuditSettings {
            path: audit_log,
            guest_ids,
            rotate_at,
        };
        config.master_key = master_key;
        config.master_key_previous = master_key_previous;
        Some(config)
    }
}

/// Far shorter than the time for which the platform remembers an idempotency key.
pub(super) const LONGEST_DEADLINE: Duration = Duration::from_secs(1800);

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

/// Parses a duration such as `500ms`, `5s` or `2min`. Zero is rejected.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
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
