//! The admin API under `/_sim/…`: inspects the simulator and changes its behaviour at run time.

use std::time::Duration;

use http::{Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use crate::{
    fault::Fault,
    request::{Request, parse},
    response::{self, Body, Refusal},
    simulation::{Simulation, lock},
};

/// The maximum advance of the clock in one request, in seconds: a hundred years.
const MAX_ADVANCE: u64 = 100 * 365 * 24 * 3600;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewFaults {
    faults: Vec<String>,
    /// The new seed. If it is absent, the seed is unchanged.
    seed: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Advance {
    advance_seconds: u64,
}

/// An action of the simulated agent: writing in a conversation, or ending one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Agent {
    say: Option<String>,
    conversation_id: Option<Uuid>,
    disconnect: Option<Uuid>,
}

fn act(simulation: &Simulation, agent: &Agent) -> Result<Response<Body>, Refusal> {
    let now = simulation.now();
    let mut organization = lock(&simulation.organization);
    match (&agent.say, agent.conversation_id, agent.disconnect) {
        (Some(text), Some(conversation), None) => {
            organization.agent_says(conversation, text, now)?
        }
        (None, None, Some(conversation)) => organization.agent_leaves(conversation, now)?,
        _ => {
            return Err(Refusal::bad_request(
                "Give either say with conversationId, or disconnect.",
            ));
        }
    }
    Ok(response::empty(StatusCode::NO_CONTENT))
}

/// The path prefix of the admin API.
pub(crate) const PREFIX: &str = "/_sim/";

pub(crate) fn handle(simulation: &Simulation, request: &Request) -> Response<Body> {
    let answer = match (&request.method, request.path.as_str()) {
        (&Method::GET, "/_sim/state") => Ok(response::json(StatusCode::OK, &simulation.state())),
        (&Method::GET, "/_sim/journal") => Ok(response::json(
            StatusCode::OK,
            &lock(&simulation.journal).entries(),
        )),
        (&Method::GET, "/_sim/crm-events") => Ok(response::json(
            StatusCode::OK,
            &lock(&simulation.crm).events(),
        )),
        (&Method::GET, "/_sim/faults") => Ok(faults(simulation)),
        (&Method::PUT, "/_sim/faults") => parse::<NewFaults>(&request.body).and_then(|new| {
            let parsed: Result<Vec<Fault>, _> =
                new.faults.iter().map(|spec| spec.parse()).collect();
            simulation.set_faults(
                parsed.map_err(|error| Refusal::bad_request(error.to_string()))?,
                new.seed,
            );
            Ok(faults(simulation))
        }),
        (&Method::PUT, "/_sim/guest-keys") => register_keys(simulation, request),
        (&Method::DELETE, "/_sim/tokens") => {
            lock(&simulation.organization).oauth.revoke_tokens();
            Ok(response::empty(StatusCode::NO_CONTENT))
        }
        (&Method::POST, "/_sim/clock") => parse::<Advance>(&request.body).and_then(|advance| {
            if advance.advance_seconds > MAX_ADVANCE {
                let message = format!("advanceSeconds must be at most {MAX_ADVANCE} (100 years).");
                return Err(Refusal::bad_request(message));
            }
            simulation.advance(Duration::from_secs(advance.advance_seconds));
            Ok(response::json(
                StatusCode::OK,
                &json!({"now": simulation.now()}),
            ))
        }),
        (&Method::POST, "/_sim/agent") => {
            parse::<Agent>(&request.body).and_then(|agent| act(simulation, &agent))
        }
        _ => Err(Refusal::not_found()),
    };
    answer.unwrap_or_else(|refusal| refusal.answer(Uuid::nil()))
}

fn faults(simulation: &Simulation) -> Response<Body> {
    let (faults, seed) = simulation.faults();
    let specs: Vec<_> = faults.iter().map(Fault::to_string).collect();
    response::json(StatusCode::OK, &json!({"faults": specs, "seed": seed}))
}

/// Registers guest token keys: a JWK set replaces all keys, a PEM with `?kid=` adds one.
fn register_keys(simulation: &Simulation, request: &Request) -> Result<Response<Body>, Refusal> {
    let keys = &mut lock(&simulation.organization).guest_keys;
    let registered = if request.body.starts_with(b"-----BEGIN") {
        let kid = request
            .query
            .as_deref()
            .and_then(|query| query.strip_prefix("kid="))
            .unwrap_or_default();
        if kid.is_empty() {
            return Err(Refusal::bad_request(
                "A PEM key requires the query parameter kid.",
            ));
        }
        keys.add_pem(kid, &request.body).map(|()| 1)
    } else {
        keys.replace_by_jwks(&request.body)
    };
    let registered = registered.map_err(Refusal::bad_request)?;
    Ok(response::json(
        StatusCode::OK,
        &json!({"registered": registered}),
    ))
}
