//! Checks of the local machine: store, disk space and keys. Nothing that is missing is created.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use guestlane_runtime::Clock;
use guestlane_server::diagnosis;

use super::Finding;
use crate::config::Settings;
use guestlane::{
    Error, StorageConfig, WebhookConfig, Workspace,
    outbox::{Endpoint, Endpoints},
};
use guestlane_core::token::KeyState;
use guestlane_runtime::durable_fs;
use guestlane_runtime::text::display_chain;
use guestlane_store::{Store, StoreError, StoreInfo};

/// Free disk space below which a warning is given, in bytes: room for some 400,000 sessions.
const LITTLE_ROOM: u64 = 1 << 30;

/// Age of a signing key from which a warning is given, if keys are not rotated.
const OLD_KEY: Duration = Duration::from_secs(365 * 24 * 3600);

/// Runs the checks. `api` is the platform of the settings, if they are complete.
pub(super) async fn examine(settings: &Settings, api: Option<&str>, clock: &Clock) -> Vec<Finding> {
    let places = match settings.storage() {
        Ok(places) => places,
        Err(Error::Settings(refused)) => {
            return refused.into_iter().map(super::of_setting).collect();
        }
        Err(error) => return vec![Finding::bad("state directory", error.to_string())],
    };
    let mut findings = vec![
        check_free_space(
            "disk",
            places
                .database
                .file()
                .unwrap_or(&places.home.join("log-1.lock")),
        ),
        check_free_space("disk of the audit log", &places.audit.path),
    ];
    findings.extend(exposed(&places.home));
    // Invalid webhook settings have a finding of their own.
    let crm = settings.crm().ok().flatten();
    findings.extend(state(&places, api, crm.as_ref(), clock).await);
    findings
}

fn check_free_space(check: &str, file: &Path) -> Finding {
    let wanted = file
        .parent()
        .filter(|path| !path.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let absolute = std::path::absolute(wanted).unwrap_or_else(|_| wanted.to_owned());
    let Some(place) = absolute
        .ancestors()
        .find(|path| path.exists())
        .map(Path::to_owned)
    else {
        return Finding::bad(check, format!("{} does not exist", absolute.display()));
    };
    let writable = rustix::fs::access(
        &place,
        rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK,
    );
    if let Err(error) = writable {
        return Finding::bad(
            check,
            format!("{} cannot be written: {error}", place.display()),
        )
        .fix("give this user write permission, or choose another directory with --state-dir");
    }
    match rustix::fs::statvfs(&place) {
        Ok(room) => of_room(check, place, room.f_bavail.saturating_mul(room.f_frsize)),
        Err(error) => Finding::warning(
            check,
            format!(
                "the free space on {} cannot be read: {error}",
                place.display()
            ),
        ),
    }
}

/// Returns a warning if users outside its owner and group can enter the state directory.
fn exposed(home: &Path) -> Option<Finding> {
    let mode = durable_fs::mode_for_others(home)?;
    let result = format!(
        "{} can be entered by others (mode {mode:o})",
        home.display()
    );
    let finding = Finding::warning("state directory", result)
        .because("only the owner can read its files, but other users can list or replace them")
        .fix(format!("run `chmod o= {}`", home.display()));
    Some(finding)
}

fn of_room(check: &str, place: PathBuf, free: u64) -> Finding {
    let result = format!("{} MiB free on {}", free >> 20, place.display());
    if free < LITTLE_ROOM {
        return Finding::warning(check, result)
            .because("on a full disk no session can be created; existing sessions are not lost")
            .fix("free disk space, or choose another directory with --state-dir");
    }
    Finding::good(check, result)
}

async fn state(
    places: &StorageConfig,
    api: Option<&str>,
    crm: Option<&WebhookConfig>,
    clock: &Clock,
) -> Vec<Finding> {
    // A store that does not exist yet would be created under these keys.
    if let Err(error) = places.check_master_keys() {
        let diagnosis = diagnosis::of(&error);
        return vec![Finding::bad("master key", diagnosis.message).fix(diagnosis.fix)];
    }
    // Stop before a step that would migrate the store or create its keys: a check changes nothing.
    match Store::inspect(&places.database).await {
        Ok(None) => {
            let result = format!(
                "does not exist yet; the first session creates {}",
                places.database
            );
            return vec![Finding::good("database", result)];
        }
        Ok(Some(StoreInfo { format, known, .. })) if format < known => {
            let result = format!(
                "has format {format}; the next session migrates it to {known}, which older \
                 versions cannot open"
            );
            return vec![Finding::good("database", result)];
        }
        Ok(Some(StoreInfo {
            has_keys: false, ..
        })) => {
            return vec![Finding::good(
                "database",
                "has no keys yet; the next session creates them",
            )];
        }
        Ok(Some(StoreInfo {
            platform: Some(platform),
            ..
        })) if api.is_some_and(|api| api != platform) => {
            let result = format!("belongs to the platform at {platform}");
            return vec![
                Finding::bad("database", result)
                    .fix("choose another state directory for this platform with --state-dir"),
            ];
        }
        // A file that cannot be opened is checked below, where it is opened as a command would open
        // it.
        Err(error) if !matches!(error, StoreError::Open(..) | StoreError::Sqlite(_)) => {
            let diagnosis = diagnosis::of(&Error::from(error));
            return vec![Finding::bad("database", diagnosis.cause).fix(diagnosis.fix)];
        }
        Ok(_) | Err(_) => {}
    }
    if let Err(error) = Store::try_to_write(&places.database).await {
        let diagnosis = diagnosis::of(&Error::from(error));
        return vec![
            Finding::bad("database", "cannot be written to")
                .because(diagnosis.cause)
                .fix(diagnosis.fix),
        ];
    }
    let state = match Workspace::open_read_only(places, clock).await {
        Ok(state) => state,
        Err(error) => {
            let diagnosis = diagnosis::of(&error);
            return vec![
                Finding::bad("database", diagnosis.message)
                    .because(diagnosis.cause)
                    .fix(diagnosis.fix),
            ];
        }
    };
    let mut findings = vec![
        sessions(&state).await,
        events(&state).await,
        key(&state, clock),
    ];
    findings.extend(disabled(&state, crm).await);
    findings
}

async fn sessions(state: &Workspace) -> Finding {
    match state.store.unfinished().await {
        Ok(0) => Finding::good(
            "database",
            "opens and accepts a write, which was rolled back; no session is unfinished",
        ),
        Ok(n) => Finding::warning("database", format!("opens; {n} unfinished"))
            .fix("guestlane sessions resume"),
        Err(error) => Finding::bad("database", display_chain(&error))
            .fix("check the disk, and whether another process locks the database"),
    }
}

async fn events(state: &Workspace) -> Finding {
    match state.store.pending_events().await {
        Ok(0) => Finding::good("outbox", "no event is pending"),
        Ok(1) => Finding::warning("outbox", "1 event is pending").fix("guestlane outbox deliver"),
        Ok(n) => Finding::warning("outbox", format!("{n} events are pending"))
            .fix("guestlane outbox deliver"),
        Err(error) => Finding::bad("outbox", display_chain(&error))
            .fix("check the disk, and whether another process locks the database"),
    }
}

/// Endpoints that receive no events because they responded 410 Gone.
async fn disabled(state: &Workspace, crm: Option<&WebhookConfig>) -> Vec<Finding> {
    let read = async { Endpoints::new(state, crm)?.read().await };
    let endpoints = match read.await {
        Ok(endpoints) => endpoints,
        Err(error) => {
            let diagnosis = diagnosis::of(&error);
            return vec![Finding::bad("webhook endpoints", diagnosis.message).fix(diagnosis.fix)];
        }
    };
    let finding = |endpoint: &Endpoint| {
        let since = endpoint.disabled_at?;
        let result = format!(
            "disabled since {since} after it answered 410 Gone; its events stay \
            pending"
        );
        let fix = format!(
            "run `guestlane outbox enable {}` once the endpoint accepts events again",
            endpoint.number
        );
        Some(Finding::warning(format!("webhook endpoint {}", endpoint.number), result).fix(fix))
    };
    endpoints.iter().filter_map(finding).collect()
}

fn key(state: &Workspace, clock: &Clock) -> Finding {
    let now = clock.now();
    let active = state.keyring.active(now).kid();
    let keys = state.keyring.list(now);
    let made = keys
        .iter()
        .find(|key| key.kid == active)
        .map(|key| key.created_at);
    let age = made.map(|made| now.since(made)).unwrap_or_default();
    let mut result = format!("{active}, {} days old", age.as_secs() / 86_400);
    if let Some(next) = keys.iter().find(|key| key.state == KeyState::Next) {
        result.push_str(&format!(
            "; {} signs from {} on",
            next.kid, next.active_from
        ));
    } else if age > OLD_KEY {
        let why = "a leaked key stays usable as long as it signs";
        return Finding::warning("signing key", result).because(why).fix(
            "run `guestlane signing-keys rotate`, or set \
                GUESTLANE_SIGNING_KEY_ROTATION_INTERVAL",
        );
    }
    Finding::good("signing key", result)
}
