//! The lines of a request body, within the idle timeout.

use std::time::Duration;

use axum::body::Body;
use futures_util::StreamExt;
use guestlane::error::ErrorCode;
use guestlane_runtime::{Clock, Timestamp};

use crate::{
    input::lines::{Line, LineSplitter, TooLong},
    problem::Problem,
};

/// How long a batch may stay without a further row.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
#[error("no line was received for {} s", IDLE_TIMEOUT.as_secs())]
struct IdleTimeout;

/// The lines of a request body, as they arrive.
pub(super) struct Lines {
    pub(super) clock: Clock,
    pub(super) body: axum::body::BodyDataStream,
    splitter: LineSplitter,
    waiting_since: Option<Timestamp>,
    /// The body ended early or is not a batch; the rest is not read.
    pub(super) broken: bool,
    over: bool,
}

impl Lines {
    pub(super) fn new(body: Body, clock: Clock) -> Self {
        let (body, splitter) = (body.into_data_stream(), LineSplitter::default());
        Self {
            clock,
            body,
            splitter,
            waiting_since: None,
            broken: false,
            over: false,
        }
    }

    /// Restarts the idle timeout. Only rows call this: blank lines alone must not keep a batch
    /// open.
    pub(super) fn has_given_a_row(&mut self) {
        self.waiting_since = None;
    }

    /// Returns the next line. It is safe to cancel: no data that was read is lost.
    pub(super) async fn next(&mut self) -> Option<Line> {
        loop {
            if let Some(line) = self.splitter.next_line() {
                return Some(line);
            }
            if self.over {
                return self.splitter.last_line();
            }
            let waiting_since = *self
                .waiting_since
                .get_or_insert_with(|| self.clock.monotonic());
            let patience = (waiting_since + IDLE_TIMEOUT).since(self.clock.monotonic());
            match self
                .clock
                .timeout(patience, self.body.next())
                .await
                .unwrap_or(Some(Err(axum::Error::new(IdleTimeout))))
            {
                Some(Ok(bytes)) => self.splitter.push(&bytes),
                Some(Err(_)) => {
                    self.broken = true;
                    return None;
                }
                None => self.over = true,
            }
        }
    }
}

pub(super) fn too_long(too_long: TooLong) -> Problem {
    Problem::new(
        ErrorCode::PayloadTooLarge,
        too_long.to_string(),
        "send one session per line, with a line break after each",
    )
}

pub(super) fn is_array() -> Problem {
    let detail = "the batch is a JSON array; the rest of the body was not read";
    Problem::new(
        ErrorCode::InvalidRequest,
        detail,
        "send one JSON object per line, without enclosing brackets and separating commas",
    )
}
