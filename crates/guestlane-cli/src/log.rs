//! The log: to standard error, as text or as JSON, as much as is asked for.

use std::{io::IsTerminal, sync::OnceLock};

use guestlane::{
    Error,
    config::{LOG_FORMAT, LOG_LEVEL, Origin, Settings},
    request::Invalid,
};
use tracing_subscriber::{EnvFilter, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt};

use crate::screen;

static LEVEL: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Whose words the log has: not those of the libraries, which may repeat what was sent.
fn filter(level: &str, verbose: u8) -> EnvFilter {
    let text = match verbose {
        0 => format!("{level},rustls_platform_verifier=off"),
        1 => "info,rustls_platform_verifier=off,guestlane=debug,guestlane_genesys=debug,guestlane_http=debug,guestlane_sim=info"
            .to_owned(),
        _ => "info,rustls_platform_verifier=off,guestlane=trace,guestlane_genesys=trace,guestlane_http=trace,guestlane_sim=debug"
            .to_owned(),
    };
    EnvFilter::new(text)
}

/// Warnings always; more with each `-v`. To stderr, so that data stays clean.
pub(crate) fn start(verbose: u8, json: bool) {
    let (filter, handle) = reload::Layer::new(filter("warn", verbose));
    let _ = LEVEL.set(handle);
    let layer = tracing_subscriber::fmt::layer().with_writer(|| screen::Log);
    let registry = tracing_subscriber::registry().with(filter);
    if json {
        registry.with(layer.json().flatten_event(true).with_current_span(true).with_span_list(false)).init();
    } else {
        registry.with(layer.with_ansi(std::io::stderr().is_terminal())).init();
    }
}

/// Whether the settings, as far as they can be read yet, want JSON.
pub(crate) fn wants_json(settings: &Settings) -> Result<bool, Error> {
    match settings.get(LOG_FORMAT).map(|(format, _)| format) {
        Some("json") => Ok(true),
        Some("text") | None => Ok(false),
        Some(_) => Err(refused(LOG_FORMAT, "write text or json")),
    }
}

/// How much the log says from now on: as the settings say, else `by_default`.
pub(crate) fn set_level(settings: &Settings, by_default: &str, verbose: u8) -> Result<(), Error> {
    let level = match settings.get(LOG_LEVEL) {
        Some((level, origin)) if origin != Origin::Default => level,
        _ => by_default,
    };
    if !["error", "warn", "info", "debug"].contains(&level) {
        return Err(refused(LOG_LEVEL, "write error, warn, info or debug"));
    }
    if let Some(handle) = LEVEL.get() {
        let _ = handle.reload(filter(level, verbose));
    }
    Ok(())
}

/// For a command whose screen tells what goes wrong.
pub(crate) fn say_only(level: &str, verbose: u8) {
    if let Some(handle) = LEVEL.get() {
        let _ = handle.reload(filter(level, verbose));
    }
}

fn refused(setting: &str, fix: &str) -> Error {
    Error::Settings(vec![Invalid::new(setting, "cannot be used", fix)])
}
