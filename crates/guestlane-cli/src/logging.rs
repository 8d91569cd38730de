//! Logging to standard error, as text or JSON.

use std::{io::IsTerminal, sync::OnceLock};

use guestlane::Error;
use guestlane_cli::config::{LOG_FORMAT, LOG_LEVEL, Settings, ValueSource};
use guestlane_runtime::trace_context;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

use crate::{otlp::Traces, output};

static LEVEL: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// The log filter. It excludes dependencies whose messages may repeat data of requests.
fn filter(level: &str, verbose: u8) -> EnvFilter {
    let ours = match verbose {
        0 => level.to_owned(),
        1 => "info,guestlane=debug,guestlane_genesys=debug,guestlane_server=debug,guestlane_sim=info"
            .to_owned(),
        _ => {
            "info,guestlane=trace,guestlane_genesys=trace,guestlane_server=trace,guestlane_sim=debug"
                .to_owned()
        }
    };
    EnvFilter::new(format!(
        "{ours},rustls_platform_verifier=off,tokio_postgres=info,{}=off",
        trace_context::TARGET
    ))
}

/// Starts logging to stderr, so that stdout carries only data: warnings by default, and more with
/// each `-v`. With `traces`, spans are exported as well.
pub(crate) fn start(verbose: u8, json: bool, traces: Option<&Traces>) {
    let (level, handle) = reload::Layer::new(filter("warn", verbose));
    let _ = LEVEL.set(handle);
    let text = tracing_subscriber::fmt::layer().with_writer(|| output::Log);
    let log = if json {
        text.json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .boxed()
    } else {
        text.with_ansi(std::io::stderr().is_terminal()).boxed()
    };
    let traces = traces.map(|traces| {
        let only = Targets::new().with_target(trace_context::TARGET, LevelFilter::INFO);
        tracing_opentelemetry::layer()
            .with_tracer(traces.tracer())
            .with_location(false)
            .with_threads(false)
            .with_filter(only)
    });
    tracing_subscriber::registry()
        .with(log.with_filter(level))
        .with(traces)
        .init();
}

/// Whether the settings request JSON. It runs before the settings are validated.
///
/// # Errors
/// The log format is neither `text` nor `json`.
pub(crate) fn wants_json(settings: &Settings) -> Result<bool, Error> {
    match settings.get(LOG_FORMAT).map(|(format, _)| format) {
        Some("json") => Ok(true),
        Some("text") | None => Ok(false),
        Some(_) => Err(refused(settings, LOG_FORMAT, "write text or json")),
    }
}

/// Sets the log level to that of the settings, else to `by_default`.
///
/// # Errors
/// The log level or the log format is invalid.
pub(crate) fn set_level(settings: &Settings, by_default: &str, verbose: u8) -> Result<(), Error> {
    let level = check_level(settings, by_default)?;
    if let Some(handle) = LEVEL.get() {
        let _ = handle.reload(filter(level, verbose));
    }
    Ok(())
}

/// The level that [`set_level`] would set.
///
/// # Errors
/// The log level or the log format is invalid.
pub(crate) fn check_level<'a>(
    settings: &'a Settings,
    by_default: &'a str,
) -> Result<&'a str, Error> {
    wants_json(settings)?;
    let level = match settings.get(LOG_LEVEL) {
        Some((level, origin)) if origin != ValueSource::Default => level,
        _ => by_default,
    };
    if !["error", "warn", "info", "debug"].contains(&level) {
        return Err(refused(
            settings,
            LOG_LEVEL,
            "write error, warn, info or debug",
        ));
    }
    Ok(level)
}

/// Sets the log level, for a command whose own output reports the errors.
pub(crate) fn set_minimum_level(level: &str, verbose: u8) {
    if let Some(handle) = LEVEL.get() {
        let _ = handle.reload(filter(level, verbose));
    }
}

fn refused(settings: &Settings, setting: &str, fix: &str) -> Error {
    Error::Settings(vec![settings.invalid(setting, "is not a valid value", fix)])
}
