//! `guestlane worker`: claims and processes rows of the batches in the database until interrupted.

use std::{net::SocketAddr, process::ExitCode, sync::Arc};

use guestlane::{SessionEngine, admission_control::AdmissionController, batch_worker::BatchWorker};
use guestlane_cli::config::{METRICS_LISTEN, PLATFORM_RATE_LIMIT, Settings};
use guestlane_runtime::Clock;
use guestlane_server::{Service, server::MetricsServer};
use serde_json::json;

use super::{
    batch::queued::is_shared,
    close,
    reload::HangUp,
    serve::{cannot_listen, interrupted},
};
use crate::{
    args::{self, Global},
    logging, output, settings,
};

pub(crate) async fn run(global: &Global, args: &args::Worker) -> anyhow::Result<ExitCode> {
    let settings = load(global, args)?;
    logging::set_level(&settings, "info", global.verbose)?;
    is_shared(&settings)?;
    let service_settings = settings.service()?;
    // By default a worker has no listener, so that several can share a machine with a service.
    let metrics = service_settings
        .metrics
        .filter(|_| !settings.is_default(METRICS_LISTEN));
    let hang_up = HangUp::new()?;
    let engine = SessionEngine::open(settings.engine(false)?, Clock::system()).await?;
    let intake = Arc::new(AdmissionController::new(
        Arc::clone(&engine),
        args.max_concurrency
            .map_or(AdmissionController::MAX_CONCURRENCY, usize::from),
    ));
    let service = Service::open(
        Arc::clone(&engine),
        &service_settings,
        settings.default_queue()?,
    )
    .await?;
    let metrics = metrics
        .map(|address| MetricsServer::bind(&service, address))
        .transpose()
        .map_err(cannot_listen)?;
    let (draining, interrupted) = (Arc::clone(&service), interrupted()?);
    let interrupted = async move {
        interrupted.await;
        draining.drain();
    };
    let reload = {
        let (from, args) = (global.clone(), args.clone());
        hang_up.keep_reloading(
            global.clone(),
            move || load(&from, &args),
            Arc::clone(&engine),
            async || {},
        )
    };
    let reloading = tokio::spawn(reload);
    // The signal handlers are installed before this line is printed: a program that reads it may
    // send a signal at once.
    print_addresses(global, metrics.as_ref().map(MetricsServer::address));
    let working = tokio::spawn(Arc::clone(&service).work());
    BatchWorker::run(Arc::clone(&engine), intake, interrupted).await?;
    reloading.abort();
    close(&engine).await;
    working.abort();
    if let Some(metrics) = metrics {
        metrics.end().await;
    }
    Ok(ExitCode::SUCCESS)
}

fn load(global: &Global, args: &args::Worker) -> anyhow::Result<Settings> {
    let mut settings = settings::load(global)?;
    settings.add_flag(PLATFORM_RATE_LIMIT, args.rate_limit.clone());
    settings.add_flag(METRICS_LISTEN, args.metrics_listen.clone());
    Ok(settings)
}

fn print_addresses(global: &Global, metrics: Option<SocketAddr>) {
    let metrics = metrics.map(|address| format!("http://{address}/metrics"));
    if global.json {
        output::json(&json!({"works": true, "metrics": metrics}));
        return;
    }
    output::stderr_line("Processing batches from the database until interrupted.");
    if let Some(metrics) = metrics {
        output::stderr_line(format!("metrics: {metrics}"));
    }
}
