//! Guest tokens are verified by programs in other languages.

use super::*;

/// Serves a document at a URL. The test can replace the document later.
fn serve(document: &Arc<Mutex<String>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!(
        "http://{}/.well-known/jwks.json",
        listener.local_addr().unwrap()
    );
    let document = Arc::clone(document);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let head = BufReader::new(&stream).lines().map_while(Result::ok);
            let _ = head.take_while(|line| !line.is_empty()).count();
            let body = document.lock().unwrap().clone();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-type: application/jwk-set+json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    url
}

/// Signs a guest token with a clock that is `ahead` seconds ahead.
fn signed_at(directory: &Path, ahead: i64) -> String {
    let signing = async {
        let clock = Clock::system();
        let state = Workspace::open_read_only(
            &StorageConfig::in_directory(&directory.join(".guestlane")),
            &clock,
        )
        .await
        .unwrap();
        let fresh = TokenIdentity::new(state.keyring.active(clock.now()).kid(), clock.now());
        let identity = TokenIdentity {
            issued_at: fresh.issued_at + ahead,
            ..fresh
        };
        state
            .keyring
            .sign(&"ann".parse().unwrap(), &Attributes::default(), &identity)
            .unwrap()
            .expose()
            .to_owned()
    };
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(signing)
}

/// The programs in `docs/tokens.md` that run here.
pub(super) const TOKEN_PROGRAMS: [&str; 4] = ["verify.mjs", "verify.py", "verify.go", "verify.rb"];

/// A guest token is valid for 300 s, and clocks may differ by 60 s.
#[test]
fn token_sample_programs_tolerate_60_seconds_of_clock_skew() {
    let directory = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        run_in(directory.path(), arguments, &[])
            .ok()
            .stdout
            .trim_end()
            .to_owned()
    };
    let set = Arc::new(Mutex::new(run(&[
        "signing-keys",
        "export",
        "--format",
        "jwks",
    ])));
    let url = serve(&set);
    for script in TOKEN_PROGRAMS {
        for (ahead, good) in [(-400, false), (-345, true), (45, true), (100, false)] {
            let exited = verify(script, &url, &signed_at(directory.path(), ahead));
            assert_eq!(
                (exited.code == 0, exited.stdout == "ann\n"),
                (good, good),
                "{script} {ahead}: {}",
                exited.stderr
            );
            assert!(
                good || exited.stderr.contains("refused"),
                "{script} {ahead}: {}",
                exited.stderr
            );
        }
    }
}

#[test]
fn token_sample_programs_accept_valid_and_reject_invalid_tokens() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let run = |arguments: &[&str]| {
        run_in(here, arguments, &[])
            .ok()
            .stdout
            .trim_end()
            .to_owned()
    };
    let good = run(&["token", "sign", "--guest", "ann", "--attr", "tier=gold"]);
    run(&["signing-keys", "rotate"]);
    let pem = run(&["signing-keys", "export", "--kid", "webchat-guest-key-v1"]) + "\n";
    let set = Arc::new(Mutex::new(run(&[
        "signing-keys",
        "export",
        "--format",
        "jwks",
    ])));
    let url = serve(&set);

    let (_, claims) = guestlane_core::token::decode(&good).unwrap();
    let header = |alg| Header {
        kid: Some("webchat-guest-key-v1".to_owned()),
        typ: None,
        ..Header::new(alg)
    };
    let by_public_key = jsonwebtoken::encode(
        &header(Algorithm::HS256),
        &claims,
        &EncodingKey::from_secret(pem.as_bytes()),
    )
    .unwrap();
    let rest = good.split_once('.').unwrap().1;
    let (message, signature) = good.rsplit_once('.').unwrap();
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    let unknown_kid = "eyJhbGciOiJSUzI1NiIsImtpZCI6IndlYmNoYXQtZ3Vlc3Qta2V5LXY5In0"; // {"alg":"RS256","kid":"webchat-guest-key-v9"}
    let another = tempfile::tempdir().unwrap();
    let bad = [
        (
            format!("{message}.{flipped}{}", &signature[1..]),
            "ERR_JWS_SIGNATURE_VERIFICATION_FAILED",
            "InvalidSignatureError",
        ),
        (
            signed_at(here, -600),
            "ERR_JWT_EXPIRED",
            "ExpiredSignatureError",
        ),
        (
            by_public_key,
            "ERR_JOSE_ALG_NOT_ALLOWED",
            "InvalidAlgorithmError",
        ),
        (
            format!("{unknown_kid}.{rest}"),
            "ERR_JWKS_NO_MATCHING_KEY",
            "PyJWKClientError",
        ),
        (
            run_in(another.path(), &["token", "sign", "--guest", "ann"], &[])
                .ok()
                .stdout
                .trim_end()
                .to_owned(),
            "ERR_JWS_SIGNATURE_VERIFICATION_FAILED",
            "InvalidSignatureError",
        ),
    ];
    for (at, script) in TOKEN_PROGRAMS.into_iter().enumerate() {
        assert_eq!(verify(script, &url, &good).ok().stdout, "ann\n", "{script}");
        for (token, jose, pyjwt) in &bad {
            let exited = verify(script, &url, token);
            let why = *[jose, pyjwt].get(at).unwrap_or(&&"refused");
            assert!(
                exited.code == 1 && exited.stdout.is_empty() && exited.stderr.contains(why),
                "{script} {why}: {}",
                exited.stderr
            );
        }
    }

    run(&["signing-keys", "revoke", "webchat-guest-key-v1", "--yes"]);
    *set.lock().unwrap() = run(&["signing-keys", "export", "--format", "jwks"]);
    let fresh = run(&["token", "sign", "--guest", "bob"]);
    for script in TOKEN_PROGRAMS {
        assert_ne!(
            verify(script, &url, &good).code,
            0,
            "{script}: its key is revoked"
        );
        assert_eq!(
            verify(script, &url, &fresh).ok().stdout,
            "bob\n",
            "{script}: by the key that took over"
        );
    }
}
