//! Entry points for `fuzz/`: they parse files as the product does. Not part of the
//! API.

use std::sync::OnceLock;

use guestlane_runtime::Timestamp;
use secrecy::SecretString;

use guestlane_core::{
    session_proof::SessionProof,
    token::{Keyring, MasterKey, SealedSigningKey, TokenError, decode},
};
use guestlane_store::Database;
use guestlane_tlog::{Checkpoint, NoteSigner, VerifierKey, continued_by, verify};

/// Parses the URL of a database, and formats it as it is shown, without its password.
pub fn database_url(text: &str) {
    if let Ok(database) = text.parse::<Database>() {
        let _ = (database.to_string(), format!("{database:?}"));
    }
}

/// Parses an audit file, a checkpoint, a proof, or a key. The text is also signed, so that the
/// parser behind the signature check is reached.
pub fn audit(text: &str) {
    static SIGNER: OnceLock<Option<NoteSigner>> = OnceLock::new();
    let Some(signer) = SIGNER.get_or_init(|| NoteSigner::from_seed(&[1; 32])) else {
        return;
    };
    let key = signer.public();
    let _ = (text.parse::<VerifierKey>(), Checkpoint::open(text, key));
    let checkpoints: Vec<_> = Checkpoint::open(&signer.sign(text), key)
        .into_iter()
        .collect();
    let _ = (
        continued_by(text.as_bytes(), key),
        verify(text.as_bytes(), &checkpoints, &[]),
    );
    if let Ok(proof) = serde_json::from_str::<SessionProof>(text) {
        let _ = proof.verify(key);
    }
}

/// Verifies a guest token.
///
/// # Panics
/// Panics if a text that this process did not sign is verified.
pub fn token(text: &str) {
    static RING: OnceLock<Option<Keyring>> = OnceLock::new();
    let now = Timestamp::from_unix_micros(1_795_361_100_000_000);
    let ring = RING.get_or_init(|| {
        let master = MasterKey::parse(
            &SecretString::from("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
            "fuzz",
        )
        .ok()?;
        Keyring::open(&master, vec![SealedSigningKey::first(&master, now).ok()?]).ok()
    });
    let Some(ring) = ring else { return };
    let verified: Result<_, TokenError> = guestlane_core::token::verify(ring, text, now);
    assert!(verified.is_err(), "a token was forged");
    let _ = decode(text);
}
