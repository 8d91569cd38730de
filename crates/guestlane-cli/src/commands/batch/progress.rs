//! How a batch goes, for the person who watches: a line that changes on a terminal, a line now and then elsewhere.

use std::{io::IsTerminal, time::Duration};

use guestlane::{ClientUse, Clock, Lane, Timestamp};
use indicatif::{ProgressBar, ProgressStyle};

use super::Counts;
use crate::screen;

pub(super) struct Progress {
    shown: Shown,
    /// Of the input, in bytes.
    size: Option<u64>,
    clock: Clock,
    began: Timestamp,
    told: Timestamp,
}

enum Shown {
    Line(ProgressBar),
    Now,
    Not,
}

impl Progress {
    /// How often the line on a terminal changes.
    const TICK: Duration = Duration::from_millis(200);

    /// How often a line is written elsewhere.
    const NOW_AND_THEN: Duration = Duration::from_secs(10);

    pub(super) fn begin(quiet: bool, size: Option<u64>, clock: &Clock) -> Self {
        let shown = if quiet {
            Shown::Not
        } else if std::io::stderr().is_terminal() {
            let style = match size {
                Some(_) => ProgressStyle::with_template("[{bar:16}] {percent:>3}%  {msg}"),
                None => ProgressStyle::with_template("{spinner} {msg}"),
            };
            let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner()).progress_chars("=> ");
            let line = size.map_or_else(ProgressBar::new_spinner, ProgressBar::new).with_style(style);
            screen::draw_above(Some(line.clone()));
            Shown::Line(line)
        } else {
            Shown::Now
        };
        let now = clock.monotonic();
        Self { shown, size, clock: clock.clone(), began: now, told: now }
    }

    /// Waits for the moment to be shown again.
    pub(super) async fn due(clock: &Clock) {
        clock.sleep(Self::TICK).await;
    }

    /// Called for every row: it looks and writes only when it is time.
    pub(super) fn show(&mut self, counts: &Counts, lane: &Lane) {
        let every = match &self.shown {
            Shown::Line(_) => Self::TICK,
            Shown::Now => Self::NOW_AND_THEN,
            Shown::Not => return,
        };
        let now = self.clock.monotonic();
        if now.since(self.told) < every {
            return;
        }
        self.told = now;
        let parts = self.parts(counts, &lane.clients(), now);
        let text = match &self.shown {
            Shown::Line(_) => fitting(parts, room(self.size.is_some())),
            Shown::Now | Shown::Not => parts.join(", "),
        };
        match &self.shown {
            Shown::Line(line) => {
                line.set_message(text);
                match self.size {
                    Some(_) => line.set_position(ended(counts)),
                    None => line.tick(),
                }
            }
            Shown::Now => screen::note(text),
            Shown::Not => {}
        }
    }

    pub(super) fn end(&self) {
        if let Shown::Line(line) = &self.shown {
            screen::draw_above(None);
            line.finish_and_clear();
        }
    }

    /// How it goes, the most important first. What is zero is not said.
    fn parts(&self, counts: &Counts, clients: &[ClientUse], now: Timestamp) -> Vec<String> {
        let seconds = now.since(self.began).as_secs_f64();
        let mut parts = vec![screen::count(counts.rows, "row")];
        if counts.failed > 0 {
            parts.push(format!("{} failed", counts.failed));
        }
        parts.extend(self.left(counts, seconds).map(|left| format!("{left} left")));
        parts.push(format!("{:.0} rows/s", counts.rows as f64 / seconds.max(0.001)));
        let allowed: u64 = clients.iter().filter_map(|client| client.allowed).map(|rate| u64::from(rate.calls())).sum();
        let used: u64 = clients.iter().map(|client| u64::from(client.used)).sum();
        if let Some(percent) = (used * 100).checked_div(allowed) {
            parts.push(format!("{percent} % of the quota"));
        }
        if counts.replayed > 0 {
            parts.push(format!("{} were open before", counts.replayed));
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

/// How many characters of text a line of the terminal has beside the bar or the spinner. A line that is too long would break into two,
/// of which one stays behind.
fn room(has_bar: bool) -> usize {
    let (_, columns) = console::Term::stderr().size();
    let taken = if has_bar { "[================] 100%  ".len() } else { "x ".len() };
    usize::from(columns).saturating_sub(taken + 1)
}

/// As many of the parts as there is room for, whole.
fn fitting(parts: Vec<String>, room: usize) -> String {
    let mut text = String::new();
    for part in parts {
        let longer = if text.is_empty() { part } else { format!("{text}, {part}") };
        if longer.chars().count() > room {
            break;
        }
        text = longer;
    }
    text
}

/// How far into the input the rows reach that have ended.
fn ended(counts: &Counts) -> u64 {
    let share = counts.rows as f64 / counts.begun.max(1) as f64;
    (counts.reached as f64 * share) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_as_many_whole_parts_as_fit() {
        let parts = || ["107 rows", "3 failed", "15 s left", "32 rows/s"].map(str::to_owned).to_vec();
        assert_eq!(fitting(parts(), 80), "107 rows, 3 failed, 15 s left, 32 rows/s");
        assert_eq!(fitting(parts(), 40), "107 rows, 3 failed, 15 s left, 32 rows/s");
        assert_eq!(fitting(parts(), 39), "107 rows, 3 failed, 15 s left");
        assert_eq!(fitting(parts(), 8), "107 rows");
        assert_eq!(fitting(parts(), 7), "");
    }
}
