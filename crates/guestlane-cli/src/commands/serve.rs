//! `guestlane serve`: sessions over HTTP, until interrupted.

use std::{process::ExitCode, sync::Arc};

use futures_util::FutureExt;
use guestlane::{
    Clock, Lane,
    config::{self, Settings},
    intake::Intake,
    work::Work,
};
use guestlane_http::{
    Service,
    listen::{CannotListen, Listening},
};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::reload::HangUp;
use crate::{
    args::{Global, Serve},
    commands::batch::queued::is_shared,
    log, screen, settings,
};

pub(crate) async fn run(global: &Global, args: &Serve) -> anyhow::Result<ExitCode> {
    let settings = load(global, args)?;
    log::set_level(&settings, "info", global.verbose)?;
    let service_settings = settings.service()?;
    let config = settings.lane(false)?;
    if args.work {
        is_shared(&settings)?;
    }
    raise_open_files();
    let hang_up = HangUp::new()?;
    let lane = Lane::open(config, Clock::system()).await?;
    let service = Service::open(Arc::clone(&lane), &service_settings, settings.default_queue()?).await?;
    let listening = Listening::bind(Arc::clone(&service), &service_settings).await.map_err(cannot_listen)?;
    let reload = {
        let (global, args, lane) = (global.clone(), args.clone(), Arc::clone(&lane));
        let certificate = listening.reload_handle();
        let from = global.clone();
        hang_up.keep_reloading(global, move || load(&from, &args), lane, async move || certificate.reload().await)
    };
    let reloading = tokio::spawn(reload);
    let interrupted = interrupted()?.boxed().shared();
    let working = args.work.then(|| {
        let intake = Arc::new(Intake::new(Arc::clone(&lane), Intake::CEILING.min(service_settings.max_sessions)));
        tokio::spawn(Work::run(Arc::clone(&lane), intake, interrupted.clone()))
    });
    // Whoever reads it may send a signal at once.
    tell(global, &service, &listening, service_settings.tls.is_some())?;
    let served = listening.serve(interrupted).await;
    reloading.abort();
    if let Some(working) = working {
        working.await??;
    }
    served?;
    Ok(ExitCode::SUCCESS)
}

/// The setting that cannot be used, or the socket's own reason.
pub(crate) fn cannot_listen(error: CannotListen) -> anyhow::Error {
    match error {
        CannotListen::Invalid(invalid) => anyhow::Error::new(invalid),
        CannotListen::Socket(error) => anyhow::Error::new(error).context("the service's socket failed"),
    }
}

fn load(global: &Global, args: &Serve) -> anyhow::Result<Settings> {
    let mut settings = settings::load(global)?;
    settings.add_flag(config::LISTEN, args.listen.clone());
    settings.add_flag(config::METRICS_LISTEN, args.metrics_listen.clone());
    Ok(settings)
}

/// Where it is: for a person, or for a program that started it.
fn tell(global: &Global, service: &Service, listening: &Listening, tls: bool) -> anyhow::Result<()> {
    let scheme = if tls { "https" } else { "http" };
    let address = format!("{scheme}://{}", listening.address()?);
    let metrics = listening.metrics_address()?.map(|address| format!("http://{address}/metrics"));
    if global.json {
        screen::json(&json!({"address": address, "metrics": metrics}));
        return Ok(());
    }
    screen::data(format!("guestlane serves at {address} (dashboard: {address}/, documentation: {address}/docs)"));
    if let Some(metrics) = metrics {
        screen::data(format!("metrics: {metrics}"));
    }
    if !service.has_keys() {
        screen::note(
            "note: there is no API key yet, so nobody is answered; make one: guestlane api-keys create --name NAME --scope sessions:write",
        );
    }
    Ok(())
}

/// The first signal asks it to end; a second one does not wait.
pub(crate) fn interrupted() -> std::io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
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
            screen::note("Ended at once; what was begun is recorded, and the next process completes it.");
            #[expect(clippy::disallowed_methods, reason = "the second signal waits for nobody")]
            std::process::exit(130);
        });
    })
}

/// Each connection is an open file: as many as the system allows.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
