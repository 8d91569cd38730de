//! `guestlane audit`: what happened.

use std::process::ExitCode;

use guestlane::ledger::SessionId;
use serde_json::Value;

use super::open_state;
use crate::{
    args::{Audit, Global},
    screen,
};

pub(crate) async fn run(global: &Global, args: &Audit) -> anyhow::Result<ExitCode> {
    let Audit::Show { session, limit } = args;
    let session: Option<SessionId> = session.as_deref().map(str::parse).transpose()?;
    let lines = open_state(global).await?.store.audit_lines(session, *limit).await?;
    if global.json {
        lines.iter().for_each(screen::data);
    } else if lines.is_empty() {
        screen::note("There are no such records.");
    } else {
        let row = |line: &String| {
            let record: Value = serde_json::from_str(line).unwrap_or_default();
            let text = |name: &str| match &record[name] {
                Value::String(text) => text.clone(),
                Value::Null => String::new(),
                other => other.to_string(),
            };
            ["index", "timestamp", "status", "guestIdentifier", "conversationId", "error"].map(text).to_vec()
        };
        screen::data(screen::table(&["index", "time", "status", "guest", "conversation", "error"], lines.iter().map(row)));
    }
    Ok(ExitCode::SUCCESS)
}
