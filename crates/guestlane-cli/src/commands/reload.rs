//! Reloads settings and secrets of a running process on SIGHUP.

use std::{io, sync::Arc};

use guestlane::{Reloaded, SessionEngine};
use guestlane_cli::config::{CLIENT_SECRET, DATABASE_URL, MASTER_KEY, Settings, WEBHOOK_SECRET};
use guestlane_genesys::Rate;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::{args::Global, logging, report};

/// Handler of SIGHUP. Without it, the signal ends the process.
pub(crate) struct HangUp(Signal);

impl HangUp {
    pub(crate) fn new() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// Reloads the settings at each signal, for as long as it is polled.
    pub(crate) async fn keep_reloading(
        mut self,
        global: Global,
        load: impl Fn() -> anyhow::Result<Settings>,
        engine: Arc<SessionEngine>,
        after: impl AsyncFn(),
    ) {
        while self.0.recv().await.is_some() {
            reload(&global, &load, &engine).await;
            after().await;
        }
    }
}

/// Applies the log level, the rate limit and all secrets, or none of them. All other settings
/// require a restart.
async fn reload(
    global: &Global,
    load: &impl Fn() -> anyhow::Result<Settings>,
    engine: &SessionEngine,
) {
    match read_again(global, load, engine).await {
        Ok((quota, reloaded)) => {
            let quota = quota.map_or_else(|| "off".to_owned(), |rate| rate.to_string());
            let (new_secrets, secrets) = (reloaded.count(), names(&reloaded).join(" "));
            info!(quota, new_secrets, secrets, "settings reloaded");
        }
        Err(error) => warn!(
            error = on_one_line(&report::with_causes(&error)),
            "settings are invalid; keeping the previous ones"
        ),
    }
}

/// The settings whose secrets were replaced.
fn names(reloaded: &Reloaded) -> Vec<&'static str> {
    let replaced = [
        (reloaded.client_secrets > 0, CLIENT_SECRET),
        (reloaded.webhook_secret, WEBHOOK_SECRET),
        (reloaded.database_url, DATABASE_URL),
        (reloaded.master_key, MASTER_KEY),
    ];
    replaced
        .into_iter()
        .filter_map(|(replaced, name)| replaced.then_some(name))
        .collect()
}

/// Joins the lines of an error text for the log. The text is formatted for a terminal, with the fix
/// on a line of its own.
fn on_one_line(text: &str) -> String {
    text.lines()
        .map(str::trim)
        .fold(String::new(), |line, next| match line.as_str() {
            "" => next.to_owned(),
            heading if heading.ends_with(':') => format!("{line} {next}"),
            _ => format!("{line}; {next}"),
        })
}

async fn read_again(
    global: &Global,
    load: &impl Fn() -> anyhow::Result<Settings>,
    engine: &SessionEngine,
) -> anyhow::Result<(Option<Rate>, Reloaded)> {
    let settings = load()?;
    let quota = settings.quota()?;
    let config = settings.engine(false)?;
    logging::check_level(&settings, "info")?;
    let reloaded = engine.reload(&config).await?;
    logging::set_level(&settings, "info", global.verbose)?;
    engine.set_rate_limit(quota);
    Ok((quota, reloaded))
}
