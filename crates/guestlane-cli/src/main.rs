//! The executable `guestlane`: parses the arguments and runs one command.

mod args;
mod commands;
mod logging;
mod otlp;
mod output;
mod report;
mod settings;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};

fn main() -> ExitCode {
    let args = Args::parse();
    // rustls supports several crypto providers; one is installed for all TLS connections.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            return report::report(
                &anyhow::Error::from(error).context("cannot start the runtime"),
                args.global.json,
            );
        }
    };
    keep_memory_private();
    let traces = match start_log(&args, &runtime) {
        Ok(traces) => traces,
        Err(error) => return report::report(&error.into(), args.global.json),
    };
    let ended = runtime.block_on(run(&args));
    if let Some(traces) = traces {
        traces.end();
    }
    // A plain drop would wait for the thread that reads standard input.
    runtime.shutdown_background();
    if output::data_was_lost() {
        output::stderr_line(
            "error: cannot write to standard output; the work that was done is \
            not undone",
        );
        return ExitCode::FAILURE;
    }
    match ended {
        Ok(code) => code,
        Err(error) => report::report(&error, args.global.json),
    }
}

/// Keeps secrets in memory private: no core dump contains them, and no other process of the same
/// user can read them (`ptrace`, `/proc/PID/mem`). Where the system refuses, the process continues
/// without this protection.
fn keep_memory_private() {
    use nix::sys::resource::{Resource, setrlimit};
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_dumpable(false);
}

/// Starts logging and traces. Settings that cannot be read are reported by the command that needs
/// them. An invalid trace endpoint is reported here, except for commands that inspect the settings.
fn start_log(
    args: &Args,
    runtime: &tokio::runtime::Runtime,
) -> Result<Option<otlp::Traces>, guestlane::Error> {
    let settings = settings::load(&args.global).ok();
    let json = settings
        .as_ref()
        .is_some_and(|settings| logging::wants_json(settings).unwrap_or(false));
    let _in_runtime = runtime.enter();
    let looks_at_settings = matches!(
        args.command,
        Command::Doctor | Command::Config(_) | Command::Completions { .. }
    );
    let started = settings.as_ref().map_or(Ok(None), otlp::Traces::start);
    let traces = if looks_at_settings {
        started.ok().flatten()
    } else {
        started?
    };
    logging::start(args.global.verbose, json, traces.as_ref());
    if let (Some(settings), false) = (&settings, is_without_settings(&args.command)) {
        for unknown in settings.unknown_variables() {
            let (variable, nearest) = (&unknown.name, unknown.nearest);
            tracing::warn!(
                variable,
                nearest,
                "unknown environment variable; ignoring it"
            );
        }
    }
    Ok(traces)
}

/// Commands without settings, and `doctor`, which reports each unknown variable itself.
fn is_without_settings(command: &Command) -> bool {
    matches!(
        command,
        Command::Doctor
            | Command::Completions { .. }
            | Command::Demo(_)
            | Command::Simulate(_)
            | Command::Bench(_)
    )
}

async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let global = &args.global;
    match &args.command {
        Command::Demo(demo) => commands::demo::run(global, demo).await,
        Command::Create(create) => commands::create::run(global, create).await,
        Command::Batch(batch) => commands::batch::run(global, batch).await,
        Command::Bench(bench) => commands::bench::run(global, bench).await,
        Command::Simulate(simulate) => commands::simulate::run(global, simulate).await,
        Command::Worker(worker) => commands::worker::run(global, worker).await,
        Command::Serve(serve) => commands::serve::run(global, serve).await,
        Command::ApiKeys(keys) => commands::api_keys::run(global, keys).await,
        Command::Sessions(sessions) => commands::sessions::run(global, sessions).await,
        Command::Outbox(outbox) => commands::outbox::run(global, outbox).await,
        Command::SigningKeys(keys) => commands::signing_keys::run(global, keys).await,
        Command::MasterKey(key) => commands::master_key::run(global, key).await,
        Command::Token(token) => commands::token::run(global, token).await,
        Command::Audit(audit) => commands::audit::run(global, audit).await,
        Command::Guests(guests) => commands::guests::run(global, guests).await,
        Command::Store(store) => commands::store::run(global, store).await,
        Command::Stats => commands::stats::run(global).await,
        Command::Doctor => commands::doctor::run(global).await,
        Command::Config(config) => commands::config::run(global, config),
        Command::Completions { shell } => commands::completions(*shell),
    }
}
