//! Checks of the platform: hosts, clock, credentials, permissions, queue, deployment, integration
//! and rate limit. No call changes anything.

mod deployment;
mod permissions;
mod rate_limit;

use std::{collections::BTreeSet, time::Duration};

use guestlane::EngineConfig;
use guestlane_core::{
    request::{QueueId, shorten},
    surface::Surface,
};
use guestlane_genesys::{
    ApiPath, AttemptError, BaseUrl, CallContext, CorrelationId, Credentials, GenesysClient,
    Operation, ProbeResponse,
};
use guestlane_runtime::{Clock, FailPoints, text::display_chain};
use http::StatusCode;
use permissions::{NONEXISTENT_ID, grant};
use serde_json::json;
use uuid::Uuid;

use super::{CheckStatus, Finding};

/// Time limit of one probe.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Clock skew in seconds above which a warning is given, and above which the check fails. Guest
/// tokens live for five minutes, and webhook signatures are valid for as long.
const SKEW: (i64, i64) = (30, 240);

/// Fix for a failure of the platform, which does not depend on settings.
const RETRY_LATER: &str = "the platform is failing or rate limiting: run `guestlane doctor` again in a \
    minute; also check firewall and TLS";

/// Prefix of the names of host checks.
const HOST: &str = "host";

struct Probe<'a> {
    config: &'a EngineConfig,
    platform: GenesysClient,
    clock: &'a Clock,
}

pub(super) async fn examine(
    config: &EngineConfig,
    queue: Option<QueueId>,
    clock: &Clock,
) -> Vec<Finding> {
    let platform = match GenesysClient::new(
        &config.credentials,
        config.call_policy,
        clock.clone(),
        FailPoints::default(),
    ) {
        Ok(platform) => platform,
        Err(error) => {
            return vec![
                Finding::bad("tls", display_chain(&error))
                    .fix("install the operating system's package `ca-certificates`"),
            ];
        }
    };
    let look = Probe {
        config,
        platform,
        clock,
    };
    let mut findings = look.hosts().await;
    if findings
        .iter()
        .any(|finding| finding.outcome == CheckStatus::Failed && finding.check.starts_with(HOST))
    {
        findings.push(Finding::skipped(
            "credentials and later checks",
            "a host is unreachable",
        ));
        return findings;
    }
    if let Surface::WebMessaging { deployment } = config.surface {
        findings.extend(look.deployment(deployment).await);
    }
    let several = config.credentials.clients.len() > 1;
    for client in &config.credentials.clients {
        let credentials = Credentials {
            clients: vec![client.clone()],
            ..config.credentials.clone()
        };
        let Ok(platform) = GenesysClient::new(
            &credentials,
            config.call_policy,
            clock.clone(),
            FailPoints::default(),
        ) else {
            continue;
        };
        let as_client = as_client(
            &Probe {
                config,
                platform,
                clock,
            },
            queue,
        )
        .await;
        findings.extend(as_client.into_iter().map(|finding| match several {
            true => Finding {
                check: format!("{} of {}", finding.check, shorten(&client.id)),
                ..finding
            },
            false => finding,
        }));
    }
    findings
}

/// Checks what one OAuth client may do.
async fn as_client(look: &Probe<'_>, queue: Option<QueueId>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (_, signed_in) in look.platform.check_credentials(&look.context()).await {
        match signed_in {
            Ok(()) => findings.push(Finding::good(
                "credentials",
                "the OAuth client gets an access \
                token",
            )),
            Err(error) => {
                let fix = "copy GENESYS_CLIENT_ID and GENESYS_CLIENT_SECRET from Admin > Integrations > OAuth (grant type: client credentials), and check the region";
                findings.push(
                    of_error("credentials", &error).fix(if error.refusal().is_some() {
                        fix
                    } else {
                        RETRY_LATER
                    }),
                );
                findings.push(Finding::skipped(
                    "permissions, queue and rate limit",
                    "no access token",
                ));
                return findings;
            }
        }
    }
    let config = look.config;
    findings.push(look.queue(queue).await);
    if config.surface.is_public_api() {
        findings.extend(look.permissions().await);
        findings.extend(look.external_source().await);
    } else {
        let result = "not checked: the surface rest has no read-only call; it needs \
            externalcontacts:create and conversations:messaging";
        findings.push(Finding::new("permissions", CheckStatus::Skipped, result));
    }
    if let Surface::OpenMessaging { integration } = config.surface {
        findings.push(look.integration(integration).await);
    }
    findings.push(look.quota().await);
    findings
}

impl Probe<'_> {
    fn context(&self) -> CallContext {
        CallContext::until(self.clock.now() + TIMEOUT)
    }

    /// Checks DNS, TLS and a response of each host, with any status, and compares the clocks.
    async fn hosts(&self) -> Vec<Finding> {
        let hosts = &self.config.credentials.hosts;
        let mut wanted = vec![("login", &hosts.login), ("api", &hosts.api)];
        if matches!(self.config.surface, Surface::WebMessaging { .. }) {
            wanted.push(("webmessaging", &hosts.webmessaging));
        }
        let mut seen = BTreeSet::new();
        let mut findings = Vec::new();
        for (name, host) in wanted
            .into_iter()
            .filter(|(_, host)| seen.insert(host.as_str()))
        {
            findings.extend(self.host(name, host).await);
        }
        findings
    }

    async fn host(&self, name: &str, host: &BaseUrl) -> Vec<Finding> {
        let check = format!("{HOST} {name}");
        match self
            .platform
            .probe_unauthenticated(host, &ApiPath::new("/"), &self.context())
            .await
        {
            Ok(seen) => {
                let mut findings = vec![Finding::good(
                    check,
                    format!("{host} responds (HTTP {})", seen.status.as_u16()),
                )];
                if name == "api" || name == "login" {
                    findings.extend(self.skew(name, &seen));
                }
                findings
            }
            Err(error) => {
                let fix = "check GENESYS_REGION (or GENESYS_ORG_DOMAIN, GENESYS_BASE_URL), DNS, \
                    firewall and proxy; for a private certificate authority set GENESYS_CA_FILE";
                vec![
                    Finding::bad(check, format!("{host} is unreachable"))
                        .because(error.redacted())
                        .fix(fix),
                ]
            }
        }
    }

    fn skew(&self, name: &str, seen: &ProbeResponse) -> Option<Finding> {
        let date = httpdate::parse_http_date(seen.headers.get("date")?).ok()?;
        let there =
            i64::try_from(date.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs()).ok()?;
        let skew = self.clock.now().unix_seconds() - there;
        let check = format!("clock against {name}");
        Some(if skew.abs() <= SKEW.0 {
            Finding::good(check, format!("{} s apart", skew.abs()))
        } else {
            let way = if skew > 0 { "ahead of" } else { "behind" };
            let outcome = if skew.abs() <= SKEW.1 {
                CheckStatus::Warning
            } else {
                CheckStatus::Failed
            };
            Finding::new(
                check,
                outcome,
                format!("this machine is {} s {way} the platform", skew.abs()),
            )
            .because("guest tokens and webhook signatures are valid for five minutes")
            .fix("correct this machine's clock: `timedatectl set-ntp true`")
        })
    }

    async fn queue(&self, queue: Option<QueueId>) -> Finding {
        let check = "queue";
        let id = queue.map_or(NONEXISTENT_ID, |queue| queue.0);
        match self
            .platform
            .probe_get(
                ApiPath::new("/api/v2/routing/queues").segment(id),
                &self.context(),
            )
            .await
        {
            Ok(seen) if seen.status.is_success() => {
                let name = seen.body["name"].as_str().unwrap_or_default();
                Finding::good(
                    check,
                    format!("{id} exists: {}", guestlane_core::request::shorten(name)),
                )
            }
            Ok(seen) if queue.is_none() && seen.status == StatusCode::NOT_FOUND => {
                Finding::good(check, "queues can be read; no default queue is set")
                    .fix("set GENESYS_QUEUE_ID, or name a queue in each session request")
            }
            Ok(seen) if seen.status == StatusCode::NOT_FOUND => refused(check, &seen)
                .because(
                    "the queue does not exist, or the OAuth client has no access to its \
                    division",
                )
                .fix("copy the ID from Admin > Contact Center > Queues into GENESYS_QUEUE_ID"),
            Ok(seen) if seen.status == StatusCode::FORBIDDEN => {
                refused(check, &seen).fix(grant(Operation::Queue))
            }
            Ok(seen) => refused(check, &seen),
            Err(error) => of_error(check, &error),
        }
    }

    async fn external_source(&self) -> Option<Finding> {
        let check = "external source";
        let Some(id) = self.config.messaging.external_source else {
            let finding = Finding::warning(check, "none is set")
                .because(
                    "the contact of a guest without e-mail address and telephone number \
                    cannot be found again",
                )
                .fix(
                    "create a source in Admin > External Contacts > External Sources, and set \
                     GENESYS_EXTERNAL_SOURCE_ID to its ID",
                );
            return Some(finding);
        };
        let path = ApiPath::new("/api/v2/externalcontacts/externalsources").segment(id);
        Some(match self.platform.probe_get(path, &self.context()).await {
            Ok(seen) if seen.status.is_success() && seen.body["active"] == json!(false) => {
                Finding::bad(check, format!("{id} is not active"))
                    .fix("activate it in Admin > External Contacts > External Sources")
            }
            Ok(seen) if seen.status.is_success() => Finding::good(check, format!("{id} exists")),
            Ok(seen) if seen.status == StatusCode::FORBIDDEN => Finding::new(
                check,
                CheckStatus::Skipped,
                format!("unknown: {}", response_excerpt(&seen)),
            )
            .because(
                "reading it needs externalContacts:externalSource:view, which \
                        creating sessions does not need",
            ),
            Ok(seen) => refused(check, &seen).fix(
                "copy the ID from Admin > External Contacts > External Sources into \
                    GENESYS_EXTERNAL_SOURCE_ID",
            ),
            Err(error) => of_error(check, &error),
        })
    }

    async fn integration(&self, integration: Uuid) -> Finding {
        let check = "integration";
        let path =
            ApiPath::new("/api/v2/conversations/messaging/integrations/open").segment(integration);
        match self.platform.probe_get(path, &self.context()).await {
            Ok(seen) if seen.status.is_success() => {
                let status = seen.body["status"].as_str().unwrap_or("Active");
                let created = seen.body["createStatus"].as_str().unwrap_or("Completed");
                if created != "Completed" {
                    let result = format!(
                        "the creation of {integration} is {}",
                        guestlane_core::request::shorten(created)
                    );
                    Finding::bad(check, result).fix("open it in Admin > Message > Platforms")
                } else if status == "Active" {
                    Finding::good(check, format!("{integration} is active"))
                } else {
                    let result = format!(
                        "{integration} is {}",
                        guestlane_core::request::shorten(status)
                    );
                    Finding::bad(check, result).fix("activate it in Admin > Message > Platforms")
                }
            }
            Ok(seen) if seen.status == StatusCode::FORBIDDEN => Finding::new(
                check,
                CheckStatus::Skipped,
                format!("unknown: {}", response_excerpt(&seen)),
            )
            .because(
                "reading it needs messaging:integration:view, which creating sessions does not \
                 need",
            ),
            Ok(seen) => refused(check, &seen)
                .fix("copy the ID from Admin > Message > Platforms into GENESYS_INTEGRATION_ID"),
            Err(error) => of_error(check, &error),
        }
    }
}

/// Whether the response shows a failing or throttling platform, and so says nothing about the
/// checked object.
fn is_failing(seen: &ProbeResponse) -> bool {
    seen.status.is_server_error() || seen.status == StatusCode::TOO_MANY_REQUESTS
}

fn response_excerpt(seen: &ProbeResponse) -> String {
    let code = if seen.code.is_empty() {
        String::new()
    } else {
        format!(" {}", seen.code)
    };
    let message = if seen.message.is_empty() {
        String::new()
    } else {
        format!(": {}", seen.message.for_caller())
    };
    format!("HTTP {}{code}{message}", seen.status.as_u16())
}

fn refused(check: &str, seen: &ProbeResponse) -> Finding {
    Finding::bad(check, response_excerpt(seen)).correlated(seen.correlation_id.as_deref())
}

fn of_error(check: &str, error: &AttemptError) -> Finding {
    Finding::bad(check, error.for_caller())
        .correlated(error.correlation_id().map(CorrelationId::as_str))
}
