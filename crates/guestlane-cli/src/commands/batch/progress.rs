//! Progress of a batch: a changing line on a terminal, or a line every 10 seconds elsewhere.

use std::{io::IsTerminal, time::Duration};

use guestlane::{ClientUsage, SessionEngine};
use guestlane_runtime::{Clock, Timestamp};

use super::counts::Counts;
use crate::output;

pub(super) struct Progress {
    shown: Shown,
    /// Size of the input, in bytes.
    size: Option<u64>,
    clock: Clock,
    began: Timestamp,
    told: Timestamp,
}

enum Shown {
    Line,
    Now,
    Not,
}

impl Progress {
    /// Interval at which the line on a terminal changes.
    const TICK: Duration = Duration::from_millis(200);

    /// Interval of lines that go elsewhere.
    const NOW_AND_THEN: Duration = Duration::from_secs(10);

    pub(super) fn begin(quiet: bool, size: Option<u64>, clock: &Clock) -> Self {
        let shown = if quiet {
            Shown::Not
        } else if std::io::stderr().is_terminal() {
            Shown::Line
        } else {
            Shown::Now
        };
        let now = clock.monotonic();
        Self {
            shown,
            size,
            clock: clock.clone(),
            began: now,
            told: now,
        }
    }

    /// Waits until the next update is due.
    pub(super) async fn due(clock: &Clock) {
        clock.sleep(Self::TICK).await;
    }

    /// Writes the progress if an update is due. It is called after every event of the batch.
    pub(super) fn show(&mut self, counts: &Counts, engine: &SessionEngine) {
        let every = match &self.shown {
            Shown::Line => Self::TICK,
            Shown::Now => Self::NOW_AND_THEN,
            Shown::Not => return,
        };
        let now = self.clock.monotonic();
        if now.since(self.told) < every {
            return;
        }
        self.told = now;
        let parts = self.parts(counts, &engine.client_usage(), now);
        match &self.shown {
            Shown::Line => {
                let bar = self
                    .size
                    .map(|size| bar(ended(counts), size))
                    .unwrap_or_default();
                let (_, columns) = console::Term::stderr().size();
                output::draw_bottom(Some(fitting(bar, parts, usize::from(columns))));
            }
            Shown::Now => output::stderr_line(parts.join(", ")),
            Shown::Not => {}
        }
    }

    pub(super) fn end(&self) {
        if let Shown::Line = &self.shown {
            output::draw_bottom(None);
        }
    }

    /// The parts of the progress line, most important first. Counts of zero are omitted.
    fn parts(&self, counts: &Counts, clients: &[ClientUsage], now: Timestamp) -> Vec<String> {
        let seconds = now.since(self.began).as_secs_f64();
        let mut parts = vec![output::count(counts.rows, "row")];
        if counts.failed > 0 {
            parts.push(format!("{} failed", counts.failed));
        }
        parts.extend(
            self.left(counts, seconds)
                .map(|left| format!("{left} left")),
        );
        parts.push(format!(
            "{:.0} rows/s",
            counts.rows as f64 / seconds.max(0.001)
        ));
        let allowed: u64 = clients
            .iter()
            .filter_map(|client| client.allowed)
            .map(|rate| u64::from(rate.calls()))
            .sum();
        let used: u64 = clients.iter().map(|client| u64::from(client.used)).sum();
        if let Some(percent) = (used * 100).checked_div(allowed) {
            parts.push(format!("{percent} % of the rate limit"));
        }
        if counts.replayed > 0 {
            parts.push(format!("{} already open", counts.replayed));
        }
        parts
    }

    fn left(&self, counts: &Counts, seconds: f64) -> Option<String> {
        const TOO_EARLY: f64 = 2.0;
        let (size, read) = (self.size? as f64, ended(counts) as f64);
        if read == 0.0 || seconds < TOO_EARLY {
            return None;
        }
        let seconds = (seconds * (size - read).max(0.0) / read) as u64;
        Some(match seconds {
            0..90 => format!("{seconds} s"),
            90..5400 => format!("{} min", seconds.div_ceil(60)),
            _ => format!("{:.1} h", seconds as f64 / 3600.0),
        })
    }
}

/// A progress bar such as `[====>           ]  31%  `, for the part of the input that is finished.
fn bar(ended: u64, size: u64) -> String {
    const WIDTH: u64 = 16;
    let share = |whole: u64| whole * ended.min(size) / size.max(1);
    let done = share(WIDTH) as usize;
    let line = "=".repeat(done.saturating_sub(1)) + if done > 0 { ">" } else { "" };
    format!(
        "[{line:<width$}] {percent:>3}%  ",
        width = WIDTH as usize,
        percent = share(100)
    )
}

/// Joins the bar and as many whole parts as fit into the terminal's width. A longer line would
/// wrap, and its first half would not be erased. Room is left for the `^C` that a terminal echoes
/// at the end.
/// behind; and a terminal echoes `^C` at its end.
fn fitting(bar: String, parts: Vec<String>, columns: usize) -> String {
    let room = columns.saturating_sub("^C".len() + 1);
    let mut line = if bar.len() <= room {
        bar
    } else {
        String::new()
    };
    for (number, part) in parts.into_iter().enumerate() {
        let comma = if number == 0 { "" } else { ", " };
        if line.chars().count() + comma.len() + part.chars().count() > room {
            break;
        }
        line += comma;
        line += &part;
    }
    line
}

/// Estimates how many bytes of the input the finished rows cover.
fn ended(counts: &Counts) -> u64 {
    let share = counts.rows as f64 / counts.begun.max(1) as f64;
    (counts.reached as f64 * share) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_line_keeps_only_whole_parts_that_fit() {
        let parts = || {
            ["107 rows", "3 failed", "15 s left", "32 rows/s"]
                .map(str::to_owned)
                .to_vec()
        };
        let fit = |columns| fitting(String::new(), parts(), columns);
        assert_eq!(fit(80), "107 rows, 3 failed, 15 s left, 32 rows/s");
        assert_eq!(fit(43), "107 rows, 3 failed, 15 s left, 32 rows/s");
        assert_eq!(fit(42), "107 rows, 3 failed, 15 s left");
        assert_eq!((fit(11).as_str(), fit(10).as_str()), ("107 rows", ""));
        assert_eq!(
            fitting(bar(1, 4), parts(), 36),
            "[===>            ]  25%  107 rows"
        );
        assert_eq!(fitting(bar(1, 4), parts(), 20), "107 rows");
    }

    #[test]
    fn bar_stays_between_0_and_100_percent() {
        assert_eq!(bar(0, 9), "[                ]   0%  ");
        assert_eq!(bar(9, 9), "[===============>] 100%  ");
        assert_eq!(bar(99, 9), "[===============>] 100%  ");
        assert_eq!(bar(0, 0), "[                ]   0%  ");
    }
}
