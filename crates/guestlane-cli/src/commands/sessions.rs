//! `guestlane sessions`: lists and shows sessions, and resumes unfinished ones.

use std::{collections::HashSet, process::ExitCode, sync::Arc};

use futures_util::{StreamExt, stream};
use guestlane::{CreatedSession, SessionEngine};
use guestlane_core::{
    request::ValidationError,
    session::{self, SessionId, SessionRecord},
};
use guestlane_runtime::Clock;
use guestlane_server::model::{Entry, Session as SessionJson};
use guestlane_store::{SessionFilter, Store};

use super::{close, open_state_read_only};
use crate::{
    args::{Global, Sessions},
    output,
    report::{self, ErrorJson},
    settings,
};

pub(crate) async fn run(global: &Global, args: &Sessions) -> anyhow::Result<ExitCode> {
    match args {
        Sessions::List {
            guest,
            state,
            limit,
        } => list(global, guest.clone(), state.as_deref(), *limit).await,
        Sessions::Show { id, show_token } => show(global, id, *show_token).await,
        Sessions::Timeline { id } => timeline(global, id).await,
        Sessions::Resume { id } => resume(global, id.as_deref()).await,
    }
}

async fn list(
    global: &Global,
    guest: Option<String>,
    state: Option<&str>,
    limit: u32,
) -> anyhow::Result<ExitCode> {
    let names = session::SessionState::ALL
        .map(session::SessionState::name)
        .join(", ");
    let parse = |name: &str| {
        let invalid = || {
            ValidationError::new(
                "--state",
                format!("`{name}` is not a state"),
                format!("use one of {names}"),
            )
        };
        session::SessionState::from_name(name).ok_or_else(invalid)
    };
    let filter = SessionFilter {
        guest,
        state: state.map(parse).transpose()?,
        limit,
        ..SessionFilter::default()
    };
    let sessions = open_state_read_only(global)
        .await?
        .store
        .sessions(filter)
        .await?
        .sessions;
    output::note_of_limit(sessions.len(), limit);
    if global.json {
        sessions
            .iter()
            .for_each(|session| output::json(&SessionJson::stored(session)));
    } else if sessions.is_empty() {
        output::stderr_line("No matching sessions.");
    } else {
        let row = |session: &SessionRecord| {
            vec![
                session.id.to_string(),
                session.state.to_string(),
                session.request.guest.to_string(),
                session
                    .conversation_id
                    .as_deref()
                    .unwrap_or_default()
                    .to_owned(),
                session.admitted_at.to_string(),
            ]
        };
        output::stdout_line(output::table(
            &["session", "state", "guest", "conversation", "admitted"],
            sessions.iter().map(row),
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn unknown(id: impl std::fmt::Display) -> ValidationError {
    ValidationError::new(
        "sessionId",
        format!("{id} is not a session of this store"),
        "see `guestlane sessions list`",
    )
}

/// Finds the session with that ID, or the newest one with that guest ID, idempotency key,
/// conversation ID or contact ID.
async fn find(store: &Store, text: &str) -> anyhow::Result<SessionRecord> {
    if let Ok(id) = text.parse::<SessionId>()
        && let Some(session) = store.session(id).await?
    {
        return Ok(session);
    }
    let of_guest = SessionFilter {
        guest: Some(text.to_owned()),
        limit: 2,
        ..SessionFilter::default()
    };
    let mut found = store.sessions(of_guest).await?.sessions;
    if found.is_empty() {
        found = find_by_ids(store, text).await?;
    }
    if found.len() > 1 {
        output::stderr_line(
            "note: several sessions match; this is the newest, and `guestlane sessions list` \
             shows all",
        );
    }
    let shown = output::printable(text);
    Ok(found
        .into_iter()
        .next()
        .ok_or_else(|| unknown(format!("`{shown}`")))?)
}

/// Scans all sessions, newest first, because these IDs have no index.
async fn find_by_ids(store: &Store, text: &str) -> anyhow::Result<Vec<SessionRecord>> {
    let has = |session: &SessionRecord| {
        let ids = [
            session.conversation_id.as_deref(),
            session.contact_id.as_deref(),
            Some(session.request.key.as_str()),
        ];
        ids.contains(&Some(text))
    };
    let mut before = None;
    loop {
        let page = store
            .sessions(SessionFilter {
                before,
                limit: 500,
                ..SessionFilter::default()
            })
            .await?;
        let found: Vec<_> = page.sessions.into_iter().filter(has).collect();
        if !found.is_empty() || page.next.is_none() {
            return Ok(found);
        }
        before = page.next;
    }
}

async fn show(global: &Global, id: &str, show_token: bool) -> anyhow::Result<ExitCode> {
    let state = open_state_read_only(global).await?;
    let session = find(&state.store, id).await?;
    let mut shown = SessionJson::stored(&session);
    if show_token {
        let token = state.keyring.sign(
            &session.request.guest,
            &session.request.attributes,
            &session.token,
        )?;
        shown = shown.with_tokens(
            &session,
            token.expose().to_owned(),
            state.guest_session(&session)?.as_ref(),
        );
    }
    if global.json {
        output::json(&shown);
    } else if let serde_json::Value::Object(fields) = serde_json::to_value(&shown)? {
        for (name, value) in fields {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), output::printable);
            output::stdout_line(format!("{name:<16} {text}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn timeline(global: &Global, id: &str) -> anyhow::Result<ExitCode> {
    let store = open_state_read_only(global).await?.store;
    let session = find(&store, id).await?;
    let timeline = guestlane_server::timeline(&store, &session).await?;
    if global.json {
        output::json(&timeline);
        return Ok(ExitCode::SUCCESS);
    }
    let row = |entry: &Entry| {
        let after = entry.at.since(session.admitted_at).as_secs_f64() * 1000.0;
        let place = entry
            .audit_log
            .zip(entry.audit_index)
            .map(|(log, index)| format!("record {index} of log {log}"));
        vec![
            format!("+{after:.1} ms"),
            entry.title.clone(),
            entry
                .milliseconds
                .map(|milliseconds| format!("{milliseconds:.1} ms"))
                .unwrap_or_default(),
            entry.detail.clone().unwrap_or_default(),
            entry
                .correlation_id
                .clone()
                .or(place)
                .or_else(|| entry.event_id.clone())
                .unwrap_or_default(),
        ]
    };
    output::stdout_line(output::table(
        &[
            "offset",
            "step",
            "duration",
            "result",
            "correlation ID, record, event",
        ],
        timeline.entries.iter().map(row),
    ));
    Ok(ExitCode::SUCCESS)
}

async fn resume(global: &Global, id: Option<&str>) -> anyhow::Result<ExitCode> {
    let id: Option<SessionId> = id.map(str::parse).transpose()?;
    let config = settings::load(global)?.engine(false)?;
    let clock = Clock::system();
    let engine = SessionEngine::open(config, clock.clone()).await?;
    let mut failed = 0;
    let mut tell = |driven: &Result<CreatedSession, guestlane::Error>| match driven {
        Ok(opened) if global.json => output::json(&SessionJson::opened(opened)),
        Ok(opened) => {
            let session = &opened.session;
            let conversation = session.conversation_id.as_deref().unwrap_or_default();
            output::stdout_line(format!(
                "{}  open  {}  {conversation}",
                session.id, session.request.guest
            ));
        }
        Err(error) => {
            failed += 1;
            if global.json {
                output::json(&serde_json::json!({ "error": ErrorJson::from(error) }));
            }
            output::stderr_line(report::text(error));
        }
    };
    let mut held = 0;
    if let Some(id) = id {
        let session = engine
            .store()
            .session(id)
            .await?
            .ok_or_else(|| unknown(id))?;
        if session.is_erased() {
            let reason = format!("{id} is a session of an erased guest");
            return Err(ValidationError::new("sessionId", reason, "it cannot be resumed").into());
        }
        match session.state {
            session::SessionState::Open => output::stderr_line("The session is already open."),
            session::SessionState::NeedsAttention => {
                return Err(guestlane::Error::needs_attention(&session).into());
            }
            session::SessionState::Admitted
            | session::SessionState::ContactReady
            | session::SessionState::MessageSent
            | session::SessionState::ConversationFound
            | session::SessionState::Failed
            | session::SessionState::Parked => {
                // A killed process holds its session until the lease expires, so wait for one
                // lease.
                let give_up_at = clock.now() + session::LEASE_TTL;
                let blocked_until = session.blocked_until().unwrap_or(clock.now());
                if session.is_blocked(clock.now()) && blocked_until <= give_up_at {
                    output::stderr_line("Waiting for the lease of another process to expire.");
                    clock.sleep_until(blocked_until).await;
                }
                match engine.store().claim(id, clock.now()).await? {
                    Some(session) => tell(&engine.resume(session).await),
                    None => tell(&Err(guestlane::Error::InProgress {
                        session: id,
                        retry_at: blocked_until,
                    })),
                }
            }
        }
    } else {
        held = resume_all(&engine, &clock, &mut tell).await?;
    }
    match held {
        0 => {}
        1 => output::stderr_line(
            "1 session is leased by another process or waits for the platform; retry later.",
        ),
        n => output::stderr_line(format!(
            "{n} sessions are leased by other processes or wait for the platform; retry later."
        )),
    }
    if failed + held == 0 && id.is_none() {
        output::stderr_line("No session is unfinished.");
    }
    close(&engine).await;
    Ok(if failed + held == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Resumes each unfinished session once, including those in backoff. Returns how many are leased by
/// other processes. A killed process holds its sessions until their leases expire, so it waits for
/// one lease.
async fn resume_all(
    engine: &Arc<SessionEngine>,
    clock: &Clock,
    tell: &mut impl FnMut(&Result<CreatedSession, guestlane::Error>),
) -> anyhow::Result<usize> {
    const CONCURRENCY: usize = 32;
    let mut tried = HashSet::new();
    let give_up_at = clock.now() + session::LEASE_TTL;
    loop {
        let unfinished = engine.store().unfinished_sessions(u32::MAX).await?;
        let left: Vec<_> = unfinished
            .into_iter()
            .filter(|session| !tried.contains(&session.id))
            .collect();
        let next_due = left.iter().filter_map(SessionRecord::due_at).min();
        let (free, held): (Vec<_>, Vec<_>) = left
            .into_iter()
            .partition(|session| !session.is_blocked(clock.now()));
        if free.is_empty() {
            match next_due {
                Some(due) if due <= give_up_at => {
                    let wait = due.since(clock.now());
                    output::stderr_line(format!(
                        "Waiting {:.0} s for the lease of another process to expire.",
                        wait.as_secs_f32().ceil()
                    ));
                    clock.sleep(wait).await;
                }
                _ => return Ok(held.len()),
            }
        }
        tried.extend(free.iter().map(|session| session.id));
        let driven = stream::iter(free).map(|session| async move {
            match engine.store().claim(session.id, clock.now()).await {
                Ok(Some(session)) => Some(engine.resume(session).await),
                Ok(None) => None, // another process claimed it first
                Err(error) => Some(Err(error.into())),
            }
        });
        let mut driven = std::pin::pin!(driven.buffer_unordered(CONCURRENCY));
        while let Some(driven) = driven.next().await {
            driven.iter().for_each(&mut *tell);
        }
    }
}
