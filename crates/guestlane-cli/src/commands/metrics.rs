//! `guestlane metrics` (requirements R12 and R13, docs/requirements.md).

use std::process::ExitCode;

use guestlane::audit::ErrorRates;
use serde_json::json;

use super::look_at_state;
use crate::{args::Global, screen};

pub(crate) async fn run(global: &Global) -> anyhow::Result<ExitCode> {
    let summary = look_at_state(global).await?.store.summary().await?;
    let errors = ErrorRates::from(summary.errors);
    if global.json {
        screen::json(&json!({
            "errors": errors, "initializationLatencyMs": summary.latency, "sessions": summary.sessions, "crmEvents": summary.events,
        }));
        return Ok(ExitCode::SUCCESS);
    }
    let latency = summary.latency;
    screen::data("Errors, one for each failed attempt:");
    for (name, count) in [
        ("total", errors.total),
        ("tokenValidation", errors.token_validation),
        ("rateLimit", errors.rate_limit),
        ("auth", errors.auth),
        ("network", errors.network),
        ("other", errors.total - errors.token_validation - errors.rate_limit - errors.auth - errors.network),
    ] {
        screen::data(format!("  {name:<20} {count}"));
    }
    screen::data(format!("  {:<20} {}", "tokenValidationRate", errors.token_validation_rate));
    screen::data("Initialization latency in ms:");
    for (name, value) in
        [("p50", latency.p50), ("p90", latency.p90), ("p99", latency.p99), ("max", latency.max), ("mean", latency.mean)]
    {
        screen::data(format!("  {name:<20} {value:.1}"));
    }
    for (title, counts) in [("Sessions:", &summary.sessions), ("CRM events:", &summary.events)] {
        screen::data(title);
        if counts.is_empty() {
            screen::data("  none");
        }
        for (state, count) in counts {
            screen::data(format!("  {state:<20} {count}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}
