//! Tests of `process_metrics`.

use std::time::Duration;

use super::*;
use crate::metrics::as_plain_text;

#[test]
fn plain_text_format_names_counter_families_like_their_samples() {
    let open = "# HELP calls All calls counter.\n# TYPE calls counter\ncalls_total{client=\"1\"} 5\n\
                # HELP took_seconds Time.\n# TYPE took_seconds histogram\n# UNIT took_seconds seconds\ntook_seconds_sum 0.5\n# EOF\n";
    let plain = "# HELP calls_total All calls counter.\n# TYPE calls_total counter\ncalls_total{client=\"1\"} 5\n\
                 # HELP took_seconds Time.\n# TYPE took_seconds histogram\ntook_seconds_sum 0.5\n";
    assert_eq!(as_plain_text(open), plain);
}

#[test]
fn signing_key_is_overdue_from_schedule_until_next_key_exists() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let at = |days: i64| Timestamp::from_unix_micros(days * 24 * 3600 * 1_000_000);
    let key = |state, active_from| KeyInfo {
        kid: "a".to_owned(),
        state,
        created_at: active_from,
        active_from,
        until: None,
        revoked_at: None,
    };
    let active = [key(KeyState::Active, at(100))];
    let and_next = [key(KeyState::Active, at(100)), key(KeyState::Next, at(131))];
    let schedule = RotationPolicy::new(DAY, Some(30 * DAY)).unwrap();
    assert_eq!(overdue(RotationPolicy::default(), &active, at(1000)), None);
    assert_eq!(overdue(schedule, &active, at(129)), Some(Duration::ZERO));
    assert_eq!(overdue(schedule, &active, at(130)), Some(DAY));
    assert_eq!(overdue(schedule, &and_next, at(130)), Some(Duration::ZERO));
}

#[test]
fn processor_time_sums_user_and_system_time() {
    let stat = "17 (a ) name) S 1 17 17 0 -1 4194304 900 0 3 0 250 50 0 0 20 0 9 0 100 1 2";
    assert_eq!(processor_seconds(stat), Some(3.0));
}
