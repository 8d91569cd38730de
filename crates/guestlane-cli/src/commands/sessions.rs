//! `guestlane sessions`: look, and finish what was left behind.

use std::process::ExitCode;

use guestlane::{
    Clock, Lane, Opened,
    ledger::{self, Session, SessionId},
    request::Invalid,
    store::SessionFilter,
};

use super::{open_state, tell_crm};
use crate::{
    args::{Global, Sessions},
    failure::{self, ErrorJson},
    screen,
    session_json::SessionJson,
    settings,
};

pub(crate) async fn run(global: &Global, args: &Sessions) -> anyhow::Result<ExitCode> {
    match args {
        Sessions::List { guest, state, limit } => list(global, guest.clone(), state.as_deref(), *limit).await,
        Sessions::Show { id, show_token } => show(global, id, *show_token).await,
        Sessions::Resume { id } => resume(global, id.as_deref()).await,
    }
}

async fn list(global: &Global, guest: Option<String>, state: Option<&str>, limit: u32) -> anyhow::Result<ExitCode> {
    let names = ledger::State::ALL.map(ledger::State::name).join(", ");
    let parse = |name: &str| {
        let invalid = || Invalid::new("--state", format!("`{name}` is no state"), format!("use one of {names}"));
        ledger::State::from_name(name).ok_or_else(invalid)
    };
    let filter = SessionFilter { guest, state: state.map(parse).transpose()?, limit };
    let sessions = open_state(global).await?.store.sessions(filter).await?;
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
                session.conversation_id.clone().unwrap_or_default(),
                session.admitted_at.to_string(),
            ]
        };
        screen::data(screen::table(&["session", "state", "guest", "conversation", "admitted"], sessions.iter().map(row)));
    }
    Ok(ExitCode::SUCCESS)
}

fn unknown(id: SessionId) -> Invalid {
    Invalid::new("sessionId", format!("there is no session {id}"), "see `guestlane sessions list`")
}

async fn show(global: &Global, id: &str, show_token: bool) -> anyhow::Result<ExitCode> {
    let id: SessionId = id.parse()?;
    let state = open_state(global).await?;
    let session = state.store.session(id).await?.ok_or_else(|| unknown(id))?;
    let mut shown = SessionJson::stored(&session);
    if show_token {
        let kid = &session.token.kid;
        let key = state.keyring.by_kid(kid).ok_or_else(|| guestlane::token::KeyError::Missing(kid.clone()))?;
        let token = guestlane::token::sign(key, &session.request.guest, &session.request.attributes, &session.token)?;
        shown = shown.with_token(token.expose().to_owned());
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
    if let Some(id) = id {
        lane.store().session(id).await?.ok_or_else(|| unknown(id))?;
        match lane.store().take_up_one(id, clock.now()).await? {
            Some(session) => tell(&lane.resume(session).await),
            None => {
                screen::note("The session is held by a process that drives it, or waits for the platform; try again in a while.")
            }
        }
    } else {
        // A process that was killed holds its sessions for one lease more: worth waiting for.
        let mut patience = ledger::LEASE;
        let mut resting = true; // once: a person asks now
        loop {
            let driven = lane.recover(resting).await?;
            driven.iter().for_each(&mut tell);
            resting = false;
            let next = lane.store().unfinished().await?.1;
            let wait = next.map(|due| due.since(clock.now()));
            match wait {
                Some(wait) if wait <= patience => {
                    if !wait.is_zero() {
                        screen::note(format!(
                            "Waiting {:.0} s for a session that another process held.",
                            wait.as_secs_f32().ceil()
                        ));
                        clock.sleep(wait).await;
                    }
                    patience = patience.saturating_sub(wait.max(std::time::Duration::from_millis(100)));
                }
                _ => break,
            }
        }
        match lane.store().unfinished().await?.0 {
            0 => screen::note("No session is unfinished."),
            n => screen::note(format!(
                "{n} unfinished: driven by another process, resting after a failure, or waiting for the platform."
            )),
        }
    }
    lane.finish().await?;
    tell_crm(&lane).await?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
