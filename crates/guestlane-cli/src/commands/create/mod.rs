//! `guestlane create`: creates one session.

mod dry_run;

use std::process::ExitCode;

use guestlane::{CreatedSession, SessionEngine};
use guestlane_cli::config::Settings;
use guestlane_core::request::{ContactDetails, IdempotencyKey, QueueId, SessionRequest};
use guestlane_runtime::Clock;
use guestlane_server::model::Session as SessionJson;

use super::{attributes, close};
use crate::{
    args::{Create, Global},
    output, report, settings,
};

pub(crate) async fn run(global: &Global, args: &Create) -> anyhow::Result<ExitCode> {
    let settings = settings::load(global)?;
    let config = settings.engine(args.queue.is_none())?;
    let request = request(args, &settings)?;
    if args.dry_run {
        dry_run::run(&config, &request, global.json).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let engine = SessionEngine::open(config, Clock::system()).await?;
    let key = request.key.clone();
    let code = match engine.create(request).await {
        Ok(opened) => {
            show(&opened, global.json, args.show_token);
            if output::data_was_lost() {
                output::stderr_line(format!(
                    "The session is open. To show it again: guestlane create … --idempotency-key \
                     '{key}'"
                ));
            }
            ExitCode::SUCCESS
        }
        Err(error) => report::report_session(&error, &key, global.json),
    };
    close(&engine).await;
    Ok(code)
}

fn request(args: &Create, settings: &Settings) -> anyhow::Result<SessionRequest> {
    let queue: Option<QueueId> = match &args.queue {
        Some(queue) => Some(queue.parse()?),
        None => settings.default_queue()?,
    };
    let missing = || {
        guestlane_core::request::ValidationError::new(
            "queueId",
            "is missing",
            "give --queue or set GENESYS_QUEUE_ID",
        )
    };
    Ok(SessionRequest {
        guest: args.guest.parse()?,
        contact_details: ContactDetails::new(
            args.first_name.clone(),
            args.last_name.clone(),
            args.email.clone(),
            args.phone.clone(),
        )?,
        queue: queue.ok_or_else(missing)?,
        attributes: attributes(&args.attributes)?,
        key: args
            .idempotency_key
            .as_deref()
            .map(str::parse)
            .transpose()?
            .unwrap_or_else(IdempotencyKey::generate),
    })
}

fn show(opened: &CreatedSession, json: bool, show_token: bool) {
    if json {
        return output::json(&SessionJson::opened(opened));
    }
    let session = &opened.session;
    let how = if opened.replayed {
        "was already open"
    } else {
        "is open"
    };
    output::stdout_line(format!("The session of {} {how}.\n", session.request.guest));
    let missing = || "–".to_owned();
    let latency = session.latency.map_or_else(missing, |latency| {
        format!("{:.1} ms", latency.as_secs_f64() * 1000.0)
    });
    let mut rows = vec![
        ("queue", session.request.queue.to_string()),
        (
            "contact",
            session
                .contact_id
                .as_ref()
                .map_or_else(missing, ToString::to_string),
        ),
        (
            "conversation",
            session
                .conversation_id
                .as_ref()
                .map_or_else(missing, ToString::to_string),
        ),
        ("session", session.id.to_string()),
        ("key", session.request.key.to_string()),
        // A replay makes no call, so the latency shown is that of the first request.
        if opened.replayed {
            ("latency", format!("{latency} (at its creation)"))
        } else {
            ("latency", latency)
        },
    ];
    if let Some(end) = session.guest_session_expires_at {
        rows.push((
            "guest session",
            format!("expires at {end} without messages"),
        ));
    }
    if show_token {
        rows.push(("guest token", opened.guest_token.expose().to_owned()));
        rows.extend(
            opened
                .guest_session
                .as_ref()
                .map(|token| ("session token", token.expose().to_owned())),
        );
    }
    if session.contact_id_lost {
        output::stderr_line(
            "note: no contact is linked, because the response to its creation was lost and \
             nothing identifies it; set GENESYS_EXTERNAL_SOURCE_ID, or give --email or --phone",
        );
    }
    for (name, value) in rows {
        output::stdout_line(format!("  {name:<13} {}", output::printable(&value)));
    }
}
