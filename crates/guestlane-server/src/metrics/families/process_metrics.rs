//! Metrics of the process.

use std::{fmt, fs, time::Duration};

use guestlane_core::token::{KeyInfo, KeyState, RotationPolicy};
use guestlane_runtime::Timestamp;

use super::super::MetricsEncoder;
use crate::service::Service;

/// Metrics of the signing keys and the master key.
pub(in crate::metrics) fn keys(page: &mut MetricsEncoder<'_>, service: &Service) -> fmt::Result {
    let now = service.clock().now();
    let keys = service.engine().keyring().list(now);
    let mut family = page.gauges(
        "guestlane_signing_key_age_seconds",
        "Age of the youngest signing key in each state.",
    )?;
    let mut youngest: std::collections::BTreeMap<&'static str, f64> =
        std::collections::BTreeMap::new();
    for key in &keys {
        let age = now.since(key.created_at).as_secs_f64();
        youngest
            .entry(key.state.name())
            .and_modify(|known| *known = known.min(age))
            .or_insert(age);
    }
    for (state, age) in youngest {
        family.gauge(&[("state", state)], age)?;
    }
    let next = keys
        .iter()
        .filter(|key| key.state == KeyState::Next)
        .map(|key| key.active_from)
        .min();
    if let Some(active_from) = next {
        let help = "Time until the next signing key becomes active; absent if there is no next \
            key.";
        page.gauge(
            "guestlane_signing_key_next_activation_seconds",
            help,
            active_from.since(now).as_secs_f64(),
        )?;
    }
    if let Some(overdue) = overdue(service.engine().key_schedule(), &keys, now) {
        let help = "Time since the schedule required a next signing key that does not exist; \
            absent without a schedule.";
        page.gauge(
            "guestlane_signing_key_overdue_seconds",
            help,
            overdue.as_secs_f64(),
        )?;
    }
    let help = "Values sealed with the current master key by all processes of the store, as of a \
        minute ago.";
    page.gauge(
        "guestlane_master_key_seals",
        help,
        service.engine().master_key_seals() as f64,
    )
}

/// How long the rotation schedule has required a next key that does not exist. `None` without a
/// schedule.
fn overdue(schedule: RotationPolicy, keys: &[KeyInfo], now: Timestamp) -> Option<Duration> {
    let every = schedule.rotation_interval()?;
    let active = keys.iter().find(|key| key.state == KeyState::Active)?;
    let waits = keys.iter().any(|key| key.state == KeyState::Next);
    let due = active.active_from + every.saturating_sub(schedule.publish_lead_time());
    Some(if waits {
        Duration::ZERO
    } else {
        now.since(due)
    })
}

/// Process metrics, with the names of the Prometheus client libraries. They come from `/proc`, and
/// are absent on systems without it.
pub(in crate::metrics) fn process(page: &mut MetricsEncoder<'_>, service: &Service) -> fmt::Result {
    let mut family = page.gauges("guestlane_build_info", "Version of guestlane.")?;
    family.gauge(&[("version", env!("CARGO_PKG_VERSION"))], 1.0)?;
    let started = service.started_at().unix_micros() as f64 / 1e6;
    page.gauge(
        "process_start_time_seconds",
        "Start time of the process, in seconds since the Unix epoch.",
        started,
    )?;
    if let Some(seconds) = fs::read_to_string("/proc/self/stat")
        .ok()
        .as_deref()
        .and_then(processor_seconds)
    {
        page.seconds_spent("process_cpu_seconds", "User and system CPU time.", seconds)?;
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| {
        line.strip_prefix("VmRSS:")?
            .trim()
            .strip_suffix(" kB")?
            .parse::<f64>()
            .ok()
    });
    if let Some(kilobytes) = resident {
        page.gauge(
            "process_resident_memory_bytes",
            "Resident memory.",
            kilobytes * 1024.0,
        )?;
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        // One of the descriptors is the open directory itself.
        let open = files.count().saturating_sub(1);
        page.gauge("process_open_fds", "Open file descriptors.", open as f64)?;
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let most = limits.lines().find_map(|line| {
        line.strip_prefix("Max open files")?
            .split_whitespace()
            .next()?
            .parse::<f64>()
            .ok()
    });
    if let Some(most) = most {
        page.gauge(
            "process_max_fds",
            "Maximum number of open file descriptors.",
            most,
        )?;
    }
    Ok(())
}

/// User and system CPU time from `/proc/self/stat`, in seconds. Linux counts it in hundredths of a
/// second.
fn processor_seconds(stat: &str) -> Option<f64> {
    // The process name before it may contain spaces.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut ticks = after_name.split_whitespace().skip(11);
    let (user, system) = (
        ticks.next()?.parse::<f64>().ok()?,
        ticks.next()?.parse::<f64>().ok()?,
    );
    Some((user + system) / 100.0)
}

#[cfg(test)]
mod tests;
