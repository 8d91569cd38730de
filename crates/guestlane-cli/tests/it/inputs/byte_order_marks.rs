//! A byte order mark is ignored in every file.

use super::*;

#[test]
fn byte_order_mark_is_ignored_in_settings_and_ca_files() {
    let cli = TestCli::open(&["--tls"]);
    cli.write(
        "guestlane.toml",
        "\u{feff}[genesys]\nfirst_message = \"Hi\"\n",
    );
    let shown = cli.run(&["config", "show"]).ok().stdout;
    assert!(shown.contains("guestlane.toml"), "{shown}");
    let ca = fs::read_to_string(cli.startup["caFile"].as_str().unwrap()).unwrap();
    let run = |name: &str, pem: &str| {
        cli.write(name, pem);
        let mut command = cli.command(&["create", "--guest", "ann", "--idempotency-key", "k"]);
        Exited::of(
            command
                .env("GENESYS_CA_FILE", name)
                .env("CRM_CA_FILE", name)
                .output()
                .unwrap(),
        )
    };
    run("bom.pem", &format!("\u{feff}{ca}")).ok();
    let glued = run("glued.pem", &format!("{}{ca}", ca.trim_end()));
    let line = ca.trim_end().lines().count();
    assert!(
        glued.code == 2
            && glued.stderr.contains(&format!(
                "has other text beside -----BEGIN …----- in line {line}"
            )),
        "{}",
        glued.stderr
    );
    let trusted = run(
        "trusted.pem",
        &format!("{ca}{}", ca.replace("CERTIFICATE", "TRUSTED CERTIFICATE")),
    );
    assert!(
        trusted.code == 2
            && trusted
                .stderr
                .contains("has an unsupported section `TRUSTED CERTIFICATE` in line"),
        "{}",
        trusted.stderr
    );
}

#[test]
fn byte_order_mark_is_ignored_in_key_proof_and_checkpoint_files() {
    let cli = TestCli::open(&[]);
    let session = cli.run(&["create", "--guest", "ann", "--json"]).ok().json()["sessionId"]
        .as_str()
        .unwrap()
        .to_owned();
    cli.write(
        "key.txt",
        &format!("\u{feff}{}", cli.run(&["audit", "key"]).ok().stdout),
    );
    cli.write(
        "proof.json",
        &format!(
            "\u{feff}{}",
            cli.run(&["audit", "prove", &session]).ok().stdout
        ),
    );
    cli.run(&[
        "audit",
        "verify",
        "--key",
        "key.txt",
        "--proof",
        "proof.json",
    ])
    .ok();
    let checkpoint = cli.read("audit/session-audit.jsonl.checkpoint");
    cli.write("kept.txt", &format!("\u{feff}{checkpoint}"));
    cli.run(&["audit", "verify", "--checkpoint", "kept.txt"])
        .ok();
    let master = cli.directory.path().join(".guestlane/master.key");
    let key = fs::read_to_string(&master).unwrap();
    fs::write(&master, format!("\u{feff}{key}\r\n")).unwrap();
    cli.run(&["create", "--guest", "bob"]).ok();
}
