//! `POST /v1/sessions:batch`: JSON Lines in, JSON Lines out, both streamed.

mod lines;

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::StreamExt;
use guestlane::{AttemptLog, Priority, admission_control::Permit, error::ErrorCode};
use guestlane_core::{
    api_key::Scope,
    request::{IdempotencyKey, SessionRequest},
};
use guestlane_runtime::trace_context;
use http::{HeaderValue, header};
use lines::{Lines, is_array, too_long};
use serde::Serialize;
use tokio::sync::mpsc;
use tracing::Instrument;
use utoipa::ToSchema;

use crate::{
    auth::{Authenticated, unauthorized},
    error_responses::{AuthErrors, BodyErrors},
    extract::{expect_type, read},
    headers::{IDEMPOTENCY_KEY, idempotency_key, quoted, traceparent},
    input::json,
    model::{CreateSessionRequest, DefaultKey, Session},
    problem::Problem,
    routes::events::as_stream,
    service::App,
};

/// Number of results that may wait for a slow reader. At this number, no further row is started.
const MAX_IN_FLIGHT_ROWS: usize = 64;

const LINES: HeaderValue = HeaderValue::from_static("application/jsonl");

/// A row without a session.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RowFailed {
    /// The number of the row in the batch, from 1.
    #[schema(minimum = 1, example = 2)]
    row: u64,
    error: Problem,
}

/// The last line of the response. Without it, the batch is incomplete.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    /// The number of rows that were read.
    #[schema(minimum = 0, example = 1000)]
    rows: u64,
    /// The number of sessions that this batch opened.
    #[schema(minimum = 0, example = 990)]
    opened: u64,
    /// The number of sessions that were open before.
    #[schema(minimum = 0, example = 8)]
    replayed: u64,
    /// The number of rows without an open session. Their result lines give the reason.
    #[schema(minimum = 0, example = 2)]
    failed: u64,
}

/// Create sessions in a batch
///
/// The body has one session per line (ended by LF, CR or CRLF), in the format of
/// `POST /v1/sessions`. The response has one line per session as soon as it completes, in any
/// order: the session with its `row`, or `{"row", "error"}`. The last line is `{"summary": {…}}`.
///
/// If the summary is missing, the connection broke. Send the batch again with the same header
/// `Idempotency-Key`: only the missing sessions are created. A row without an idempotency key gets
/// one that is derived from this header and the row's content. Requests for single sessions have
/// priority over rows.
#[utoipa::path(
    post, path = "/v1/sessions:batch", tag = "sessions", operation_id = "createSessions",
    security(("apiKey" = ["sessions:write"])),
    params(("Idempotency-Key" = Option<String>, Header,
        description = "Name of the batch, from which idempotency keys of rows without one are \
            derived. If absent, a name is generated and returned", min_length = 1, max_length = 255, example = "night-2026-11-23")),
    request_body(content = String, content_type = "application/jsonl",
        description = "One `CreateSessionRequest` per line", example = "{\"guestId\":\"user-1\",\"queueId\":\"5e0c0000-0000-4000-8000-000000000001\"}\n"),
    responses(
        (status = 200,
            description = "One line per row, `Session` with `row` or `RowFailed`; the last line \
                is `{\"summary\": Summary}`", content_type = "application/jsonl", body = String, headers(("Idempotency-Key" = String,
                description = "Name of the batch, as a quoted string"))),
        AuthErrors, BodyErrors,
    ),
)]
pub(crate) async fn create_all(
    State(app): State<App>,
    who: Authenticated,
    request: Request,
) -> Result<Response, Problem> {
    who.require_scope(Scope::SessionsWrite)?;
    let (head, body) = request.into_parts();
    expect_type(
        &head.headers,
        &[
            "application/jsonl",
            "application/x-ndjson",
            "application/json-lines",
        ],
    )?;
    if app.shutdown_token().is_cancelled() {
        return Err(Problem::new(
            ErrorCode::ShuttingDown,
            "the service is shutting down",
            "retry with the same idempotency key",
        )
        .retry_after(1));
    }
    let batch = idempotency_key(&head.headers)?.unwrap_or_else(IdempotencyKey::generate);
    let name = quoted(&batch);
    let trace = trace_context::current().or_else(|| traceparent(&head.headers));
    let (results, lines) = mpsc::channel(MAX_IN_FLIGHT_ROWS);
    let reading = Reading {
        app: Arc::clone(&app),
        who,
        batch,
        trace,
        results,
    };
    app.tasks().spawn(reading.run(body).in_current_span());
    let lines = tokio_stream(lines).map(Ok::<_, Infallible>);
    let mut response = ([(header::CONTENT_TYPE, LINES)], Body::from_stream(lines)).into_response();
    as_stream(&mut response);
    if let Some(name) = name {
        response.headers_mut().insert(IDEMPOTENCY_KEY, name);
    }
    Ok(response)
}

fn tokio_stream(lines: mpsc::Receiver<Bytes>) -> impl futures_util::Stream<Item = Bytes> {
    // The compression layer may poll the stream again after its end, which `fuse` makes safe.
    futures_util::stream::unfold(lines, |mut lines| async move {
        lines.recv().await.map(|line| (line, lines))
    })
    .fuse()
}

/// The result of a row.
enum RowOutcome {
    Opened { replayed: bool },
    Failed,
}

/// A batch whose body is being read.
struct Reading {
    app: App,
    who: Authenticated,
    batch: IdempotencyKey,
    trace: Option<guestlane_runtime::TraceParent>,
    results: mpsc::Sender<Bytes>,
}

/// The channel slot for a row's result. It is reserved before the row starts, so a slow reader
/// cannot hold an admission permit that other callers need.
type ResponseSlot = mpsc::OwnedPermit<Bytes>;

impl Reading {
    async fn run(self, body: Body) {
        let mut summary = Summary::default();
        let mut rows = tokio::task::JoinSet::new();
        let mut lines = Lines::new(body, self.app.clock().clone());
        while let Some(place) = self
            .or_cancelled(self.results.clone().reserve_owned())
            .await
            .and_then(Result::ok)
        {
            while let Some(ended) = rows.try_join_next() {
                count(&mut summary, ended.ok());
            }
            let line = tokio::select! {
                line = self.or_cancelled(lines.next()) => line.flatten(),
                () = self.who.revoked(&self.app) => None,
            };
            // Checked for each row as well: `revoked` checks the key only once a second.
            if !self.who.is_active(&self.app) {
                summary.failed += 1;
                fail(
                    line.map_or(summary.rows + 1, |line| line.number),
                    unauthorized(),
                    place,
                );
                lines.broken = true;
                break;
            }
            let Some(line) = line else { break };
            if line.is_blank() {
                continue;
            }
            lines.has_given_a_row();
            summary.rows += 1;
            if summary.rows == 1 && line.text.as_ref().is_ok_and(|text| json::is_array(text)) {
                summary.failed += 1;
                fail(line.number, is_array(), place);
                break;
            }
            let given = line
                .text
                .map_err(too_long)
                .and_then(|text| read::<CreateSessionRequest>(&text));
            let request = given.and_then(|given| {
                let key = DefaultKey::OfRow(self.batch.as_str());
                Ok(given.request(self.app.queue(), key, self.who.owner())?)
            });
            let begun = match request {
                Ok(request) => match self
                    .or_cancelled(self.app.batch_gate().acquire(request.queue, |_| ()))
                    .await
                {
                    Some(begun) => begun.map(|begun| (request, begun)).map_err(|outage| {
                        let detail = format!("{outage}: the row was not started");
                        Problem::new(
                            ErrorCode::PlatformFailing,
                            detail,
                            "send the batch again with the same idempotency key",
                        )
                        .retry_after(60)
                    }),
                    None => break,
                },
                Err(problem) => Err(problem),
            };
            match begun {
                Ok((request, begun)) => drop(
                    rows.spawn(
                        self.one(line.number, request, begun, place)
                            .in_current_span(),
                    ),
                ),
                Err(problem) => {
                    summary.failed += 1;
                    fail(line.number, problem, place);
                }
            }
        }
        while let Some(ended) = rows.join_next().await {
            count(&mut summary, ended.ok());
        }
        if !lines.broken && !self.app.shutdown_token().is_cancelled() {
            let _ = self
                .results
                .send(line(&serde_json::json!({ "summary": summary })))
                .await;
        }
    }

    /// Waits for `work`, unless the caller disconnects or the service shuts down; then returns
    /// `None`. Rows that have started are still finished.
    async fn or_cancelled<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.results.closed() => None,
            () = self.app.shutdown_token().cancelled() => None,
        }
    }

    fn one(
        &self,
        row: u64,
        request: SessionRequest,
        begun: Permit,
        place: ResponseSlot,
    ) -> impl Future<Output = RowOutcome> + use<> {
        let (app, attempts) = (Arc::clone(&self.app), AttemptLog::of(self.trace));
        async move {
            let key = request.key.clone();
            let created = app
                .engine()
                .create_with(request, Priority::Background, attempts)
                .await;
            drop(begun);
            match created {
                Ok(opened) => {
                    let _ = place.send(line(&Session::opened(&opened).of_row(row)));
                    RowOutcome::Opened {
                        replayed: opened.replayed,
                    }
                }
                Err(error) => {
                    fail(row, app.problem(error).with_session_key(key), place);
                    RowOutcome::Failed
                }
            }
        }
    }
}

fn fail(row: u64, error: Problem, place: ResponseSlot) {
    let _ = place.send(line(&RowFailed { row, error }));
}

fn count(summary: &mut Summary, ended: Option<RowOutcome>) {
    match ended {
        Some(RowOutcome::Opened { replayed: false }) => summary.opened += 1,
        Some(RowOutcome::Opened { replayed: true }) => summary.replayed += 1,
        Some(RowOutcome::Failed) | None => summary.failed += 1,
    }
}

fn line(value: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_string(value).unwrap_or_default();
    // Some parsers treat these characters as line ends.
    for (character, escaped) in [
        ('\u{85}', "\\u0085"),
        ('\u{2028}', "\\u2028"),
        ('\u{2029}', "\\u2029"),
    ] {
        if line.contains(character) {
            line = line.replace(character, escaped);
        }
    }
    line.push('\n');
    line.into()
}
