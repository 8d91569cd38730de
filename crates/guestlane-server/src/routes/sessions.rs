//! `GET /v1/sessions…`: lists sessions, and shows one with its timeline.

use axum::{extract::State, response::Response};
use guestlane::error::ErrorCode;
use guestlane_core::{
    api_key::Scope,
    request::{GuestId, QueueId, ValidationError},
    session::{self, SessionId},
};
use guestlane_store::SessionFilter;
use http::{StatusCode, Uri};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    auth::Authenticated,
    error_responses::{AuthErrors, NotFoundErrors, QueryRefused},
    extract::{PathId, json_response, read_query},
    model::{Session, Sessions, Timeline},
    problem::Problem,
    service::App,
    timeline::timeline,
};

/// Maximum number of sessions on one page.
const MAX_PAGE: u32 = 500;

/// Filter and page of a session list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Which {
    /// Return only sessions of this guest.
    #[param(
        min_length = 1,
        max_length = 128,
        pattern = r"^[^\s\u0000-\u001f\u007f-\u009f]([^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f])?$",
        example = "user-8842-xyz"
    )]
    guest_id: Option<String>,
    /// Return only sessions in this state.
    #[param(value_type = Option<crate::model::SessionState>, example = "open")]
    state: Option<String>,
    /// Return only sessions in this queue.
    #[param(format = Uuid, min_length = 36, max_length = 36, example = "5e0c0000-0000-4000-8000-000000000001")]
    queue_id: Option<String>,
    /// `nextCursor` of the previous page.
    #[param(format = Uuid, min_length = 36, max_length = 36, example = "019ab123-4567-7000-8000-0123456789ab")]
    cursor: Option<String>,
    /// Maximum number of sessions [default: 50].
    #[param(minimum = 1, maximum = 500, example = 50)]
    limit: Option<u32>,
}

impl Which {
    pub(crate) fn filter(self) -> Result<SessionFilter, ValidationError> {
        let state = |name: String| {
            let names = session::SessionState::ALL
                .map(session::SessionState::name)
                .join(", ");
            session::SessionState::from_name(&name).ok_or_else(|| {
                ValidationError::new("state", "is not a state", format!("use one of {names}"))
            })
        };
        Ok(SessionFilter {
            guest: self
                .guest_id
                .map(|guest| GuestId::recorded(&guest))
                .transpose()?
                .map(|guest| guest.as_str().to_owned()),
            state: self.state.map(state).transpose()?,
            queue: self
                .queue_id
                .map(|queue| queue.parse::<QueueId>())
                .transpose()?,
            before: self
                .cursor
                .map(|cursor| cursor.parse::<SessionId>())
                .transpose()
                .map_err(|invalid| ValidationError {
                    field: "cursor".to_owned(),
                    fix: "send nextCursor of the previous page".to_owned(),
                    ..invalid
                })?,
            limit: limit(self.limit)?,
        })
    }
}

/// List sessions
///
/// Newest first. A page can have fewer sessions than `limit`, or none, although more exist: follow
/// `nextCursor` until it is null.
#[utoipa::path(
    get, path = "/v1/sessions", tag = "sessions", operation_id = "listSessions",
    security(("apiKey" = ["sessions:read"])), params(Which),
    responses((status = 200, description = "A page", body = Sessions), AuthErrors, QueryRefused),
)]
pub(crate) async fn list(
    State(app): State<App>,
    who: Authenticated,
    uri: Uri,
) -> Result<Response, Problem> {
    who.require_scope(Scope::SessionsRead)?;
    let which: Which = read_query(&uri)?;
    let filter = which.filter()?;
    let page = app
        .reads()
        .sessions(filter)
        .await
        .map_err(|error| app.problem(error))?;
    let sessions = page.sessions.iter().map(Session::stored).collect();
    Ok(json_response(
        StatusCode::OK,
        &Sessions {
            sessions,
            next_cursor: page.next.map(|id| id.to_string()),
        },
    ))
}

pub(crate) fn limit(limit: Option<u32>) -> Result<u32, ValidationError> {
    match limit {
        None => Ok(50),
        Some(limit) if (1..=MAX_PAGE).contains(&limit) => Ok(limit),
        Some(_) => Err(ValidationError::new(
            "limit",
            "is out of range",
            format!("use 1 to {MAX_PAGE}"),
        )),
    }
}

/// Get a session
///
/// Returns the stored session without tokens; only the responses to the caller that creates the
/// session (`POST /v1/sessions`) contain tokens. A key that has only `sessions:write` sees the
/// sessions of its own owner, so that it can follow the `Location` of a response 202. For any other
/// ID it gets 404.
#[utoipa::path(
    get, path = "/v1/sessions/{id}", tag = "sessions", operation_id = "getSession",
    security(("apiKey" = ["sessions:read"]), ("apiKey" = ["sessions:write"])),
    params(("id" = String, Path, description = "Session ID", format = Uuid, min_length = 36, max_length = 36, example = "019ab123-4567-7000-8000-0123456789ab")),
    responses((status = 200, description = "The session", body = Session), AuthErrors, NotFoundErrors),
)]
pub(crate) async fn show(
    State(app): State<App>,
    who: Authenticated,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    if who.require_scope(Scope::SessionsWrite).is_err() {
        who.require_scope(Scope::SessionsRead)?;
    }
    let session = session(&app, &id).await?;
    if !who.may_see(&session) {
        return Err(no_session());
    }
    Ok(json_response(StatusCode::OK, &Session::stored(&session)))
}

/// Get the timeline of a session
///
/// Returns each step and each attempt with its correlation ID, each audit record with its index,
/// and each delivery to the CRM.
#[utoipa::path(
    get, path = "/v1/sessions/{id}/timeline", tag = "sessions", operation_id = "getSessionTimeline",
    security(("apiKey" = ["sessions:read"])),
    params(("id" = String, Path, description = "Session ID", format = Uuid, min_length = 36, max_length = 36, example = "019ab123-4567-7000-8000-0123456789ab")),
    responses((status = 200, description = "Timeline of the session, oldest entry first", body = Timeline), AuthErrors, NotFoundErrors),
)]
pub(crate) async fn show_timeline(
    State(app): State<App>,
    who: Authenticated,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    who.require_scope(Scope::SessionsRead)?;
    let session = session(&app, &id).await?;
    let timeline = timeline(app.reads(), &session).await;
    Ok(json_response(
        StatusCode::OK,
        &timeline.map_err(|error| app.problem(error))?,
    ))
}

async fn session(app: &App, id: &str) -> Result<session::SessionRecord, Problem> {
    let id: SessionId = id.parse().map_err(|_| no_session())?;
    let found = app
        .reads()
        .session(id)
        .await
        .map_err(|error| app.problem(error))?;
    found.ok_or_else(no_session)
}

/// The problem for a missing session and for a session of another owner. Both look the same, so
/// that a caller does not learn of other owners' sessions.
fn no_session() -> Problem {
    let detail = "no session with this ID exists in this store; it may have been deleted, or be in another \
         store";
    Problem::new(
        ErrorCode::NotFound,
        detail,
        "`GET /v1/sessions` lists the sessions of this store",
    )
    .of_field("id")
}
