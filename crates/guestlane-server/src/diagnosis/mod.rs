//! What went wrong and what to do now, for each error (requirement R18, docs/requirements.md). The
//! texts name the settings and commands of the executable.

mod platform;
mod store;

use guestlane::error::{Diagnosis, Error, ErrorCode};
use guestlane_core::token::{KeyState, MasterKeyError, TokenError};
use guestlane_genesys::PlatformId;
use guestlane_runtime::text::display_chain;
use guestlane_tlog::AuditError;

/// The settings by their paths in the library's configuration, and by their names.
const SETTINGS: [(&str, &str); 7] = [
    (
        "storage.master_key_previous",
        "GUESTLANE_MASTER_KEY_PREVIOUS",
    ),
    ("storage.master_key", "GUESTLANE_MASTER_KEY"),
    ("storage.database", "GUESTLANE_DATABASE_URL"),
    ("storage.home", "GUESTLANE_STATE_DIR"),
    ("credentials.clients", "GENESYS_CLIENT_ID"),
    ("webhooks.urls", "CRM_WEBHOOK_URL"),
    ("webhooks.secret", "CRM_WEBHOOK_SECRET"),
];

/// Returns what failed, the cause, and the fix.
pub fn of(error: &Error) -> Diagnosis {
    let (cause, fix) = cause_and_fix(error);
    let mut diagnosis = Diagnosis::new(error, cause, fix);
    for text in [
        &mut diagnosis.message,
        &mut diagnosis.cause,
        &mut diagnosis.fix,
    ] {
        *text = with_setting_names(error, std::mem::take(text));
    }
    diagnosis
}

/// Returns the field that the error concerns, by the name of the executable.
pub fn field(error: &Error) -> Option<String> {
    error
        .field()
        .map(|field| with_setting_names(error, field.to_owned()))
}

/// Replaces the library's names of settings in a text about this error. An error about the request
/// is unchanged, because it may repeat what the user wrote.
pub fn with_setting_names(error: &Error, text: String) -> String {
    let is_of_setting = match error {
        Error::Invalid(invalid) => is_setting(&invalid.field),
        Error::Settings(invalid) => invalid.iter().any(|invalid| is_setting(&invalid.field)),
        Error::MasterKey(_) => true,
        _ => false,
    };
    if !is_of_setting {
        return text;
    }
    SETTINGS
        .iter()
        .fold(text, |text, (path, name)| text.replace(path, name))
}

fn is_setting(field: &str) -> bool {
    SETTINGS.iter().any(|(path, _)| *path == field)
}

/// The command or flag that helps with an error in this field, if there is one.
fn command(field: &str) -> Option<&'static str> {
    match field {
        "overlap" => Some("--overlap"),
        "kid" => Some("guestlane signing-keys list"),
        "key rotation" => Some("guestlane signing-keys revoke KID --yes"),
        "sessionId" => Some("guestlane sessions list"),
        "batchId" => Some("guestlane batch status"),
        "webhooks.secret" => Some("guestlane outbox secret"),
        "storage.master_key" => Some("guestlane master-key"),
        "storage.database" => Some("guestlane doctor"),
        "the state directory" => Some("--state-dir"),
        _ => None,
    }
}

fn cause_and_fix(error: &Error) -> (String, String) {
    match error {
        Error::Invalid(invalid) => {
            let fix = match command(&invalid.field) {
                Some(command) => format!("{} (`{command}`)", invalid.fix),
                None => invalid.fix.clone(),
            };
            (invalid.sentence(), fix)
        }
        Error::Settings(_) => (
            "settings are missing or malformed".to_owned(),
            "set them in the environment or in guestlane.toml; `guestlane config show` shows the source of each".to_owned(),
        ),
        Error::UnknownQueue { .. } => (
            "the organization has no queue with this ID, or the OAuth client has no access to its division".to_owned(),
            "copy the id from Admin > Contact Center > Queues; nothing was created".to_owned(),
        ),
        Error::IdempotencyKeyReused { .. } => (
            "an idempotency key identifies one request".to_owned(),
            "use a new key for the new request, or repeat the first request unchanged".to_owned(),
        ),
        Error::InProgress { retry_at, .. } => (
            "the session is recorded and is being completed".to_owned(),
            format!("repeat the request with the same key after {retry_at}"),
        ),
        Error::NeedsAttention { known, .. } => needs_attention(known),
        Error::Platform { failed, .. } if error.code() == ErrorCode::IdempotencyKeyConflict => {
            platform::idempotency_conflict(failed)
        }
        Error::Platform { failed, then, .. } => platform::cause_and_fix(failed, *then),
        Error::Token(error) => (error.to_string(), token_fix(error).to_owned()),
        Error::Keyring(error) => (
            error.to_string(),
            "use the master key that encrypted the store; if that key is lost, use a new state directory".to_owned(),
        ),
        Error::MasterKey(error) => (error.to_string(), master_key_fix(error)),
        Error::Store(error) => (store::cause(error), store::fix(error)),
        Error::Audit(error) => (display_chain(error), audit_fix(error).to_owned()),
        Error::Trust(error) => (
            error.to_string(),
            "install the operating system's package `ca-certificates`".to_owned(),
        ),
        // The enum of the library is `#[non_exhaustive]`.
        error => {
            let Diagnosis { cause, fix, .. } = Diagnosis::by_kind(error);
            (cause, fix)
        }
    }
}

fn needs_attention(known: &[(&'static str, PlatformId)]) -> (String, String) {
    let ids: Vec<String> = known
        .iter()
        .map(|(what, id)| format!("{what} {id}"))
        .collect();
    let exists = match ids.is_empty() {
        true => "nothing is known to exist".to_owned(),
        false => format!("these objects exist: {}", ids.join(", ")),
    };
    let has_message = known.iter().any(|(what, _)| *what != "contact");
    let fix = if has_message {
        "open that conversation in the organization: it has the guest's message; a new session would create a second conversation"
    } else {
        "search for the guest in the organization; if there is no conversation, create the session under a new key"
    };
    let cause = format!("a retry could create a second contact or conversation; {exists}");
    (cause, fix.to_owned())
}

fn audit_fix(error: &AuditError) -> &'static str {
    match error {
        AuditError::Foreign(..) => {
            "move the file away (a complete one is written from the store), or set GUESTLANE_AUDIT_LOG to another path; then repeat the request with the same key"
        }
        AuditError::Write(..) | AuditError::Store(..) => {
            "make the file writable, or set GUESTLANE_AUDIT_LOG to another path; then repeat the request with the same key"
        }
    }
}

fn token_fix(error: &TokenError) -> &'static str {
    match error {
        TokenError::Malformed => "pass the complete token: three parts joined by dots",
        TokenError::Expired => "a token is valid for five minutes: request a new one",
        TokenError::NotYet => "set the clocks of both machines",
        TokenError::NotTrusted {
            state: KeyState::Next,
            ..
        } => "that key is not active yet: do not trust the token",
        TokenError::NotTrusted {
            state: KeyState::Revoked,
            ..
        } => "do not trust the token; request a new one",
        TokenError::NotTrusted { .. } => "all tokens of this key have expired: request a new one",
        TokenError::TooLong
        | TokenError::DuplicateName(_)
        | TokenError::Algorithm
        | TokenError::Header(_)
        | TokenError::Type
        | TokenError::NoKey
        | TokenError::Claim(_)
        | TokenError::IdentityMismatch => "guestlane did not issue this token: do not trust it",
        TokenError::UnknownKey(_) | TokenError::Signature | TokenError::Key(_) => {
            "verify with the state directory whose key signed the token (`guestlane signing-keys list`); otherwise do not trust it"
        }
    }
}

fn master_key_fix(error: &MasterKeyError) -> String {
    match error {
        MasterKeyError::Damaged(_) => {
            "restore the key from a backup; for a new state directory create one with `openssl rand -base64 32`".to_owned()
        }
        MasterKeyError::PreviousAlone { current, .. } => {
            format!("set {current} to the current key; the previous key alone cannot encrypt new values")
        }
        MasterKeyError::InUse(_) => {
            "stop all processes that use this state directory first; a fleet rotates its key without downtime (docs/tokens.md)".to_owned()
        }
        MasterKeyError::BeingRotated(_) => "wait until `guestlane master-key rotate` has ended".to_owned(),
        MasterKeyError::PreviousInUse => {
            "set GUESTLANE_MASTER_KEY to the new key on every node, restart each node or send it SIGHUP, and run the same command again".to_owned()
        }
        MasterKeyError::ExposedFile(path, _) => format!("run `chmod o= {0}`, or `chmod 600 {0}`", path.display()),
        MasterKeyError::Missing(path) => {
            format!("restore {} from a backup or from the machine that created it, or set GUESTLANE_MASTER_KEY", path.display())
        }
        MasterKeyError::File(path, _) => format!("make {} readable for this user, or set GUESTLANE_MASTER_KEY", path.display()),
        MasterKeyError::Undecryptable(_) | MasterKeyError::Unusable => {
            "set GUESTLANE_MASTER_KEY to the master key that encrypted the store, the same on all machines; if that key is lost, use a new store".to_owned()
        }
    }
}

#[cfg(test)]
mod tests;
