//! Tokens with a bad algorithm, key or header.

use super::*;

fn hs(algorithm: hmac::Algorithm, secret: &[u8], header: &str) -> String {
    joined(header, CLAIMS, |message| {
        hmac::sign(&hmac::Key::new(algorithm, secret), message)
            .as_ref()
            .to_vec()
    })
}

fn jwk(pair: &RsaKeyPair, kid: &str) -> serde_json::Value {
    let public = pair.public_key();
    let number = |bytes: &[u8]| base64(bytes);
    json!({"kty": "RSA", "kid": kid, "n": number(public.modulus().big_endian_without_leading_zero()), "e": number(public.exponent().big_endian_without_leading_zero())})
}

pub(super) fn algorithms(keys: &Keys, corpus: &mut Corpus) {
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

pub(super) fn keys_and_headers(keys: &Keys, corpus: &mut Corpus) {
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
