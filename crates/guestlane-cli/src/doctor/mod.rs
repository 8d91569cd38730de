//! Diagnosis before the first session: settings, platform, webhooks and the local machine. Nothing
//! is created, neither on the platform nor locally.

mod crm;
mod machine;
mod platform;
mod service;

use guestlane_runtime::Clock;
use serde::Serialize;

use crate::config::{Settings, UnknownVariable};
use guestlane::Error;
use guestlane_core::request::ValidationError;

/// Result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum CheckStatus {
    /// The checked part works.
    Ok,
    /// The checked part works, but may fail later.
    Warning,
    /// Sessions will fail.
    Failed,
    /// The check was not possible, because of another check.
    Skipped,
}

/// One check with its result, its cause and its fix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Stable name of the check.
    pub check: String,
    /// Status of the check.
    pub outcome: CheckStatus,
    /// What was found.
    pub result: String,
    /// Cause of the result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The next command, or what to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// Correlation ID, to quote to the platform's support.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
}

impl Finding {
    fn new(check: impl Into<String>, outcome: CheckStatus, result: impl Into<String>) -> Self {
        Self {
            check: check.into(),
            outcome,
            result: result.into(),
            cause: None,
            fix: None,
            correlation_id: None,
        }
    }

    fn good(check: impl Into<String>, result: impl Into<String>) -> Self {
        Self::new(check, CheckStatus::Ok, result)
    }

    fn bad(check: impl Into<String>, result: impl Into<String>) -> Self {
        Self::new(check, CheckStatus::Failed, result)
    }

    fn warning(check: impl Into<String>, result: impl Into<String>) -> Self {
        Self::new(check, CheckStatus::Warning, result)
    }

    fn skipped(check: impl Into<String>, because: &str) -> Self {
        Self::new(
            check,
            CheckStatus::Skipped,
            format!("not checked: {because}"),
        )
    }

    fn because(self, cause: impl Into<String>) -> Self {
        Self {
            cause: Some(cause.into()),
            ..self
        }
    }

    fn fix(self, fix: impl Into<String>) -> Self {
        Self {
            fix: Some(fix.into()),
            ..self
        }
    }

    fn correlated(self, id: Option<&str>) -> Self {
        Self {
            correlation_id: id.map(str::to_owned),
            ..self
        }
    }
}

/// Runs all checks, and continues after failures. `proxies` are the environment variables that name
/// a proxy.
pub async fn run_checks(settings: &Settings, proxies: &[&str], clock: &Clock) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut api = None;
    findings.extend(settings.unknown_variables().iter().map(of_unknown));
    match settings.engine(false) {
        Ok(config) => {
            api = Some(config.credentials.hosts.api.to_string());
            findings.push(Finding::good(
                "settings",
                format!("complete, for the surface {}", config.surface),
            ));
            let queue = settings.default_queue().ok().flatten();
            findings.extend(platform::examine(&config, queue, clock).await);
        }
        Err(Error::Settings(refused)) => {
            findings.extend(refused.into_iter().map(of_setting));
            findings.push(Finding::skipped("platform", "its settings are incomplete"));
        }
        Err(error) => findings.push(Finding::bad("settings", error.to_string())),
    }
    findings.extend(proxies.iter().map(|name| service::unused_proxy(name)));
    findings.extend(crm::examine(settings, clock).await);
    findings.extend(service::examine(settings, clock).await);
    findings.extend(machine::examine(settings, api.as_deref(), clock).await);
    findings
}

fn of_unknown(unknown: &UnknownVariable) -> Finding {
    let fix = match unknown.nearest {
        Some(nearest) => format!("rename it to {nearest} if that was intended, or remove it"),
        None => "remove it; `guestlane config show` lists all settings".to_owned(),
    };
    Finding::warning(
        "settings",
        format!(
            "the environment variable {} is not a setting and has no effect",
            unknown.name
        ),
    )
    .fix(fix)
}

fn of_setting(invalid: ValidationError) -> Finding {
    Finding::bad("settings", format!("{} {}", invalid.field, invalid.reason)).fix(invalid.fix)
}
