//! Tests that use private keys directly.

mod bad_tokens;
mod rotations;

use guestlane_runtime::Timestamp;

use super::{KeyLifecycle, MasterKey, SealedSigningKey};

/// 2026-11-22T15:23:49Z.
const NOW: i64 = 1_795_361_029;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_micros(seconds * 1_000_000)
}

fn master() -> MasterKey {
    MasterKey::parse(
        &"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
            .to_owned()
            .into(),
        "a test",
    )
    .unwrap()
}

/// Returns a stored key whose private key the test also has.
fn stored(kid: &str, pkcs8: &[u8], life: KeyLifecycle) -> SealedSigningKey {
    SealedSigningKey {
        kid: kid.to_owned(),
        sealed: master()
            .seal(&format!("the signing key {kid}"), pkcs8)
            .unwrap(),
        life,
    }
}
