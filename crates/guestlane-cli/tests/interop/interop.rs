//! Interoperability with third-party programs; `interop/README.md` lists their requirements.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use guestlane::{
    StorageConfig, Workspace,
    outbox::{EndpointKeys, WebhookKeyPair},
};
use guestlane_core::{request::Attributes, token::TokenIdentity};
use guestlane_runtime::{Clock, Timestamp};
use jsonwebtoken::{Algorithm, EncodingKey, Header};

use guestlane_testkit::{
    cli::{CRM_SECRET, Exited, SALES, TestCli, run_in},
    repository,
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

#[test]
fn go_checksum_database_verifies_audit_log_and_proofs() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    let go = |arguments: &[&str]| {
        let mut go = Command::new("go");
        go.arg("run")
            .arg(repository().join("interop/audit/verify.go"))
            .args(arguments)
            .current_dir(cli.directory.path());
        Exited::of(
            go.env("GO111MODULE", "off")
                .env("GOPATH", "/usr/share/gocode")
                .output()
                .unwrap(),
        )
    };
    let rows: String = (0..150).map(|row| format!("guest-{row}\n")).collect();
    cli.write("rows.csv", &format!("guest_id\n{rows}"));
    // The store is created on first use.
    cli.run(&["signing-keys", "list"]).ok();
    let key = cli.run(&["audit", "key"]).ok().stdout;
    let lines = "audit/session-audit.jsonl";
    for (file, records) in [("one.csv", 2), ("rows.csv", 302)] {
        cli.write("one.csv", "guest_id\nann\n");
        cli.run(&["batch", file, "--rate-limit", "off"]).ok();
        let session = cli
            .run(&["sessions", "list", "--limit", "1", "--json"])
            .ok()
            .json();
        let proof = cli
            .run(&["audit", "prove", session["sessionId"].as_str().unwrap()])
            .ok()
            .stdout;
        cli.write("proof.json", &proof);
        let agreed = go(&[
            &key,
            lines,
            "audit/session-audit.jsonl.checkpoint",
            "proof.json",
        ])
        .ok()
        .stdout;
        assert!(
            agreed.contains(&format!("{records} lines agree"))
                && agreed.contains("2 records are proven"),
            "{agreed}"
        );
    }
    let changed = cli.read(lines).replacen("success", "failure", 1);
    cli.write(lines, &changed);
    assert!(
        go(&[&key, lines, "audit/session-audit.jsonl.checkpoint"])
            .stderr
            .contains("root of the lines is not")
    );
}

#[test]
fn javascript_reference_library_verifies_webhook_deliveries() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    let rows: String = (0..50)
        .map(|row| format!("gäst-{row},\"a \"\"b\"\" ü\"\n"))
        .collect();
    cli.write("rows.csv", &format!("guest_id,attr.note\n{rows}"));
    cli.run(&["batch", "rows.csv", "--rate-limit", "off"]).ok();
    let sent = cli.journal("crm");
    assert_eq!(sent.len(), 50);
    let packages = repository().join("target/interop/node_modules/");
    let verify = |lines: String| {
        let mut node = Command::new("node");
        node.arg(repository().join("interop/webhook/verify.mjs"))
            .arg(&packages)
            .stdin(Stdio::piped());
        let mut node = node
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        node.stdin
            .take()
            .unwrap()
            .write_all(lines.as_bytes())
            .unwrap();
        Exited::of(node.wait_with_output().unwrap())
    };
    let lines = |secret: &str| {
        let line = |entry: &serde_json::Value| {
            json!({"secret": secret, "headers": entry["headers"], "body": entry["body"]})
                .to_string()
        };
        sent.iter().map(line).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(verify(lines(CRM_SECRET)).ok().stdout, "50 verified\n");
    let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert!(
        verify(lines(other))
            .stderr
            .contains("WebhookVerificationError")
    );
}

const REGION: &str = "mypurecloud.de";

fn packages() -> PathBuf {
    repository().join("target/interop/node_modules/")
}

/// Returns a program of `interop/sdk` with the simulator's addresses and credentials.
fn program(cli: &TestCli, script: &str) -> Command {
    let startup = |name: &str| cli.startup[name].as_str().unwrap_or_default().to_owned();
    let script = repository().join("interop/sdk").join(script);
    let mut program = if script
        .extension()
        .is_some_and(|extension| extension == "py")
    {
        Command::new(repository().join("target/interop/python/bin/python"))
    } else {
        Command::new("node")
    };
    program
        .arg(script)
        .arg(packages())
        .current_dir(cli.directory.path());
    for (setting, name) in [
        ("CLIENT_ID", "clientId"),
        ("CLIENT_SECRET", "clientSecret"),
        ("DEPLOYMENT_ID", "deploymentId"),
        ("EXTERNAL_SOURCE_ID", "externalSourceId"),
        ("BASE_URL", "baseUrl"),
    ] {
        program.env(setting, startup(name));
    }
    program.env("QUEUE_ID", SALES);
    program
}

/// Configures a program that derives host names from a region. It verifies names and certificates,
/// but connects to this machine.
fn by_region(mut program: Command, cli: &TestCli) -> Command {
    let port = cli.startup["baseUrl"]
        .as_str()
        .unwrap()
        .rsplit(':')
        .next()
        .unwrap();
    program
        .env_remove("BASE_URL")
        .env("REGION", REGION)
        .env("PORT", port);
    program.env("CA_FILE", cli.startup["caFile"].as_str().unwrap());
    program
}

/// Opens a session, and returns the ID of its first message.
fn first_message(cli: &TestCli) -> String {
    let settings = [
        ("GUESTLANE_SURFACE", "web-messaging"),
        ("GUESTLANE_PLATFORM_RATE_LIMIT", "off"),
    ];
    let created = cli
        .command(&["create", "--guest", "ann", "--json"])
        .envs(settings)
        .output()
        .unwrap();
    let session = Exited::of(created).ok().json();
    let store =
        rusqlite::Connection::open(cli.directory.path().join(".guestlane/guestlane.db")).unwrap();
    assert_eq!(session["state"], "open");
    store
        .query_row("SELECT message_id FROM session", [], |row| row.get(0))
        .unwrap()
}

#[test]
fn javascript_and_python_sdks_work_against_the_simulator() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    let message = first_message(&cli);
    for script in ["javascript/check.mjs", "python/check.py"] {
        let exited = Exited::of(
            program(&cli, script)
                .env("MESSAGE_ID", &message)
                .output()
                .unwrap(),
        )
        .ok()
        .json();
        assert!(exited.is_object(), "{script}");
        let other = program(&cli, script)
            .env("MESSAGE_ID", &message)
            .env("CLIENT_SECRET", "wrong")
            .output()
            .unwrap();
        assert_ne!(
            Exited::of(other).code,
            0,
            "{script} notices when something is wrong"
        );
    }
}

#[test]
fn sdks_connect_by_region_and_verify_its_certificate() {
    let cli = TestCli::open(&[
        "--rate-limit",
        "off",
        "--tls",
        "--region",
        REGION,
        "--ca-file",
        "ca.pem",
    ]);
    let message = first_message(&cli);
    for script in ["javascript/check.mjs", "python/check.py"] {
        let mut good = by_region(program(&cli, script), &cli);
        Exited::of(good.env("MESSAGE_ID", &message).output().unwrap()).ok();
        let mut another = by_region(program(&cli, script), &cli);
        let exited = Exited::of(
            another
                .env("MESSAGE_ID", &message)
                .env("REGION", "mypurecloud.jp")
                .output()
                .unwrap(),
        );
        assert_ne!(
            exited.code, 0,
            "{script}: the certificate is not for that region"
        );
    }
}

#[test]
fn javascript_and_python_guests_converse_over_the_websocket() {
    for script in ["guest/chat.mjs", "guest/chat.py"] {
        let cli = TestCli::open(&["--rate-limit", "off"]);
        let talked = Exited::of(program(&cli, script).output().unwrap())
            .ok()
            .json();
        assert!(talked["messageId"].is_string(), "{script}: {talked}");
        assert_eq!(cli.state()["conversations"], 1, "{script}");
    }
}

#[test]
fn javascript_guest_resumes_session_opened_by_guestlane() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    let settings = [
        ("GUESTLANE_SURFACE", "web-messaging"),
        ("GUESTLANE_PLATFORM_RATE_LIMIT", "off"),
    ];
    let created = cli
        .command(&["create", "--guest", "ann", "--json"])
        .envs(settings)
        .output()
        .unwrap();
    let session: Value = Exited::of(created).ok().json();
    let token = session["guestSession"]["token"].as_str().unwrap();
    Exited::of(
        program(&cli, "guest/chat.mjs")
            .env("TOKEN", token)
            .output()
            .unwrap(),
    )
    .ok();
    let state = cli.state();
    assert_eq!(
        (&state["guestSessions"], &state["conversations"]),
        (&json!(1), &json!(1)),
        "{state}"
    );
}

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

/// Returns a program of `interop/`, copied to its own directory as a reader of the documentation
/// would copy it.
fn copied(folder: &str, script: &str) -> Command {
    // Beside the installed packages, so that the program finds them.
    let place = repository()
        .join("target/interop")
        .join(folder)
        .join(script);
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    // Renamed into place, because another test may run the program at the same time.
    let draft = tempfile::NamedTempFile::new_in(place.parent().unwrap()).unwrap();
    std::fs::copy(
        repository().join("interop").join(folder).join(script),
        &draft,
    )
    .unwrap();
    draft.persist(&place).unwrap();
    let mut program = match script.rsplit('.').next().unwrap() {
        "mjs" => Command::new("node"),
        "py" => Command::new(repository().join("target/interop/python/bin/python")),
        "rb" => Command::new("ruby"),
        "java" => Command::new("java"),
        "go" => {
            let mut go = Command::new("go");
            go.arg("run")
                .env("GO111MODULE", "off")
                .env("GOPATH", "/usr/share/gocode");
            go
        }
        other => panic!("{other}"),
    };
    program.arg(place);
    program
}

fn verify(script: &str, url: &str, token: &str) -> Exited {
    Exited::of(
        copied("tokens", script)
            .args([url, token])
            .output()
            .unwrap(),
    )
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
const TOKEN_PROGRAMS: [&str; 4] = ["verify.mjs", "verify.py", "verify.go", "verify.rb"];

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

/// The files of the programs in `docs/crm.md`.
const WEBHOOK_PROGRAMS: [&str; 5] = [
    "verify.mjs",
    "verify.py",
    "verify.go",
    "Verify.java",
    "verify.rb",
];

/// Runs a webhook receiver of `interop/webhook/receiver`.
fn receive(script: &str, key: &str, at: Timestamp, signatures: &str, body: &str) -> Exited {
    let seconds = at.unix_seconds().to_string();
    let mut program = copied("webhook/receiver", script);
    program
        .args([key, "msg_1", &seconds, signatures])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut program = program.spawn().unwrap();
    program
        .stdin
        .take()
        .unwrap()
        .write_all(body.as_bytes())
        .unwrap();
    Exited::of(program.wait_with_output().unwrap())
}

#[test]
fn webhook_receivers_in_five_languages_verify_signatures() {
    const OLD: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    const OTHER: &str = "whsec_AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    let pair = WebhookKeyPair::generate().unwrap();
    let text = format!("{CRM_SECRET},{OLD},{}", pair.expose_secret());
    let keys = EndpointKeys::given(&text.into(), 1).unwrap().remove(0);
    let (body, now) = (r#"{"guestId":"gäst"}"#, Clock::system().now());
    let sign = |at: Timestamp| keys.sign("msg_1", at, body.as_bytes());
    let public = keys.public_key().unwrap();
    let other = WebhookKeyPair::parse(&WebhookKeyPair::generate().unwrap())
        .unwrap()
        .public_key();
    let symmetric = WEBHOOK_PROGRAMS.map(|script| (script, [CRM_SECRET, OLD].as_slice(), OTHER));
    for (script, good, bad) in
        symmetric
            .into_iter()
            .chain([("ed25519.mjs", [public.as_str()].as_slice(), other.as_str())])
    {
        for key in good {
            for at in [
                now,
                now - Duration::from_secs(60),
                now + Duration::from_secs(60),
            ] {
                assert_eq!(
                    receive(script, key, at, &sign(at), body).ok().stdout,
                    "verified\n",
                    "{script}"
                );
            }
        }
        let old = now - Duration::from_secs(400);
        for refused in [
            receive(script, bad, now, &sign(now), body),
            receive(script, good[0], now, &sign(now), &format!("{body} ")),
            receive(script, good[0], now, &sign(old), body),
            receive(script, good[0], old, &sign(old), body),
        ] {
            assert!(
                refused.code == 1 && refused.stderr.contains("refused"),
                "{script}: {}{}",
                refused.stdout,
                refused.stderr
            );
        }
    }
}

#[test]
fn documentation_links_to_the_tested_sample_programs() {
    let shows = |page: &str, folder: &str, script: &str| {
        let documentation = std::fs::read_to_string(repository().join(page)).unwrap();
        let program =
            std::fs::read_to_string(repository().join("interop").join(folder).join(script))
                .unwrap();
        let link = format!("(../interop/{folder}/{script})");
        assert!(
            program.lines().count() <= 70 && documentation.contains(&link),
            "{page}: {folder}/{script}"
        );
    };
    TOKEN_PROGRAMS
        .iter()
        .chain(&["Verify.java"])
        .for_each(|script| shows("docs/tokens.md", "tokens", script));
    WEBHOOK_PROGRAMS
        .iter()
        .chain(&["ed25519.mjs"])
        .for_each(|script| shows("docs/crm.md", "webhook/receiver", script));
}
