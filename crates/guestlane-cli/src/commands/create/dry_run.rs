//! `guestlane create --dry-run`: prints the calls that would be made. Secrets, and values that only
//! the platform can assign, are replaced by their names.

use guestlane::{EngineConfig, messaging, messaging::MessagingConfig};
use guestlane_core::{
    request::{Attributes, SessionRequest},
    surface::Surface,
    token::{GuestToken, SealedSigningKey},
};
use guestlane_genesys::{
    CallContext, GenesysClient, NewConversation, RegisterContactRequest, UpsertContactRequest,
    UpsertPreview,
    guest::{
        event::attribute_bytes,
        frame::{Action, ClientFrame, Configure, SessionToken},
    },
};
use guestlane_runtime::{Clock, FailPoints};
use serde::Serialize;
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};

use crate::output;

/// One call to the platform.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Call {
    method: &'static str,
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    // The body byte for byte, as it would be sent.
    body: Option<Box<RawValue>>,
    /// When the call is skipped, or whether it counts against the rate limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
    #[serde(skip)]
    costs: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DryRun<'a> {
    dry_run: bool,
    surface: &'static str,
    attribute_bytes: usize,
    attribute_bytes_allowed: usize,
    /// Calls of one session without retries. The access token and the queue lookup are shared by
    /// many sessions, and not counted.
    rate_limited_calls: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    contact: Option<Contact>,
    calls: &'a [Call],
}

/// What would happen to the contact, according to the platform.
#[derive(Serialize)]
#[serde(untagged)]
enum Contact {
    Would(UpsertPreview),
    Unknown { unknown: String },
}

pub(super) async fn run(
    config: &EngineConfig,
    request: &SessionRequest,
    json: bool,
) -> anyhow::Result<()> {
    messaging::validate(&config.surface, request)?;
    let token = GuestToken::placeholder(
        &request.guest,
        &request.attributes,
        SealedSigningKey::FIRST_KID,
    );
    let mut calls = calls(config, request, &token);
    for call in &mut calls {
        let named = call
            .body
            .as_ref()
            .map(|body| body.get().replace(token.expose(), "<guest token>"));
        call.body = named.and_then(|body| RawValue::from_string(body).ok());
    }
    let attributes = match config.surface {
        Surface::Rest => request.attributes.as_map().clone(),
        Surface::WebMessaging { .. } | Surface::OpenMessaging { .. } => {
            config.messaging.attributes(request, &token)
        }
    };
    let run = DryRun {
        dry_run: true,
        surface: config.surface.name(),
        attribute_bytes: attribute_bytes(&attributes),
        attribute_bytes_allowed: Attributes::MAX_BYTES,
        rate_limited_calls: calls.iter().filter(|call| call.costs).count(),
        contact: contact(config, request).await,
        calls: &calls,
    };
    if json {
        output::json(&run);
        return Ok(());
    }
    output::stdout_line("Nothing was created. These calls would be made:\n");
    for call in &calls {
        output::stdout_line(format!("{} {}", call.method, call.url));
        if let Some(key) = &call.idempotency_key {
            output::stdout_line(format!("  Idempotency-Key: {key}"));
        }
        if let Some(body) = &call.body {
            output::stdout_line(format!("  {body}"));
        }
        if let Some(note) = call.note {
            output::stdout_line(format!("  ({note})"));
        }
    }
    output::stdout_line(format!(
        "\nAttributes: {} of {} bytes.",
        run.attribute_bytes, run.attribute_bytes_allowed
    ));
    output::stdout_line(format!(
        "Rate limit: the session costs {}.",
        output::count(run.rate_limited_calls as u64, "call")
    ));
    match &run.contact {
        Some(Contact::Would(UpsertPreview::Create)) => {
            output::stdout_line("Contact: it does not exist and would be created.")
        }
        Some(Contact::Would(UpsertPreview::Update { id })) => {
            let id = id
                .as_deref()
                .map(|id| format!(" {}", output::printable(id)))
                .unwrap_or_default();
            output::stdout_line(format!("Contact: it exists{id} and would be updated."));
        }
        Some(Contact::Unknown { unknown }) => output::stderr_line(format!(
            "note: the contact could not be looked up on the platform: {unknown}"
        )),
        None => {}
    }
    Ok(())
}

/// Requests a dry run of the contact upsert from the platform, on surfaces that support it.
async fn contact(config: &EngineConfig, request: &SessionRequest) -> Option<Contact> {
    let identifiers = config.messaging.identifiers(request);
    if !config.surface.is_public_api() || identifiers.is_empty() {
        return None;
    }
    let clock = Clock::system();
    let context = CallContext::until(clock.now() + config.deadline);
    let asked = async {
        let platform = GenesysClient::new(
            &config.credentials,
            config.call_policy,
            clock,
            FailPoints::default(),
        )?;
        Ok::<_, anyhow::Error>(
            platform
                .dry_run_upsert_contact(&identifiers, &config.messaging.contact(request), &context)
                .await?,
        )
    };
    Some(match asked.await {
        Ok(would) => Contact::Would(would),
        Err(error) => Contact::Unknown {
            unknown: format!("{error:#}"),
        },
    })
}

fn calls(config: &EngineConfig, request: &SessionRequest, token: &GuestToken) -> Vec<Call> {
    let api = &config.credentials.hosts.api;
    let call = |method, path: &str, body| Call {
        method,
        url: api.route(path),
        idempotency_key: None,
        body,
        note: None,
        costs: true,
    };
    let queue = Call {
        note: Some("once for many sessions"),
        costs: false,
        ..call(
            "GET",
            &format!("/api/v2/routing/queues/{}", request.queue),
            None,
        )
    };
    let mut calls = Vec::new();
    match &config.surface {
        Surface::Rest => {
            let upstream = request.key.platform_key();
            let contact = RegisterContactRequest::new(
                request.guest.as_str(),
                token.expose(),
                request.attributes.as_map(),
            );
            let conversation =
                NewConversation::new(request.guest.as_str(), request.queue.0, token.expose());
            let keyed = |path, key, body| Call {
                idempotency_key: Some(format!("{upstream}-{key}")),
                ..call("POST", path, body)
            };
            calls.push(Call {
                note: Some("once for many sessions"),
                costs: false,
                ..call("POST", "/api/v2/oauth/token", None)
            });
            calls.push(queue);
            calls.push(keyed(
                "/api/v2/externalcontacts/contacts",
                "contact",
                to_raw_value(&contact).ok(),
            ));
            calls.push(keyed(
                "/api/v2/conversations/messaging",
                "conversation",
                to_raw_value(&conversation).ok(),
            ));
        }
        surface @ (Surface::WebMessaging { .. } | Surface::OpenMessaging { .. }) => {
            let url = config.credentials.hosts.login.route("/oauth/token");
            calls.push(Call {
                url,
                note: Some("once for many sessions"),
                costs: false,
                ..call("POST", "", None)
            });
            calls.push(queue);
            calls.push(contact_call(&config.messaging, request, call));
            calls.extend(first_message(config, surface, request, token));
            let prefetched = matches!(surface, Surface::OpenMessaging { .. });
            let details = call(
                "GET",
                "/api/v2/conversations/messages/{messageId}/details",
                None,
            );
            let note = if prefetched {
                "only if the previous response has no conversation ID"
            } else {
                "repeated until the message is visible"
            };
            calls.push(Call {
                note: Some(note),
                costs: !prefetched,
                ..details
            });
            calls.extend(arrangements(&config.messaging, request, call));
        }
    }
    calls
}

fn contact_call(
    cloud: &MessagingConfig,
    request: &SessionRequest,
    call: impl Fn(&'static str, &str, Option<Box<RawValue>>) -> Call,
) -> Call {
    let (identifiers, contact) = (cloud.identifiers(request), cloud.contact(request));
    if identifiers.is_empty() {
        let note = "unless an earlier session of the guest has the contact ID; without \
            GENESYS_EXTERNAL_SOURCE_ID, e-mail or telephone nothing identifies the contact";
        let create = call(
            "POST",
            "/api/v2/externalcontacts/contacts",
            to_raw_value(&contact).ok(),
        );
        return Call {
            note: Some(note),
            ..create
        };
    }
    call(
        "POST",
        "/api/v2/externalcontacts/contacts/enrich",
        to_raw_value(&UpsertContactRequest::upsert(&identifiers, &contact)).ok(),
    )
}

fn first_message(
    config: &EngineConfig,
    surface: &Surface,
    request: &SessionRequest,
    token: &GuestToken,
) -> Vec<Call> {
    let hosts = &config.credentials.hosts;
    match surface {
        Surface::OpenMessaging { integration } => {
            const ID: &str = "<session id>";
            let message = config
                .messaging
                .inbound_message(request, token, ID, "<time>");
            let path = format!(
                "/api/v2/conversations/messages/{integration}/inbound/open/message?prefetchConversationId=true"
            );
            let (url, body) = (hosts.api.route(&path), to_raw_value(&message).ok());
            vec![Call {
                method: "POST",
                url,
                idempotency_key: None,
                body,
                note: None,
                costs: true,
            }]
        }
        Surface::WebMessaging { deployment } => {
            let socket = hosts
                .webmessaging
                .route(&format!("/v1?deploymentId={deployment}"))
                .replacen("http", "ws", 1);
            let frame = |action, note| Call {
                method: "FRAME",
                url: socket.clone(),
                idempotency_key: None,
                body: to_raw_value(&ClientFrame {
                    token: SessionToken::new("<guest session token>"),
                    tracing_id: Some("<tracing id>".to_owned()),
                    action,
                })
                .ok(),
                note,
                costs: false,
            };
            let configure = Configure {
                deployment_id: deployment.to_string(),
                ..Configure::default()
            };
            let message = Box::new(config.messaging.first_message(request, token));
            let open = Call {
                method: "WEBSOCKET",
                url: socket.clone(),
                idempotency_key: None,
                body: None,
                note: Some("does not count against the rate limit"),
                costs: false,
            };
            vec![
                open,
                frame(Action::ConfigureSession(configure), None),
                frame(
                    Action::OnMessage {
                        message,
                        time: None,
                        channel: None,
                    },
                    Some("after a crash or a lost response, the history is read first"),
                ),
            ]
        }
        Surface::Rest => Vec::new(),
    }
}

fn arrangements(
    cloud: &MessagingConfig,
    request: &SessionRequest,
    call: impl Fn(&'static str, &str, Option<Box<RawValue>>) -> Call,
) -> Vec<Call> {
    let mut calls = Vec::new();
    if cloud.link_contact || cloud.move_to_queue {
        calls.push(call("GET", "/api/v2/conversations/{conversationId}", None));
    }
    if cloud.link_contact {
        let link = json!({
            "externalContactId": "{contactId}", "conversationId": "{conversationId}", "communicationId": "{communicationId}",
            "mediaType": "MESSAGE",
        });
        calls.push(call(
            "PUT",
            "/api/v2/externalcontacts/conversations/{conversationId}",
            to_raw_value(&link).ok(),
        ));
    }
    if cloud.move_to_queue {
        let path =
            "/api/v2/conversations/{conversationId}/participants/{participantId}/replace/queue";
        let body = to_raw_value(&json!({"queueId": request.queue.to_string()})).ok();
        calls.push(Call {
            note: Some("unless it is already in that queue"),
            ..call("POST", path, body)
        });
    }
    calls
}
