//! `guestlane token`: signs, verifies and decodes guest tokens.

use std::process::ExitCode;

use guestlane_core::{request::GuestId, token};
use guestlane_runtime::Clock;
use serde_json::json;

use super::{argument, attributes, open_state};
use crate::{
    args::{Global, Token},
    output,
};

pub(crate) async fn run(global: &Global, args: &Token) -> anyhow::Result<ExitCode> {
    let now = Clock::system().now();
    match args {
        Token::Sign {
            guest,
            attributes: pairs,
        } => {
            let (guest, attributes): (GuestId, _) = (guest.parse()?, attributes(pairs)?);
            let keyring = open_state(global).await?.keyring;
            let identity = token::TokenIdentity::new(keyring.active(now).kid(), now);
            let token = keyring.sign(&guest, &attributes, &identity)?;
            if global.json {
                output::json(
                    &json!({"guestToken": token.expose(), "kid": identity.kid, "expiresAt": identity.expires_at()}),
                );
            } else {
                output::stdout_line(token.expose());
            }
        }
        Token::Verify { token } => {
            let keyring = open_state(global).await?.keyring;
            let verified = token::verify(&keyring, &argument(token)?, now)?;
            if global.json {
                output::json(&verified);
            } else {
                let left = verified.expires_at - now.unix_seconds();
                output::stdout_line(format!(
                    "valid: guest {}, key {}, {left} s left",
                    output::printable(&verified.guest_id),
                    verified.kid
                ));
            }
        }
        Token::Decode { token } => {
            let (header, claims) = token::decode(&argument(token)?)?;
            if global.json {
                output::json(&json!({"header": header, "claims": claims, "verified": false}));
            } else {
                output::stdout_line(serde_json::to_string_pretty(&header)?);
                output::stdout_line(serde_json::to_string_pretty(&claims)?);
                output::stderr_line(
                    "note: the token was not verified; use `guestlane token verify`",
                );
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
