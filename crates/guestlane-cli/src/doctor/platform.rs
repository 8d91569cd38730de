//! Checks of the platform: hosts, clock, credentials, permissions, queue, deployment, integration
//! and rate limit. No call changes anything.

use std::{collections::BTreeSet, time::Duration};

use guestlane_genesys::{
    ApiPath, AttemptError, BaseUrl, CallContext, CallError, CorrelationId, Credentials,
    GenesysClient, Operation, ProbeResponse,
};
use guestlane_runtime::{Clock, FailPoints};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{CheckStatus, Finding};
use guestlane::{EngineConfig, messaging::MessagingConfig};
use guestlane_core::{
    request::{QueueId, shorten},
    surface::Surface,
};
use guestlane_runtime::text::display_chain;

/// Time limit of one probe.
const PATIENCE: Duration = Duration::from_secs(15);

/// Clock skew in seconds above which a warning is given, and above which the check fails. Guest
/// tokens live for five minutes, and webhook signatures are valid for as long.
const SKEW: (i64, i64) = (30, 240);

/// Fix for a failure of the platform, which does not depend on settings.
const AGAIN: &str = "the platform is failing or rate limiting: run `guestlane doctor` again in a \
    minute; also check firewall and TLS";

/// Statuses with which the platform answers a permitted call on an object that does not exist.
const PERMISSION_GRANTED_STATUSES: [StatusCode; 3] = [
    StatusCode::NOT_FOUND,
    StatusCode::CONFLICT,
    StatusCode::UNPROCESSABLE_ENTITY,
];

/// An ID that no object has.
const NONEXISTENT_ID: Uuid = Uuid::from_u128(0x00d0_c70f_0000_4000_8000_0000_0000_0000);

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
                        AGAIN
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
        CallContext::until(self.clock.now() + PATIENCE)
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

    /// Probes each permission with a call that has nothing to act on. A response of 404, 409 or 422
    /// shows that the client has the permission, 403 that it does not. A 400 decides nothing,
    /// because the request was validated first.
    async fn permissions(&self) -> Vec<Finding> {
        let cloud = &self.config.messaging;
        let mut wanted = vec![Operation::EnrichContact, Operation::FindContact];
        if cloud.external_source.is_none() {
            wanted.push(Operation::CreateContact);
        }
        if matches!(self.config.surface, Surface::OpenMessaging { .. }) {
            wanted.push(Operation::OpenMessage);
        }
        wanted.push(Operation::Details);
        if cloud.link_contact || cloud.move_to_queue {
            wanted.push(Operation::Conversation);
        }
        if cloud.link_contact {
            wanted.push(Operation::LinkContact);
        }
        if cloud.move_to_queue {
            wanted.push(Operation::MoveToQueue);
        }
        let mut findings = Vec::new();
        for operation in wanted {
            findings.push(self.permission(operation).await);
        }
        findings
    }

    async fn permission(&self, operation: Operation) -> Finding {
        let check = format!("permission to {operation}");
        let names = operation.permissions().join(" or ");
        let Some((method, path, body)) = harmless(operation, &self.config.messaging) else {
            let result = format!("{names}: no call can check it without creating an object");
            return Finding::new(check, CheckStatus::Skipped, result);
        };
        let seen = match method {
            Method::GET => self.platform.probe_get(path, &self.context()).await,
            method => {
                self.platform
                    .probe(method, path, &body, &self.context())
                    .await
            }
        };
        match seen {
            // The contact lookup is called only after an upsert ended in a conflict, so a missing
            // permission is a warning.
            Ok(seen)
                if seen.status == StatusCode::FORBIDDEN && operation == Operation::FindContact =>
            {
                Finding {
                    outcome: CheckStatus::Warning,
                    ..refused(&check, &seen)
                }
                .fix(grant(operation))
            }
            Ok(seen) if is_failing(&seen) => Finding::new(
                check,
                CheckStatus::Skipped,
                format!("unknown: {}", response_excerpt(&seen)),
            )
            .fix("run `guestlane doctor` again in a minute")
            .correlated(seen.correlation_id.as_deref()),
            Ok(seen) if seen.status == StatusCode::FORBIDDEN => {
                refused(&check, &seen).fix(grant(operation))
            }
            Ok(seen)
                if seen.status.is_success()
                    || PERMISSION_GRANTED_STATUSES.contains(&seen.status) =>
            {
                Finding::good(check, names)
            }
            Ok(seen) if seen.status == StatusCode::BAD_REQUEST => Finding::new(
                check,
                CheckStatus::Skipped,
                format!(
                    "{names}: unknown, because the request failed with {}",
                    response_excerpt(&seen)
                ),
            ),
            Ok(seen) => refused(&check, &seen),
            Err(error) => of_error(&check, &error),
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

    /// Checks the configuration of the deployment, its allowed origins, and whether its WebSocket
    /// opens. No session is started.
    async fn deployment(&self, deployment: Uuid) -> Vec<Finding> {
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
                    .fix(AGAIN),
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
            Err(CallError { cause, .. }) if cause.refusal().is_none() => of_error("guest WebSocket", &cause).fix(AGAIN),
            Err(CallError { cause, .. }) => of_error("guest WebSocket", &cause)
                .fix(format!("allow the domain of {origin} in Admin > Message > Messenger Deployments, or set GENESYS_ORIGIN")),
        };
        findings.push(knocked);
        findings
    }

    async fn quota(&self) -> Finding {
        let check = "rate limit";
        let seen = match self
            .platform
            .probe_get(ApiPath::new("/api/v2/tokens/me"), &self.context())
            .await
        {
            Ok(seen) => seen,
            Err(error) => return of_error(check, &error),
        };
        let number = |name: &str| {
            seen.headers
                .get(name)
                .and_then(|text| text.parse::<u64>().ok())
        };
        let pace = self
            .config
            .call_policy
            .quota
            .map_or("off".to_owned(), |rate| rate.to_string());
        // No header has the length of a window, only the time to its end. The window is at least
        // that long.
        let left = number("inin-ratelimit-reset").unwrap_or(0);
        let rate = self.config.call_policy.quota.map(|rate| rate.per_second());
        let too_fast =
            |allowed: u64| rate.is_none_or(|rate| rate * left as f64 > allowed as f64 + 0.5);
        match (
            number("inin-ratelimit-count"),
            number("inin-ratelimit-allowed"),
        ) {
            (Some(count), Some(allowed)) if allowed > 0 && count * 10 >= allowed * 9 => {
                Finding::warning(
                    check,
                    format!("{count} of {allowed} calls of the current rate-limit window are used"),
                )
                .because(
                    "another program uses the same OAuth client, or guestlane used it a \
                    moment ago",
                )
                .fix("give guestlane an OAuth client of its own")
            }
            (_, Some(allowed)) if allowed > 0 && too_fast(allowed) => {
                let result = format!(
                    "guestlane's rate limit is {pace}, but the platform allows {allowed} calls in \
                     a window of at least {left} s"
                );
                Finding::warning(check, result)
                    .because(
                        "the platform answers further calls with \
                    429, and they are delayed",
                    )
                    .fix(
                        "set GUESTLANE_PLATFORM_RATE_LIMIT to the organization's rate limit; \
                     docs/rate-limit.md has the public platform's",
                    )
            }
            (Some(count), Some(allowed)) => {
                let window = "the platform does not report the length of the window";
                let result = format!(
                    "{count} of {allowed} calls of the current rate-limit window are used; \
                     guestlane's rate limit is {pace}; {window}"
                );
                Finding::good(check, result)
            }
            _ => Finding::good(
                check,
                format!("the platform does not report it; guestlane's rate limit is {pace}"),
            ),
        }
    }
}

/// Returns a call that needs the permission of the operation and has nothing to act on.
fn harmless(operation: Operation, cloud: &MessagingConfig) -> Option<(Method, ApiPath, Value)> {
    const NOWHERE: &str = "guestlane-doctor@guestlane.invalid";
    let nobody = NONEXISTENT_ID.to_string();
    let identifier = json!({"type": "Email", "value": NOWHERE});
    Some(match operation {
        Operation::EnrichContact => {
            let identifiers = match cloud.external_source {
                Some(id) => {
                    json!([{"type": "ExternalId", "value": "guestlane-doctor", "externalSource": {"id": id}}])
                }
                None => json!([identifier]),
            };
            let body =
                json!({"matchingIdentifiers": identifiers, "action": "Upsert", "contact": {}});
            (
                Method::POST,
                ApiPath::new("/api/v2/externalcontacts/contacts/enrich?dryRun=true"),
                body,
            )
        }
        Operation::FindContact => (
            Method::POST,
            ApiPath::new("/api/v2/externalcontacts/identifierlookup/contacts"),
            identifier,
        ),
        Operation::OpenMessage => {
            let path = ApiPath::new("/api/v2/conversations/messages")
                .segment(&nobody)
                .then("/inbound/open/message?prefetchConversationId=true");
            let from = json!({"id": nobody, "idType": "Opaque"});
            let channel =
                json!({"from": from, "time": "2026-01-01T00:00:00.000Z", "messageId": nobody});
            (
                Method::POST,
                path,
                json!({"channel": channel, "text": "guestlane doctor"}),
            )
        }
        Operation::Details => {
            let message = NONEXISTENT_ID.simple();
            (
                Method::GET,
                ApiPath::new("/api/v2/conversations/messages")
                    .segment(message)
                    .then("/details"),
                Value::Null,
            )
        }
        Operation::Conversation => (
            Method::GET,
            ApiPath::new("/api/v2/conversations").segment(&nobody),
            Value::Null,
        ),
        Operation::LinkContact => {
            let body = json!({
                "externalContactId": nobody, "conversationId": nobody, "communicationId": nobody, "mediaType": "MESSAGE",
            });
            (
                Method::PUT,
                ApiPath::new("/api/v2/externalcontacts/conversations").segment(&nobody),
                body,
            )
        }
        Operation::MoveToQueue => {
            let path = ApiPath::new("/api/v2/conversations")
                .segment(&nobody)
                .then("/participants")
                .segment(&nobody)
                .then("/replace/queue");
            (Method::POST, path, json!({"queueId": nobody}))
        }
        // No call can check the permission to create a contact without creating one.
        Operation::CreateContact
        | Operation::Token
        | Operation::Queue
        | Operation::Contact
        | Operation::OpenConversation
        | Operation::FirstMessage
        | Operation::Probe => return None,
    })
}

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

fn grant(operation: Operation) -> String {
    format!(
        "add {} to a role of the OAuth client, in the division concerned (Admin > Integrations > \
         OAuth > Roles)",
        operation.permissions().join(" or ")
    )
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
