//! A corpus of bad tokens, each refused for its own defect, and of good tokens, which are accepted.

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

fn hs(algorithm: hmac::Algorithm, secret: &[u8], header: &str) -> String {
    joined(header, CLAIMS, |message| {
        hmac::sign(&hmac::Key::new(algorithm, secret), message)
            .as_ref()
            .to_vec()
    })
}

fn der(pair: &RsaKeyPair) -> Vec<u8> {
    let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    der.as_ref().to_vec()
}

fn jwk(pair: &RsaKeyPair, kid: &str) -> serde_json::Value {
    let public = pair.public_key();
    let number = |bytes: &[u8]| base64(bytes);
    json!({"kty": "RSA", "kid": kid, "n": number(public.modulus().big_endian_without_leading_zero()), "e": number(public.exponent().big_endian_without_leading_zero())})
}

/// Replaces the n-th part of the token.
fn with_part(token: &str, n: usize, change: impl FnOnce(&str) -> String) -> String {
    let mut parts: Vec<_> = token.split('.').map(str::to_owned).collect();
    parts[n] = change(&parts[n]);
    parts.join(".")
}

fn flip(part: &str, byte: usize, bit: u8) -> String {
    let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(part).unwrap();
    bytes[byte] ^= 1 << bit;
    base64(bytes)
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

fn algorithms(keys: &Keys, corpus: &mut Corpus) {
    let (pem, der) = (
        keys.ring.by_kid(ACTIVE).unwrap().public_pem().unwrap(),
        der(keys.active()),
    );
    let n = jwk(keys.active(), ACTIVE)["n"].as_str().unwrap().to_owned();
    let modulus = BASE64_URL_SAFE_NO_PAD.decode(&n).unwrap();
    let secrets = [
        ("PEM", pem.as_bytes().to_vec()),
        (
            "PEM without its last newline",
            pem.trim_end().as_bytes().to_vec(),
        ),
        ("DER", der),
        ("n", n.as_bytes().to_vec()),
        ("n in bytes", modulus),
        ("nothing", Vec::new()),
        ("the kid", ACTIVE.as_bytes().to_vec()),
    ];
    for (alg, algorithm) in [
        ("HS256", hmac::HMAC_SHA256),
        ("HS384", hmac::HMAC_SHA384),
        ("HS512", hmac::HMAC_SHA512),
    ] {
        for (secret, bytes) in &secrets {
            let named = format!(r#"{{"alg":"{alg}","kid":"{ACTIVE}"}}"#);
            corpus.add(
                format!("{alg} with {secret}"),
                hs(algorithm, bytes, &named),
                TokenError::Algorithm,
            );
        }
        let lies = hs(algorithm, pem.as_bytes(), &header(ACTIVE));
        corpus.add(
            format!("{alg} that says RS256"),
            lies,
            TokenError::Signature,
        );
    }
    for alg in [
        "none",
        "None",
        "NONE",
        "nOnE",
        "",
        "rs256",
        "Rs256",
        "RS256 ",
        " RS256",
        "RS256\\n",
        "RS256\\u0000",
        "ＲＳ２５６",
        "RSA",
        "RS255",
    ] {
        let named = format!(r#"{{"alg":"{alg}","kid":"{ACTIVE}"}}"#);
        corpus.add(
            format!("alg `{alg}` signed by us"),
            keys.ours(&named, CLAIMS),
            TokenError::Algorithm,
        );
        let unsigned = joined(&named, CLAIMS, |_| Vec::new());
        corpus.add(
            format!("alg `{alg}` unsigned"),
            unsigned,
            TokenError::Algorithm,
        );
    }
    for alg in ["null", "256", "true", r#"["RS256"]"#, r#"{"RS256":1}"#] {
        let named = format!(r#"{{"alg":{alg},"kid":"{ACTIVE}"}}"#);
        corpus.add(
            format!("alg {alg}"),
            keys.ours(&named, CLAIMS),
            TokenError::Algorithm,
        );
    }
    corpus.add(
        "no alg",
        keys.ours(&format!(r#"{{"kid":"{ACTIVE}"}}"#), CLAIMS),
        TokenError::Algorithm,
    );
    let paddings: [(&str, &'static dyn RsaEncoding); 3] = [
        ("RS384", &RSA_PKCS1_SHA384),
        ("RS512", &RSA_PKCS1_SHA512),
        ("PS256", &RSA_PSS_SHA256),
    ];
    for (alg, padding) in paddings {
        let named = format!(r#"{{"alg":"{alg}","kid":"{ACTIVE}"}}"#);
        corpus.add(
            alg,
            rsa(keys.active(), padding, named, CLAIMS),
            TokenError::Algorithm,
        );
        corpus.add(
            format!("{alg} that says RS256"),
            rsa(keys.active(), padding, header(ACTIVE), CLAIMS),
            TokenError::Signature,
        );
    }
    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let ed = Ed25519KeyPair::generate().unwrap();
    for (says, why) in [
        (None, TokenError::Algorithm),
        (Some("RS256"), TokenError::Signature),
    ] {
        let named = |alg: &str| format!(r#"{{"alg":"{}","kid":"{ACTIVE}"}}"#, says.unwrap_or(alg));
        let by_ec = joined(named("ES256"), CLAIMS, |message| {
            ec.sign(&SystemRandom::new(), message)
                .unwrap()
                .as_ref()
                .to_vec()
        });
        corpus.add(format!("ES256 that says {says:?}"), by_ec, why.clone());
        let by_ed = joined(named("EdDSA"), CLAIMS, |message| {
            ed.sign(message).as_ref().to_vec()
        });
        corpus.add(format!("EdDSA that says {says:?}"), by_ed, why);
    }
}

fn keys_and_headers(keys: &Keys, corpus: &mut Corpus) {
    let unknown = |kid: &str| TokenError::UnknownKey(crate::request::shorten(kid));
    for kid in [
        "webchat-guest-key-v9",
        "WEBCHAT-GUEST-KEY-V4",
        "webchat-guest-key-v4 ",
        "webchat-guest-key-v04",
        "../../../../dev/null",
        "/etc/passwd",
        "' OR 1=1 --",
        "wеbchat-guest-key-v4", // a Cyrillic е
        &"k".repeat(5000),
    ] {
        let shown = crate::request::shorten(kid);
        corpus.add(
            format!("kid `{shown}`"),
            keys.ours(&header(kid), CLAIMS),
            unknown(kid),
        );
    }
    corpus.add(
        "kid with a NUL",
        keys.ours(&header("webchat-guest-key-v4\\u0000"), CLAIMS),
        unknown("webchat-guest-key-v4\0"),
    );
    corpus.add(
        "no kid",
        keys.ours(r#"{"alg":"RS256"}"#, CLAIMS),
        TokenError::NoKey,
    );
    for kid in [
        r#""""#,
        "null",
        "4",
        "true",
        "[]",
        r#"["webchat-guest-key-v4"]"#,
        r#"{"kid":"webchat-guest-key-v4"}"#,
    ] {
        corpus.add(
            format!("kid {kid}"),
            keys.ours(&format!(r#"{{"alg":"RS256","kid":{kid}}}"#), CLAIMS),
            TokenError::NoKey,
        );
    }
    for (at, state) in [
        (0, KeyState::Retired),
        (1, KeyState::Revoked),
        (4, KeyState::Next),
    ] {
        let kid = format!("webchat-guest-key-v{}", at + 1);
        let token = rsa(&keys.pairs[at], &RSA_PKCS1_SHA256, header(&kid), CLAIMS);
        corpus.add(
            format!("a key that is {}", state.name()),
            token,
            TokenError::NotTrusted { kid, state },
        );
    }
    corpus.add(
        "the next key under the active one's kid",
        rsa(&keys.pairs[4], &RSA_PKCS1_SHA256, header(ACTIVE), CLAIMS),
        TokenError::Signature,
    );
    corpus.add(
        "our kid, the attacker's key",
        rsa(&keys.attacker, &RSA_PKCS1_SHA256, header(ACTIVE), CLAIMS),
        TokenError::Signature,
    );

    let attackers = jwk(&keys.attacker, ACTIVE);
    let certificate = BASE64_STANDARD.encode(der(&keys.attacker));
    for (name, value) in [
        ("jku", json!("https://attacker.example/jwks.json")),
        ("x5u", json!("https://attacker.example/key.pem")),
        ("jwk", attackers),
        ("x5c", json!([certificate])),
        ("x5t", json!("AAAA")),
        ("x5t#S256", json!("AAAA")),
    ] {
        let named = json!({"alg": "RS256", "kid": ACTIVE, name: value}).to_string();
        let why = || TokenError::Header(name.to_owned());
        corpus.add(
            format!("{name}, by the attacker"),
            rsa(&keys.attacker, &RSA_PKCS1_SHA256, &named, CLAIMS),
            why(),
        );
        corpus.add(format!("{name}, by us"), keys.ours(&named, CLAIMS), why());
    }
    for (name, value) in [
        ("crit", r#"["exp"]"#),
        ("crit", "[]"),
        ("crit", r#"["b64"]"#),
        ("b64", "false"),
        ("b64", "true"),
        ("cty", r#""JWT""#),
        ("enc", r#""A256GCM""#),
        ("zip", r#""DEF""#),
        ("epk", "{}"),
        ("p2c", "100000000"),
        ("ALG", r#""none""#),
        ("nonce", r#""n""#),
    ] {
        let named = format!(r#"{{"alg":"RS256","kid":"{ACTIVE}","{name}":{value}}}"#);
        corpus.add(
            format!("{name} {value}"),
            keys.ours(&named, CLAIMS),
            TokenError::Header(name.to_owned()),
        );
    }
    for typ in [
        r#""at+jwt""#,
        r#""JOSE""#,
        r#""secevent+jwt""#,
        r#""""#,
        "null",
        "1",
        r#""JWT ""#,
        r#""application/json""#,
    ] {
        let named = format!(r#"{{"typ":{typ},"alg":"RS256","kid":"{ACTIVE}"}}"#);
        corpus.add(
            format!("typ {typ}"),
            keys.ours(&named, CLAIMS),
            TokenError::Type,
        );
    }
    for (named, twice) in [
        (
            format!(r#"{{"alg":"RS256","alg":"none","kid":"{ACTIVE}"}}"#),
            "alg",
        ),
        (
            format!(r#"{{"alg":"none","alg":"RS256","kid":"{ACTIVE}"}}"#),
            "alg",
        ),
        (
            format!(r#"{{"alg":"RS256","kid":"{ACTIVE}","kid":"{ACTIVE}"}}"#),
            "kid",
        ),
        (
            format!(r#"{{"alg":"RS256","kid":"x","k\u0069d":"{ACTIVE}"}}"#),
            "kid",
        ),
    ] {
        corpus.add(
            format!("{twice} twice: {named}"),
            keys.ours(&named, CLAIMS),
            TokenError::DuplicateName(twice.to_owned()),
        );
    }
}

fn claims(keys: &Keys, corpus: &mut Corpus) {
    let no_numbers = [
        "null",
        "true",
        r#""1795361329""#,
        r#""""#,
        "[1795361329]",
        "{}",
        "1795361329.5",
        "1.795361329e9",
        "18446744073709551615",
        "-0.5",
        "1e300",
    ];
    for name in ["exp", "iat"] {
        for value in no_numbers {
            corpus.add(
                format!("{name} {value}"),
                keys.claim(name, Some(value)),
                TokenError::Claim(name),
            );
        }
        corpus.add(
            format!("no {name}"),
            keys.claim(name, None),
            TokenError::Claim(name),
        );
    }
    for value in no_numbers {
        corpus.add(
            format!("nbf {value}"),
            keys.claim("nbf", Some(value)),
            TokenError::Claim("nbf"),
        );
    }
    let moments = [
        ("exp", NOW, TokenError::Expired),
        ("exp", NOW - 1, TokenError::Expired),
        ("exp", 0, TokenError::Expired),
        ("exp", -1, TokenError::Expired),
        ("exp", i64::MIN, TokenError::Expired),
        ("exp", NOW + 301, TokenError::Claim("exp")),
        ("exp", NOW + 365 * 86_400, TokenError::Claim("exp")),
        ("exp", NOW * 1000, TokenError::Claim("exp")), // in milliseconds
        ("exp", i64::MAX, TokenError::Claim("exp")),
        ("iat", NOW + 61, TokenError::NotYet),
        ("iat", NOW * 1000, TokenError::NotYet),
        ("iat", i64::MAX, TokenError::NotYet),
        ("iat", NOW - 1, TokenError::Claim("exp")), // it would live for 301 s
        ("iat", 0, TokenError::Claim("exp")),
        ("iat", i64::MIN, TokenError::Claim("exp")),
        ("nbf", NOW + 61, TokenError::NotYet),
        ("nbf", i64::MAX, TokenError::NotYet),
    ];
    for (name, value, why) in moments {
        corpus.add(
            format!("{name} {value}"),
            keys.claim(name, Some(&value.to_string())),
            why,
        );
    }
    corpus.add(
        "exp out of all bounds",
        keys.claim("exp", Some("1e999")),
        TokenError::Malformed,
    );
    corpus.add(
        "exp not a number",
        keys.claim("exp", Some("NaN")),
        TokenError::Malformed,
    );
    corpus.add(
        "exp with a plus",
        keys.claim("exp", Some("+1795361329")),
        TokenError::Malformed,
    );
    corpus.add(
        "exp with a zero in front",
        keys.claim("exp", Some("01795361329")),
        TokenError::Malformed,
    );
    let long = format!(r#""{}""#, "g".repeat(129));
    for value in [
        "null",
        "1",
        "true",
        r#"["ann"]"#,
        r#"{"id":"ann"}"#,
        r#""""#,
        r#"" ann""#,
        r#""ann\n""#,
        r#""a\u0000nn""#,
        &long,
    ] {
        corpus.add(
            format!("guestId {value}"),
            keys.claim("guestId", Some(value)),
            TokenError::Claim("guestId"),
        );
    }
    corpus.add(
        "no guestId",
        keys.claim("guestId", None),
        TokenError::Claim("guestId"),
    );
    for (text, twice) in [
        (
            r#"{"guestId":"ann","guestId":"bob","iat":1795361029,"exp":1795361329}"#,
            "guestId",
        ),
        (
            r#"{"guestId":"bob","guest\u0049d":"ann","iat":1795361029,"exp":1795361329}"#,
            "guestId",
        ),
        (
            r#"{"guestId":"ann","iat":1795361029,"exp":1,"exp":1795361329}"#,
            "exp",
        ),
        (
            r#"{"guestId":"ann","iat":1795361029,"exp":1795361329,"exp":1795361329}"#,
            "exp",
        ),
        (
            r#"{"guestId":"ann","iat":1795361029,"iat":1,"exp":1795361329}"#,
            "iat",
        ),
        (
            r#"{"guestId":"ann","iat":1795361029,"exp":1795361329,"x":{"a":1,"a":2}}"#,
            "a",
        ),
        (
            r#"{"guestId":"ann","iat":1795361029,"exp":1795361329,"tier":"gold","tier":"basic"}"#,
            "tier",
        ),
    ] {
        corpus.add(
            format!("{twice} twice: {text}"),
            keys.claims(text),
            TokenError::DuplicateName(twice.to_owned()),
        );
    }
    let deep = format!(
        r#"{{"guestId":"ann","iat":1795361029,"exp":1795361329,"x":{}{}}}"#,
        "[".repeat(2000),
        "]".repeat(2000)
    );
    for (name, text) in [
        ("an array", "[]"),
        ("a text", r#""ann""#),
        ("null", "null"),
        ("nothing", ""),
        ("cut off", r#"{"guestId":"ann""#),
        ("two objects", &format!("{CLAIMS}{CLAIMS}")),
        ("a comment", &format!("{CLAIMS}// yes")),
        (
            "a comma too many",
            r#"{"guestId":"ann","iat":1795361029,"exp":1795361329,}"#,
        ),
        ("single quotes", "{'guestId':'ann'}"),
        ("a byte order mark", &format!("\u{feff}{CLAIMS}")),
        ("too deep", &deep),
    ] {
        corpus.add(
            format!("claims are {name}"),
            keys.claims(text),
            TokenError::Malformed,
        );
    }
    let not_utf8 = [
        CLAIMS.trim_end_matches('}').as_bytes(),
        b",\"x\":\"\xff\xfe\"}",
    ]
    .concat();
    corpus.add(
        "claims that are not UTF-8",
        rsa(keys.active(), &RSA_PKCS1_SHA256, header(ACTIVE), not_utf8),
        TokenError::Malformed,
    );
}

fn forms(keys: &Keys, corpus: &mut Corpus) {
    let good = keys.claims(CLAIMS);
    let parts: Vec<_> = good.split('.').collect();
    let [head, body, signature] = parts[..] else {
        panic!()
    };
    use TokenError::{Algorithm, Malformed, Signature, TooLong};
    for (name, token) in [
        ("nothing", String::new()),
        ("a dot", ".".into()),
        ("two dots", "..".into()),
        ("three dots", "...".into()),
        ("one part", head.into()),
        ("two parts", format!("{head}.{body}")),
        ("no header", format!(".{body}.{signature}")),
        ("no claims in between", format!("{head}.{signature}")),
        ("four parts", format!("{good}.{signature}")),
        ("a dot at the end", format!("{good}.")),
        ("a dot at the beginning", format!(".{good}")),
        ("five parts", format!("{good}.{body}.{signature}")),
        (
            "shaped like a JWE",
            format!(
                "{}.{body}.{body}.{body}.{signature}",
                base64(r#"{"alg":"RSA-OAEP","enc":"A256GCM"}"#)
            ),
        ),
        (
            "JSON serialization",
            json!({"payload": body, "protected": head, "signature": signature}).to_string(),
        ),
        ("a newline at the end", format!("{good}\n")),
        ("a newline at the beginning", format!("\n{good}")),
        ("a space at the end", format!("{good} ")),
        ("with Bearer", format!("Bearer {good}")),
        ("in quotes", format!("\"{good}\"")),
        ("a NUL at the end", format!("{good}\0")),
        (
            "a NUL in the claims",
            with_part(&good, 1, |part| format!("{}\0{}", &part[..8], &part[8..])),
        ),
        (
            "a space in the claims",
            with_part(&good, 1, |part| format!("{} {}", &part[..8], &part[8..])),
        ),
        (
            "a line break in the signature",
            with_part(&good, 2, |part| {
                format!("{}\r\n{}", &part[..76], &part[76..])
            }),
        ),
        ("a full-width dot", good.replacen('.', "．", 1)),
        (
            "a look-alike letter",
            with_part(&good, 0, |part| part.replacen('e', "е", 1)),
        ),
        (
            "padding after the header",
            with_part(&good, 0, |part| format!("{part}=")),
        ),
        (
            "padding after the claims",
            with_part(&good, 1, |part| format!("{part}==")),
        ),
        (
            "padding after the signature",
            with_part(&good, 2, |part| format!("{part}==")),
        ),
        (
            "standard base64",
            with_part(&good, 2, |part| format!("+/{}", &part[2..])),
        ),
        (
            "percent signs",
            with_part(&good, 2, |part| format!("%41{}", &part[1..])),
        ),
        (
            "a signature of an impossible length",
            with_part(&good, 2, |part| part[..341].to_owned()),
        ),
        (
            "bits after the signature's end",
            with_part(&good, 2, |part| {
                format!("{}{}", &part[..341], next_letter(&part[341..]))
            }),
        ),
        (
            "a header that is no JSON",
            with_part(&good, 0, |_| base64("alg: RS256")),
        ),
        (
            "a header that is an array",
            with_part(&good, 0, |_| base64(r#"["RS256"]"#)),
        ),
        (
            "a header that is not UTF-8",
            with_part(&good, 0, |_| {
                base64(b"{\"alg\":\"RS256\",\"kid\":\"\xff\"}")
            }),
        ),
        (
            "a header with NULs behind",
            with_part(&good, 0, |_| base64(format!("{}\0\0", header(ACTIVE)))),
        ),
    ] {
        corpus.add(name, token, Malformed);
    }
    corpus.add(
        "an empty header",
        with_part(&good, 0, |_| base64("{}")),
        Algorithm,
    );
    corpus.add("no signature", format!("{head}.{body}."), Signature);
    for length in [4, 8, 84, 172, 256, 336, 340] {
        corpus.add(
            format!("{length} letters of the signature"),
            with_part(&good, 2, |part| part[..length].to_owned()),
            Signature,
        );
    }
    corpus.add(
        "a signature of zeros",
        with_part(&good, 2, |_| base64([0; 256])),
        Signature,
    );
    corpus.add(
        "a signature of ones",
        with_part(&good, 2, |_| base64([0xff; 256])),
        Signature,
    );
    corpus.add(
        "the signature twice",
        with_part(&good, 2, |part| {
            let bytes = BASE64_URL_SAFE_NO_PAD.decode(part).unwrap();
            base64([bytes.clone(), bytes].concat())
        }),
        Signature,
    );
    corpus.add(
        "the signature backwards",
        with_part(&good, 2, |part| {
            base64(
                BASE64_URL_SAFE_NO_PAD
                    .decode(part)
                    .unwrap()
                    .into_iter()
                    .rev()
                    .collect::<Vec<_>>(),
            )
        }),
        Signature,
    );
    for (byte, bit) in [
        (0, 0),
        (0, 7),
        (1, 3),
        (127, 4),
        (128, 0),
        (254, 6),
        (255, 0),
        (255, 7),
    ] {
        corpus.add(
            format!("bit {bit} of byte {byte} of the signature"),
            with_part(&good, 2, |part| flip(part, byte, bit)),
            Signature,
        );
    }
    for byte in [13, 20, 30, 60, 80, 100] {
        corpus.add(
            format!("byte {byte} of the claims"),
            with_part(&good, 1, |part| flip(part, byte, 0)),
            Signature,
        );
    }
    let other = keys.claims(&CLAIMS.replace("ann", "bob"));
    let others = other.rsplit_once('.').unwrap().1;
    corpus.add(
        "another token's signature",
        format!("{head}.{body}.{others}"),
        Signature,
    );
    corpus.add(
        "another token's claims",
        format!("{head}.{}.{signature}", other.split('.').nth(1).unwrap()),
        Signature,
    );
    let says_jwt = format!(r#"{{"typ":"JWT","alg":"RS256","kid":"{ACTIVE}"}}"#);
    corpus.add(
        "another header before the same",
        with_part(&good, 0, |_| base64(&says_jwt)),
        Signature,
    );
    corpus.add(
        "signed over the claims alone",
        joined(header(ACTIVE), CLAIMS, |_| {
            let mut signed = vec![0; 256];
            keys.active()
                .sign(
                    &RSA_PKCS1_SHA256,
                    &SystemRandom::new(),
                    CLAIMS.as_bytes(),
                    &mut signed,
                )
                .unwrap();
            signed
        }),
        Signature,
    );
    corpus.add(
        "a token within a token",
        keys.ours(
            &format!(r#"{{"alg":"RS256","kid":"{ACTIVE}","cty":"JWT"}}"#),
            &good,
        ),
        TokenError::Header("cty".into()),
    );
    corpus.add(
        "a token in the place of the claims",
        keys.claims(&good),
        Malformed,
    );
    let much = |bytes: usize| {
        format!(
            r#"{{"guestId":"ann","iat":1795361029,"exp":1795361329,"x":"{}"}}"#,
            "x".repeat(bytes)
        )
    };
    corpus.add(
        "a little too long, and signed",
        keys.claims(&much(12_000)),
        TooLong,
    );
    corpus.add(
        "a megabyte, and signed",
        keys.claims(&much(1_000_000)),
        TooLong,
    );
    corpus.add(
        "dots, and nothing else",
        ".".repeat(MAX_TOKEN_BYTES + 1),
        TooLong,
    );
    corpus.add("brackets", base64("[".repeat(MAX_TOKEN_BYTES)), TooLong);
}

/// Sets base64 bits that decoding ignores: the same bytes in a second spelling.
fn next_letter(letter: &str) -> char {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    ALPHABET
        .chars()
        .nth(ALPHABET.find(letter).unwrap() | 1)
        .unwrap()
}

#[test]
fn each_bad_token_is_rejected_for_its_own_reason() {
    let keys = Keys::new();
    let mut corpus = Corpus::default();
    algorithms(&keys, &mut corpus);
    keys_and_headers(&keys, &mut corpus);
    claims(&keys, &mut corpus);
    forms(&keys, &mut corpus);
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
