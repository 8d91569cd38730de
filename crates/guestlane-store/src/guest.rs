//! Guests: their pseudonyms in the audit log, and their erasure.

use aws_lc_rs::{hmac, rand};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use super::StoreError;
use guestlane_core::{request::GuestId, session::SessionId};

/// The names under which a guest may appear in an audit log.
#[derive(Debug)]
pub(super) struct GuestNames {
    pub(super) plain: String,
    /// The names as JSON strings.
    quoted: Vec<String>,
}

impl GuestNames {
    /// Creates the names: the plain guest ID, and the pseudonym if there is one.
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

    /// Returns the text that a record contains if it names the guest: with the plain ID, and with
    /// the pseudonym.
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

/// Returns a guest's pseudonym: 128 bits of HMAC-SHA-256. Without the key, guest IDs cannot be
/// found by trial.
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

/// Returns a new random key for a guest's pseudonym.
pub(super) fn new_key() -> Result<[u8; 32], StoreError> {
    let mut key = [0; 32];
    rand::fill(&mut key)
        .map_err(|_| StoreError::Row("pseudonym_key: the random number generator failed"))?;
    Ok(key)
}

/// The outcome of an erasure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErasureOutcome {
    /// These sessions are unfinished, and completing them needs the guest's data.
    Unfinished(Vec<SessionId>),
    /// An event about the guest is being delivered, or its outcome is unknown.
    InProgress,
    /// The store has no data about this guest.
    Unknown,
    /// The guest's data is erased, except for what the report lists.
    Erased(ErasureReport),
}

/// What was erased, and what could not be erased.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErasureReport {
    /// Number of erased sessions.
    pub sessions: u64,
    /// Number of erased events.
    pub events: u64,
    /// Number of those events that were pending or dead letters and are no longer delivered.
    pub undelivered: u64,
    /// The pseudonym under which the guest's records stay in the audit log.
    pub pseudonym: Option<String>,
    /// Records with the plain guest ID: number of the log, and number of records. Changing these
    /// records would break the proofs.
    pub plain_records: Vec<(u32, u64)>,
    /// Whether the bytes are removed from the store's files. If not, another process has them open,
    /// and the next start removes them.
    pub bytes_removed: bool,
}
