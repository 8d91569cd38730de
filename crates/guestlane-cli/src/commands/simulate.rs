//! `guestlane simulate`: runs the simulator until interrupted.

use std::{path::Path, process::ExitCode, time::Duration};

use guestlane::Rate;
use guestlane_core::request::ValidationError;
use guestlane_sim::{
    DEPLOYMENT_ID, Deployment, Flow, OAuthClient, Options, Route, Simulator, StartError, Tls,
};
use serde_json::json;

use crate::{
    args::{Global, InboundFlow, Simulate},
    output,
};

pub(crate) async fn run(global: &Global, args: &Simulate) -> anyhow::Result<ExitCode> {
    let quota = super::rate("--rate-limit", &args.rate_limit)?;
    let endpoint_rate_limits = args
        .endpoint_rate_limits
        .iter()
        .map(|text| endpoint_rate_limit(text))
        .collect::<Result<_, _>>()?;
    let options = Options {
        clients: OAuthClient::several(args.clients),
        endpoint_rate_limits,
        listen: args.listen,
        quota,
        faults: args.faults.clone(),
        latency: Duration::from_millis(args.latency),
        seed: args.seed,
        token_life: Duration::from_secs(args.token_ttl),
        crm_secret: args.crm_secret.clone(),
        flow: match args.flow {
            InboundFlow::ReadsRoutingTarget => Flow::ReadsRoutingTarget,
            InboundFlow::Ignores => Flow::Ignores,
        },
        details_delay: Duration::from_millis(args.details_delay),
        prefetch: args.prefetch,
        join_opens: args.join_opens,
        pushes_out_of_order: args.out_of_order,
        deployment: Deployment {
            allow_all_domains: args.allow_origin.is_empty(),
            allowed_domains: args.allow_origin.clone(),
            ..Deployment::default()
        },
        tls: args.tls.then(|| Tls {
            region: args.region.clone(),
        }),
        ..Options::default()
    };
    // The settings take several clients separated by spaces.
    let joined = |part: fn(&OAuthClient) -> &str| {
        options
            .clients
            .iter()
            .map(part)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let (client_id, client_secret) = (joined(|client| &client.id), joined(|client| &client.secret));
    let queues = options.queues.clone();
    let (integration, source) = (options.integration, options.external_source);
    let refused = |error: StartError| match &error {
        StartError::Listen(..) => ValidationError::new(
            "--listen",
            error.to_string(),
            "choose another port, or 127.0.0.1:0 for a free one",
        ),
        StartError::Option(reason) if reason.contains("secret") => ValidationError::new(
            "--crm-secret",
            reason.clone(),
            "write whsec_ and base64, like `guestlane outbox secret`",
        ),
        StartError::Option(reason) => ValidationError::new(
            "--region",
            reason.clone(),
            "give a domain, like mypurecloud.ie or localhost",
        ),
    };
    let simulator = Simulator::start(options).await.map_err(refused)?;
    let base = simulator.base_url();
    let ca_file = write_ca(&simulator, &args.ca_file)?;
    if global.json {
        let mut says = json!({
            "baseUrl": base, "clientId": client_id, "clientSecret": client_secret,
            "queueIds": queues.iter().map(|queue| queue.id).collect::<Vec<_>>(), "deploymentId": DEPLOYMENT_ID,
            "integrationId": integration, "externalSourceId": source,
            "crmUrl": simulator.crm_url(), "adminUrl": format!("{base}/_sim"),
        });
        if let Some(file) = &ca_file {
            says["caFile"] = json!(file);
        }
        output::json(&says);
    } else {
        output::stderr_line(
            "Simulating the platform and a CRM until you press Ctrl-C. In another terminal:\n",
        );
        output::stdout_line(format!("export GENESYS_BASE_URL={base}"));
        let quoted = |text: &str| {
            if text.contains(' ') {
                format!("'{text}'")
            } else {
                text.to_owned()
            }
        };
        output::stdout_line(format!("export GENESYS_CLIENT_ID={}", quoted(&client_id)));
        output::stdout_line(format!(
            "export GENESYS_CLIENT_SECRET={}",
            quoted(&client_secret)
        ));
        if let Some(queue) = queues.first() {
            output::stdout_line(format!("export GENESYS_QUEUE_ID={}", queue.id));
        }
        if let Some(file) = &ca_file {
            output::stdout_line(format!("export GENESYS_CA_FILE={file}"));
            output::stdout_line(format!("export CRM_CA_FILE={file}"));
        }
        output::stdout_line(format!("export CRM_WEBHOOK_URL={}", simulator.crm_url()));
        output::stdout_line("export CRM_ALLOW_PRIVATE_NETWORKS=true");
        if let Some(secret) = &args.crm_secret {
            output::stdout_line(format!("export CRM_WEBHOOK_SECRET={secret}"));
        }
        output::stdout_line(format!("export GENESYS_DEPLOYMENT_ID={DEPLOYMENT_ID}"));
        output::stdout_line(format!("export GENESYS_INTEGRATION_ID={integration}"));
        output::stdout_line(format!("export GENESYS_EXTERNAL_SOURCE_ID={source}"));
        output::stdout_line("export GUESTLANE_SURFACE=rest  # or web-messaging, or open-messaging");
        output::stderr_line("\nQueues:");
        for queue in &queues {
            output::stderr_line(format!("  {}  {}", queue.id, queue.name));
        }
        let trust = ca_file
            .as_ref()
            .map(|file| format!("--cacert {file} "))
            .unwrap_or_default();
        output::stderr_line(format!(
            "Counters of the simulator: curl {trust}{base}/_sim/state"
        ));
    }
    interrupted().await?;
    Ok(ExitCode::SUCCESS)
}

/// Parses a rate limit of one route, such as `contact:60/min`.
fn endpoint_rate_limit(text: &str) -> Result<(Route, Rate), ValidationError> {
    let parsed = text
        .split_once(':')
        .and_then(|(route, rate)| Some((route.parse().ok()?, rate.parse().ok()?)));
    let names = || {
        Route::ALL
            .iter()
            .map(|route| route.name())
            .collect::<Vec<_>>()
            .join(", ")
    };
    parsed.ok_or_else(|| {
        let fix = format!(
            "write ROUTE:RATE, like contact:60/min; the routes are {}",
            names()
        );
        ValidationError::new(
            "--endpoint-rate-limit",
            format!(
                "`{}` is not a rate limit of a route",
                output::printable(text)
            ),
            fix,
        )
    })
}

/// Writes the certificate of the simulator's own certificate authority, for clients that should
/// trust it.
fn write_ca(simulator: &Simulator, path: &Path) -> anyhow::Result<Option<String>> {
    let Some(pem) = simulator.ca_pem() else {
        return Ok(None);
    };
    let path = std::path::absolute(path)?;
    std::fs::write(&path, pem).map_err(|error| {
        ValidationError::new(
            "--ca-file",
            format!("{} cannot be written: {error}", path.display()),
            "name another file",
        )
    })?;
    Ok(Some(path.display().to_string()))
}

async fn interrupted() -> std::io::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed,
        _ = terminate.recv() => Ok(()),
    }
}
