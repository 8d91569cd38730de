//! `guestlane signing-keys`: lists, exports, rotates and revokes the signing keys.

use std::process::ExitCode;

use guestlane::Workspace;
use guestlane_core::{
    request::ValidationError,
    token::{KeyInfo, KeyState, Keyring, RevocationPlan, SealedSigningKey},
};
use guestlane_runtime::{Clock, Timestamp};
use serde_json::json;

use super::{confirm, confirm::Confirmed, open_state, open_state_read_only};
use crate::{
    args::{Format, Global, SigningKeys},
    output, settings,
};

pub(crate) async fn run(global: &Global, args: &SigningKeys) -> anyhow::Result<ExitCode> {
    let clock = Clock::system();
    match args {
        SigningKeys::List => list(global, &open_state(global).await?.keyring, clock.now()),
        SigningKeys::Export {
            format: Format::Pem,
            kid,
        } => {
            export_pem(
                global,
                &open_state(global).await?.keyring,
                kid.as_deref(),
                clock.now(),
            )?;
        }
        SigningKeys::Export {
            format: Format::Jwks,
            kid: None,
        } => output::json(&open_state(global).await?.keyring.jwks(clock.now())),
        SigningKeys::Export {
            format: Format::Jwks,
            kid: Some(_),
        } => {
            let reason = "requires --format pem: a JWK set contains all published keys";
            return Err(
                ValidationError::new("--kid", reason, "omit it, or write --format pem").into(),
            );
        }
        SigningKeys::Rotate => {
            let schedule = settings::load(global)?.key_schedule()?;
            let made = open_state_read_only(global)
                .await?
                .rotate_key(schedule, &clock)
                .await?;
            tell_made(global, &made);
        }
        SigningKeys::Revoke { kid, confirmed } => {
            return revoke(
                global,
                &open_state_read_only(global).await?,
                kid,
                *confirmed,
                clock.now(),
            )
            .await;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Formats a time to the second, without its fraction.
fn second(moment: Timestamp) -> String {
    let text = moment.to_string();
    text.split_once('.')
        .map_or(text.clone(), |(second, _)| format!("{second}Z"))
}

fn list(global: &Global, keyring: &Keyring, now: Timestamp) {
    let keys = keyring.list(now);
    if global.json {
        return keys.iter().for_each(output::json);
    }
    let row = |key: KeyInfo| {
        let until = key.until.map(second).unwrap_or_default();
        vec![
            key.kid,
            key.state.name().to_owned(),
            second(key.created_at),
            second(key.active_from),
            until,
        ]
    };
    output::stdout_line(output::table(
        &["kid", "state", "created", "signs from", "until"],
        keys.into_iter().map(row),
    ));
}

fn export_pem(
    global: &Global,
    keyring: &Keyring,
    kid: Option<&str>,
    now: Timestamp,
) -> anyhow::Result<()> {
    let unknown = |kid: &str| {
        let reason = format!("`{}` is not a key of this store", output::printable(kid));
        ValidationError::new("--kid", reason, "see `guestlane signing-keys list`")
    };
    let published = keyring.published(now);
    let key = match kid {
        Some(kid) => keyring.by_kid(kid).ok_or_else(|| unknown(kid))?,
        None => published
            .last()
            .copied()
            .unwrap_or_else(|| keyring.active(now)),
    };
    let info = keyring
        .list(now)
        .into_iter()
        .find(|info| info.kid == key.kid())
        .ok_or_else(|| unknown(key.kid()))?;
    let pem = key.public_pem()?;
    if global.json {
        output::json(
            &json!({"kid": info.kid, "state": info.state, "activeFrom": info.active_from, "pem": pem}),
        );
        return Ok(());
    }
    output::stdout_line(pem.trim_end());
    output::stderr_line(match info.state {
        KeyState::Next => format!(
            "kid: {}, which signs from {} on: register it in the admin console before then, and \
             keep the others there",
            info.kid,
            second(info.active_from)
        ),
        KeyState::Active => format!("kid: {}", info.kid),
        KeyState::Retiring | KeyState::Retired => {
            format!(
                "kid: {}, which is {}: it signs no new tokens",
                info.kid,
                info.state.name()
            )
        }
        KeyState::Revoked => format!(
            "kid: {}, which is revoked: remove it from the admin console",
            info.kid
        ),
    });
    Ok(())
}

fn tell_made(global: &Global, made: &SealedSigningKey) {
    let signs_from = made.life.active_from();
    if global.json {
        return output::json(
            &json!({"kid": made.kid, "state": KeyState::Next, "activeFrom": signs_from}),
        );
    }
    output::stdout_line(format!(
        "{} is published now, and signs from {} on.",
        made.kid,
        second(signs_from)
    ));
    output::stderr_line(format!(
        "Before then, register its public key in the admin console under this kid, in addition to \
         the existing one:\n  guestlane signing-keys export --kid {}",
        made.kid
    ));
}

async fn revoke(
    global: &Global,
    state: &Workspace,
    kid: &str,
    confirmed: Confirmed,
    now: Timestamp,
) -> anyhow::Result<ExitCode> {
    let yes = confirmed.is_given();
    let revocation = if yes {
        state.revoke_key(kid, now).await?
    } else {
        state.preview_revocation(kid, now).await?
    };
    let follows = match &revocation {
        RevocationPlan::PromoteNext(next, _) => Some(next),
        RevocationPlan::GenerateNew(new) => Some(new),
        RevocationPlan::Unknown
        | RevocationPlan::AlreadyRevoked(_)
        | RevocationPlan::NoSuccessorNeeded(_) => None,
    };
    let data = json!({"kid": kid, "signsNow": follows});
    let (is, signs) = if yes {
        ("is", "signs from now on")
    } else {
        ("would be", "would sign at once")
    };
    let lines = [
        format!(
            "{kid} {is} revoked: it {is} removed from the key set, and none of its tokens {is} \
             accepted."
        ),
        match &revocation {
            RevocationPlan::PromoteNext(next, since) => format!(
                "{next}, published since {}, {signs}. Verifiers that fetched the key set before \
                 that\nreject its tokens until they fetch it again.",
                second(*since)
            ),
            RevocationPlan::GenerateNew(new) => format!(
                "No published key can replace it: {new} {is} created, and {signs}.\nVerifiers \
                 that cache the key set reject its tokens until they fetch it again, and the \
                 platform rejects them until its public key is registered."
            ),
            RevocationPlan::Unknown
            | RevocationPlan::AlreadyRevoked(_)
            | RevocationPlan::NoSuccessorNeeded(_) => {
                "It is not the active key, so the active key does not change.".to_owned()
            }
        },
    ];
    if !yes {
        return Ok(confirm::preview(global, data, lines));
    }
    let code = confirm::done(global, data, lines);
    if !global.json {
        output::stderr_line(
            "Remove its public key from the admin console now, and let verifiers fetch the key \
             set again.",
        );
    }
    Ok(code)
}
