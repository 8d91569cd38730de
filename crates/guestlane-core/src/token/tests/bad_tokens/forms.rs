//! Tokens that are no well-formed JWT.

use super::*;

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

pub(super) fn forms(keys: &Keys, corpus: &mut Corpus) {
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
