//! Webhooks are verified by programs in other languages.

use super::*;

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

/// The files of the programs in `docs/crm.md`.
pub(super) const WEBHOOK_PROGRAMS: [&str; 5] = [
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
