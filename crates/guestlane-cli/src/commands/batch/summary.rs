//! The summary of a batch.

use std::time::Duration;

use guestlane::SessionEngine;
use guestlane_cli::config::QUEUE_ID;
use serde::Serialize;

use super::run::{Ended, Stop};
use crate::{
    args::{Batch, Global},
    output,
};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    rows: u64,
    opened: u64,
    replayed: u64,
    failed: u64,
    seconds: f64,
    per_second: f64,
    calls: u64,
    throttled: u64,
    /// Why rows were left that have not started. Absent if no rows were left.
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<&'static str>,
}

impl Summary {
    pub(super) fn new(ended: &Ended, engine: &SessionEngine, took: Duration) -> Self {
        let seconds = took.as_secs_f64();
        let counts = &ended.counts;
        Self {
            rows: counts.rows,
            opened: counts.opened,
            replayed: counts.replayed,
            failed: counts.failed,
            seconds,
            per_second: if seconds > 0.0 {
                counts.rows as f64 / seconds
            } else {
                0.0
            },
            calls: engine.platform_metrics().calls(),
            throttled: engine.platform_metrics().throttled(),
            stopped: ended.stop.map(Stop::name),
        }
    }

    /// Prints the summary, and how to go on if rows are left.
    pub(super) fn print(&self, global: &Global, args: &Batch, ended: &Ended) {
        if global.json {
            output::json(self);
        } else {
            output::stdout_line(format!(
                "{}: {} opened, {} replayed, {} failed; {:.1} s, {:.0} rows/s, {} calls, {} rate \
                 limited",
                output::count(self.rows, "row"),
                self.opened,
                self.replayed,
                self.failed,
                self.seconds,
                self.per_second,
                self.calls,
                self.throttled
            ));
        }
        if ended.in_flight > 0 {
            output::stderr_line(format!(
                "Stopped with {} in flight; their progress is recorded.",
                output::count(ended.in_flight as u64, "session")
            ));
        }
        let go_on = if args.file().as_os_str() == "-" {
            "the same rows and the same --batch-key"
        } else {
            "the same command"
        };
        match ended.stop {
            Some(Stop::Interrupted) => output::stderr_line(format!(
                "Interrupted. To continue, run {go_on} again; no session is created twice."
            )),
            Some(Stop::Outage(outage)) => {
                output::stderr_line(format!(
                    "error: {outage}: the other rows were not started. When it responds again, run \
                     {go_on} again."
                ));
            }
            None if self.rows == 0 => {
                output::stderr_line(format!(
                    "note: the file has no rows; rows without a queue_id use {QUEUE_ID}"
                ));
            }
            None => {}
        }
    }
}
