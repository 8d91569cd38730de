//! The commands, one file each.

pub(crate) mod api_keys;
pub(crate) mod audit;
pub(crate) mod batch;
pub(crate) mod bench;
pub(crate) mod config;
pub(crate) mod confirm;
pub(crate) mod create;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod guests;
pub(crate) mod master_key;
pub(crate) mod outbox;
pub(crate) mod reload;
pub(crate) mod serve;
pub(crate) mod sessions;
pub(crate) mod signing_keys;
pub(crate) mod simulate;
pub(crate) mod stats;
pub(crate) mod store;
pub(crate) mod token;
pub(crate) mod worker;

use std::{io::Read, process::ExitCode, time::Duration};

use clap::CommandFactory;
use guestlane::{Rate, SessionEngine, Workspace};
use guestlane_cli::config::parse_span;
use guestlane_core::request::{Attributes, ValidationError};
use guestlane_runtime::Clock;
use guestlane_runtime::text::without_bom_str;

use crate::{args, args::Global, output, settings};

/// Prints a shell completion script.
pub(crate) fn completions(shell: clap_complete::Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::Args::command(), "guestlane", &mut script);
    output::stdout_line(String::from_utf8_lossy(&script));
    Ok(ExitCode::SUCCESS)
}

/// Opens the store and the keys, and creates them on first use. It does not need the platform's
/// settings.
///
/// # Errors
/// A setting is invalid, or the store or a key cannot be opened.
pub(crate) async fn open_state(global: &Global) -> anyhow::Result<Workspace> {
    let places = settings::load(global)?.storage()?;
    Ok(Workspace::open(&places, &Clock::system()).await?)
}

/// Opens the store and the keys without creating or repairing anything.
///
/// # Errors
/// A setting is invalid, or the store or a key cannot be opened.
pub(crate) async fn open_state_read_only(global: &Global) -> anyhow::Result<Workspace> {
    let places = settings::load(global)?.storage()?;
    Ok(Workspace::open_read_only(&places, &Clock::system()).await?)
}

/// Parses the `NAME=VALUE` arguments of `--attr`.
///
/// # Errors
/// An argument has no `=`, or the attributes exceed their limits.
pub(crate) fn attributes(pairs: &[String]) -> Result<Attributes, ValidationError> {
    let split = pairs.iter().map(|pair| {
        pair.split_once('=').ok_or_else(|| {
            let shown: String = output::printable(pair).chars().take(40).collect();
            ValidationError::new(
                "--attr",
                format!("`{shown}` has no `=`"),
                "write NAME=VALUE, for example --attr tier=premium",
            )
        })
    });
    Attributes::from_pairs(split.collect::<Result<Vec<_>, _>>()?)
}

/// Parses a flag that is a rate, or `off`.
///
/// # Errors
/// The text is neither.
pub(crate) fn rate(flag: &str, text: &str) -> Result<Option<Rate>, ValidationError> {
    Rate::parse(text).map_err(|error| {
        ValidationError::new(flag, error.to_string(), "use the form N/s, N/min or off")
    })
}

/// Parses a flag that is a duration in hours or days.
///
/// # Errors
/// The text is not such a duration.
pub(crate) fn span(flag: &str, text: &str) -> Result<Duration, ValidationError> {
    let invalid = || {
        ValidationError::new(
            flag,
            format!("`{}` is not a duration", output::printable(text)),
            "write it like 12h or 90d",
        )
    };
    parse_span(text).ok_or_else(invalid)
}

/// Returns an argument, or the standard input if the argument is `-`. It reads at most 64 KiB.
///
/// # Errors
/// The standard input cannot be read, or is not UTF-8.
pub(crate) fn argument(text: &str) -> anyhow::Result<String> {
    if text != "-" {
        return Ok(text.trim().to_owned());
    }
    let mut input = String::new();
    std::io::stdin()
        .take(64 * 1024)
        .read_to_string(&mut input)?;
    Ok(without_bom_str(&input).trim().to_owned())
}

/// Waits for the first deliveries of the process's own events, and reports events and sessions that
/// are left for later. A failure here does not change the exit code, because the command's work is
/// already done and reported.
pub(crate) async fn close(engine: &SessionEngine) {
    let closed = async {
        engine.flush_counters().await?;
        warn_undelivered_events(engine).await?;
        tell_unfinished(engine).await
    };
    if let Err(error) = closed.await {
        output::stderr_line(format!(
            "note: unfinished sessions and pending events could not be counted: {error:#}"
        ));
    }
}

async fn warn_undelivered_events(engine: &SessionEngine) -> anyhow::Result<()> {
    let Some(outbox) = engine.outbox() else {
        return Ok(());
    };
    outbox.wait_for_initial_deliveries().await;
    match engine.store().pending_events().await? {
        0 => {}
        1 => output::stderr_line(
            "note: 1 event for the CRM is pending; `guestlane outbox deliver` attempts it now",
        ),
        n => output::stderr_line(format!(
            "note: {n} events for the CRM are pending; `guestlane outbox deliver` attempts them \
             now"
        )),
    }
    Ok(())
}

async fn tell_unfinished(engine: &SessionEngine) -> anyhow::Result<()> {
    match engine.store().unfinished().await? {
        0 => {}
        1 => output::stderr_line(
            "note: 1 session is unfinished; `guestlane sessions resume` finishes it",
        ),
        n => output::stderr_line(format!(
            "note: {n} sessions are unfinished; `guestlane sessions resume` finishes them"
        )),
    }
    Ok(())
}
