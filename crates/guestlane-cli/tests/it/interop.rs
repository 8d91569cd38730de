//! Other people's programs agree: see `interop/README.md` for what they need.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::json;

use crate::office::{CRM_SECRET, Ended, Office};

fn repository() -> PathBuf {
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
