//! One file per command.

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
pub(crate) mod keys;
pub(crate) mod master_key;
pub(crate) mod metrics;
pub(crate) mod outbox;
pub(crate) mod reload;
pub(crate) mod serve;
pub(crate) mod sessions;
pub(crate) mod simulate;
pub(crate) mod store;
pub(crate) mod token;
pub(crate) mod work;

use std::{io::Read, process::ExitCode, time::Duration};

use clap::CommandFactory;
use guestlane::{
    Clock, Lane, Rate, State,
    config::parse_span,
    input::without_bom_str,
    request::{Attributes, Invalid},
};

use crate::{args, args::Global, screen, settings};

/// Prints a completion script.
pub(crate) fn completions(shell: clap_complete::Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::Args::command(), "guestlane", &mut script);
    screen::data(String::from_utf8_lossy(&script));
    Ok(ExitCode::SUCCESS)
}

/// Store and keys, made on first use, without the platform's settings.
pub(crate) async fn open_state(global: &Global) -> anyhow::Result<State> {
    let places = settings::load(global)?.places()?;
    Ok(State::open(&places, &Clock::system()).await?)
}

/// Store and keys as they are: nothing is made, nothing is mended.
pub(crate) async fn look_at_state(global: &Global) -> anyhow::Result<State> {
    let places = settings::load(global)?.places()?;
    Ok(State::look(&places, &Clock::system()).await?)
}

/// `NAME=VALUE`, as often as it was given.
pub(crate) fn attributes(pairs: &[String]) -> Result<Attributes, Invalid> {
    let split = pairs.iter().map(|pair| {
        pair.split_once('=').ok_or_else(|| {
            let shown: String = screen::printable(pair).chars().take(40).collect();
            Invalid::new("--attr", format!("`{shown}` has no `=`"), "write NAME=VALUE, for example --attr tier=premium")
        })
    });
    Attributes::from_pairs(split.collect::<Result<Vec<_>, _>>()?)
}

/// A flag that is a rate, or off.
pub(crate) fn rate(flag: &str, text: &str) -> Result<Option<Rate>, Invalid> {
    Rate::parse(text).map_err(|error| Invalid::new(flag, error.to_string(), "use the form N/s, N/min or off"))
}

/// A flag that is a span of hours or days.
pub(crate) fn span(flag: &str, text: &str) -> Result<Duration, Invalid> {
    let invalid = || Invalid::new(flag, format!("`{}` is no span of time", screen::printable(text)), "write it like 12h or 90d");
    parse_span(text).ok_or_else(invalid)
}

/// An argument, or standard input where that is `-`.
pub(crate) fn argument(text: &str) -> anyhow::Result<String> {
    if text != "-" {
        return Ok(text.trim().to_owned());
    }
    let mut input = String::new();
    std::io::stdin().take(64 * 1024).read_to_string(&mut input)?;
    Ok(without_bom_str(&input).trim().to_owned())
}

/// The end of a process that created sessions: waits for the first tries of its own events, and says what is left for later. Nothing in here
/// changes how the command ends: what it did is done, and was told.
pub(crate) async fn close(lane: &Lane) {
    let closed = async {
        lane.finish().await?;
        tell_crm(lane).await?;
        tell_unfinished(lane).await
    };
    if let Err(error) = closed.await {
        screen::note(format!("note: what is left for later could not be counted: {error:#}"));
    }
}

async fn tell_crm(lane: &Lane) -> anyhow::Result<()> {
    let Some(outbox) = lane.outbox() else { return Ok(()) };
    outbox.first_tries_done().await;
    match lane.store().pending_events().await? {
        0 => {}
        1 => screen::note("note: 1 event for the CRM waits; `guestlane outbox deliver` tries it now"),
        n => screen::note(format!("note: {n} events for the CRM wait; `guestlane outbox deliver` tries them now")),
    }
    Ok(())
}

async fn tell_unfinished(lane: &Lane) -> anyhow::Result<()> {
    match lane.store().unfinished().await? {
        0 => {}
        1 => screen::note("note: 1 unfinished session waits; `guestlane sessions resume` finishes it"),
        n => screen::note(format!("note: {n} unfinished sessions wait; `guestlane sessions resume` finishes them")),
    }
    Ok(())
}
