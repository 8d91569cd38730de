//! Decides by [`ErrorKind`] what to do after an error:
//! `cargo run -p guestlane --example handle_errors`.
#![allow(
    clippy::disallowed_macros,
    clippy::print_stdout,
    dead_code,
    reason = "an example prints, and uses a part of the support"
)]

mod support;

use guestlane::{Clock, ErrorKind, SessionEngine};

#[tokio::main]
async fn main() -> support::Result<()> {
    let directory = tempfile::tempdir()?;
    let (_simulator, config) =
        support::simulated(directory.path(), &["open-message:403:nth=1"]).await?;
    let engine = SessionEngine::open(config, Clock::system()).await?;

    for attempt in 1..=2 {
        match engine
            .create(support::request("grace-1906", "form-1")?)
            .await
        {
            Ok(created) => println!("attempt {attempt}: session {} is open", created.session.id),
            Err(error) => {
                let action = match error.kind() {
                    ErrorKind::InvalidRequest | ErrorKind::InvalidConfiguration => "correct it",
                    ErrorKind::KeyReused => "use another idempotency key",
                    ErrorKind::InProgress
                    | ErrorKind::WillComplete
                    | ErrorKind::StoreFailed
                    | ErrorKind::NotCreated => "repeat the call with the same key later",
                    ErrorKind::Rejected => "fix the cause, and repeat the call with the same key",
                    _ => "ask an operator",
                };
                println!("attempt {attempt}: {error}");
                println!("  cause: {}", error.redacted());
                println!("  action: {action}");
            }
        }
    }
    Ok(())
}
