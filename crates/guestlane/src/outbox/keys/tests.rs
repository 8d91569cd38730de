//! Tests of `keys`.

use super::*;

const A: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=";
const B: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const NOW: Timestamp = Timestamp::from_unix_micros(1_795_361_029_000_000);
const DAY: Duration = Duration::from_secs(86_400);

fn given(text: &str, endpoints: usize) -> Result<Vec<EndpointKeys>, InvalidKeys> {
    EndpointKeys::given(&text.to_owned().into(), endpoints)
}

fn signature(secret: &str, at: Timestamp) -> String {
    standardwebhooks::Webhook::new(secret)
        .unwrap()
        .sign("msg_1", at.unix_seconds(), b"{}")
        .unwrap()
}

#[test]
fn each_setting_entry_signs_for_its_own_endpoint() {
    let keys = given(&format!("{A} {B},{A}"), 2).unwrap();
    assert_eq!(keys[0].sign("msg_1", NOW, b"{}"), signature(A, NOW));
    assert_eq!(
        keys[1].sign("msg_1", NOW, b"{}"),
        format!("{} {}", signature(B, NOW), signature(A, NOW))
    );
    assert_eq!(keys[1].secret().unwrap().expose(), B);
    let shared = given(A, 2).unwrap();
    assert_eq!(
        shared
            .iter()
            .map(|keys| keys.sign("msg_1", NOW, b"{}"))
            .collect::<Vec<_>>(),
        vec![signature(A, NOW); 2]
    );
}

#[test]
fn mismatched_setting_is_rejected_without_its_text() {
    let many = [A; 7].join(",");
    let pair = WebhookKeyPair::generate().unwrap();
    for (text, endpoints, reason) in [
        (format!("{A} {B}"), 3, "2 entries for 3"),
        (format!("{A} {B}"), 1, "2 entries for 1"),
        (format!("{A} hush"), 2, "an entry 2"),
        (format!("{A},"), 1, "an entry 1"),
        (many, 1, "more than 6"),
        (
            pair.expose_secret().to_owned(),
            1,
            "no whsec_ secret in entry 1",
        ),
    ] {
        let error = given(&text, endpoints).unwrap_err().to_string();
        assert!(
            error.contains(reason) && !error.contains("hush") && !error.contains(A),
            "{error}"
        );
    }
}

#[test]
fn both_secrets_sign_until_the_overlap_ends() {
    let old = given(A, 1).unwrap().remove(0);
    let new = old.rotated(KeyKind::Secret, DAY, NOW).unwrap();
    let new = EndpointKeys::from_store(&new.to_store()).unwrap();
    let secret = new.secret().unwrap().expose().to_owned();
    assert_ne!(secret, A);
    let last = NOW + DAY - Duration::from_micros(1);
    assert_eq!(
        new.sign("msg_1", last, b"{}"),
        format!("{} {}", signature(&secret, last), signature(A, last))
    );
    assert_eq!(
        new.sign("msg_1", NOW + DAY, b"{}"),
        signature(&secret, NOW + DAY)
    );
    assert_eq!(new.earlier_until(KeyKind::Secret, NOW), Some(NOW + DAY));
}

#[test]
fn zero_overlap_ends_earlier_secrets_at_once() {
    let keys = given(A, 1)
        .unwrap()
        .remove(0)
        .rotated(KeyKind::Secret, DAY, NOW)
        .unwrap();
    let keys = keys.rotated(KeyKind::Secret, Duration::ZERO, NOW).unwrap();
    assert_eq!(
        keys.sign("msg_1", NOW, b"{}"),
        signature(keys.secret().unwrap().expose(), NOW)
    );
}

#[test]
fn rotation_is_rejected_while_too_many_keys_sign() {
    let mut keys = given(A, 1).unwrap().remove(0);
    for _ in 0..5 {
        keys = keys.rotated(KeyKind::Secret, DAY, NOW).unwrap();
    }
    assert_eq!(
        keys.rotated(KeyKind::Secret, DAY, NOW).unwrap_err(),
        InvalidKeys::StillSigning(NOW + DAY)
    );
    assert!(keys.rotated(KeyKind::Secret, DAY, NOW + DAY).is_ok());
}

#[test]
fn ed25519_key_signs_beside_the_secret_and_rotates_alone() {
    let keys = given(A, 1).unwrap().remove(0);
    assert!(keys.public_key().is_none());
    let keys = keys.completed(KeyKind::Ed25519).unwrap().unwrap();
    assert!(
        keys.completed(KeyKind::Ed25519).unwrap().is_none(),
        "it has one"
    );
    let signatures = keys.sign("msg_1", NOW, b"{}");
    assert!(
        signatures.contains("v1a,") && signatures.contains(&signature(A, NOW)),
        "{signatures}"
    );
    let rotated = keys.rotated(KeyKind::Ed25519, DAY, NOW).unwrap();
    assert_ne!(rotated.public_key(), keys.public_key());
    assert_eq!(rotated.secret().unwrap().expose(), A);
    assert_eq!(rotated.sign("msg_1", NOW, b"{}").matches("v1a,").count(), 2);
}
