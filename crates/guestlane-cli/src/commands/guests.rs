//! `guestlane guests`: forget guests.

use std::process::ExitCode;

use guestlane::{
    Clock,
    audit::lines_path,
    request::{GuestId, Invalid},
    store::{Done, Erased},
};
use serde_json::json;

use super::look_at_state;
use crate::{
    args::{Global, Guests},
    screen, settings,
};

pub(crate) async fn run(global: &Global, args: &Guests) -> anyhow::Result<ExitCode> {
    let Guests::Erase { id } = args;
    let guest = GuestId::recorded(id)?;
    let erased = look_at_state(global).await?.store.erase_guest(guest, Clock::system().now()).await?;
    match erased {
        Erased::Unknown => Err(Invalid::new(
            "ID",
            "is no guest of this store",
            "see `guestlane sessions list`; who was erased is not found again",
        )
        .into()),
        Erased::Unfinished(sessions) => {
            let sessions: Vec<_> = sessions.iter().map(ToString::to_string).collect();
            let reason = format!("the guest has unfinished sessions: {}", sessions.join(", "));
            let fix = "end them by `guestlane sessions resume`, then ask again: who completes them must know the guest";
            Err(Invalid::new("ID", reason, fix).into())
        }
        Erased::UnderWay => {
            let reason = "is the guest of an event that is on its way to the CRM";
            Err(Invalid::new("ID", reason, "ask again in ten seconds, or after `guestlane outbox deliver`").into())
        }
        Erased::Done(done) => tell(global, &done),
    }
}

fn tell(global: &Global, done: &Done) -> anyhow::Result<ExitCode> {
    let first = settings::load(global)?.places()?.audit.path;
    let plain: Vec<_> = done.plain_records.iter().map(|(log, records)| (lines_path(&first, *log), *records)).collect();
    if global.json {
        let plain: Vec<_> = plain.iter().map(|(file, records)| json!({"file": file, "records": records})).collect();
        screen::json(&json!({
            "sessions": done.sessions, "events": done.events, "eventsNotTold": done.untold, "pseudonym": done.pseudonym,
            "stillReadable": plain, "bytesGone": done.bytes_gone,
        }));
    } else {
        let (sessions, events) = (screen::count(done.sessions, "session"), screen::count(done.events, "event"));
        screen::data(format!("The guest was erased from {sessions} and {events}."));
    }
    if done.untold > 0 {
        screen::note(format!("note: not delivered, and never to be: {}", screen::count(done.untold, "event")));
    }
    if let Some(pseudonym) = &done.pseudonym {
        screen::note(format!("note: in the audit log the guest stays {pseudonym}, and nobody can tell any more who that was"));
    }
    for (file, records) in &plain {
        screen::note(format!(
            "warning: {} and the store have {} with the guest's id in plain, which cannot be changed without breaking the proof.\n  \
             Keep both only as long as you must, then delete the state directory and its logs; with audit.guest_ids = \"pseudonym\" new\n  \
             records can be erased.",
            file.display(),
            screen::count(*records, "record")
        ));
    }
    if !done.bytes_gone {
        screen::note("note: another process has the store open: the bytes leave its files at the next start without it");
    }
    screen::note("note: what left this machine (the platform, the CRM, result files, backups) must be erased where it is");
    Ok(ExitCode::SUCCESS)
}
