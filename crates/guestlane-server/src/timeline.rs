//! The timeline of a session: its record, calls, audit records and deliveries, in order of time.

use guestlane_core::{
    event::event_id,
    session::{SessionRecord, SessionState},
};
use guestlane_runtime::Timestamp;
use guestlane_store::{
    CallRecord, Delivery, DeliveryState, RecordFilter, Store, StoreError, StoredRecord,
};
use serde::Deserialize;

use crate::model::{Entry, EntryStatus, Session, Timeline};

/// Reads everything that the store has about a session, in order of time.
///
/// # Errors
/// The store cannot be read.
pub async fn timeline(store: &Store, session: &SessionRecord) -> Result<Timeline, StoreError> {
    let calls = store.calls(session.id).await?;
    let records = store
        .records(RecordFilter {
            session: Some(session.id),
            guest: None,
            limit: 200,
        })
        .await?;
    let events = store.event(event_id(session.id.0)).await?;
    Ok(of(session, &calls, &records, &events))
}

fn of(
    session: &SessionRecord,
    calls: &[CallRecord],
    records: &[StoredRecord],
    events: &[Delivery],
) -> Timeline {
    let mut entries = vec![plain(
        session.admitted_at,
        "admitted",
        "Recorded",
        EntryStatus::Ok,
    )];
    let last = calls.len().saturating_sub(1);
    entries.extend(
        calls
            .iter()
            .enumerate()
            .map(|(at, call)| of_call(call, at < last || session.state == SessionState::Open)),
    );
    entries.extend(records.iter().filter_map(of_record));
    if let Some(opened_at) = session.opened_at() {
        entries.push(plain(opened_at, "opened", "Open", EntryStatus::Ok));
    }
    if let Some(failure) = &session.failure
        && let Some(at) = entries.iter().map(|entry| entry.at).max()
    {
        let (title, status) = match session.state {
            SessionState::Failed => ("Refused", EntryStatus::Failed),
            SessionState::NeedsAttention => ("Needs attention", EntryStatus::Failed),
            SessionState::Admitted
            | SessionState::ContactReady
            | SessionState::MessageSent
            | SessionState::ConversationFound
            | SessionState::Parked
            | SessionState::Open => ("Will be resumed", EntryStatus::Waiting),
        };
        let detail = Some(format!("{}: {}", failure.code, failure.message));
        entries.push(Entry {
            detail,
            ..plain(at, "failed", title, status)
        });
    }
    entries.extend(events.iter().map(of_event));
    // The sort is stable: entries of the same moment stay in causal order (recorded, called,
    // opened, delivered).
    entries.sort_by_key(|entry| entry.at);
    Timeline {
        session: Session::stored(session),
        entries,
        trace_id: session.trace.map(|trace| trace.trace_id()),
    }
}

fn plain(
    at: Timestamp,
    kind: &'static str,
    title: impl Into<String>,
    status: EntryStatus,
) -> Entry {
    Entry {
        at,
        kind,
        title: title.into(),
        detail: None,
        status,
        correlation_id: None,
        milliseconds: None,
        audit_log: None,
        audit_index: None,
        event_id: None,
    }
}

fn of_call(call: &CallRecord, something_followed: bool) -> Entry {
    let answered = call.status.map(|status| format!("HTTP {status}"));
    let detail = match (&call.failure, answered) {
        (Some(failure), _) => Some(failure.clone()),
        (None, answered) => answered,
    };
    let status = match call.failure {
        None => EntryStatus::Ok,
        Some(_) if something_followed => EntryStatus::Retried,
        Some(_) => EntryStatus::Failed,
    };
    Entry {
        detail,
        correlation_id: call.correlation_id.clone(),
        milliseconds: Some(call.took().as_secs_f64() * 1000.0),
        ..plain(call.at(), "call", title_of(&call.operation), status)
    }
}

/// The title of a call, by the name of its operation.
fn title_of(operation: &str) -> String {
    let known = match operation {
        "contact" => "Register the contact",
        "enrich_contact" => "Find or create the contact",
        "create_contact" => "Create the contact",
        "find_contact" => "Find the contact",
        "open_conversation" => "Open the conversation",
        "first_message" => "Send the guest's first message",
        "open_message" => "Send the guest's message",
        "message_details" => "Find the message's conversation",
        "conversation" => "Read the conversation",
        "link_contact" => "Link the contact",
        "move_to_queue" => "Move to the queue",
        other => other,
    };
    known.to_owned()
}

/// The fields of an audit record that the timeline shows. The guest's ID in the record is not read.
#[derive(Deserialize)]
struct Line {
    timestamp: String,
    action: String,
    #[serde(default)]
    status: Option<String>,
}

fn of_record(record: &StoredRecord) -> Option<Entry> {
    let line: Line = serde_json::from_str(&record.line).ok()?;
    let at = line.timestamp.parse().ok()?;
    let status = line.status.unwrap_or_default();
    Some(Entry {
        detail: Some(format!("{} {status}", line.action).trim().to_owned()),
        audit_log: Some(record.log),
        audit_index: Some(record.index),
        ..plain(
            at,
            "audit",
            "Audit record written",
            if status == "failed" {
                EntryStatus::Failed
            } else {
                EntryStatus::Ok
            },
        )
    })
}

fn of_event(delivery: &Delivery) -> Entry {
    let (title, status) = match delivery.state {
        DeliveryState::Delivered => ("Event delivered", EntryStatus::Ok),
        DeliveryState::Pending => ("Delivery pending", EntryStatus::Waiting),
        DeliveryState::Dead => (
            "Dead letter: all delivery attempts failed",
            EntryStatus::Failed,
        ),
        DeliveryState::Erased => ("Event erased with its guest", EntryStatus::Ok),
    };
    let attempts = match delivery.event.attempts {
        1 => "1 attempt".to_owned(),
        attempts => format!("{attempts} attempts"),
    };
    let error = delivery
        .last_error
        .as_ref()
        .map(|error| format!("; {error}"))
        .unwrap_or_default();
    Entry {
        detail: Some(format!(
            "endpoint {}, {attempts}{error}",
            delivery.event.endpoint
        )),
        event_id: Some(delivery.event.id.clone()),
        ..plain(
            delivery.ended_at.unwrap_or(delivery.created_at),
            "delivery",
            title,
            status,
        )
    }
}
