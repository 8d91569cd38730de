//! `guestlane outbox`: lists, shows, delivers and replays events of the outbox.

mod endpoints;

use std::{process::ExitCode, sync::Arc};

use guestlane::outbox::{Endpoints, KeyKind, Outbox as Deliverer};
use guestlane_core::{event::Event, request::ValidationError};
use guestlane_runtime::{Clock, Timestamp};
use guestlane_store::{Delivery, DeliveryState, ReplayFilter};
use serde_json::json;

use super::{confirm, confirm::Confirmed, open_state_read_only, span};
use crate::{
    args::{Global, Outbox},
    output, settings,
};

pub(crate) async fn run(global: &Global, args: &Outbox) -> anyhow::Result<ExitCode> {
    match args {
        Outbox::List { state, limit } => list(global, state.as_deref(), *limit).await,
        Outbox::Show { id } => show(global, id).await,
        Outbox::Deliver => deliver(global).await,
        Outbox::Replay {
            id,
            since,
            until,
            state,
            confirmed,
        } => {
            let replayed = which(
                id.as_deref(),
                since.as_deref(),
                until.as_deref(),
                state.as_deref(),
            )?;
            replay(global, replayed, *confirmed).await
        }
        Outbox::Enable { endpoint } => endpoints::enable(global, *endpoint).await,
        Outbox::Secret {
            endpoint,
            ed25519,
            rotate,
            overlap,
        } => {
            let kind = if *ed25519 {
                KeyKind::Ed25519
            } else {
                KeyKind::Secret
            };
            let overlap = span("--overlap", overlap)?;
            endpoints::secret(global, *endpoint, kind, rotate.then_some(overlap)).await
        }
    }
}

fn as_json(delivery: &Delivery) -> serde_json::Value {
    let pending = delivery.state == DeliveryState::Pending;
    json!({
        "id": delivery.event.id, "endpoint": delivery.event.endpoint, "sessionId": delivery.event.session.to_string(), "state": delivery.state,
        "attempts": delivery.event.attempts, "createdAt": delivery.created_at, "nextAttemptAt": pending.then_some(delivery.event.due_at),
        "endedAt": delivery.ended_at, "lastError": delivery.last_error,
    })
}

async fn list(global: &Global, state: Option<&str>, limit: u32) -> anyhow::Result<ExitCode> {
    let parse = |name: &str| {
        let invalid = || {
            ValidationError::new(
                "--state",
                format!("`{name}` is not a state"),
                "use pending, delivered, dead or erased",
            )
        };
        DeliveryState::from_name(name).ok_or_else(invalid)
    };
    let state = state.map(parse).transpose()?;
    let opened = open_state_read_only(global).await?;
    let events = opened.store.events(state, None, limit).await?;
    output::note_of_limit(events.len(), limit);
    // Invalid webhook settings must not hide the events.
    if let Ok(Some(crm)) = settings::load(global)?.crm() {
        let endpoints: Vec<_> = Endpoints::new(&opened, Some(&crm))?
            .read()
            .await?
            .into_iter()
            .map(Arc::new)
            .collect();
        endpoints::note_of_disabled(&endpoints);
    }
    if global.json {
        events
            .iter()
            .for_each(|delivery| output::json(&as_json(delivery)));
    } else if events.is_empty() {
        output::stderr_line("No matching events.");
    } else {
        let row = |delivery: &Delivery| {
            vec![
                delivery.event.id.clone(),
                delivery.event.endpoint.to_string(),
                delivery.state.name().to_owned(),
                delivery.event.attempts.to_string(),
                delivery.created_at.to_string(),
                delivery.last_error.clone().unwrap_or_default(),
            ]
        };
        output::stdout_line(output::table(
            &[
                "event",
                "endpoint",
                "state",
                "attempts",
                "written",
                "last error",
            ],
            events.iter().map(row),
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn unknown() -> ValidationError {
    ValidationError::new(
        "ID",
        "is not an event of this store",
        "see `guestlane outbox list`",
    )
}

async fn show(global: &Global, id: &str) -> anyhow::Result<ExitCode> {
    let deliveries = open_state_read_only(global)
        .await?
        .store
        .event(id.to_owned())
        .await?;
    if deliveries.is_empty() {
        return Err(unknown().into());
    }
    for delivery in deliveries {
        let mut shown = as_json(&delivery);
        shown["body"] = serde_json::from_str(&delivery.event.body).unwrap_or_default();
        output::stdout_line(if global.json {
            shown.to_string()
        } else {
            serde_json::to_string_pretty(&shown)?
        });
    }
    Ok(ExitCode::SUCCESS)
}

async fn deliver(global: &Global) -> anyhow::Result<ExitCode> {
    let settings = settings::load(global)?;
    let missing = || {
        ValidationError::new(
            "CRM_WEBHOOK_URL",
            "is missing",
            "set it to the URL of the CRM's webhook endpoint",
        )
    };
    let crm = settings.crm()?.ok_or_else(missing)?;
    let clock = Clock::system();
    let state = open_state_read_only(global).await?;
    let receivers_count = u32::try_from(crm.urls.len()).unwrap_or(u32::MAX);
    let outbox = Deliverer::open(&state, &crm, clock.clone()).await?;
    state.store.expedite_events(clock.now()).await?;
    let mut round = outbox.deliver_due().await?;
    // A killed process holds its deliveries until their lease expires, so wait for one lease.
    let give_up_at = clock.now() + Event::LEASE;
    while let Some(due) = state
        .store
        .next_initial_delivery_at(clock.now())
        .await?
        .filter(|due| *due <= give_up_at)
    {
        let wait = due.since(clock.now());
        output::stderr_line(format!(
            "Waiting {:.0} s for events that another process claimed.",
            wait.as_secs_f32().ceil()
        ));
        clock.sleep(wait).await;
        round = round + outbox.deliver_due().await?;
    }
    let left = state.store.pending_events().await?;
    let of_removed_endpoints = state.store.pending_events_after(receivers_count).await?;
    if of_removed_endpoints > 0 {
        output::stderr_line(format!(
            "note: {} for an endpoint that is no longer in CRM_WEBHOOK_URL",
            output::count(of_removed_endpoints, "event")
        ));
    }
    let disabled = endpoints::note_of_disabled(&outbox.endpoints());
    if global.json {
        output::json(
            &json!({"delivered": round.delivered, "failed": round.failed, "dead": round.dead, "pending": left}),
        );
    } else {
        output::stdout_line(format!(
            "delivered {}, failed {}, dead {}, still pending {left}",
            round.delivered, round.failed, round.dead
        ));
        if round.failed + round.dead > 0 {
            output::stderr_line("`guestlane outbox list` shows the errors.");
        }
    }
    let waits = disabled && left > of_removed_endpoints;
    Ok(if round.failed + round.dead == 0 && !waits {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn replay(
    global: &Global,
    replay: ReplayFilter,
    confirmed: Confirmed,
) -> anyhow::Result<ExitCode> {
    let state = open_state_read_only(global).await?;
    let count = state.store.replayable(replay.clone()).await?;
    if let ReplayFilter::Event(id) = &replay
        && count == 0
    {
        let erased = !state.store.event(id.clone()).await?.is_empty();
        let gone = || {
            ValidationError::new(
                "ID",
                "is an event of an erased guest",
                "there is nothing left to send",
            )
        };
        return Err(if erased { gone() } else { unknown() }.into());
    }
    if count == 0 {
        output::stderr_line("No matching events.");
        return Ok(confirm::done(global, json!({"events": 0}), []));
    }
    if !confirmed.is_given() {
        let line = format!(
            "{} would be sent again, with the same ID and the same body. Endpoints that have \
             already received an event receive it again.",
            output::count(count, "event")
        );
        return Ok(confirm::preview(global, json!({"events": count}), [line]));
    }
    let pending = state.store.replay(replay, Clock::system().now()).await?;
    let are = if pending == 1 { "is" } else { "are" };
    let events = output::count(pending as u64, "event");
    let line = format!(
        "{events} {are} pending again; `guestlane outbox deliver` sends pending events now."
    );
    Ok(confirm::done(global, json!({"events": pending}), [line]))
}

fn which(
    id: Option<&str>,
    since: Option<&str>,
    until: Option<&str>,
    state: Option<&str>,
) -> Result<ReplayFilter, ValidationError> {
    if let Some(id) = id {
        return Ok(ReplayFilter::Event(id.to_owned()));
    }
    let time = |flag: &str, text: &str| {
        let invalid = |_| {
            ValidationError::new(
                flag,
                format!("`{}` is not a time", output::printable(text)),
                "write it like 2026-11-22T15:00:00Z",
            )
        };
        text.parse::<Timestamp>().map_err(invalid)
    };
    let state = match state.map(|name| (name, DeliveryState::from_name(name))) {
        None => None,
        Some((_, Some(state @ (DeliveryState::Delivered | DeliveryState::Dead)))) => Some(state),
        Some((name, _)) => {
            return Err(ValidationError::new(
                "--state",
                format!("`{name}` cannot be sent again"),
                "use delivered or dead",
            ));
        }
    };
    let since = time("--since", since.unwrap_or_default())?;
    let until = until.map_or_else(|| Ok(Clock::system().now()), |text| time("--until", text))?;
    if until <= since {
        return Err(ValidationError::new(
            "--until",
            "is not after --since",
            "give the earlier time as --since",
        ));
    }
    Ok(ReplayFilter::Written {
        since,
        until,
        state,
    })
}
