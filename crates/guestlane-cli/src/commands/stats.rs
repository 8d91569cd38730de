//! `guestlane stats`: prints a summary of the store (requirements R12 and R13,
//! docs/requirements.md).

use std::process::ExitCode;

use guestlane_core::audit::ErrorRateSnapshot;
use serde_json::json;

use super::open_state_read_only;
use crate::{args::Global, output};

pub(crate) async fn run(global: &Global) -> anyhow::Result<ExitCode> {
    let summary = open_state_read_only(global).await?.store.summary().await?;
    let errors = ErrorRateSnapshot::from(summary.errors);
    if global.json {
        output::json(&json!({
            "errors": errors, "initializationLatencyMs": summary.latency, "sessions": summary.sessions, "crmEvents": summary.events,
        }));
        return Ok(ExitCode::SUCCESS);
    }
    let latency = summary.latency;
    output::stdout_line("Errors, counted per failed attempt:");
    for (name, count) in [
        ("total", errors.total),
        ("tokenValidation", errors.token_validation),
        ("rateLimit", errors.rate_limit),
        ("auth", errors.auth),
        ("network", errors.network),
        (
            "other",
            errors.total
                - errors.token_validation
                - errors.rate_limit
                - errors.auth
                - errors.network,
        ),
    ] {
        output::stdout_line(format!("  {name:<20} {count}"));
    }
    output::stdout_line(format!(
        "  {:<20} {}",
        "tokenValidationRate", errors.token_validation_rate
    ));
    output::stdout_line("Initialization latency in ms:");
    for (name, value) in [
        ("p50", latency.p50),
        ("p90", latency.p90),
        ("p99", latency.p99),
        ("max", latency.max),
        ("mean", latency.mean),
    ] {
        output::stdout_line(format!("  {name:<20} {value:.1}"));
    }
    for (title, counts) in [
        ("Sessions:", &summary.sessions),
        ("CRM events:", &summary.events),
    ] {
        output::stdout_line(title);
        if counts.is_empty() {
            output::stdout_line("  none");
        }
        for (state, count) in counts {
            output::stdout_line(format!("  {state:<20} {count}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}
