//! `guestlane token`: guest tokens, by hand.

use std::process::ExitCode;

use guestlane::{Clock, request::GuestId, token};
use serde_json::json;

use super::{argument, attributes, open_state};
use crate::{
    args::{Global, Token},
    screen,
};

pub(crate) async fn run(global: &Global, args: &Token) -> anyhow::Result<ExitCode> {
    let now = Clock::system().now();
    match args {
        Token::Sign { guest, attributes: pairs } => {
            let (guest, attributes): (GuestId, _) = (guest.parse()?, attributes(pairs)?);
            let keyring = open_state(global).await?.keyring;
            let identity = token::TokenIdentity::new(keyring.active(now).kid(), now);
            let token = keyring.sign(&guest, &attributes, &identity)?;
            if global.json {
                screen::json(&json!({"guestToken": token.expose(), "kid": identity.kid, "expiresAt": identity.expires_at()}));
            } else {
                screen::data(token.expose());
            }
        }
        Token::Verify { token } => {
            let keyring = open_state(global).await?.keyring;
            let verified = token::verify(&keyring, &argument(token)?, now)?;
            if global.json {
                screen::json(&verified);
            } else {
                let left = verified.expires_at - now.unix_seconds();
                screen::data(format!(
                    "valid: guest {}, key {}, {left} s left",
                    screen::printable(&verified.guest_id),
                    verified.kid
                ));
            }
        }
        Token::Decode { token } => {
            let (header, claims) = token::decode(&argument(token)?)?;
            if global.json {
                screen::json(&json!({"header": header, "claims": claims, "verified": false}));
            } else {
                screen::data(serde_json::to_string_pretty(&header)?);
                screen::data(serde_json::to_string_pretty(&claims)?);
                screen::note("note: nothing was checked; `guestlane token verify` does that");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
