//! Checks of the web deployment: its configuration and its allowed origins.

use guestlane_genesys::{ApiPath, CallError};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    super::{CheckStatus, Finding},
    Probe, RETRY_LATER, is_failing, of_error, refused,
};

fn of_configuration(deployment: Uuid, body: &Value) -> Finding {
    let check = "deployment";
    let fix = "activate it, with Messenger and conversations enabled, in Admin > Message > \
        Messenger Deployments";
    let status = body["status"].as_str().unwrap_or("Active");
    if status != "Active" {
        return Finding::bad(
            check,
            format!(
                "{deployment} is {}",
                guestlane_core::request::shorten(status)
            ),
        )
        .fix(fix);
    }
    if body["messenger"]["enabled"] == json!(false) {
        return Finding::bad(check, format!("Messenger is not enabled in {deployment}")).fix(fix);
    }
    if body["auth"]["enabled"] == json!(true) && body["auth"]["allowSessionUpgrade"] != json!(true)
    {
        return Finding::warning(
            check,
            format!(
                "{deployment} is active and requires guests to \
            sign in"
            ),
        )
        .because("guestlane starts sessions without a sign-in; this deployment may reject them")
        .fix("create one session as a test, or use a deployment without authentication");
    }
    Finding::good(check, format!("{deployment} is active"))
}

const ORIGINS: &str = "allowed origins";

fn of_domains(origin: &str, body: &Value) -> Finding {
    let check = ORIGINS;
    if body["allowAllDomains"] == json!(true) {
        return Finding::good(check, "all");
    }
    let host = url::Url::parse(origin)
        .ok()
        .and_then(|url| url.host_str().map(str::to_owned))
        .unwrap_or_default();
    let allowed: Vec<_> = body["allowedDomains"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let bare = |domain: &str| {
        domain
            .rsplit("://")
            .next()
            .unwrap_or_default()
            .trim_end_matches('/')
            .to_ascii_lowercase()
    };
    let allowed_hosts: Vec<_> = allowed.iter().map(|domain| bare(domain)).collect();
    let fits = |domain: &String| host == *domain || host.ends_with(&format!(".{domain}"));
    if allowed_hosts.iter().any(fits) {
        return Finding::good(check, format!("{origin} is among them"));
    }
    let shown = allowed
        .iter()
        .take(10)
        .map(|domain| guestlane_core::request::shorten(domain))
        .collect::<Vec<_>>()
        .join(", ");
    Finding::bad(check, format!("{origin} is not among them: {shown}"))
        .because("the guest WebSocket refuses other origins with 403")
        .fix("set GENESYS_ORIGIN to one of them, like https://www.example.com, or allow its domain in Admin > Message > Messenger Deployments")
}

impl Probe<'_> {
    /// Checks the configuration of the deployment, its allowed origins, and whether its WebSocket
    /// opens. No session is started.
    pub(super) async fn deployment(&self, deployment: Uuid) -> Vec<Finding> {
        let cdn = &self.config.credentials.hosts.cdn;
        let path = |file: &str| {
            ApiPath::new("/webdeployments/v1/deployments")
                .segment(deployment)
                .segment(file)
        };
        let mut findings = Vec::new();
        match self
            .platform
            .probe_unauthenticated(cdn, &path("config.json"), &self.context())
            .await
        {
            Ok(seen) if seen.status.is_success() => {
                findings.push(of_configuration(deployment, &seen.body))
            }
            Ok(seen) if is_failing(&seen) => {
                findings.push(
                    Finding {
                        outcome: CheckStatus::Warning,
                        ..refused("deployment", &seen)
                    }
                    .fix(RETRY_LATER),
                );
            }
            Ok(seen) => {
                let fix = "copy the ID from Admin > Message > Messenger Deployments into \
                    GENESYS_DEPLOYMENT_ID, and check the region";
                findings.push(
                    refused("deployment", &seen)
                        .because("the deployment does not exist in this region")
                        .fix(fix),
                );
                return findings;
            }
            // Sessions do not need this file; only the configuration stays unknown.
            Err(error) => {
                findings.push(
                    Finding {
                        outcome: CheckStatus::Warning,
                        ..of_error("deployment", &error)
                    }
                    .fix("check GENESYS_CDN_URL and the firewall"),
                );
            }
        }
        let origin = self.config.messaging.origin.to_str().unwrap_or_default();
        match self
            .platform
            .probe_unauthenticated(cdn, &path("domains.json"), &self.context())
            .await
        {
            Ok(seen) if seen.status.is_success() => findings.push(of_domains(origin, &seen.body)),
            Ok(seen) => findings.push(Finding {
                outcome: CheckStatus::Warning,
                ..refused(ORIGINS, &seen)
            }),
            Err(error) => findings.push(Finding {
                outcome: CheckStatus::Warning,
                ..of_error(ORIGINS, &error)
            }),
        }
        let knocked = self
            .platform
            .probe_guest_socket(deployment, &self.config.messaging.origin, &self.context())
            .await;
        let knocked = match knocked {
            Ok(()) => {
                // The WebSocket accepted the origin, which is decisive: downgrade the failed check
                // to a warning.
                let doubts =
                    findings.iter_mut().filter(|finding| finding.check == ORIGINS && finding.outcome == CheckStatus::Failed);
                doubts.for_each(|finding| finding.outcome = CheckStatus::Warning);
                Finding::good("guest WebSocket", "opens; no session was started")
            }
            Err(CallError { cause, .. }) if cause.refusal().is_none() => of_error("guest WebSocket", &cause).fix(RETRY_LATER),
            Err(CallError { cause, .. }) => of_error("guest WebSocket", &cause)
                .fix(format!("allow the domain of {origin} in Admin > Message > Messenger Deployments, or set GENESYS_ORIGIN")),
        };
        findings.push(knocked);
        findings
    }
}
