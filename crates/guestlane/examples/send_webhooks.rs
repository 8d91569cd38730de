//! Sends an event of each opened session to a webhook endpoint:
//! `cargo run -p guestlane --example send_webhooks`.
#![allow(
    clippy::disallowed_macros,
    clippy::print_stdout,
    dead_code,
    reason = "an example prints, and uses a part of the support"
)]

mod support;

use guestlane::{Clock, SessionEngine, WebhookConfig, Workers};
use guestlane_runtime::ssrf::EgressPolicy;

#[tokio::main]
async fn main() -> support::Result<()> {
    let directory = tempfile::tempdir()?;
    let (simulator, config) = support::simulated(directory.path(), &[]).await?;
    let webhooks =
        WebhookConfig::new(vec![simulator.crm_url().parse()?]).egress_policy(EgressPolicy::Any); // the simulator's receiver is on this machine
    let engine = SessionEngine::open(config.webhooks(webhooks), Clock::system()).await?;
    let workers = tokio::spawn(Workers::new(engine.clone()).run());

    engine
        .create(support::request("rosalind-1920", "visit-1")?)
        .await?;
    if let Some(outbox) = engine.outbox() {
        let delivered = outbox.wait_for_initial_deliveries().await;
        println!("delivered: {delivered}");
    }
    println!("events received: {}", simulator.state().crm.events);

    workers.abort();
    engine.flush_counters().await?;
    Ok(())
}
