//! What the demo prints.

use std::{collections::HashMap, path::Path};

use guestlane::{CreatedSession, Error};
use guestlane_core::request::SessionRequest;
use guestlane_genesys::Queue;
use guestlane_server::model::Session as SessionJson;
use guestlane_sim::Snapshot;
use serde_json::json;

use super::requested;
use crate::output;

pub(super) fn secrecy_text(secret: &secrecy::SecretString) -> String {
    secrecy::ExposeSecret::expose_secret(secret).to_owned()
}

pub(super) fn what_is_wrong(
    guests: &[SessionRequest],
    created: &[Result<CreatedSession, Error>],
    state: &Snapshot,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let opened = created.iter().filter(|created| created.is_ok()).count();
    if opened < guests.len() {
        wrong.push(format!(
            "{} of {} guests have no session",
            guests.len() - opened,
            guests.len()
        ));
    }
    // Equal rows are one request, and have one session.
    let requested = requested(guests);
    if (state.contacts, state.conversations) != (requested, requested) {
        wrong.push(format!(
            "{requested} sessions were requested, but the platform has {} contacts and {} \
             conversations",
            state.contacts, state.conversations
        ));
    }
    if state.crm.events != requested {
        wrong.push(format!(
            "the CRM received events of {} of {requested} sessions",
            state.crm.events
        ));
    }
    if state.crm.bad_signature > 0 {
        wrong.push(format!(
            "the CRM rejected {} signatures",
            state.crm.bad_signature
        ));
    }
    if !state.faults.contains_key("answer-lost") {
        wrong.push("no response was lost, so the demo shows nothing".to_owned());
    }
    wrong
}

pub(super) fn print_summary(
    queues: &[Queue],
    created: &[Result<CreatedSession, Error>],
    state: &Snapshot,
) {
    let names: HashMap<_, _> = queues
        .iter()
        .map(|queue| (queue.id, queue.name.as_str()))
        .collect();
    let rows = created
        .iter()
        .filter_map(|created| created.as_ref().ok())
        .map(|opened| {
            let session = &opened.session;
            let calls = if session.attempts > 2 {
                format!("{} calls: one response lost", session.attempts)
            } else {
                "2 calls".to_owned()
            };
            vec![
                session.request.guest.to_string(),
                names
                    .get(&session.request.queue.0)
                    .copied()
                    .unwrap_or_default()
                    .to_owned(),
                session.contact_id.as_deref().unwrap_or_default().to_owned(),
                session
                    .conversation_id
                    .as_deref()
                    .unwrap_or_default()
                    .to_owned(),
                session
                    .latency
                    .map(|latency| format!("{:.0} ms", latency.as_secs_f64() * 1000.0))
                    .unwrap_or_default(),
                calls,
            ]
        });
    output::stdout_line(output::table(
        &[
            "guest",
            "queue",
            "contact",
            "conversation",
            "latency",
            "platform",
        ],
        rows,
    ));
    let twice = &state.duplicates;
    output::stdout_line(format!(
        "\nThe platform has {} contacts and {} conversations of {} guests: {} duplicate guests.",
        state.contacts,
        state.conversations,
        state.guests,
        twice.guests.len()
    ));
    output::stdout_line(format!(
        "Responses lost after the platform acted: {}. Access tokens issued: {}.",
        state.faults.get("answer-lost").copied().unwrap_or(0),
        state.tokens_issued
    ));
    output::stdout_line(format!(
        "The CRM received events of {} sessions and rejected {} signatures.",
        state.crm.events, state.crm.bad_signature
    ));
}

pub(super) fn print_json(
    created: &[Result<CreatedSession, Error>],
    state: &Snapshot,
    audit_log: &Path,
    wrong: &[String],
) {
    let sessions: Vec<_> = created
        .iter()
        .filter_map(|created| created.as_ref().ok())
        .map(SessionJson::opened)
        .collect();
    output::json(
        &json!({"sessions": sessions, "platform": state, "auditLog": audit_log, "problems": wrong}),
    );
}
