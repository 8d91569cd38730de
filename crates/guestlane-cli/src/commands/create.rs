//! `guestlane create`: one session.

use std::process::ExitCode;

use guestlane::{
    Clock, Lane, LaneConfig, Opened,
    config::{ORG_DOMAIN, Settings},
    request::{IdempotencyKey, QueueId, SessionRequest},
};
use guestlane_genesys::{NewContact, NewConversation};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{attributes, close};
use crate::{
    args::{Create, Global},
    failure, screen,
    session_json::SessionJson,
    settings,
};

pub(crate) async fn run(global: &Global, args: &Create) -> anyhow::Result<ExitCode> {
    let settings = settings::load(global)?;
    let config = settings.lane(args.queue.is_none())?;
    let request = request(args, &settings)?;
    if args.dry_run {
        dry_run(&config, &request, global.json);
        return Ok(ExitCode::SUCCESS);
    }
    let lane = Lane::open(config, Clock::system()).await?;
    let key = request.key.clone();
    let code = match lane.create(request).await {
        Ok(opened) => {
            show(&opened, global.json, args.show_token);
            ExitCode::SUCCESS
        }
        Err(error) => failure::report_session(&error, &key, global.json),
    };
    close(&lane).await;
    Ok(code)
}

fn request(args: &Create, settings: &Settings) -> anyhow::Result<SessionRequest> {
    let queue: Option<QueueId> = match &args.queue {
        Some(queue) => Some(queue.parse()?),
        None => settings.default_queue()?,
    };
    let missing = || guestlane::request::Invalid::new("queueId", "is missing", "give --queue or set GENESYS_QUEUE_ID");
    Ok(SessionRequest {
        guest: args.guest.parse()?,
        queue: queue.ok_or_else(missing)?,
        attributes: attributes(&args.attributes)?,
        key: args.idempotency_key.as_deref().map(str::parse).transpose()?.unwrap_or_else(IdempotencyKey::generate),
    })
}

fn show(opened: &Opened, json: bool, show_token: bool) {
    if json {
        return screen::json(&SessionJson::opened(opened));
    }
    let session = &opened.session;
    let how = if opened.replayed { "was open already" } else { "is open" };
    screen::data(format!("The session of {} {how}.\n", session.request.guest));
    let missing = || "–".to_owned();
    let latency = session.latency.map_or_else(missing, |latency| format!("{:.1} ms", latency.as_secs_f64() * 1000.0));
    let mut rows = vec![
        ("queue", session.request.queue.to_string()),
        ("contact", session.contact_id.clone().unwrap_or_else(missing)),
        ("conversation", session.conversation_id.clone().unwrap_or_else(missing)),
        ("session", session.id.to_string()),
        ("key", session.request.key.to_string()),
        ("latency", latency),
    ];
    if show_token {
        rows.push(("guest token", opened.guest_token.expose().to_owned()));
    }
    for (name, value) in rows {
        screen::data(format!("  {name:<13} {}", screen::printable(&value)));
    }
}

/// The calls, as they would be made; in the place of each token stands its name.
fn dry_run(config: &LaneConfig, request: &SessionRequest, json: bool) {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Call {
        method: &'static str,
        url: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        idempotency_key: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        body: Option<Box<RawValue>>, // as it would be sent, byte for byte
    }
    const TOKEN: &str = "<guest token>";
    let base = &config.credentials.base;
    let map = request.attributes.as_map();
    let upstream = request.key.upstream();
    let contact = NewContact::new(request.guest.as_str(), TOKEN, map);
    let conversation = NewConversation::new(request.guest.as_str(), request.queue.0, TOKEN);
    let post = |path: &str, key: Option<String>, body| Call { method: "POST", url: base.route(path), idempotency_key: key, body };
    let calls = [
        post("/api/v2/oauth/token", None, None),
        Call {
            method: "GET",
            url: base.route(&format!("/api/v2/routing/queues/{}", request.queue)),
            idempotency_key: None,
            body: None,
        },
        post("/api/v2/externalcontacts/contacts", Some(format!("{upstream}-contact")), to_raw_value(&contact).ok()),
        post("/api/v2/conversations/messaging", Some(format!("{upstream}-conversation")), to_raw_value(&conversation).ok()),
    ];
    let bytes: usize = map.iter().map(|(name, value)| name.len() + value.len()).sum();
    if json {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct DryRun<'a> {
            dry_run: bool,
            attribute_bytes: usize,
            attribute_bytes_allowed: usize,
            calls: &'a [Call],
        }
        let allowed = guestlane::request::Attributes::MAX_BYTES;
        return screen::json(&DryRun { dry_run: true, attribute_bytes: bytes, attribute_bytes_allowed: allowed, calls: &calls });
    }
    screen::data("Nothing was sent. These calls would be made:\n");
    for call in &calls {
        screen::data(format!("{} {}", call.method, call.url));
        if let Some(key) = &call.idempotency_key {
            screen::data(format!("  Idempotency-Key: {key}"));
        }
        if let Some(body) = &call.body {
            screen::data(format!("  {body}"));
        }
    }
    screen::data(format!("\nAttributes: {bytes} of {} bytes.", guestlane::request::Attributes::MAX_BYTES));
    if config.credentials.base.as_str().starts_with("http://") {
        screen::note(format!("note: the platform is on this machine; {ORG_DOMAIN} is not used"));
    }
}
