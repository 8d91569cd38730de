//! `guestlane work`: a process's part of the batches in the database, until interrupted.

use std::{net::SocketAddr, process::ExitCode, sync::Arc};

use guestlane::{
    Clock, Lane,
    config::{METRICS_LISTEN, QUOTA, Settings},
    intake::Intake,
    work::Work,
};
use guestlane_http::{Service, listen::MetricsServer};
use serde_json::json;

use super::{
    batch::queued::is_shared,
    close,
    reload::HangUp,
    serve::{cannot_listen, interrupted},
};
use crate::{
    args::{self, Global},
    log, screen, settings,
};

pub(crate) async fn run(global: &Global, args: &args::Work) -> anyhow::Result<ExitCode> {
    let settings = load(global, args)?;
    log::set_level(&settings, "info", global.verbose)?;
    is_shared(&settings)?;
    let service_settings = settings.service()?;
    // By default a worker has no listener: several may share a machine with a service.
    let metrics = service_settings.metrics.filter(|_| !settings.is_default(METRICS_LISTEN));
    let hang_up = HangUp::new()?;
    let lane = Lane::open(settings.lane(false)?, Clock::system()).await?;
    let intake = Arc::new(Intake::new(Arc::clone(&lane), args.concurrency.map_or(Intake::CEILING, usize::from)));
    let service = Service::open(Arc::clone(&lane), &service_settings, settings.default_queue()?).await?;
    let metrics = metrics.map(|address| MetricsServer::bind(&service, address)).transpose().map_err(cannot_listen)?;
    let (draining, interrupted) = (Arc::clone(&service), interrupted()?);
    let interrupted = async move {
        interrupted.await;
        draining.drain();
    };
    let reload = {
        let (from, args) = (global.clone(), args.clone());
        hang_up.keep_reloading(global.clone(), move || load(&from, &args), Arc::clone(&lane), async || {})
    };
    let reloading = tokio::spawn(reload);
    // A program that reads this line may send a signal at once.
    tell(global, metrics.as_ref().map(MetricsServer::address));
    let working = tokio::spawn(Arc::clone(&service).work());
    Work::run(Arc::clone(&lane), intake, interrupted).await?;
    reloading.abort();
    close(&lane).await;
    working.abort();
    if let Some(metrics) = metrics {
        metrics.end().await;
    }
    Ok(ExitCode::SUCCESS)
}

fn load(global: &Global, args: &args::Work) -> anyhow::Result<Settings> {
    let mut settings = settings::load(global)?;
    settings.add_flag(QUOTA, args.quota.clone());
    settings.add_flag(METRICS_LISTEN, args.metrics_listen.clone());
    Ok(settings)
}

fn tell(global: &Global, metrics: Option<SocketAddr>) {
    let metrics = metrics.map(|address| format!("http://{address}/metrics"));
    if global.json {
        screen::json(&json!({"works": true, "metrics": metrics}));
        return;
    }
    screen::note("Works on the batches in the database, until interrupted.");
    if let Some(metrics) = metrics {
        screen::note(format!("metrics: {metrics}"));
    }
}
