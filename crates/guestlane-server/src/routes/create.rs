//! `POST /v1/sessions`: creates one session per idempotency key, however often the request is
//! repeated.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    response::Response,
};
use guestlane::{
    AttemptLog, CreatedSession, Error, Priority, SessionEngine,
    admission_control::Permit,
    error::{ErrorCode, SessionOutcome},
};
use guestlane_core::{
    api_key::Scope,
    request::{IdempotencyKey, SessionRequest, ValidationError},
    session::SessionId,
};
use guestlane_runtime::trace_context;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::sync::watch;
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    auth::Authenticated,
    error_responses::{AuthErrors, BodyErrors, SessionRefused},
    extract::{json_response, read_json},
    headers::{IDEMPOTENCY_KEY, Preference, idempotency_key, quoted, traceparent, wait},
    model::{CreateSessionRequest, DefaultKey, Session},
    problem::Problem,
    service::App,
};

/// Default wait of a request. It is shorter than the 30 s after which many clients and load
/// balancers give up.
const WAIT: Duration = Duration::from_secs(25);

/// Create a session
///
/// Signs the guest token, registers the guest as an external contact and opens a conversation in
/// the queue. A repeated request with the same idempotency key returns the same session for as long
/// as it is stored, so repeat the request after any failure.
#[utoipa::path(
    post, path = "/v1/sessions", tag = "sessions", operation_id = "createSession",
    security(("apiKey" = ["sessions:write"])),
    params(
        ("Idempotency-Key" = Option<String>, Header,
            description = "Idempotency key of the session, quoted or unquoted. If absent, a key \
                is generated and returned", min_length = 1, max_length = 255, example = "order-2231-chat"),
        ("Prefer" = Option<String>, Header,
            description = "`wait=n`: seconds to wait for the session (default 25); \
                `respond-async`: do not wait (RFC 7240)", example = "wait=10"),
        ("traceparent" = Option<String>, Header,
            description = "Trace of the caller (W3C Trace Context), passed on to the platform and \
                to the CRM", example = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ),
    request_body(content = CreateSessionRequest, example = json!({"guestId": "user-8842-xyz", "queueId": "5e0c0000-0000-4000-8000-000000000001", "attributes": {"source": "web-portal", "tier": "premium"}})),
    responses(
        (status = 201, description = "The session is open", body = Session, headers(
            ("Location" = String, description = "URL of the session"),
            ("Idempotency-Key" = String,
                description = "Idempotency key of the session, as a quoted string"),
        )),
        (status = 200, description = "The session was already open; nothing was done", body = Session, headers(
            ("Location" = String, description = "URL of the session"),
            ("Idempotency-Key" = String,
                description = "Idempotency key of the session, as a quoted string"),
            ("Idempotency-Replayed" = String, description = "`true`"),
        )),
        (status = 202,
            description = "The session is recorded and will be completed. Read it, or retry with \
                the same idempotency key", body = Session, headers(
            ("Location" = String, description = "URL of the session"),
            ("Idempotency-Key" = String,
                description = "Idempotency key of the session, as a quoted string"),
            ("Retry-After" = u64, description = "Seconds after which to retry"),
            ("Preference-Applied" = String,
                description = "The applied preference, if it ended the wait"),
        )),
        AuthErrors, BodyErrors, SessionRefused,
    ),
)]
pub(crate) async fn create(
    State(app): State<App>,
    who: Authenticated,
    request: Request,
) -> Result<Response, Problem> {
    who.require_scope(Scope::SessionsWrite)?;
    let headers = request.headers().clone();
    let given: CreateSessionRequest = read_json(app.clock(), request).await?;
    let request =
        with_header_key(given, &headers)?.request(app.queue(), DefaultKey::Fresh, who.owner())?;
    if app.shutdown_token().is_cancelled() {
        return Err(Problem::new(
            ErrorCode::ShuttingDown,
            "the service is shutting down",
            "retry with the same idempotency key",
        )
        .retry_after(1)
        .with_session_key(&request.key));
    }
    let begun = app
        .interactive_gate()
        .try_acquire()
        .ok_or_else(|| overloaded(&request.key))?;
    let attempts = AttemptLog::of(trace_context::current().or_else(|| traceparent(&headers)));
    let recorded = attempts.admitted();
    let preference = wait(&headers).map(|preference| preference.at_most(app.engine().deadline()));
    let wait = preference
        .as_ref()
        .map_or(WAIT.min(app.engine().deadline()), |preference| {
            preference.wait
        });
    let key = request.key.clone();
    // A separate task finishes the session even if the client disconnects.
    let mut creating = app.tasks().spawn(
        create_detached(Arc::clone(app.engine()), request, attempts, begun).in_current_span(),
    );
    let ended = match app.clock().timeout(wait, &mut creating).await {
        Ok(ended) => ended,
        // The wait is over. A session that is not recorded yet cannot be looked up, so the response
        // waits until it is recorded. A session that ends in the meantime is answered with its
        // result.
        Err(_) => tokio::select! {
            ended = &mut creating => ended,
            session = wait_until_admitted(&app, recorded) => match session {
                Some(session) => return Ok(accepted(&session, 1, preference.as_ref())),
                None => creating.await,
            },
        },
    };
    match ended {
        Ok(Ok(opened)) => Ok(created_response(&opened)),
        Ok(Err(error)) => error_response(&app, error, &key).await,
        Err(_) => Err(Problem::new(
            ErrorCode::InternalError,
            "the task of the session failed",
            "retry with the same idempotency key",
        )
        .with_session_key(&key)),
    }
}

/// Returns the session once it is stored, or `None` if the saga has ended by then.
async fn wait_until_admitted(
    app: &App,
    mut recorded: watch::Receiver<Option<Uuid>>,
) -> Option<guestlane_core::session::SessionRecord> {
    let id = *recorded.wait_for(Option::is_some).await.ok()?;
    let session = app
        .engine()
        .store()
        .session(SessionId(id?))
        .await
        .ok()
        .flatten()?;
    session.state.is_unfinished().then_some(session)
}

async fn create_detached(
    engine: Arc<SessionEngine>,
    request: SessionRequest,
    attempts: AttemptLog,
    begun: Permit,
) -> Result<CreatedSession, Error> {
    let _begun = begun;
    engine
        .create_with(request, Priority::Interactive, attempts)
        .await
}

/// Moves the idempotency key from the header into the request. A different key in the body is an
/// error.
fn with_header_key(
    given: CreateSessionRequest,
    headers: &HeaderMap,
) -> Result<CreateSessionRequest, ValidationError> {
    let Some(key) = idempotency_key(headers)? else {
        return Ok(given);
    };
    match &given.idempotency_key {
        Some(other) if other != key.as_str() => Err(ValidationError::new(
            "idempotencyKey",
            "differs from the header Idempotency-Key",
            "send the key in the header only",
        )),
        _ => Ok(CreateSessionRequest {
            idempotency_key: Some(key.to_string()),
            ..given
        }),
    }
}

fn overloaded(key: &IdempotencyKey) -> Problem {
    let detail = "more sessions are in flight than can be served soon; this request did nothing";
    Problem::new(
        ErrorCode::Overloaded,
        detail,
        "retry after the seconds in Retry-After, with the same idempotency key",
    )
    // Spread the retries of many clients over time.
    .retry_after(fastrand::u64(1..=3))
    .with_session_key(key)
}

fn created_response(opened: &CreatedSession) -> Response {
    let status = if opened.replayed {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    let mut response = json_response(status, &Session::opened(opened));
    set_location(&mut response, &opened.session);
    if opened.replayed {
        response
            .headers_mut()
            .insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    response
}

/// Returns the response for a session that did not become open. A stored session that will be
/// completed is no failure: the response is 202.
async fn error_response(
    app: &App,
    error: Error,
    key: &IdempotencyKey,
) -> Result<Response, Problem> {
    let Error::Platform {
        session: Some(id),
        then: SessionOutcome::WillComplete,
        failed,
    } = &error
    else {
        return Err(app.problem(error).with_session_key(key));
    };
    let seconds = failed.retry_after.map_or(5, |wait| wait.as_secs() + 1);
    match app.engine().store().session(*id).await {
        Ok(Some(session)) => Ok(accepted(&session, seconds, None)),
        Ok(None) | Err(_) => Err(app.problem(error).with_session_key(key)),
    }
}

fn accepted(
    session: &guestlane_core::session::SessionRecord,
    seconds: u64,
    preference: Option<&Preference>,
) -> Response {
    let mut response = json_response(StatusCode::ACCEPTED, &Session::stored(session));
    set_location(&mut response, session);
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, seconds.into());
    let applied = preference.and_then(|preference| HeaderValue::from_str(&preference.applied).ok());
    if let Some(applied) = applied {
        headers.insert("preference-applied", applied);
    }
    response
}

fn set_location(response: &mut Response, session: &guestlane_core::session::SessionRecord) {
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/sessions/{}", session.id)) {
        headers.insert(header::LOCATION, location);
    }
    if let Some(key) = quoted(&session.request.key) {
        headers.insert(IDEMPOTENCY_KEY, key);
    }
}
