//! `guestlane serve`: runs the HTTP service until interrupted.

use std::{process::ExitCode, sync::Arc};

use futures_util::FutureExt;
use guestlane::{SessionEngine, admission_control::AdmissionController, batch_worker::BatchWorker};
use guestlane_cli::config::{self, Settings};
use guestlane_runtime::Clock;
use guestlane_server::{
    Service,
    server::{BindError, Server},
};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::reload::HangUp;
use crate::{
    args::{Global, Serve},
    commands::batch::queued::is_shared,
    logging, output, settings,
};

pub(crate) async fn run(global: &Global, args: &Serve) -> anyhow::Result<ExitCode> {
    let settings = load(global, args)?;
    logging::set_level(&settings, "info", global.verbose)?;
    let service_settings = settings.service()?;
    let config = settings.engine(false)?;
    if args.with_worker {
        is_shared(&settings)?;
    }
    raise_open_files();
    let hang_up = HangUp::new()?;
    let engine = SessionEngine::open(config, Clock::system()).await?;
    let service = Service::open(
        Arc::clone(&engine),
        &service_settings,
        settings.default_queue()?,
    )
    .await?;
    let listening = Server::bind(Arc::clone(&service), &service_settings)
        .await
        .map_err(cannot_listen)?;
    let reload = {
        let (global, args, engine) = (global.clone(), args.clone(), Arc::clone(&engine));
        let certificate = listening.reload_handle();
        let from = global.clone();
        hang_up.keep_reloading(
            global,
            move || load(&from, &args),
            engine,
            async move || certificate.reload().await,
        )
    };
    let reloading = tokio::spawn(reload);
    let interrupted = interrupted()?.boxed().shared();
    let working = args.with_worker.then(|| {
        let intake = Arc::new(AdmissionController::new(
            Arc::clone(&engine),
            AdmissionController::MAX_CONCURRENCY.min(service_settings.max_sessions),
        ));
        tokio::spawn(BatchWorker::run(
            Arc::clone(&engine),
            intake,
            interrupted.clone(),
        ))
    });
    // The signal handlers are installed before this line is printed: a program that reads it may
    // send a signal at once.
    print_addresses(global, &service, &listening, service_settings.tls.is_some())?;
    let served = listening.serve(interrupted).await;
    reloading.abort();
    if let Some(working) = working {
        working.await??;
    }
    served?;
    Ok(ExitCode::SUCCESS)
}

/// Converts a bind error to an invalid setting, or to an error with the socket's own reason.
pub(crate) fn cannot_listen(error: BindError) -> anyhow::Error {
    match error {
        BindError::Invalid(invalid) => anyhow::Error::new(invalid),
        BindError::Socket(error) => {
            anyhow::Error::new(error).context("a socket of the service failed")
        }
    }
}

fn load(global: &Global, args: &Serve) -> anyhow::Result<Settings> {
    let mut settings = settings::load(global)?;
    settings.add_flag(config::LISTEN, args.listen.clone());
    settings.add_flag(config::METRICS_LISTEN, args.metrics_listen.clone());
    Ok(settings)
}

/// Prints the addresses, as text or as JSON.
fn print_addresses(
    global: &Global,
    service: &Service,
    listening: &Server,
    tls: bool,
) -> anyhow::Result<()> {
    let scheme = if tls { "https" } else { "http" };
    let address = format!("{scheme}://{}", listening.address()?);
    let metrics = listening
        .metrics_address()?
        .map(|address| format!("http://{address}/metrics"));
    if global.json {
        output::json(&json!({"address": address, "metrics": metrics}));
        return Ok(());
    }
    output::stdout_line(format!(
        "guestlane listens on {address} (dashboard: {address}/, documentation: {address}/docs)"
    ));
    if let Some(metrics) = metrics {
        output::stdout_line(format!("metrics: {metrics}"));
    }
    if !service.has_keys() {
        output::stderr_line(
            "note: no API key exists, so every request is answered 401; create one: guestlane api-keys create --name NAME --scope sessions:write",
        );
    }
    Ok(())
}

/// Installs handlers of SIGTERM and SIGINT, and returns a future that waits for either. A second
/// signal ends the process at once, with exit code 130.
///
/// # Errors
/// A handler cannot be installed.
pub(crate) fn interrupted() -> std::io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            output::stderr_line(
                "Stopped at once; sessions in flight are recorded, and the next process completes \
                 them.",
            );
            #[expect(
                clippy::disallowed_methods,
                reason = "the second signal does not wait for work in flight"
            )]
            std::process::exit(130);
        });
    })
}

/// Raises the limit of open files to its hard limit, because each connection needs a file
/// descriptor.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
