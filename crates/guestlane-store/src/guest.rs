//! Guests: their pseudonyms in the audit log, and their erasure.

use aws_lc_rs::{hmac, rand};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use super::StoreError;
use guestlane_core::{request::GuestId, session::SessionId};

/// What a guest may be called in a log.
#[derive(Debug)]
pub(super) struct GuestNames {
    pub(super) plain: String,
    /// As JSON texts.
    quoted: Vec<String>,
}

impl GuestNames {
    /// In plain, and by the pseudonym if there is one.
    pub(super) fn of(guest: &GuestId, pseudonym: Option<String>) -> Self {
        let plain = guest.as_str().to_owned();
        let quoted = [Some(plain.clone()), pseudonym].into_iter().flatten();
        Self {
            quoted: quoted
                .map(|name| serde_json::Value::from(name).to_string())
                .collect(),
            plain,
        }
    }

    /// What stands in a record that names the guest, in plain or by their pseudonym.
    pub(super) fn in_records(&self) -> (String, Option<String>) {
        let mut names = self
            .quoted
            .iter()
            .map(|name| format!(r#""guestIdentifier":{name}"#));
        (names.next().unwrap_or_default(), names.next())
    }

    /// Whether a record names the guest.
    pub(super) fn are_in(&self, line: &str) -> bool {
        let Some((_, rest)) = line.split_once(r#""guestIdentifier":"#) else {
            return false;
        };
        self.quoted
            .iter()
            .any(|name| rest.starts_with(name.as_str()))
    }
}

/// 128 bits of HMAC-SHA-256: without the key, guest IDs cannot be found by trial.
pub(super) fn keyed_hash(key: &[u8], guest: &GuestId) -> String {
    let tag = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, key),
        guest.as_str().as_bytes(),
    );
    format!(
        "pseudonym:{}",
        BASE64_URL_SAFE_NO_PAD.encode(&tag.as_ref()[..16])
    )
}

/// What a guest's pseudonym is made with.
pub(super) fn new_key() -> Result<[u8; 32], StoreError> {
    let mut key = [0; 32];
    rand::fill(&mut key).map_err(|_| StoreError::Row("pseudonym_key: no randomness"))?;
    Ok(key)
}

/// The outcome of an erasure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErasureOutcome {
    /// These sessions are unfinished, and completing them needs the guest's data.
    Unfinished(Vec<SessionId>),
    /// An event about the guest is being delivered, or its outcome is unknown.
    InProgress,
    /// Nobody knows this guest.
    Unknown,
    /// The guest cannot be read any more, but for what is told here.
    Erased(ErasureReport),
}

/// What was erased, and what could not be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErasureReport {
    /// Sessions.
    pub sessions: u64,
    /// Events for the CRM.
    pub events: u64,
    /// Of those, the events that are no longer delivered.
    pub untold: u64,
    /// The name under which the guest's records stay in the audit log.
    pub pseudonym: Option<String>,
    /// Records that have the guest's id in plain: how many in which log. They cannot be changed without breaking the proof.
    pub plain_records: Vec<(u32, u64)>,
    /// Whether the bytes are gone from the store's files, too. If not, another process has them open: it is done at the next start.
    pub bytes_gone: bool,
}
