//! `guestlane sessions`: look, and finish what was left behind.

use std::{collections::HashSet, process::ExitCode, sync::Arc};

use futures_util::{StreamExt, stream};
use guestlane::{
    Clock, Lane, Opened,
    ledger::{self, Session, SessionId},
    request::Invalid,
    store::{SessionFilter, Store},
};
use guestlane_http::model::{Entry, Session as SessionJson};

use super::{close, look_at_state};
use crate::{
    args::{Global, Sessions},
    failure::{self, ErrorJson},
    screen, settings,
};

pub(crate) async fn run(global: &Global, args: &Sessions) -> anyhow::Result<ExitCode> {
    match args {
        Sessions::List { guest, state, limit } => list(global, guest.clone(), state.as_deref(), *limit).await,
        Sessions::Show { id, show_token } => show(global, id, *show_token).await,
        Sessions::Timeline { id } => timeline(global, id).await,
        Sessions::Resume { id } => resume(global, id.as_deref()).await,
    }
}

async fn list(global: &Global, guest: Option<String>, state: Option<&str>, limit: u32) -> anyhow::Result<ExitCode> {
    let names = ledger::State::ALL.map(ledger::State::name).join(", ");
    let parse = |name: &str| {
        let invalid = || Invalid::new("--state", format!("`{name}` is no state"), format!("use one of {names}"));
        ledger::State::from_name(name).ok_or_else(invalid)
    };
    let filter = SessionFilter { guest, state: state.map(parse).transpose()?, limit, ..SessionFilter::default() };
    let sessions = look_at_state(global).await?.store.sessions(filter).await?.sessions;
    screen::note_of_limit(sessions.len(), limit);
    if global.json {
        sessions.iter().for_each(|session| screen::json(&SessionJson::stored(session)));
    } else if sessions.is_empty() {
        screen::note("There are no such sessions.");
    } else {
        let row = |session: &Session| {
            vec![
                session.id.to_string(),
                session.state.to_string(),
                session.request.guest.to_string(),
                session.conversation_id.as_deref().unwrap_or_default().to_owned(),
                session.admitted_at.to_string(),
            ]
        };
        screen::data(screen::table(&["session", "state", "guest", "conversation", "admitted"], sessions.iter().map(row)));
    }
    Ok(ExitCode::SUCCESS)
}

fn unknown(id: impl std::fmt::Display) -> Invalid {
    Invalid::new("sessionId", format!("{id} is no session of this store"), "see `guestlane sessions list`")
}

/// The session of that ID, or the newest one with that guest ID, idempotency key, conversation ID or contact ID.
async fn find(store: &Store, text: &str) -> anyhow::Result<Session> {
    if let Ok(id) = text.parse::<SessionId>()
        && let Some(session) = store.session(id).await?
    {
        return Ok(session);
    }
    let of_guest = SessionFilter { guest: Some(text.to_owned()), limit: 2, ..SessionFilter::default() };
    let mut found = store.sessions(of_guest).await?.sessions;
    if found.is_empty() {
        found = find_by_ids(store, text).await?;
    }
    if found.len() > 1 {
        screen::note("note: there are several such sessions; this is the newest, and `guestlane sessions list` shows all");
    }
    let shown = screen::printable(text);
    Ok(found.into_iter().next().ok_or_else(|| unknown(format!("`{shown}`")))?)
}

/// Looks at all sessions, newest first: there is no index over these ids.
async fn find_by_ids(store: &Store, text: &str) -> anyhow::Result<Vec<Session>> {
    let has = |session: &Session| {
        let ids = [session.conversation_id.as_deref(), session.contact_id.as_deref(), Some(session.request.key.as_str())];
        ids.contains(&Some(text))
    };
    let mut before = None;
    loop {
        let page = store.sessions(SessionFilter { before, limit: 500, ..SessionFilter::default() }).await?;
        let found: Vec<_> = page.sessions.into_iter().filter(has).collect();
        if !found.is_empty() || page.next.is_none() {
            return Ok(found);
        }
        before = page.next;
    }
}

async fn show(global: &Global, id: &str, show_token: bool) -> anyhow::Result<ExitCode> {
    let state = look_at_state(global).await?;
    let session = find(&state.store, id).await?;
    let mut shown = SessionJson::stored(&session);
    if show_token {
        let token = state.keyring.sign(&session.request.guest, &session.request.attributes, &session.token)?;
        shown = shown.with_tokens(&session, token.expose().to_owned(), state.guest_session(&session)?.as_ref());
    }
    if global.json {
        screen::json(&shown);
    } else if let serde_json::Value::Object(fields) = serde_json::to_value(&shown)? {
        for (name, value) in fields {
            let text = value.as_str().map_or_else(|| value.to_string(), screen::printable);
            screen::data(format!("{name:<16} {text}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn timeline(global: &Global, id: &str) -> anyhow::Result<ExitCode> {
    let store = look_at_state(global).await?.store;
    let session = find(&store, id).await?;
    let timeline = guestlane_http::timeline(&store, &session).await?;
    if global.json {
        screen::json(&timeline);
        return Ok(ExitCode::SUCCESS);
    }
    let row = |entry: &Entry| {
        let after = entry.at.since(session.admitted_at).as_secs_f64() * 1000.0;
        let place = entry.audit_log.zip(entry.audit_index).map(|(log, index)| format!("record {index} of log {log}"));
        vec![
            format!("+{after:.1} ms"),
            entry.title.clone(),
            entry.milliseconds.map(|milliseconds| format!("{milliseconds:.1} ms")).unwrap_or_default(),
            entry.detail.clone().unwrap_or_default(),
            entry.correlation_id.clone().or(place).or_else(|| entry.event_id.clone()).unwrap_or_default(),
        ]
    };
    screen::data(screen::table(
        &["after", "what", "took", "how it went", "correlation id, record, event"],
        timeline.entries.iter().map(row),
    ));
    Ok(ExitCode::SUCCESS)
}

async fn resume(global: &Global, id: Option<&str>) -> anyhow::Result<ExitCode> {
    let id: Option<SessionId> = id.map(str::parse).transpose()?;
    let config = settings::load(global)?.lane(false)?;
    let clock = Clock::system();
    let lane = Lane::open(config, clock.clone()).await?;
    let mut failed = 0;
    let mut tell = |driven: &Result<Opened, guestlane::Error>| match driven {
        Ok(opened) if global.json => screen::json(&SessionJson::opened(opened)),
        Ok(opened) => {
            let session = &opened.session;
            let conversation = session.conversation_id.as_deref().unwrap_or_default();
            screen::data(format!("{}  open  {}  {conversation}", session.id, session.request.guest));
        }
        Err(error) => {
            failed += 1;
            if global.json {
                screen::json(&serde_json::json!({ "error": ErrorJson::from(error) }));
            }
            screen::note(failure::text(error));
        }
    };
    let mut held = 0;
    if let Some(id) = id {
        let session = lane.store().session(id).await?.ok_or_else(|| unknown(id))?;
        if session.is_erased() {
            let reason = format!("{id} is a session of a guest who was erased");
            return Err(Invalid::new("sessionId", reason, "nobody can go on with it").into());
        }
        match session.state {
            ledger::State::Open => screen::note("The session is open already."),
            ledger::State::NeedsAttention => {
                return Err(guestlane::Error::needs_attention(&session).into());
            }
            ledger::State::Admitted | ledger::State::ContactCreated | ledger::State::Failed | ledger::State::Parked => {
                // A process that was killed holds it for one lease more: worth waiting for.
                let give_up_at = clock.now() + ledger::LEASE;
                if session.is_held_at(clock.now()) && session.due_at <= give_up_at {
                    screen::note("Waiting for a session that another process held.");
                    clock.sleep_until(session.due_at).await;
                }
                match lane.store().take_up_one(id, clock.now()).await? {
                    Some(session) => tell(&lane.resume(session).await),
                    None => tell(&Err(guestlane::Error::InProgress { session: id, retry_at: session.due_at })),
                }
            }
        }
    } else {
        held = resume_all(&lane, &clock, &mut tell).await?;
    }
    match held {
        0 => {}
        1 => screen::note("1 session is driven by another process, or waits for the platform; try again in a while."),
        n => screen::note(format!("{n} sessions are driven by other processes, or wait for the platform; try again in a while.")),
    }
    if failed + held == 0 && id.is_none() {
        screen::note("No session is unfinished.");
    }
    close(&lane).await;
    Ok(if failed + held == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Each unfinished session once, those that rest included; says how many are held by others. A process that was killed holds its sessions for
/// one lease more: worth waiting for.
async fn resume_all(
    lane: &Arc<Lane>,
    clock: &Clock,
    tell: &mut impl FnMut(&Result<Opened, guestlane::Error>),
) -> anyhow::Result<usize> {
    const AT_ONCE: usize = 32;
    let mut tried = HashSet::new();
    let give_up_at = clock.now() + ledger::LEASE;
    loop {
        let unfinished = lane.store().unfinished_sessions(u32::MAX).await?;
        let left: Vec<_> = unfinished.into_iter().filter(|session| !tried.contains(&session.id)).collect();
        let next_due = left.iter().map(|session| session.due_at).min();
        let (free, held): (Vec<_>, Vec<_>) = left.into_iter().partition(|session| !session.is_held_at(clock.now()));
        if free.is_empty() {
            match next_due {
                Some(due) if due <= give_up_at => {
                    let wait = due.since(clock.now());
                    screen::note(format!("Waiting {:.0} s for a session that another process held.", wait.as_secs_f32().ceil()));
                    clock.sleep(wait).await;
                }
                _ => return Ok(held.len()),
            }
        }
        tried.extend(free.iter().map(|session| session.id));
        let driven = stream::iter(free).map(|session| async move {
            match lane.store().take_up_one(session.id, clock.now()).await {
                Ok(Some(session)) => Some(lane.resume(session).await),
                Ok(None) => None, // somebody was quicker
                Err(error) => Some(Err(error.into())),
            }
        });
        let mut driven = std::pin::pin!(driven.buffer_unordered(AT_ONCE));
        while let Some(driven) = driven.next().await {
            driven.iter().for_each(&mut *tell);
        }
    }
}
