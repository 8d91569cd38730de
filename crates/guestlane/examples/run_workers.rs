//! Runs the workers beside the caller's own service. They complete a session whose caller has gone:
//! `cargo run -p guestlane --example run_workers`.
#![allow(
    clippy::disallowed_macros,
    clippy::print_stdout,
    dead_code,
    reason = "an example prints, and uses a part of the support"
)]

mod support;

use std::time::Duration;

use guestlane::{Clock, SessionEngine, Workers, session::SessionState};

#[tokio::main]
async fn main() -> support::Result<()> {
    let directory = tempfile::tempdir()?;
    let (_simulator, config) =
        support::simulated(directory.path(), &["open-message:hang:nth=1"]).await?;
    let clock = Clock::system();
    let engine = SessionEngine::open(config, clock.clone()).await?;
    let workers = tokio::spawn(Workers::new(engine.clone()).run());

    // The platform does not respond to the first call. The caller gives up after a second, as a
    // client that disconnects does.
    let request = support::request("alan-1912", "call-7")?;
    let key = request.key.clone();
    let abandoned = clock
        .timeout(Duration::from_secs(1), engine.create(request))
        .await;
    assert!(abandoned.is_err());

    loop {
        let session = engine.store().find_by_key(key.clone()).await?;
        let state = session.map(|session| session.state);
        println!("state: {}", state.map_or("none", SessionState::name));
        if state == Some(SessionState::Open) {
            break;
        }
        clock.sleep(Duration::from_secs(1)).await;
    }

    workers.abort();
    engine.flush_counters().await?;
    Ok(())
}
