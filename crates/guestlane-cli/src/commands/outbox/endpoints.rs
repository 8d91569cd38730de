//! `guestlane outbox secret` and `enable`: manages the webhook endpoints.

use std::{process::ExitCode, sync::Arc, time::Duration};

use guestlane::outbox::{Endpoint, Endpoints, KeyKind};
use guestlane_core::request::ValidationError;
use guestlane_runtime::Clock;
use serde_json::{Value, json};

use crate::{
    args::Global,
    commands::{open_state, open_state_read_only},
    output, settings,
};

/// Prints a note for each disabled endpoint, and returns whether there are any.
pub(super) fn note_of_disabled(endpoints: &[Arc<Endpoint>]) -> bool {
    for endpoint in endpoints {
        if let Some(since) = endpoint.disabled_at {
            let number = endpoint.number;
            output::stderr_line(format!(
                "note: endpoint {number} answered 410 Gone and is disabled since {since}; its \
                 events stay pending until `guestlane outbox enable {number}`"
            ));
        }
    }
    endpoints
        .iter()
        .any(|endpoint| endpoint.disabled_at.is_some())
}

pub(super) async fn enable(global: &Global, number: u32) -> anyhow::Result<ExitCode> {
    let crm = settings::load(global)?.crm()?;
    let state = open_state_read_only(global).await?;
    let was_disabled = Endpoints::new(&state, crm.as_ref())?.enable(number).await?;
    if global.json {
        output::json(&json!({"endpoint": number, "wasDisabled": was_disabled}));
    } else if was_disabled {
        output::stdout_line(format!(
            "Endpoint {number} is enabled again. `guestlane outbox deliver` sends its pending \
             events now."
        ));
    } else {
        output::stdout_line(format!("Endpoint {number} is not disabled."));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn secret(
    global: &Global,
    number: Option<u32>,
    kind: KeyKind,
    rotate: Option<Duration>,
) -> anyhow::Result<ExitCode> {
    let crm = settings::load(global)?.crm()?;
    let state = open_state(global).await?;
    let endpoints = Endpoints::new(&state, crm.as_ref())?;
    endpoints.open().await?;
    let numbers = match number {
        None if rotate.is_some() && endpoints.count() > 1 => {
            let reason = format!(
                "is missing: CRM_WEBHOOK_URL names {} endpoints",
                endpoints.count()
            );
            return Err(ValidationError::new(
                "--endpoint",
                reason,
                "give the number of the endpoint whose key is rotated, counted from 1",
            )
            .into());
        }
        None => 1..=endpoints.count(),
        Some(number) => number..=number,
    };
    for number in numbers.clone() {
        match (rotate, kind) {
            (Some(overlap), _) => {
                endpoints
                    .rotate(number, kind, overlap, Clock::system().now())
                    .await?
            }
            (None, KeyKind::Ed25519) => endpoints.add_ed25519(number).await?,
            (None, KeyKind::Secret) => {}
        }
    }
    let shown = endpoints.read().await?;
    let shown: Vec<_> = shown
        .iter()
        .filter(|endpoint| numbers.contains(&endpoint.number))
        .collect();
    if shown.is_empty() {
        let reason = format!(
            "is not an endpoint: CRM_WEBHOOK_URL names {}",
            endpoints.count()
        );
        return Err(ValidationError::new(
            "--endpoint",
            reason,
            "count from 1, in the order of CRM_WEBHOOK_URL",
        )
        .into());
    }
    let many = endpoints.count() > 1 && number.is_none();
    shown
        .iter()
        .for_each(|endpoint| show(global, endpoint, kind, many));
    if rotate.is_some() && !global.json {
        output::stderr_line(
            "A running service signs with it within a second. Give it to the receiver before the \
             previous one expires.",
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn show(global: &Global, endpoint: &Endpoint, kind: KeyKind, many: bool) {
    let (member, text) = match kind {
        KeyKind::Secret => (
            "webhookSecret",
            endpoint
                .keys
                .secret()
                .map(|secret| secret.expose().to_owned()),
        ),
        KeyKind::Ed25519 => ("webhookPublicKey", endpoint.keys.public_key()),
    };
    let text = text.unwrap_or_default();
    let until = endpoint.keys.earlier_until(kind, Clock::system().now());
    if global.json {
        let mut shown = json!({"endpoint": endpoint.number, "earlierSignsUntil": until});
        shown[member] = Value::String(text);
        return output::json(&shown);
    }
    output::stdout_line(if many {
        format!("{} {text}", endpoint.number)
    } else {
        text
    });
    if let Some(until) = until {
        output::stderr_line(format!(
            "note: endpoint {}: the previous one also signs until {until}",
            endpoint.number
        ));
    }
}
