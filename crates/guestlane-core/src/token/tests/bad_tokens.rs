//! A corpus of bad tokens, each refused for its own defect, and of good tokens, which are accepted.

mod claims;
mod forms;
mod headers;

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    hmac,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
        RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
    },
};
use base64::{Engine, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use guestlane_runtime::Timestamp;
use serde_json::json;

use super::{
    super::{KeyLifecycle, KeyState, Keyring, MAX_TOKEN_BYTES, SigningKey, TokenError, verify},
    NOW, at, master, stored,
};

const ACTIVE: &str = "webchat-guest-key-v4";
const CLAIMS: &str = r#"{"guestId":"ann","tier":"gold","iat":1795361029,"exp":1795361329,"jti":"6f1f3d3e-0000-4000-8000-000000000001"}"#;

/// Five keys, one in each state, with their private keys, and an attacker's key.
struct Keys {
    ring: Keyring,
    pairs: Vec<RsaKeyPair>,
    attacker: RsaKeyPair,
}

impl Keys {
    fn new() -> Self {
        let hour = 3600;
        let lives = [
            KeyLifecycle::stored(at(NOW - 90 * hour), at(NOW - 90 * hour), None),
            KeyLifecycle::stored(
                at(NOW - 80 * hour),
                at(NOW - 50 * hour),
                Some(at(NOW - 20 * hour)),
            ),
            KeyLifecycle::stored(at(NOW - 20 * hour), at(NOW - 20 * hour), None),
            KeyLifecycle::stored(at(NOW - 10 * hour), at(NOW - 100), None),
            KeyLifecycle::stored(at(NOW - hour), at(NOW + hour), None),
        ];
        let pkcs8: Vec<_> = lives
            .iter()
            .map(|_| SigningKey::generate().unwrap())
            .collect();
        let kid = |n: usize| format!("webchat-guest-key-v{}", n + 1);
        let keys = lives
            .iter()
            .enumerate()
            .map(|(n, life)| stored(&kid(n), &pkcs8[n], *life))
            .collect();
        let ring = Keyring::open(&master(), keys).unwrap();
        let states: Vec<_> = ring
            .list(at(NOW))
            .into_iter()
            .map(|key| key.state)
            .collect();
        use KeyState::{Active, Next, Retired, Retiring, Revoked};
        assert_eq!(states, [Retired, Revoked, Retiring, Active, Next]);
        let open = |der: &[u8]| RsaKeyPair::from_pkcs8(der).unwrap();
        let pairs = pkcs8.iter().map(|der| open(der)).collect();
        Self {
            ring,
            pairs,
            attacker: open(&SigningKey::generate().unwrap()),
        }
    }

    fn active(&self) -> &RsaKeyPair {
        &self.pairs[3]
    }

    /// Signs any header and claims with the active key, as a guest token is signed.
    fn ours(&self, header: &str, claims: &str) -> String {
        rsa(self.active(), &RSA_PKCS1_SHA256, header, claims)
    }

    /// Signs these claims with the active key.
    fn claims(&self, claims: &str) -> String {
        self.ours(&header(ACTIVE), claims)
    }

    /// Replaces the value of one claim; `None` removes the claim.
    fn claim(&self, name: &str, value: Option<&str>) -> String {
        let mut object: Vec<(String, String)> = vec![
            ("guestId".into(), r#""ann""#.into()),
            ("iat".into(), NOW.to_string()),
            ("exp".into(), (NOW + 300).to_string()),
            ("jti".into(), r#""j""#.into()),
        ];
        object.retain(|(known, _)| known != name);
        object.extend(value.map(|value| (name.to_owned(), value.to_owned())));
        let members: Vec<_> = object
            .iter()
            .map(|(name, value)| format!(r#""{name}":{value}"#))
            .collect();
        self.claims(&format!("{{{}}}", members.join(",")))
    }
}

fn header(kid: &str) -> String {
    format!(r#"{{"alg":"RS256","kid":"{kid}"}}"#)
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn joined(
    header: impl AsRef<[u8]>,
    claims: impl AsRef<[u8]>,
    sign: impl FnOnce(&[u8]) -> Vec<u8>,
) -> String {
    let message = format!("{}.{}", base64(header), base64(claims));
    let signature = sign(message.as_bytes());
    format!("{message}.{}", base64(signature))
}

fn rsa(
    pair: &RsaKeyPair,
    padding: &'static dyn RsaEncoding,
    header: impl AsRef<[u8]>,
    claims: impl AsRef<[u8]>,
) -> String {
    joined(header, claims, |message| {
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(padding, &SystemRandom::new(), message, &mut signature)
            .unwrap();
        signature
    })
}

fn der(pair: &RsaKeyPair) -> Vec<u8> {
    let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    der.as_ref().to_vec()
}

struct Case {
    name: String,
    token: String,
    why: TokenError,
}

#[derive(Default)]
struct Corpus(Vec<Case>);

impl Corpus {
    fn add(&mut self, name: impl Into<String>, token: impl Into<String>, why: TokenError) {
        self.0.push(Case {
            name: name.into(),
            token: token.into(),
            why,
        });
    }
}

#[test]
fn each_bad_token_is_rejected_for_its_own_reason() {
    let keys = Keys::new();
    let mut corpus = Corpus::default();
    headers::algorithms(&keys, &mut corpus);
    headers::keys_and_headers(&keys, &mut corpus);
    claims::claims(&keys, &mut corpus);
    forms::forms(&keys, &mut corpus);
    assert!(corpus.0.len() >= 150, "{}", corpus.0.len());
    let mut seen = std::collections::HashSet::new();
    let wrong: Vec<_> = corpus
        .0
        .iter()
        .filter_map(|case| {
            assert!(seen.insert(&case.token), "{} is there twice", case.name);
            let came = verify(&keys.ring, &case.token, at(NOW));
            (came != Err(case.why.clone()))
                .then(|| format!("{}: {came:?}, and not {:?}", case.name, case.why))
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {} went wrong:\n{}",
        wrong.len(),
        corpus.0.len(),
        wrong.join("\n")
    );
}

/// Without this test, a verifier that refuses everything would pass.
#[test]
fn good_tokens_are_accepted() {
    let keys = Keys::new();
    let accepted = |token: &str, now: Timestamp| verify(&keys.ring, token, now).unwrap().guest_id;
    let good = keys.claims(CLAIMS);
    for now in [at(NOW - 60), at(NOW), at(NOW + 299)] {
        assert_eq!(accepted(&good, now), "ann");
    }
    for typ in ["JWT", "jwt"] {
        let named = format!(r#"{{"typ":"{typ}","alg":"RS256","kid":"{ACTIVE}"}}"#);
        assert_eq!(accepted(&keys.ours(&named, CLAIMS), at(NOW)), "ann");
    }
    let retiring = rsa(
        &keys.pairs[2],
        &RSA_PKCS1_SHA256,
        header("webchat-guest-key-v3"),
        CLAIMS,
    );
    assert_eq!(accepted(&retiring, at(NOW)), "ann");
    let a_little_ahead = rsa(
        &keys.pairs[4],
        &RSA_PKCS1_SHA256,
        header("webchat-guest-key-v5"),
        CLAIMS
            .replace("1795361", "1795364")
            .replace("1795364029", "1795364629")
            .replace("1795364329", "1795364929"),
    );
    assert_eq!(accepted(&a_little_ahead, at(NOW + 3600 - 60)), "ann");
    assert_eq!(
        accepted(&keys.claim("nbf", Some(&NOW.to_string())), at(NOW)),
        "ann"
    );
    let ünïcode = keys.claims(&CLAIMS.replace("ann", "änn-\u{1f600}"));
    assert_eq!(accepted(&ünïcode, at(NOW)), "änn-\u{1f600}");
}
