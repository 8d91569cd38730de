//! Limits log lines that unauthenticated clients can cause.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use guestlane_runtime::Timestamp;

/// Allows `lines` log lines per fixed window of length `window`, and counts those that are
/// suppressed.
#[derive(Debug)]
pub(crate) struct LogLimit {
    lines: u32,
    window: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    window_ends: Option<Timestamp>,
    written: u32,
    left_out: u64,
}

impl LogLimit {
    pub(crate) fn new(lines: u32, window: Duration) -> Self {
        Self {
            lines,
            window,
            state: Mutex::default(),
        }
    }

    /// Returns the number of lines suppressed since the last allowed one, or `None` if this line
    /// must be suppressed as well. `now` is a time of the monotonic clock.
    pub(crate) fn allow(&self, now: Timestamp) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.window_ends.is_none_or(|ends| now >= ends) {
            state.window_ends = Some(now + self.window);
            state.written = 0;
        }
        if state.written == self.lines {
            state.left_out += 1;
            return None;
        }
        state.written += 1;
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_limit_reports_the_number_of_suppressed_lines() {
        let limit = LogLimit::new(2, Duration::from_secs(10));
        let at = |seconds: i64| Timestamp::from_unix_micros(seconds * 1_000_000);
        let allowed: Vec<_> = [0, 1, 2, 3, 9, 10, 11, 12]
            .map(|second| limit.allow(at(second)))
            .into();
        assert_eq!(
            allowed,
            [Some(0), Some(0), None, None, None, Some(3), Some(0), None]
        );
    }
}
