//! `POST /v1/sessions`: one session, once, however often it is asked for.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    response::Response,
};
use guestlane::{
    Error, Lane, Opened, Trail,
    api_key::Scope,
    error::{Code, Then},
    intake::Begun,
    ledger::SessionId,
    request::{IdempotencyKey, Invalid, SessionRequest},
    trace,
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::sync::watch;
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    access::Who,
    body::{answer, read_json},
    headers::{IDEMPOTENCY_KEY, Preference, idempotency_key, quoted, traceparent, wait},
    model::{KeyIfNone, NewSession, Session},
    openapi::{BodyRefused, Guarded, SessionRefused},
    problem::Problem,
    service::App,
};

/// How long a caller waits who does not say: less than the 30 s after which many clients and balancers give up.
const WAIT: Duration = Duration::from_secs(25);

/// Create a session
///
/// Signs the guest token, registers the guest as an external contact and opens a conversation in the queue. The same key and the same request are the
/// same session, for as long as it is kept: ask again after any failure.
#[utoipa::path(
    post, path = "/v1/sessions", tag = "sessions", operation_id = "createSession",
    security(("apiKey" = ["sessions:write"])),
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "The name of this wish, in quotes or bare; without one, one is made and returned", min_length = 1, max_length = 255, example = "order-2231-chat"),
        ("Prefer" = Option<String>, Header, description = "`wait=n`: how many seconds the caller waits (25 if not said); `respond-async`: none (RFC 7240)", example = "wait=10"),
        ("traceparent" = Option<String>, Header, description = "The caller's trace (W3C Trace Context): passed on to the platform and to the CRM", example = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ),
    request_body(content = NewSession, example = json!({"guestId": "user-8842-xyz", "queueId": "5e0c0000-0000-4000-8000-000000000001", "attributes": {"source": "web-portal", "tier": "premium"}})),
    responses(
        (status = 201, description = "It is open", body = Session, headers(
            ("Location" = String, description = "Where it can be looked at"),
            ("Idempotency-Key" = String, description = "Its key, in quotes"),
        )),
        (status = 200, description = "It was open already: nothing was done", body = Session, headers(
            ("Location" = String, description = "Where it can be looked at"),
            ("Idempotency-Key" = String, description = "Its key, in quotes"),
            ("Idempotency-Replayed" = String, description = "`true`"),
        )),
        (status = 202, description = "It is recorded, and will be completed: look at it, or ask again under the same key", body = Session, headers(
            ("Location" = String, description = "Where it can be looked at"),
            ("Idempotency-Key" = String, description = "Its key, in quotes"),
            ("Retry-After" = u64, description = "Seconds until it is worth asking again"),
            ("Preference-Applied" = String, description = "What was preferred, where that ended the waiting"),
        )),
        Guarded, BodyRefused, SessionRefused,
    ),
)]
pub(crate) async fn create(State(app): State<App>, who: Who, request: Request) -> Result<Response, Problem> {
    who.may(Scope::SessionsWrite)?;
    let headers = request.headers().clone();
    let wish: NewSession = read_json(app.clock(), request).await?;
    let request = wish_with_key(wish, &headers)?.request(app.queue(), KeyIfNone::Fresh)?.owned_by(who.owner());
    if app.ending().is_cancelled() {
        return Err(Problem::new(Code::Ending, "the service is ending", "send it again, under the same key")
            .after(1)
            .under(&request.key));
    }
    let begun = app.callers().try_next().ok_or_else(|| overloaded(&request.key))?;
    let trail = Trail::of(trace::context().or_else(|| traceparent(&headers)));
    let recorded = trail.recorded();
    let preference = wait(&headers).map(|preference| preference.at_most(app.lane().deadline()));
    let wait = preference.as_ref().map_or(WAIT.min(app.lane().deadline()), |preference| preference.wait);
    let key = request.key.clone();
    // A task of its own: who asked may go away, and the session is finished none the less.
    let mut creating = app.under_way().spawn(create_to_its_end(Arc::clone(app.lane()), request, trail, begun).in_current_span());
    let ended = match app.clock().timeout(wait, &mut creating).await {
        Ok(ended) => ended,
        // The caller has waited long enough. What is not recorded yet is nothing that they could look at; what is over by then is told as it ended.
        Err(_) => tokio::select! {
            ended = &mut creating => ended,
            session = unfinished(&app, recorded) => match session {
                Some(session) => return Ok(accepted(&session, 1, preference.as_ref())),
                None => creating.await,
            },
        },
    };
    match ended {
        Ok(Ok(opened)) => Ok(done(&opened)),
        Ok(Err(error)) => settled(&app, error, &key).await,
        Err(_) => Err(Problem::new(Code::Defect, "the session's task ended early", "ask again with the same key").under(&key)),
    }
}

/// The session, once it is recorded; `None` where it is over by then.
async fn unfinished(app: &App, mut recorded: watch::Receiver<Option<Uuid>>) -> Option<guestlane::ledger::Session> {
    let id = *recorded.wait_for(Option::is_some).await.ok()?;
    let session = app.lane().store().session(SessionId(id?)).await.ok().flatten()?;
    session.state.is_unfinished().then_some(session)
}

async fn create_to_its_end(lane: Arc<Lane>, request: SessionRequest, trail: Trail, begun: Begun) -> Result<Opened, Error> {
    let _begun = begun;
    trail.scope(lane.create(request)).await
}

/// The key may stand in the header or in the body; in both only if it is the same.
fn wish_with_key(wish: NewSession, headers: &HeaderMap) -> Result<NewSession, Invalid> {
    let Some(key) = idempotency_key(headers)? else { return Ok(wish) };
    match &wish.idempotency_key {
        Some(other) if other != key.as_str() => Err(Invalid::new(
            "idempotencyKey",
            "is another than the one in the header Idempotency-Key",
            "send the key once: in the header",
        )),
        _ => Ok(NewSession { idempotency_key: Some(key.to_string()), ..wish }),
    }
}

fn overloaded(key: &IdempotencyKey) -> Problem {
    let detail = "more sessions are under way than can be served soon; this request did nothing";
    Problem::new(Code::Overloaded, detail, "send it again after so many seconds, under the same key")
        .after(fastrand::u64(1..=3)) // not all at the same moment
        .under(key)
}

fn done(opened: &Opened) -> Response {
    let status = if opened.replayed { StatusCode::OK } else { StatusCode::CREATED };
    let mut response = answer(status, &Session::opened(opened));
    name(&mut response, &opened.session);
    if opened.replayed {
        response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    response
}

/// What is told of a session that did not become open: one that is recorded and will be completed is no failure.
async fn settled(app: &App, error: Error, key: &IdempotencyKey) -> Result<Response, Problem> {
    let Error::Platform { session: Some(id), then: Then::Completes, failed } = &error else {
        return Err(app.problem(error).under(key));
    };
    let seconds = failed.wait.map_or(5, |wait| wait.as_secs() + 1);
    match app.lane().store().session(*id).await {
        Ok(Some(session)) => Ok(accepted(&session, seconds, None)),
        Ok(None) | Err(_) => Err(app.problem(error).under(key)),
    }
}

fn accepted(session: &guestlane::ledger::Session, seconds: u64, preference: Option<&Preference>) -> Response {
    let mut response = answer(StatusCode::ACCEPTED, &Session::stored(session));
    name(&mut response, session);
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, seconds.into());
    let applied = preference.and_then(|preference| HeaderValue::from_str(&preference.applied).ok());
    if let Some(applied) = applied {
        headers.insert("preference-applied", applied);
    }
    response
}

fn name(response: &mut Response, session: &guestlane::ledger::Session) {
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/sessions/{}", session.id)) {
        headers.insert(header::LOCATION, location);
    }
    if let Some(key) = quoted(&session.request.key) {
        headers.insert(IDEMPOTENCY_KEY, key);
    }
}
