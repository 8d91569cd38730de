//! `guestlane master-key`: rotates the master key.

use std::process::ExitCode;

use guestlane::{
    Resealed, reseal_by_given_keys, rotate_master_key, would_reseal_by_given_keys,
    would_rotate_master_key,
};
use guestlane_runtime::Clock;

use super::confirm;
use crate::{
    args::{Global, MasterKey},
    output, settings,
};

pub(crate) async fn run(global: &Global, command: &MasterKey) -> anyhow::Result<ExitCode> {
    let (places, clock) = (settings::load(global)?.storage()?, Clock::system());
    match command {
        MasterKey::Rotate { confirmed } if !confirmed.is_given() => {
            let would = would_rotate_master_key(&places, &clock).await?;
            let file = places.master_key_file.display();
            let lines = [
                format!(
                    "{} would be encrypted with a new master key, and the one in {file} would be \
                     deleted.",
                    counted(would)
                ),
                "Earlier backups of the store would still need it: keep a copy of it with them."
                    .to_owned(),
            ];
            Ok(confirm::preview(
                global,
                serde_json::to_value(would)?,
                lines,
            ))
        }
        MasterKey::Rotate { .. } => {
            let code = show(global, rotate_master_key(&places, &clock).await?)?;
            let file = places.master_key_file.display();
            note(
                global,
                format!(
                    "The new master key is in {file}: back it up. Earlier backups of the store \
                     need the old one."
                ),
            );
            Ok(code)
        }
        MasterKey::Reseal { confirmed } if !confirmed.is_given() => {
            let would = would_reseal_by_given_keys(&places, &clock).await?;
            let line = format!(
                "{} would be encrypted with GUESTLANE_MASTER_KEY.",
                counted(would)
            );
            Ok(confirm::preview(
                global,
                serde_json::to_value(would)?,
                [line],
            ))
        }
        MasterKey::Reseal { .. } => {
            let code = show(global, reseal_by_given_keys(&places, &clock).await?)?;
            note(
                global,
                "Remove GUESTLANE_MASTER_KEY_PREVIOUS from the settings of all nodes.",
            );
            Ok(code)
        }
    }
}

fn counted(resealed: Resealed) -> String {
    format!(
        "{}, {} and {}",
        output::count(resealed.secrets, "secret"),
        output::count(resealed.signing_keys, "signing key"),
        output::count(resealed.guest_sessions, "guest session token"),
    )
}

fn show(global: &Global, resealed: Resealed) -> anyhow::Result<ExitCode> {
    let line = format!(
        "{} were encrypted again. Everything can be decrypted with the current master key.",
        counted(resealed)
    );
    Ok(confirm::done(
        global,
        serde_json::to_value(resealed)?,
        [line],
    ))
}

/// Prints the next step, unless the output is JSON.
fn note(global: &Global, text: impl std::fmt::Display) {
    if !global.json {
        output::stderr_line(text);
    }
}
