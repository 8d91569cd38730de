//! `/v1/outbox`: lists deliveries of the outbox, and replays one.

use axum::{extract::State, response::Response};
use guestlane::error::ErrorCode;
use guestlane_core::{api_key::Scope, request::ValidationError};
use guestlane_store::ReplayFilter;
use http::{StatusCode, Uri};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::{
    auth::Authenticated,
    error_responses::{AuthErrors, NotFoundErrors, QueryRefused},
    extract::{PathId, json_response, read_query},
    model::{Event, EventState, Events, Replayed},
    problem::Problem,
    routes::sessions::limit,
    service::App,
};

/// Filter and page of an event list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Which {
    /// Return only events in this state.
    #[param(value_type = Option<EventState>, example = "dead")]
    state: Option<EventState>,
    /// `nextCursor` of the previous page.
    #[param(
        min_length = 1,
        max_length = 18,
        pattern = "^[0-9]+$",
        example = "1234"
    )]
    cursor: Option<String>,
    /// Maximum number of events [default: 50].
    #[param(minimum = 1, maximum = 500, example = 50)]
    limit: Option<u32>,
}

impl Which {
    /// Parses the cursor: the position before which the page ends.
    pub(crate) fn before(&self) -> Result<Option<i64>, ValidationError> {
        let place = |cursor: &String| {
            let number = Some(cursor)
                .filter(|cursor| cursor.len() < 19)
                .and_then(|cursor| cursor.parse::<i64>().ok());
            let invalid = || {
                ValidationError::new(
                    "cursor",
                    "is not a cursor",
                    "send nextCursor of the previous page",
                )
            };
            number.filter(|place| *place >= 0).ok_or_else(invalid)
        };
        self.cursor.as_ref().map(place).transpose()
    }
}

/// List events for the CRM
///
/// Newest first, one entry for each endpoint. Events in the state `dead` are dead letters: all
/// their attempts have failed.
#[utoipa::path(
    get, path = "/v1/outbox", tag = "crm", operation_id = "listEvents",
    security(("apiKey" = ["sessions:read"])), params(Which),
    responses((status = 200, description = "A page", body = Events), AuthErrors, QueryRefused),
)]
pub(crate) async fn list(
    State(app): State<App>,
    who: Authenticated,
    uri: Uri,
) -> Result<Response, Problem> {
    who.require_scope(Scope::SessionsRead)?;
    let which: Which = read_query(&uri)?;
    let before = which.before()?;
    let limit = limit(which.limit)?;
    let events = app
        .reads()
        .events(which.state.map(Into::into), before, limit)
        .await;
    let events = events.map_err(|error| app.problem(error))?;
    let next_cursor = events
        .last()
        .filter(|_| events.len() == limit as usize)
        .map(|event| event.sequence.to_string());
    Ok(json_response(
        StatusCode::OK,
        &Events {
            events: events.iter().map(Event::from).collect(),
            next_cursor,
        },
    ))
}

/// Replay an event
///
/// Sends the event to all its endpoints again, whatever the state of its deliveries. ID and body
/// stay the same, so a receiver recognises a duplicate by its `webhook-id`.
#[utoipa::path(
    post, path = "/v1/outbox/{id}:replay", tag = "crm", operation_id = "replayEvent",
    security(("apiKey" = ["admin"])),
    params(("id" = String, Path, description = "Event ID", min_length = 1, max_length = 64, example = "msg_019ab1234567700080000123456789ab")),
    responses((status = 202, description = "The event is pending again", body = Replayed), AuthErrors, NotFoundErrors),
)]
pub(crate) async fn replay(
    State(app): State<App>,
    who: Authenticated,
    PathId(id): PathId,
) -> Result<Response, Problem> {
    who.require_scope(Scope::Admin)?;
    let nothing = || {
        let detail = "the event does not exist, or its guest was erased";
        Problem::new(ErrorCode::NotFound, detail, "`GET /v1/outbox` lists events").of_field("id")
    };
    let id = id.strip_suffix(":replay").ok_or_else(nothing)?;
    let replayed = app
        .engine()
        .store()
        .replay(ReplayFilter::Event(id.to_owned()), app.clock().now())
        .await;
    match replayed.map_err(|error| app.problem(error))? {
        0 => Err(nothing()),
        events => Ok(json_response(
            StatusCode::ACCEPTED,
            &Replayed {
                events: events as u64,
            },
        )),
    }
}
