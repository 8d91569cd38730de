//! `guestlane api-keys`: creates, lists and revokes the API keys of the service.

use std::{io, process::ExitCode, time::Duration};

use anyhow::Context;
use guestlane::Workspace;
use guestlane_core::{
    api_key::{ApiKey, Scopes, StoredApiKey},
    request::ValidationError,
};
use guestlane_runtime::{Clock, Timestamp};
use serde_json::json;

use super::{confirm, confirm::Confirmed, open_state, span};
use crate::{
    args::{ApiKeys, Global},
    output,
};

pub(crate) async fn run(global: &Global, args: &ApiKeys) -> anyhow::Result<ExitCode> {
    match args {
        ApiKeys::Create {
            name,
            scopes,
            expires,
            replaces,
            overlap,
        } => {
            StoredApiKey::check_name(name).map_err(|invalid| ValidationError {
                field: "--name".to_owned(),
                ..invalid
            })?;
            let scopes = if scopes.is_empty() {
                None
            } else {
                Some(scopes.join(" ").parse::<Scopes>().map_err(of_flag)?)
            };
            let new_key = NewKey {
                name: name.clone(),
                scopes,
                expires: expires
                    .as_deref()
                    .map(|text| span("--expires", text))
                    .transpose()?,
                replaces: replaces.clone(),
                overlap: span("--overlap", overlap)?,
            };
            create(global, &open_state(global).await?, new_key).await
        }
        ApiKeys::List => list(global, &open_state(global).await?).await,
        ApiKeys::Revoke { id, confirmed } => {
            revoke(global, &open_state(global).await?, id, *confirmed).await
        }
    }
}

struct NewKey {
    name: String,
    scopes: Option<Scopes>,
    expires: Option<Duration>,
    replaces: Option<String>,
    overlap: Duration,
}

fn of_flag(invalid: ValidationError) -> ValidationError {
    ValidationError {
        field: "--scope".to_owned(),
        ..invalid
    }
}

async fn create(global: &Global, state: &Workspace, new_key: NewKey) -> anyhow::Result<ExitCode> {
    let now = Clock::system().now();
    let replaced = match &new_key.replaces {
        None => None,
        Some(id) => {
            let keys = state.store.api_keys().await?;
            let known = keys
                .into_iter()
                .find(|key| key.id == *id && key.is_active(now));
            let unknown = || {
                ValidationError::new(
                    "--replaces",
                    "is not the ID of a valid key",
                    "see `guestlane api-keys list`",
                )
            };
            Some(known.ok_or_else(unknown)?)
        }
    };
    let missing = || {
        ValidationError::new(
            "--scope",
            "is missing",
            "name at least one scope, like sessions:write",
        )
    };
    let scopes = new_key
        .scopes
        .or_else(|| replaced.as_ref().map(|key| key.scopes.clone()))
        .ok_or_else(missing)?;
    let key = ApiKey::generate()?;
    let hash_key = state.api_key_hash().await?;
    let expires_at = new_key.expires.map(|life| now + life);
    let new = StoredApiKey::new(&key, &hash_key, new_key.name, scopes, now);
    // A key that replaces another one keeps its owner, and with it the sessions of the old key.
    let owner = replaced
        .as_ref()
        .map_or_else(|| new.owner.clone(), |replaced| replaced.owner.clone());
    let stored = StoredApiKey {
        expires_at,
        owner,
        ..new
    };
    let until = now + new_key.overlap;
    // The key is printed before it is stored: if it cannot be printed, it does not exist, and the
    // key that it replaces stays valid.
    show(global, &key, &stored, now).context(NOT_PRINTED)?;
    let added = state
        .store
        .add_api_key(
            stored.clone(),
            replaced.map(|replaced| (replaced.id, until)),
        )
        .await;
    added.context("the printed key was not stored, so the service does not accept it")?;
    if global.json {
        return Ok(ExitCode::SUCCESS);
    }
    output::stderr_line(format!(
        "Created key {} for {} with the scopes {}. It is not shown again. A running service \
         accepts it within a second.",
        stored.id,
        output::printable(&stored.name),
        stored.scopes
    ));
    if let Some(replaced) = new_key.replaces {
        output::stderr_line(format!(
            "The replaced key {replaced} is valid until {until}."
        ));
    }
    Ok(ExitCode::SUCCESS)
}

const NOT_PRINTED: &str = "cannot write to standard output, so no key was created; run the \
    command again with a writable output";

fn show(global: &Global, key: &ApiKey, stored: &StoredApiKey, now: Timestamp) -> io::Result<()> {
    if !global.json {
        return output::secret(key.expose());
    }
    let mut shown = as_json(stored, now);
    shown["key"] = key.expose().into();
    output::secret(shown)
}

fn as_json(key: &StoredApiKey, now: Timestamp) -> serde_json::Value {
    json!({
        "id": key.id, "name": key.name, "scopes": key.scopes.iter().map(|scope| scope.name()).collect::<Vec<_>>(), "state": key.state_at(now),
        "createdAt": key.created_at, "expiresAt": key.expires_at, "revokedAt": key.revoked_at, "lastUsedAt": key.last_used_at, "owner": key.owner,
    })
}

async fn list(global: &Global, state: &Workspace) -> anyhow::Result<ExitCode> {
    let (keys, now) = (state.store.api_keys().await?, Clock::system().now());
    if global.json {
        keys.iter().for_each(|key| output::json(&as_json(key, now)));
    } else if keys.is_empty() {
        output::stderr_line(
            "No API keys exist. Create one with `guestlane api-keys create --name NAME --scope \
             sessions:write`.",
        );
    } else {
        let time = |time: Option<Timestamp>| time.map(|time| time.to_string()).unwrap_or_default();
        let row = |key: &StoredApiKey| {
            vec![
                key.id.clone(),
                key.name.clone(),
                key.state_at(now).to_owned(),
                key.scopes.to_string(),
                key.created_at.to_string(),
                time(key.expires_at),
                time(key.last_used_at),
            ]
        };
        let headings = [
            "key",
            "name",
            "state",
            "scopes",
            "created",
            "expires",
            "last used",
        ];
        output::stdout_line(output::table(&headings, keys.iter().map(row)));
    }
    Ok(ExitCode::SUCCESS)
}

async fn revoke(
    global: &Global,
    state: &Workspace,
    id: &str,
    confirmed: Confirmed,
) -> anyhow::Result<ExitCode> {
    let unknown = || {
        ValidationError::new(
            "ID",
            "is not the ID of a key",
            "see `guestlane api-keys list`; the ID is not the key itself",
        )
    };
    let now = Clock::system().now();
    if !confirmed.is_given() {
        let key = state
            .store
            .api_keys()
            .await?
            .into_iter()
            .find(|key| key.id == id)
            .ok_or_else(unknown)?;
        let used = key.last_used_at.map_or_else(
            || "was never used".to_owned(),
            |at| format!("was last used at {at}"),
        );
        let lines = [
            format!(
                "{} of {} ({}) would be revoked permanently. It {used}.",
                key.id,
                output::printable(&key.name),
                key.scopes
            ),
            "Within a second, every request with it would be answered 401. Its sessions are kept."
                .to_owned(),
        ];
        return Ok(confirm::preview(global, as_json(&key, now), lines));
    }
    let key = state
        .store
        .revoke_api_key(id.to_owned(), now)
        .await?
        .ok_or_else(unknown)?;
    let line = format!(
        "{} is revoked; every service rejects it within a second.",
        key.id
    );
    Ok(confirm::done(global, as_json(&key, now), [line]))
}
