//! Creates a session, and gets the same one for the same idempotency key:
//! `cargo run -p guestlane --example create_session`.
#![allow(
    clippy::disallowed_macros,
    clippy::print_stdout,
    dead_code,
    reason = "an example prints, and uses a part of the support"
)]

mod support;

use guestlane::{Clock, SessionEngine};

#[tokio::main]
async fn main() -> support::Result<()> {
    let directory = tempfile::tempdir()?;
    let (simulator, config) = support::simulated(directory.path(), &[]).await?;
    let engine = SessionEngine::open(config, Clock::system()).await?;

    let created = engine
        .create(support::request("ada-1815", "order-4711")?)
        .await?;
    println!(
        "created: conversation {}",
        created.session.conversation_id.as_deref().unwrap_or("-")
    );

    let replayed = engine
        .create(support::request("ada-1815", "order-4711")?)
        .await?;
    assert!(replayed.replayed && replayed.session.id == created.session.id);
    println!(
        "replayed: the platform has {} conversation",
        simulator.state().conversations
    );
    engine.flush_counters().await?;
    Ok(())
}
