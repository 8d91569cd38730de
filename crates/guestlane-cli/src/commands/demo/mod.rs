//! `guestlane demo`: runs the product against a simulator on this machine, and verifies that no
//! guest is lost or duplicated.

mod print;
mod serve;

use std::{
    collections::HashSet,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use futures_util::{StreamExt, stream};
use guestlane::{
    CreatedSession, Credentials, Endpoints, EngineConfig, Error, OAuthClient, SessionEngine,
    StorageConfig, TokenRequestAuth, WebhookConfig, outbox::WebhookSecret,
};
use guestlane_core::{
    request::{
        Attributes, ContactDetails, IdempotencyKey, QueueId, SessionRequest, ValidationError,
    },
    surface::Surface,
};
use guestlane_genesys::Queue;
use guestlane_runtime::{Clock, TlsRoots, ssrf::EgressPolicy, text::without_bom_str};
use guestlane_server::{diagnosis, input::csv};
use guestlane_sim::{Options, Simulator};
use print::{print_json, print_summary, secrecy_text, what_is_wrong};

use crate::{
    args::{Demo, Global},
    output, report,
};

/// The guest list that ships with the product.
const GUESTS: &str = include_str!("../../../demo/guests.csv");

/// Maximum number of sessions in flight, low enough to follow on the screen.
const CONCURRENCY: usize = 4;

/// The simulator and an engine that uses it.
struct Pretended {
    simulator: Simulator,
    engine: Arc<SessionEngine>,
    /// The state directory, which is kept after the demo for inspection.
    directory: PathBuf,
}

async fn pretend(faults: &[String]) -> anyhow::Result<Pretended> {
    let secret = WebhookSecret::generate()?;
    let faults = faults
        .iter()
        .map(|fault| fault.parse())
        .collect::<Result<Vec<_>, _>>()?;
    let latency = Duration::from_millis(20);
    let options = Options {
        crm_secret: Some(secrecy_text(&secret)),
        latency,
        faults,
        ..Options::default()
    };
    let client = options
        .clients
        .first()
        .cloned()
        .context("the simulator has no OAuth client")?;
    let simulator = Simulator::start(options).await?;
    // The directory contains keys.
    let mode = std::fs::Permissions::from_mode(0o700);
    let directory = tempfile::Builder::new()
        .prefix("guestlane-demo-")
        .permissions(mode)
        .tempdir()?
        .keep();
    let credentials = Credentials {
        hosts: Endpoints::one_origin(simulator.base_url().parse()?),
        sign_in: TokenRequestAuth::Form,
        clients: vec![OAuthClient {
            id: client.id,
            secret: client.secret.into(),
        }],
        trust: TlsRoots::System,
    };
    let webhooks = WebhookConfig::new(vec![simulator.crm_url().parse()?])
        .secret(secret)
        .egress_policy(EgressPolicy::Any);
    let storage = StorageConfig::in_directory(&directory);
    let mut config = EngineConfig::new(credentials, Surface::Rest, storage).webhooks(webhooks);
    config.diagnose = diagnosis::of;
    let engine = SessionEngine::open(config, Clock::system()).await?;
    simulator
        .register_guest_keys(&engine.keyring().jwks(Clock::system().now()).to_string())
        .map_err(anyhow::Error::msg)?;
    Ok(Pretended {
        simulator,
        engine,
        directory,
    })
}

pub(crate) async fn run(global: &Global, args: &Demo) -> anyhow::Result<ExitCode> {
    let queues = Options::default().queues;
    let guests = read_guests(args.guests.as_deref(), &queues)?;
    if args.serve {
        return serve::run(global, args.listen, guests).await;
    }
    // For one guest, the platform opens the conversation but its response is lost. A retry without
    // an idempotency key would open a second one.
    let lost = requested(&guests).min(5);
    let Pretended {
        simulator,
        engine,
        directory,
    } = pretend(&[format!("conversation:answer-lost:nth={lost}")]).await?;
    let audit_log = engine.audit_log().to_owned();

    if !global.json {
        output::stdout_line(format!(
            "Creating sessions for {} guests. The platform and the CRM are simulated at {}.",
            guests.len(),
            simulator.base_url()
        ));
        output::stdout_line(format!(
            "The response to the request for conversation {lost} is lost after the platform has \
             opened the conversation.\n"
        ));
    }
    let created = create_all(&engine, &guests).await;
    if let Some(outbox) = engine.outbox() {
        outbox.wait_for_initial_deliveries().await;
    }
    engine.flush_counters().await?;

    let state = simulator.state();
    let proven = guestlane_tlog::verify_log(&audit_log, engine.audit_key(), &[]);
    let wrong = what_is_wrong(&guests, &created, &state);
    if global.json {
        print_json(&created, &state, &audit_log, &wrong);
    } else {
        print_summary(&queues, &created, &state);
        match &proven {
            Ok(checkpoint) => output::stdout_line(format!(
                "The audit log has {} records, as they were written: {}\nVerify it again: \
                 guestlane audit verify --state-dir {}",
                checkpoint.size,
                audit_log.display(),
                directory.display()
            )),
            Err(unproven) => output::stderr_line(format!(
                "error: {}",
                guestlane_runtime::text::display_chain(unproven)
            )),
        }
    }
    for error in created.iter().filter_map(|created| created.as_ref().err()) {
        output::stderr_line(report::text(error));
    }
    for wrong in &wrong {
        output::stderr_line(format!("error: {wrong}"));
    }
    Ok(if wrong.is_empty() && proven.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn create_all(
    engine: &Arc<SessionEngine>,
    guests: &[SessionRequest],
) -> Vec<Result<CreatedSession, Error>> {
    stream::iter(guests.to_vec())
        .map(|guest| {
            let engine = Arc::clone(engine);
            async move { engine.create(guest).await }
        })
        .buffered(CONCURRENCY)
        .collect()
        .await
}

fn requested(guests: &[SessionRequest]) -> u64 {
    guests
        .iter()
        .map(|guest| guest.key.as_str())
        .collect::<HashSet<_>>()
        .len() as u64
}

/// Parses rows of `guest_id,queue,attr.NAME…`, in which `queue` is a name or an ID.
fn read_guests(path: Option<&Path>, queues: &[Queue]) -> anyhow::Result<Vec<SessionRequest>> {
    let text = match path {
        Some(path) => std::fs::read_to_string(path).map_err(|error| {
            ValidationError::new(
                "--guests",
                format!("{} cannot be read: {error}", path.display()),
                "name a CSV file",
            )
        })?,
        None => GUESTS.to_owned(),
    };
    let mut reader = csv::Reader::new(without_bom_str(&text).as_bytes());
    let mut headings = None;
    let mut guests = Vec::new();
    while let Some(row) = reader.next_row()? {
        let at_line = |invalid: ValidationError| ValidationError {
            field: format!("line {}: {}", row.line, invalid.field),
            ..invalid
        };
        let malformed = |malformed: csv::Malformed| {
            ValidationError::new("row", malformed.to_string(), malformed.fault.fix())
        };
        let cells = row.cells.map_err(malformed).map_err(at_line)?;
        match &headings {
            _ if cells.iter().all(String::is_empty) => {}
            None => headings = Some(cells),
            Some(headings) => guests.push(guest(headings, &cells, queues).map_err(at_line)?),
        }
    }
    if guests.is_empty() {
        return Err(ValidationError::new(
            "--guests",
            "contains no guests",
            "write at least one row under guest_id,queue",
        )
        .into());
    }
    Ok(guests)
}

fn guest(
    headings: &[String],
    cells: &[String],
    queues: &[Queue],
) -> Result<SessionRequest, ValidationError> {
    if headings.len() != cells.len() {
        let reason = format!(
            "has {} columns, but the heading has {}",
            cells.len(),
            headings.len()
        );
        return Err(ValidationError::new(
            "row",
            reason,
            "write as many columns as the heading has",
        ));
    }
    let column = |name: &str| {
        let at = headings.iter().position(|heading| heading == name);
        at.and_then(|at| cells.get(at)).map_or("", String::as_str)
    };
    let wanted = column("queue");
    let by_name = queues
        .iter()
        .find(|queue| queue.name.eq_ignore_ascii_case(wanted) || queue.id.to_string() == wanted);
    let names: Vec<_> = queues.iter().map(|queue| queue.name.as_str()).collect();
    let unknown = || {
        ValidationError::new(
            "queue",
            format!("`{}` is not a queue of the demo", output::printable(wanted)),
            format!("use one of {}", names.join(", ")),
        )
    };
    let queue = QueueId(by_name.ok_or_else(unknown)?.id);
    let pairs = headings
        .iter()
        .zip(cells)
        .filter_map(|(heading, value)| Some((heading.strip_prefix("attr.")?, value.as_str())));
    let attributes = Attributes::from_pairs(pairs.filter(|(_, value)| !value.is_empty()))?;
    let guest = column("guest_id").parse()?;
    let person = ContactDetails::default();
    let key = IdempotencyKey::derive_for_row("demo", &guest, &person, queue, &attributes);
    Ok(SessionRequest {
        guest,
        contact_details: person,
        queue,
        attributes,
        key,
    })
}
