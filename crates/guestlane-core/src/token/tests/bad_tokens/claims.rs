//! Tokens with bad claims.

use super::*;

pub(super) fn claims(keys: &Keys, corpus: &mut Corpus) {
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
