//! `guestlane master-key`: its rotation.

use std::process::ExitCode;

use guestlane::{Clock, Resealed, reseal_by_given_keys, rotate_master_key};

use crate::{
    args::{Global, MasterKey},
    screen, settings,
};

pub(crate) async fn run(global: &Global, command: &MasterKey) -> anyhow::Result<ExitCode> {
    let (places, clock) = (settings::load(global)?.places()?, Clock::system());
    match command {
        MasterKey::Rotate => {
            let resealed = rotate_master_key(&places, &clock).await?;
            show(global, resealed);
            let file = places.master_key_file.display();
            note(
                global,
                format!("The new master key is in {file}: back it up. Backups of the store from before need the old one."),
            );
        }
        MasterKey::Reseal => {
            show(global, reseal_by_given_keys(&places, &clock).await?);
            note(global, "Remove GUESTLANE_MASTER_KEY_PREVIOUS from the settings of all nodes.");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(global: &Global, resealed: Resealed) {
    if global.json {
        return screen::json(&resealed);
    }
    screen::data(format!(
        "{}, {} and {} were sealed again. The current master key alone opens everything.",
        screen::count(resealed.secrets, "secret"),
        screen::count(resealed.signing_keys, "signing key"),
        screen::count(resealed.guest_sessions, "guest session token"),
    ));
}

/// The next step, for a person.
fn note(global: &Global, text: impl std::fmt::Display) {
    if !global.json {
        screen::note(text);
    }
}
