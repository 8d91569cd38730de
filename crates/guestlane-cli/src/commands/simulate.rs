//! `guestlane simulate`: runs the simulator until interrupted.

use std::{path::Path, process::ExitCode, time::Duration};

use guestlane::Rate;
use guestlane_core::request::ValidationError;
use guestlane_sim::{
    DEPLOYMENT_ID, Deployment, Flow, OAuthClient, Options, Route, Simulator, StartError, Tls,
};
use serde_json::{Value, json};

use crate::{
    args::{Global, InboundFlow, Simulate},
    output,
};

pub(crate) async fn run(global: &Global, args: &Simulate) -> anyhow::Result<ExitCode> {
    let options = options(args)?;
    let simulator = Simulator::start(options.clone()).await.map_err(invalid)?;
    let shown = Shown {
        base_url: simulator.base_url(),
        crm_url: simulator.crm_url(),
        ca_file: write_ca(&simulator, &args.ca_file)?,
        options,
    };
    if global.json {
        output::json(&shown.json());
    } else {
        shown.print();
    }
    interrupted().await?;
    Ok(ExitCode::SUCCESS)
}

fn options(args: &Simulate) -> Result<Options, ValidationError> {
    let quota = super::rate("--rate-limit", &args.rate_limit)?;
    Ok(Options {
        clients: OAuthClient::several(args.clients),
        endpoint_rate_limits: args
            .endpoint_rate_limits
            .iter()
            .map(|text| endpoint_rate_limit(text))
            .collect::<Result<_, _>>()?,
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
    })
}

/// The error of the flag because of which the simulator cannot start.
fn invalid(error: StartError) -> ValidationError {
    let (flag, fix) = match &error {
        StartError::Listen(..) => (
            "--listen",
            "choose another port, or 127.0.0.1:0 for a free one",
        ),
        StartError::Option(reason) if reason.contains("secret") => (
            "--crm-secret",
            "write whsec_ and base64, like `guestlane outbox secret`",
        ),
        StartError::Option(_) => (
            "--region",
            "give a domain, like mypurecloud.ie or localhost",
        ),
    };
    ValidationError::new(flag, error.to_string(), fix)
}

/// What the user needs to connect to the simulator.
struct Shown {
    base_url: String,
    crm_url: String,
    ca_file: Option<String>,
    options: Options,
}

impl Shown {
    /// A part of all OAuth clients. The settings take several, separated by spaces.
    fn joined(&self, part: fn(&OAuthClient) -> &str) -> String {
        let parts: Vec<&str> = self.options.clients.iter().map(part).collect();
        parts.join(" ")
    }

    fn json(&self) -> Value {
        let queues: Vec<_> = self.options.queues.iter().map(|queue| queue.id).collect();
        let mut shown = json!({
            "baseUrl": self.base_url,
            "clientId": self.joined(|client| &client.id),
            "clientSecret": self.joined(|client| &client.secret),
            "queueIds": queues,
            "deploymentId": DEPLOYMENT_ID,
            "integrationId": self.options.integration,
            "externalSourceId": self.options.external_source,
            "crmUrl": self.crm_url,
            "adminUrl": format!("{}/_sim", self.base_url),
        });
        if let Some(file) = &self.ca_file {
            shown["caFile"] = json!(file);
        }
        shown
    }

    fn print(&self) {
        output::stderr_line(
            "Simulating the platform and a CRM until you press Ctrl-C. In another terminal:\n",
        );
        for (setting, value) in self.settings() {
            output::stdout_line(format!("export {setting}={value}"));
        }
        output::stderr_line("\nQueues:");
        for queue in &self.options.queues {
            output::stderr_line(format!("  {}  {}", queue.id, queue.name));
        }
        let trust = self
            .ca_file
            .as_ref()
            .map(|file| format!("--cacert {file} "))
            .unwrap_or_default();
        output::stderr_line(format!(
            "Counters of the simulator: curl {trust}{}/_sim/state",
            self.base_url
        ));
    }

    /// The settings with which guestlane uses the simulator, as a shell reads them.
    fn settings(&self) -> Vec<(&'static str, String)> {
        let quoted = |text: String| match text.contains(' ') {
            true => format!("'{text}'"),
            false => text,
        };
        let mut settings = vec![
            ("GENESYS_BASE_URL", self.base_url.clone()),
            (
                "GENESYS_CLIENT_ID",
                quoted(self.joined(|client| &client.id)),
            ),
            (
                "GENESYS_CLIENT_SECRET",
                quoted(self.joined(|client| &client.secret)),
            ),
        ];
        if let Some(queue) = self.options.queues.first() {
            settings.push(("GENESYS_QUEUE_ID", queue.id.to_string()));
        }
        if let Some(file) = &self.ca_file {
            settings.push(("GENESYS_CA_FILE", file.clone()));
            settings.push(("CRM_CA_FILE", file.clone()));
        }
        settings.push(("CRM_WEBHOOK_URL", self.crm_url.clone()));
        settings.push(("CRM_ALLOW_PRIVATE_NETWORKS", "true".to_owned()));
        if let Some(secret) = &self.options.crm_secret {
            settings.push(("CRM_WEBHOOK_SECRET", secret.clone()));
        }
        settings.extend([
            ("GENESYS_DEPLOYMENT_ID", DEPLOYMENT_ID.to_string()),
            (
                "GENESYS_INTEGRATION_ID",
                self.options.integration.to_string(),
            ),
            (
                "GENESYS_EXTERNAL_SOURCE_ID",
                self.options.external_source.to_string(),
            ),
            (
                "GUESTLANE_SURFACE",
                "rest  # or web-messaging, or open-messaging".to_owned(),
            ),
        ]);
        settings
    }
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
