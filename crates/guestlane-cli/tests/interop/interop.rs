//! Interoperability with third-party programs; `interop/README.md` lists their requirements.

mod sdks;
mod tokens;
mod webhooks;

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

use tokens::TOKEN_PROGRAMS;
use webhooks::WEBHOOK_PROGRAMS;

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
