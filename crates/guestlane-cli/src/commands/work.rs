//! `guestlane work`: a process's part of the batches in the database, until interrupted.

use std::{process::ExitCode, sync::Arc};

use guestlane::{Clock, Lane, config::QUOTA, intake::Intake, work::Work};
use serde_json::json;

use super::{batch::queued::is_shared, close, serve::interrupted};
use crate::{
    args::{self, Global},
    log, screen, settings,
};

pub(crate) async fn run(global: &Global, args: &args::Work) -> anyhow::Result<ExitCode> {
    let mut settings = settings::load(global)?;
    settings.add_flag(QUOTA, args.quota.clone());
    log::set_level(&settings, "info", global.verbose)?;
    settings.traces()?;
    is_shared(&settings)?;
    let lane = Lane::open(settings.lane(false)?, Clock::system()).await?;
    let intake = Arc::new(Intake::new(Arc::clone(&lane), args.concurrency.map_or(Intake::CEILING, usize::from)));
    let interrupted = interrupted()?;
    // Whoever reads it may send a signal at once.
    if global.json {
        screen::json(&json!({"works": true}));
    } else {
        screen::note("Works on the batches in the database, until interrupted.");
    }
    let working = tokio::spawn(Arc::clone(&lane).work());
    Work::run(Arc::clone(&lane), intake, interrupted).await?;
    close(&lane).await;
    working.abort();
    Ok(ExitCode::SUCCESS)
}
