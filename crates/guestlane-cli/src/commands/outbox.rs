//! `guestlane outbox`: what the CRM was told, and what it was not.

use std::process::ExitCode;

use guestlane::{
    Clock,
    outbox::{Crm, Outbox as Deliverer},
    request::Invalid,
    store::{Delivery, DeliveryState},
};
use serde_json::json;

use super::open_state;
use crate::{
    args::{Global, Outbox},
    screen, settings,
};

pub(crate) async fn run(global: &Global, args: &Outbox) -> anyhow::Result<ExitCode> {
    match args {
        Outbox::List { state, limit } => list(global, state.as_deref(), *limit).await,
        Outbox::Show { id } => show(global, id).await,
        Outbox::Deliver => deliver(global).await,
        Outbox::Replay { id } => replay(global, id).await,
        Outbox::Secret => secret(global).await,
    }
}

fn as_json(delivery: &Delivery) -> serde_json::Value {
    let pending = delivery.state == DeliveryState::Pending;
    json!({
        "id": delivery.event.id, "sessionId": delivery.event.session.to_string(), "state": delivery.state,
        "tries": delivery.event.tries, "createdAt": delivery.created_at, "nextTryAt": pending.then_some(delivery.event.due_at),
        "settledAt": delivery.settled_at, "lastError": delivery.last_error,
    })
}

async fn list(global: &Global, state: Option<&str>, limit: u32) -> anyhow::Result<ExitCode> {
    let state = match state {
        None => None,
        Some("pending") => Some(DeliveryState::Pending),
        Some("delivered") => Some(DeliveryState::Delivered),
        Some("dead") => Some(DeliveryState::Dead),
        Some(other) => {
            return Err(Invalid::new("--state", format!("`{other}` is no state"), "use pending, delivered or dead").into());
        }
    };
    let events = open_state(global).await?.store.events(state, limit).await?;
    if global.json {
        events.iter().for_each(|delivery| screen::json(&as_json(delivery)));
    } else if events.is_empty() {
        screen::note("There are no such events.");
    } else {
        let row = |delivery: &Delivery| {
            vec![
                delivery.event.id.clone(),
                delivery.state.name().to_owned(),
                delivery.event.tries.to_string(),
                delivery.created_at.to_string(),
                delivery.last_error.clone().unwrap_or_default(),
            ]
        };
        screen::data(screen::table(&["event", "state", "tries", "written", "last error"], events.iter().map(row)));
    }
    Ok(ExitCode::SUCCESS)
}

fn unknown() -> Invalid {
    Invalid::new("ID", "there is no such event", "see `guestlane outbox list`")
}

async fn show(global: &Global, id: &str) -> anyhow::Result<ExitCode> {
    let delivery = open_state(global).await?.store.event(id.to_owned()).await?.ok_or_else(unknown)?;
    let mut shown = as_json(&delivery);
    shown["body"] = serde_json::from_str(&delivery.event.body)?;
    screen::data(if global.json { shown.to_string() } else { serde_json::to_string_pretty(&shown)? });
    Ok(ExitCode::SUCCESS)
}

async fn deliver(global: &Global) -> anyhow::Result<ExitCode> {
    let settings = settings::load(global)?;
    let missing = || Invalid::new("CRM_WEBHOOK_URL", "is missing", "set it to where the CRM takes events");
    let crm = settings.crm()?.ok_or_else(missing)?;
    let clock = Clock::system();
    let state = open_state(global).await?;
    let secret = state.webhook_secret(crm.secret.as_ref()).await?;
    let outbox = Deliverer::new(Crm::new(crm.url, crm.networks, secret, clock.clone())?, state.store.clone(), clock.clone());
    state.store.make_events_due(clock.now()).await?;
    let round = outbox.deliver_due().await?;
    let left = state.store.pending_events().await?;
    if global.json {
        screen::json(&json!({"delivered": round.delivered, "failed": round.failed, "dead": round.dead, "pending": left}));
    } else {
        screen::data(format!(
            "delivered {}, failed {}, dead {}, still pending {left}",
            round.delivered, round.failed, round.dead
        ));
        if round.failed + round.dead > 0 {
            screen::note("`guestlane outbox list` tells why.");
        }
    }
    Ok(if round.failed + round.dead == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn replay(global: &Global, id: &str) -> anyhow::Result<ExitCode> {
    let state = open_state(global).await?;
    if !state.store.replay_event(id.to_owned(), Clock::system().now()).await? {
        return Err(unknown().into());
    }
    if global.json {
        screen::json(&json!({"id": id, "state": "pending"}));
    }
    screen::note("The event is pending again; `guestlane outbox deliver` tries it now.");
    Ok(ExitCode::SUCCESS)
}

async fn secret(global: &Global) -> anyhow::Result<ExitCode> {
    let given = settings::load(global)?.crm()?.and_then(|crm| crm.secret);
    let secret = open_state(global).await?.webhook_secret(given.as_ref()).await?;
    if global.json {
        screen::json(&json!({"webhookSecret": secret.expose()}));
    } else {
        screen::data(secret.expose());
    }
    Ok(ExitCode::SUCCESS)
}
