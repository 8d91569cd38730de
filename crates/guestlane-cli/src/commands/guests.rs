//! `guestlane guests`: erases the data of a guest.

use std::{path::PathBuf, process::ExitCode};

use guestlane_core::request::{GuestId, ValidationError};
use guestlane_runtime::Clock;
use guestlane_store::{ErasureOutcome, ErasureReport};
use guestlane_tlog::lines_path;
use serde_json::json;

use super::{confirm, confirm::Confirmed, open_state_read_only};
use crate::{
    args::{Global, Guests},
    output, settings,
};

pub(crate) async fn run(global: &Global, args: &Guests) -> anyhow::Result<ExitCode> {
    let Guests::Erase { id, confirmed } = args;
    let guest = GuestId::recorded(id)?;
    let (store, now) = (
        open_state_read_only(global).await?.store,
        Clock::system().now(),
    );
    let erased = if confirmed.is_given() {
        store.erase_guest(guest, now).await?
    } else {
        store.would_erase_guest(guest, now).await?
    };
    match erased {
        ErasureOutcome::Unknown => {
            let fix = "see `guestlane sessions list`; an erased guest cannot be found";
            Err(ValidationError::new("ID", "is not a guest of this store", fix).into())
        }
        ErasureOutcome::Unfinished(sessions) => {
            let sessions: Vec<_> = sessions.iter().map(ToString::to_string).collect();
            let reason = format!("the guest has unfinished sessions: {}", sessions.join(", "));
            let fix =
                "finish them with `guestlane sessions resume` first, which needs the guest's data";
            Err(ValidationError::new("ID", reason, fix).into())
        }
        ErasureOutcome::InProgress => {
            let reason = "has an event whose delivery to the CRM is in progress";
            Err(ValidationError::new(
                "ID",
                reason,
                "retry in ten seconds, or after `guestlane outbox deliver`",
            )
            .into())
        }
        ErasureOutcome::Erased(done) => print_report(global, &done, *confirmed),
    }
}

fn print_report(
    global: &Global,
    done: &ErasureReport,
    confirmed: Confirmed,
) -> anyhow::Result<ExitCode> {
    let first = settings::load(global)?.storage()?.audit.path;
    let plain: Vec<_> = done
        .plain_records
        .iter()
        .map(|(log, records)| (lines_path(&first, *log), *records))
        .collect();
    let mut data = json!({
        "sessions": done.sessions, "events": done.events, "eventsNotTold": done.undelivered, "pseudonym": done.pseudonym,
        "stillReadable": plain.iter().map(|(file, records)| json!({"file": file, "records": records})).collect::<Vec<_>>(),
    });
    let (sessions, events) = (
        output::count(done.sessions, "session"),
        output::count(done.events, "event"),
    );
    if !confirmed.is_given() {
        note_what_stays(done, &plain, "would remain");
        return Ok(confirm::preview(
            global,
            data,
            [format!(
                "The guest would be erased permanently from {sessions} and {events}."
            )],
        ));
    }
    data["bytesGone"] = done.bytes_removed.into();
    let code = confirm::done(
        global,
        data,
        [format!(
            "The guest was erased from {sessions} and {events}."
        )],
    );
    note_what_stays(done, &plain, "remains");
    if !done.bytes_removed {
        output::stderr_line(
            "note: another process has the store open; the erased bytes are removed from the \
             files when the store is next opened without it",
        );
    }
    Ok(code)
}

fn note_what_stays(done: &ErasureReport, plain: &[(PathBuf, u64)], stays: &str) {
    if done.undelivered > 0 {
        output::stderr_line(format!(
            "note: {} will never be delivered",
            output::count(done.undelivered, "event")
        ));
    }
    if let Some(pseudonym) = &done.pseudonym {
        output::stderr_line(format!(
            "note: in the audit log, {pseudonym} {stays}, which cannot be traced \
             back to the guest"
        ));
    }
    for (file, records) in plain {
        output::stderr_line(format!(
            "warning: {} and the store have {} with the guest's ID in plain text, which cannot be \
             changed without breaking the proof.\n  Keep both only as long as you must, then \
             delete the state directory and its logs. With audit.guest_id_mode = \
             \"pseudonym\",\n  new records can be erased.",
            file.display(),
            output::count(*records, "record")
        ));
    }
    output::stderr_line(
        "note: data outside this store (on the platform, in the CRM, in result files and backups) \
         must be erased there",
    );
}
