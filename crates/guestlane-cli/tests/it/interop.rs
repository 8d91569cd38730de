//! Other people's programs agree: see `interop/README.md` for what they need.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use guestlane::{Clock, Places, State, request::Attributes, token::TokenIdentity};
use jsonwebtoken::{Algorithm, EncodingKey, Header};

use serde_json::{Value, json};

use crate::office::{CRM_SECRET, Ended, Office, SALES, run_in};

pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

#[test]
#[ignore = "needs Go and golang.org/x/mod (.ci/run installs them)"]
fn gos_checksum_database_agrees_with_every_log_and_every_proof() {
    let office = Office::open(&["--quota", "off"]);
    let go = |arguments: &[&str]| {
        let mut go = Command::new("go");
        go.arg("run").arg(repository().join("interop/audit/verify.go")).args(arguments).current_dir(office.directory.path());
        Ended::of(go.env("GO111MODULE", "off").env("GOPATH", "/usr/share/gocode").output().unwrap())
    };
    let rows: String = (0..150).map(|row| format!("guest-{row}\n")).collect();
    office.write("rows.csv", &format!("guest_id\n{rows}"));
    office.run(&["keys", "list"]).ok(); // the store is made on first use
    let key = office.run(&["audit", "key"]).ok().stdout;
    let lines = "audit/session-audit.jsonl";
    for (file, records) in [("one.csv", 2), ("rows.csv", 302)] {
        office.write("one.csv", "guest_id\nann\n");
        office.run(&["batch", file, "--quota", "off"]).ok();
        let session = office.run(&["sessions", "list", "--limit", "1", "--json"]).ok().json();
        let proof = office.run(&["audit", "prove", session["sessionId"].as_str().unwrap()]).ok().stdout;
        office.write("proof.json", &proof);
        let agreed = go(&[&key, lines, "audit/session-audit.jsonl.checkpoint", "proof.json"]).ok().stdout;
        assert!(agreed.contains(&format!("{records} lines agree")) && agreed.contains("2 records are proven"), "{agreed}");
    }
    let changed = office.read(lines).replacen("success", "failure", 1);
    office.write(lines, &changed);
    assert!(go(&[&key, lines, "audit/session-audit.jsonl.checkpoint"]).stderr.contains("root of the lines is not"));
}

#[test]
#[ignore = "needs Node.js and the package standardwebhooks (.ci/run installs them)"]
fn the_reference_library_for_javascript_verifies_every_webhook() {
    let office = Office::open(&["--quota", "off"]);
    let rows: String = (0..50).map(|row| format!("gäst-{row},\"a \"\"b\"\" ü\"\n")).collect();
    office.write("rows.csv", &format!("guest_id,attr.note\n{rows}"));
    office.run(&["batch", "rows.csv", "--quota", "off"]).ok();
    let sent = office.journal("crm");
    assert_eq!(sent.len(), 50);
    let packages = repository().join("target/interop/node_modules/");
    let verify = |lines: String| {
        let mut node = Command::new("node");
        node.arg(repository().join("interop/webhook/verify.mjs")).arg(&packages).stdin(Stdio::piped());
        let mut node = node.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        node.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        Ended::of(node.wait_with_output().unwrap())
    };
    let lines = |secret: &str| {
        let line =
            |entry: &serde_json::Value| json!({"secret": secret, "headers": entry["headers"], "body": entry["body"]}).to_string();
        sent.iter().map(line).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(verify(lines(CRM_SECRET)).ok().stdout, "50 verified\n");
    let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert!(verify(lines(other)).stderr.contains("WebhookVerificationError"));
}

const REGION: &str = "mypurecloud.de";

fn packages() -> PathBuf {
    repository().join("target/interop/node_modules/")
}

/// A program of `interop/sdk`, with what the simulator says of itself.
fn program(office: &Office, script: &str) -> Command {
    let says = |name: &str| office.says[name].as_str().unwrap_or_default().to_owned();
    let script = repository().join("interop/sdk").join(script);
    let mut program = if script.extension().is_some_and(|extension| extension == "py") {
        Command::new(repository().join("target/interop/python/bin/python"))
    } else {
        Command::new("node")
    };
    program.arg(script).arg(packages()).current_dir(office.directory.path());
    for (setting, name) in [
        ("CLIENT_ID", "clientId"),
        ("CLIENT_SECRET", "clientSecret"),
        ("DEPLOYMENT_ID", "deploymentId"),
        ("EXTERNAL_SOURCE_ID", "externalSourceId"),
        ("BASE_URL", "baseUrl"),
    ] {
        program.env(setting, says(name));
    }
    program.env("QUEUE_ID", SALES);
    program
}

/// As clients do that make the names of hosts from a region's: the names and certificates are checked, the connection goes to this machine.
fn by_region(mut program: Command, office: &Office) -> Command {
    let port = office.says["baseUrl"].as_str().unwrap().rsplit(':').next().unwrap();
    program.env_remove("BASE_URL").env("REGION", REGION).env("PORT", port);
    program.env("CA_FILE", office.says["caFile"].as_str().unwrap());
    program
}

/// The id of the first message of a session that guestlane opened.
fn first_message(office: &Office) -> String {
    let settings = [("GUESTLANE_SURFACE", "web-messaging"), ("GUESTLANE_QUOTA", "off")];
    let created = office.command(&["create", "--guest", "ann", "--json"]).envs(settings).output().unwrap();
    let session = Ended::of(created).ok().json();
    let store = rusqlite::Connection::open(office.directory.path().join(".guestlane/guestlane.db")).unwrap();
    assert_eq!(session["state"], "open");
    store.query_row("SELECT message_id FROM session", [], |row| row.get(0)).unwrap()
}

#[test]
#[ignore = "needs Node.js, Python and the platform's SDKs (.ci/run installs them)"]
fn the_platforms_sdks_for_javascript_and_python_find_what_they_expect() {
    let office = Office::open(&["--quota", "off"]);
    let message = first_message(&office);
    for script in ["javascript/check.mjs", "python/check.py"] {
        let ended = Ended::of(program(&office, script).env("MESSAGE_ID", &message).output().unwrap()).ok().json();
        assert!(ended.is_object(), "{script}");
        let other = program(&office, script).env("MESSAGE_ID", &message).env("CLIENT_SECRET", "wrong").output().unwrap();
        assert_ne!(Ended::of(other).code, 0, "{script} notices when something is wrong");
    }
}

#[test]
#[ignore = "needs Node.js, Python and the platform's SDKs (.ci/run installs them)"]
fn the_platforms_sdks_come_in_by_the_name_of_a_region_and_check_its_certificates() {
    let office = Office::open(&["--quota", "off", "--tls", "--region", REGION, "--ca-file", "ca.pem"]);
    let message = first_message(&office);
    for script in ["javascript/check.mjs", "python/check.py"] {
        let mut good = by_region(program(&office, script), &office);
        Ended::of(good.env("MESSAGE_ID", &message).output().unwrap()).ok();
        let mut elsewhere = by_region(program(&office, script), &office);
        let ended = Ended::of(elsewhere.env("MESSAGE_ID", &message).env("REGION", "mypurecloud.jp").output().unwrap());
        assert_ne!(ended.code, 0, "{script}: the certificate is not for that region");
    }
}

#[test]
#[ignore = "needs Node.js, Python and WebSocket libraries (.ci/run installs them)"]
fn guests_in_other_languages_hold_a_conversation_over_the_socket() {
    for script in ["guest/chat.mjs", "guest/chat.py"] {
        let office = Office::open(&["--quota", "off"]);
        let talked = Ended::of(program(&office, script).output().unwrap()).ok().json();
        assert!(talked["messageId"].is_string(), "{script}: {talked}");
        assert_eq!(office.state()["conversations"], 1, "{script}");
    }
}

#[test]
#[ignore = "needs Node.js and a WebSocket library (.ci/run installs them)"]
fn a_guest_in_another_language_takes_over_the_session_that_guestlane_opened() {
    let office = Office::open(&["--quota", "off"]);
    let settings = [("GUESTLANE_SURFACE", "web-messaging"), ("GUESTLANE_QUOTA", "off")];
    let created = office.command(&["create", "--guest", "ann", "--json"]).envs(settings).output().unwrap();
    let session: Value = Ended::of(created).ok().json();
    let token = session["guestSession"]["token"].as_str().unwrap();
    Ended::of(program(&office, "guest/chat.mjs").env("TOKEN", token).output().unwrap()).ok();
    let state = office.state();
    assert_eq!((&state["guestSessions"], &state["conversations"]), (&json!(1), &json!(1)), "{state}");
}

/// What stands at a URL, and may be another thing later.
fn serve(document: &Arc<Mutex<String>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/.well-known/jwks.json", listener.local_addr().unwrap());
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

/// Runs a program of `interop/tokens` as somebody would who copied it from the documentation.
fn verify(script: &str, url: &str, token: &str) -> Ended {
    let place = repository().join("target/interop").join(script); // beside the packages
    std::fs::copy(repository().join("interop/tokens").join(script), &place).unwrap();
    let mut program = if script.ends_with(".py") {
        Command::new(repository().join("target/interop/python/bin/python"))
    } else {
        Command::new("node")
    };
    Ended::of(program.arg(place).args([url, token]).output().unwrap())
}

/// A token that our key signed ten minutes ago.
fn expired(directory: &Path) -> String {
    let signing = async {
        let clock = Clock::system();
        let state = State::look(&Places::in_directory(&directory.join(".guestlane")), &clock).await.unwrap();
        let fresh = TokenIdentity::new(state.keyring.active(clock.now()).kid(), clock.now());
        let identity = TokenIdentity { issued_at: fresh.issued_at - 600, ..fresh };
        state.keyring.sign(&"ann".parse().unwrap(), &Attributes::default(), &identity).unwrap().expose().to_owned()
    };
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(signing)
}

#[test]
#[ignore = "needs Node.js with jose, and Python with PyJWT (.ci/run installs them)"]
fn the_programs_of_the_documentation_accept_good_tokens_and_no_others() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let run = |arguments: &[&str]| run_in(here, arguments, &[]).ok().stdout.trim_end().to_owned();
    let good = run(&["token", "sign", "--guest", "ann", "--attr", "tier=gold"]);
    run(&["keys", "rotate"]);
    let pem = run(&["keys", "export", "--kid", "webchat-guest-key-v1"]) + "\n";
    let set = Arc::new(Mutex::new(run(&["keys", "export", "--format", "jwks"])));
    let url = serve(&set);

    let (_, claims) = guestlane::token::decode(&good).unwrap();
    let header = |alg| Header { kid: Some("webchat-guest-key-v1".to_owned()), typ: None, ..Header::new(alg) };
    let by_public_key =
        jsonwebtoken::encode(&header(Algorithm::HS256), &claims, &EncodingKey::from_secret(pem.as_bytes())).unwrap();
    let rest = good.split_once('.').unwrap().1;
    let (message, signature) = good.rsplit_once('.').unwrap();
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    let unknown_kid = "eyJhbGciOiJSUzI1NiIsImtpZCI6IndlYmNoYXQtZ3Vlc3Qta2V5LXY5In0"; // {"alg":"RS256","kid":"webchat-guest-key-v9"}
    let elsewhere = tempfile::tempdir().unwrap();
    let bad = [
        (format!("{message}.{flipped}{}", &signature[1..]), "ERR_JWS_SIGNATURE_VERIFICATION_FAILED", "InvalidSignatureError"),
        (expired(here), "ERR_JWT_EXPIRED", "ExpiredSignatureError"),
        (by_public_key, "ERR_JOSE_ALG_NOT_ALLOWED", "InvalidAlgorithmError"),
        (format!("{unknown_kid}.{rest}"), "ERR_JWKS_NO_MATCHING_KEY", "PyJWKClientError"),
        (
            run_in(elsewhere.path(), &["token", "sign", "--guest", "ann"], &[]).ok().stdout.trim_end().to_owned(),
            "ERR_JWS_SIGNATURE_VERIFICATION_FAILED",
            "InvalidSignatureError",
        ),
    ];
    for (at, script) in ["verify.mjs", "verify.py"].into_iter().enumerate() {
        assert_eq!(verify(script, &url, &good).ok().stdout, "ann\n", "{script}");
        for (token, jose, pyjwt) in &bad {
            let ended = verify(script, &url, token);
            let why = [jose, pyjwt][at];
            assert!(ended.code == 1 && ended.stdout.is_empty() && ended.stderr.contains(why), "{script} {why}: {}", ended.stderr);
        }
    }

    run(&["keys", "revoke", "webchat-guest-key-v1", "--yes"]);
    *set.lock().unwrap() = run(&["keys", "export", "--format", "jwks"]);
    let fresh = run(&["token", "sign", "--guest", "bob"]);
    for script in ["verify.mjs", "verify.py"] {
        assert_ne!(verify(script, &url, &good).code, 0, "{script}: its key is revoked");
        assert_eq!(verify(script, &url, &fresh).ok().stdout, "bob\n", "{script}: by the key that took over");
    }
}

#[test]
fn the_documentation_shows_the_programs_that_are_tested() {
    let documentation = std::fs::read_to_string(repository().join("docs/tokens.md")).unwrap();
    for script in ["verify.mjs", "verify.py"] {
        let program = std::fs::read_to_string(repository().join("interop/tokens").join(script)).unwrap();
        assert!(program.lines().count() <= 25 && documentation.contains(program.trim_end()), "{script}");
    }
}
