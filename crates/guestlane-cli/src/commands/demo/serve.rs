//! `guestlane demo --serve`: guests arrive and faults occur until the demo is interrupted, as
//! traffic for the dashboard.

use std::{
    net::SocketAddr,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use guestlane::SessionEngine;
use guestlane_core::{
    api_key::{ApiKey, Scope, Scopes, StoredApiKey},
    request::{
        Attributes, ContactDetails, IdempotencyKey, QueueId, SessionRequest, ValidationError,
    },
};
use guestlane_runtime::Clock;
use guestlane_server::ServiceSettings;
use guestlane_server::{Service, server::Server};
use serde_json::json;
use tokio::{sync::oneshot, task::JoinSet};
use uuid::Uuid;

use super::{Pretended, pretend};
use crate::{args::Global, commands::serve::interrupted, logging, output};

/// The faults: responses that are lost after the work was done, a platform that limits and fails,
/// and a webhook receiver that fails. No guest is lost by any of them.
const FAULTS: [&str; 5] = [
    "contact:answer-lost:p=0.01",
    "conversation:answer-lost:p=0.01",
    "conversation:503:p=0.02",
    "contact:429:p=0.01,retry-after=1",
    "crm:500:p=0.05",
];

/// Arrival rates, in guests per second, from one peak to the next.
const WAVES: [f64; 12] = [
    2.0, 3.0, 5.0, 8.0, 12.0, 15.0, 14.0, 10.0, 7.0, 5.0, 3.0, 2.0,
];

/// One in this many guests names a queue that does not exist.
const LOST_ITS_WAY: u64 = 97;

pub(super) async fn run(
    global: &Global,
    listen: SocketAddr,
    guests: Vec<SessionRequest>,
) -> anyhow::Result<ExitCode> {
    if !listen.ip().is_loopback() {
        let reason = "is not a loopback address, and the demo does not support TLS";
        return Err(ValidationError::new(
            "--listen",
            reason,
            "use a loopback address, like 127.0.0.1:8971",
        )
        .into());
    }
    logging::set_minimum_level("error", global.verbose);
    let Pretended {
        simulator,
        engine,
        directory,
    } = pretend(&FAULTS.map(str::to_owned)).await?;
    let key = admin_key(&engine).await?;
    let settings = ServiceSettings {
        listen,
        metrics: None,
        tls: None,
        key_rate: None,
        max_sessions: 1024,
        behind_proxy: false,
        drain: std::time::Duration::ZERO,
    };
    let service = Service::open(Arc::clone(&engine), &settings, None).await?;
    let listening = Server::bind(Arc::clone(&service), &settings).await?;
    let address = format!("http://{}", listening.address()?);
    let interrupted = interrupted()?;
    if global.json {
        output::json(
            &json!({"address": address, "key": key.expose(), "platform": simulator.base_url(), "stateDir": directory}),
        );
    } else {
        output::stdout_line(format!(
            "Guests arrive and faults are injected until you press Ctrl-C. Open:\n\n  \
             {address}/#key={}\n",
            key.expose()
        ));
        output::stdout_line(format!(
            "The key is valid for this demo only. The state of the demo is in {}.",
            directory.display()
        ));
    }
    let arrived = Arc::new(AtomicU64::new(0));
    let (stop, stopped) = oneshot::channel();
    let arriving = tokio::spawn(arrive(
        Arc::clone(&engine),
        guests,
        Arc::clone(&arrived),
        stopped,
    ));
    listening.serve(interrupted).await?;
    drop(stop);
    let unfinished = finish(&engine, arriving.await?).await?;

    let state = simulator.state();
    let twice = state.duplicates.guests.len();
    if global.json {
        output::json(
            &json!({"guests": arrived.load(Ordering::Relaxed), "unfinished": unfinished, "platform": state}),
        );
    } else {
        output::stdout_line(format!(
            "\nThe platform has {} conversations of {} guests: {twice} duplicate guests. \
             Responses lost after the platform acted: {}.",
            state.conversations,
            state.guests,
            state.faults.get("answer-lost").copied().unwrap_or(0)
        ));
        if unfinished > 0 {
            let were = if unfinished == 1 { "was" } else { "were" };
            let sessions = output::count(unfinished, "session");
            output::stdout_line(format!(
                "{sessions} {were} in flight when the demo ended and {were} recorded; a service \
                 would finish them."
            ));
        }
        output::stdout_line(format!(
            "Verify the audit log: guestlane audit verify --state-dir {}",
            directory.display()
        ));
    }
    Ok(if twice == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn admin_key(engine: &SessionEngine) -> anyhow::Result<ApiKey> {
    let key = ApiKey::generate()?;
    let scopes = Scopes::new([Scope::Admin])?;
    let stored = StoredApiKey::new(
        &key,
        &engine.api_key_hash().await?,
        "demo",
        scopes,
        Clock::system().now(),
    );
    engine.store().add_api_key(stored, None).await?;
    Ok(key)
}

/// Finishes the sessions in flight within 10 seconds, and returns how many are unfinished then.
async fn finish(engine: &Arc<SessionEngine>, mut under_way: JoinSet<()>) -> anyhow::Result<u64> {
    const TIMEOUT: Duration = Duration::from_secs(10);
    const POLL_INTERVAL: Duration = Duration::from_millis(200);
    let clock = Clock::system();
    let give_up_at = clock.now() + TIMEOUT;
    let all = async { while under_way.join_next().await.is_some() {} };
    let _ = clock.timeout(TIMEOUT, all).await;
    loop {
        let unfinished = engine.store().unfinished().await?;
        if unfinished == 0 || clock.now() >= give_up_at {
            return Ok(unfinished);
        }
        engine.recover_abandoned().await?;
        clock.sleep(POLL_INTERVAL).await;
    }
}

/// Creates sessions for the guests of the list, repeatedly under new IDs and at the rates of
/// [`WAVES`], until it is stopped. Returns the sessions in flight at that time.
async fn arrive(
    engine: Arc<SessionEngine>,
    guests: Vec<SessionRequest>,
    arrived: Arc<AtomicU64>,
    mut stopped: oneshot::Receiver<()>,
) -> JoinSet<()> {
    let (clock, mut under_way) = (Clock::system(), JoinSet::new());
    for (number, like) in (0_u64..).zip(guests.iter().cycle()) {
        let wave = WAVES[(number / 20) as usize % WAVES.len()];
        tokio::select! {
            _ = &mut stopped => break,
            () = clock.sleep(Duration::from_secs_f64((0.5 + fastrand::f64()) / wave)) => {}
        }
        while under_way.try_join_next().is_some() {}
        let Ok(guest) = format!("{}-{number}", like.guest).parse() else {
            continue;
        };
        let queue = if number % LOST_ITS_WAY == LOST_ITS_WAY - 1 {
            QueueId(Uuid::from_u128(0xdead))
        } else {
            like.queue
        };
        let attributes =
            Attributes::from_pairs(like.attributes.as_map().clone()).unwrap_or_default();
        let request = SessionRequest {
            guest,
            contact_details: ContactDetails::default(),
            queue,
            attributes,
            key: IdempotencyKey::generate(),
        };
        arrived.fetch_add(1, Ordering::Relaxed);
        let engine = Arc::clone(&engine);
        // The dashboard shows the errors.
        under_way.spawn(async move { engine.create(request).await.map_or_else(drop, drop) });
    }
    under_way
}
