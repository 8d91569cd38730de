//! `guestlane keys`: the signing keys.

use std::process::ExitCode;

use super::open_state;
use crate::{
    args::{Format, Global, Keys},
    screen,
};

pub(crate) async fn run(global: &Global, args: &Keys) -> anyhow::Result<ExitCode> {
    let keyring = open_state(global).await?.keyring;
    match args {
        Keys::List if global.json => keyring.list().iter().for_each(screen::json),
        Keys::List => {
            let rows = keyring.list().into_iter().map(|key| vec![key.kid, key.state.to_owned(), key.created_at.to_string()]);
            screen::data(screen::table(&["kid", "state", "made"], rows));
        }
        Keys::Export { format: Format::Pem } => {
            let pem = keyring.active().public_pem()?;
            if global.json {
                screen::json(&serde_json::json!({"kid": keyring.active().kid(), "pem": pem}));
            } else {
                screen::data(pem.trim_end());
                screen::note(format!("kid: {}", keyring.active().kid()));
            }
        }
        Keys::Export { format: Format::Jwks } => screen::json(&keyring.jwks()),
    }
    Ok(ExitCode::SUCCESS)
}
