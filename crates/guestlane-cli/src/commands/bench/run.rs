//! One run of the benchmark, with a new simulator and a new state directory.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use guestlane::{
    AttemptLog, Credentials, Endpoints, EngineConfig, OAuthClient, Priority, Rate, SessionEngine,
    StorageConfig, TokenRequestAuth, WebhookConfig, Workers,
    admission_control::{AdmissionController, Permit},
};
use guestlane_core::{
    request::{Attributes, ContactDetails, IdempotencyKey, QueueId, SessionRequest},
    surface::Surface,
};
use guestlane_runtime::{Clock, TlsRoots, ssrf::EgressPolicy};
use nix::sys::{
    resource::{Usage, UsageWho, getrusage},
    time::TimeValLike,
};
use serde::Deserialize;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::stats::{Figures, Latency, round};
use crate::args::{Bench, BenchSurface};

/// A directory in memory: a store in it survives no power failure, and costs no disk.
const MEMORY: &str = "/dev/shm";

/// What the sessions of a run include.
pub(super) struct Plan {
    pub(super) name: &'static str,
    crm: bool,
    durable: bool,
}

impl Plan {
    pub(super) fn whole() -> Self {
        Self {
            name: "durable, audited, with CRM",
            crm: true,
            durable: true,
        }
    }

    /// Plans with one part less each.
    pub(super) fn each_part() -> Vec<Self> {
        let less = |name, durable| Self {
            name,
            crm: false,
            durable,
        };
        vec![
            Self::whole(),
            less("without CRM", true),
            less("without CRM, in memory", false),
        ]
    }

    /// The directory for the run's state directory.
    fn parent<'a>(&self, args: &'a Bench) -> &'a Path {
        if self.durable {
            &args.directory
        } else {
            Path::new(MEMORY)
        }
    }
}

/// The output of `simulate --json`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Says {
    base_url: String,
    client_id: String,
    client_secret: String,
    queue_ids: Vec<Uuid>,
    deployment_id: Uuid,
    integration_id: Uuid,
    crm_url: String,
}

/// A simulator process, which is killed on drop.
struct Simulator(Child);

impl Drop for Simulator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Simulator {
    fn start(args: &Bench) -> anyhow::Result<(Self, Says)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env_clear().args([
            "simulate",
            "--listen",
            "127.0.0.1:0",
            "--json",
            "--rate-limit",
            &args.rate_limit,
        ]);
        command.args([
            "--clients",
            &args.clients.to_string(),
            "--latency",
            &args.latency.to_string(),
        ]);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("the simulator cannot be started")?;
        let mut line = String::new();
        let stdout = child
            .stdout
            .as_mut()
            .context("the simulator has no output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let simulator = Self(child);
        Ok((
            simulator,
            serde_json::from_str(&line).context("the simulator did not start")?,
        ))
    }
}

fn settings(
    args: &Bench,
    plan: &Plan,
    quota: Option<Rate>,
    says: &Says,
    directory: &std::path::Path,
) -> anyhow::Result<EngineConfig> {
    let clients = says.client_id.split(' ').zip(says.client_secret.split(' '));
    let surface = match args.surface {
        BenchSurface::Rest => Surface::Rest,
        BenchSurface::WebMessaging => Surface::WebMessaging {
            deployment: says.deployment_id,
        },
        BenchSurface::OpenMessaging => Surface::OpenMessaging {
            integration: says.integration_id,
        },
    };
    let credentials = Credentials {
        hosts: Endpoints::one_origin(says.base_url.parse()?),
        sign_in: if surface.is_public_api() {
            TokenRequestAuth::Basic
        } else {
            TokenRequestAuth::Form
        },
        clients: clients
            .map(|(id, secret)| OAuthClient {
                id: id.to_owned(),
                secret: secret.to_owned().into(),
            })
            .collect(),
        trust: TlsRoots::System,
    };
    // A long wait is a measured latency, not a failure.
    let mut config =
        EngineConfig::new(credentials, surface, StorageConfig::in_directory(directory))
            .deadline(Duration::from_secs(600));
    config.call_policy.quota = quota;
    if plan.crm {
        let webhooks = WebhookConfig::new(vec![says.crm_url.parse()?]);
        config.webhooks = Some(webhooks.egress_policy(EgressPolicy::Any));
    }
    Ok(config)
}

fn request(n: u64, queue: QueueId) -> anyhow::Result<SessionRequest> {
    Ok(SessionRequest {
        guest: format!("guest-{n}").parse()?,
        contact_details: ContactDetails::default(),
        queue,
        attributes: Attributes::from_pairs([("source", "web-portal"), ("tier", "premium")])?,
        key: IdempotencyKey::generate(),
    })
}

pub(super) async fn run(
    args: &Bench,
    plan: &Plan,
    quota: Option<Rate>,
    arrivals: Option<Rate>,
) -> anyhow::Result<Figures> {
    let (_simulator, says) = Simulator::start(args)?;
    let directory = tempfile::Builder::new()
        .prefix("guestlane-bench-")
        .tempdir_in(plan.parent(args))
        .with_context(|| {
            format!(
                "no state directory can be created in {}",
                plan.parent(args).display()
            )
        })?;
    let queue = QueueId(
        says.queue_ids
            .first()
            .copied()
            .context("the simulator has no queue")?,
    );
    let clock = Clock::system();
    let engine = SessionEngine::open(
        settings(args, plan, quota, &says, directory.path())?,
        clock.clone(),
    )
    .await?;
    let working = tokio::spawn(Workers::new(Arc::clone(&engine)).run());
    let intake = AdmissionController::new(
        Arc::clone(&engine),
        args.concurrency
            .map_or(AdmissionController::MAX_CONCURRENCY, usize::from),
    );

    let before = getrusage(UsageWho::RUSAGE_SELF)?;
    let began = clock.monotonic();
    let mut running: JoinSet<Option<Duration>> = JoinSet::new();
    let mut latencies = Vec::with_capacity(args.sessions as usize);
    for n in 0..args.sessions {
        let (begun, asked_at): (Option<Permit>, _) = match arrivals {
            None => (
                Some(intake.acquire(queue, |_| {}).await?),
                clock.monotonic(),
            ),
            // Requests arrive at a fixed rate, whether or not earlier sessions are done.
            Some(rate) => {
                let due = began + Duration::from_secs_f64(n as f64 / rate.per_second());
                if due > clock.monotonic() {
                    // Timers have a resolution of one millisecond; that delay is not part of a
                    // session's latency.
                    clock.sleep(due.since(clock.monotonic())).await;
                }
                (None, clock.monotonic())
            }
        };
        let (engine, clock, request) = (Arc::clone(&engine), clock.clone(), request(n, queue)?);
        running.spawn(async move {
            let created = engine
                .create_with(request, Priority::Background, AttemptLog::default())
                .await;
            drop(begun);
            created.is_ok().then(|| clock.monotonic().since(asked_at))
        });
        while let Some(ended) = running.try_join_next() {
            latencies.push(ended?);
        }
    }
    while let Some(ended) = running.join_next().await {
        latencies.push(ended?);
    }
    let seconds = clock.monotonic().since(began).as_secs_f64();
    if let Some(outbox) = engine.outbox() {
        // Deliveries are part of the cost.
        outbox.wait_for_initial_deliveries().await;
    }
    let after = getrusage(UsageWho::RUSAGE_SELF)?;
    working.abort();

    let (sessions, calls) = (
        args.sessions as f64,
        engine.platform_metrics().calls() as f64,
    );
    let good: Vec<_> = latencies.iter().copied().flatten().collect();
    let allowed = quota.map(|rate| rate.per_second() * f64::from(args.clients) * seconds);
    Ok(Figures {
        sessions: args.sessions,
        failed: (latencies.len() - good.len()) as u64,
        seconds: round(seconds),
        sessions_per_second: round(good.len() as f64 / seconds),
        cpu_ms_per_session: round(
            (processor_time(&after) - processor_time(&before)).as_secs_f64() * 1000.0 / sessions,
        ),
        latency_ms: Latency::of(good),
        calls_per_session: round(calls / sessions),
        throttled_percent: round(engine.platform_metrics().throttled() as f64 * 100.0 / calls),
        quota_percent: allowed.map(|allowed| round(calls * 100.0 / allowed)),
        resident_mib: round(after.max_rss() as f64 / 1024.0), // `max_rss` is in KiB
    })
}

fn processor_time(usage: &Usage) -> Duration {
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(micros.try_into().unwrap_or_default())
}
