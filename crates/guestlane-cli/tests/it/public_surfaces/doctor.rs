//! `guestlane doctor` on the public surfaces.

use super::*;

fn findings(exited: &Exited) -> Vec<Value> {
    exited
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn doctor_passes_on_every_surface_and_changes_nothing() {
    let cli = TestCli::open(&["--rate-limit", "300/min"]);
    for surface in ["rest", "web-messaging", "open-messaging"] {
        let exited = run(
            &cli,
            &["doctor", "--json"],
            &[
                ("GUESTLANE_SURFACE", surface),
                ("GENESYS_MOVE_TO_QUEUE", "true"),
            ],
        )
        .ok();
        let findings = findings(&exited);
        assert!(
            findings
                .iter()
                .all(|finding| finding["outcome"] != "failed"),
            "{surface}: {findings:?}"
        );
        assert!(findings.len() > 9, "{surface}: {findings:?}");
    }
    assert_nothing_was_created(&cli);
}

#[test]
fn doctor_names_the_failing_check_and_its_fix() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    for (setting, value, check, fix) in [
        (
            "GENESYS_CLIENT_SECRET",
            "wrong",
            "credentials",
            "GENESYS_CLIENT_SECRET",
        ),
        (
            "GENESYS_QUEUE_ID",
            "5e0c0000-0000-4000-8000-0000000000ff",
            "queue",
            "GENESYS_QUEUE_ID",
        ),
        (
            "GENESYS_DEPLOYMENT_ID",
            "dddd0000-0000-4000-8000-0000000000ff",
            "deployment",
            "GENESYS_DEPLOYMENT_ID",
        ),
        (
            "GENESYS_EXTERNAL_SOURCE_ID",
            "2b1d0000-0000-4000-8000-0000000000ff",
            "external source",
            "GENESYS_EXTERNAL_SOURCE_ID",
        ),
        (
            "GENESYS_API_URL",
            "http://127.0.0.1:9",
            "host api",
            "firewall",
        ),
        (
            "CRM_WEBHOOK_URL",
            "http://127.0.0.1:9/x",
            "crm 127.0.0.1:9",
            "start the CRM",
        ),
        (
            "CRM_ALLOW_PRIVATE_NETWORKS",
            "false",
            "crm 127.0.0.1",
            "CRM_ALLOW_PRIVATE_NETWORKS",
        ),
        ("GENESYS_DEPLOYMENT_ID", "shop", "settings", "UUID"),
    ] {
        let exited = run(&cli, &["doctor", "--json"], &[(setting, value)]);
        assert_eq!(exited.code, 1, "{setting}={value}: {}", exited.stdout);
        let findings = findings(&exited);
        let bad: Vec<_> = findings
            .iter()
            .filter(|finding| finding["outcome"] == "failed")
            .collect();
        let named = bad.iter().any(|finding| {
            finding["check"].as_str().unwrap().starts_with(check)
                && finding["fix"].as_str().unwrap_or_default().contains(fix)
        });
        assert!(named, "{setting}={value}: {bad:?}");
    }
    cli.admin("POST", "/_sim/clock", r#"{"advanceSeconds": 7200}"#);
    let late = run(&cli, &["doctor"], &[]);
    assert!(
        late.code == 1
            && late.stdout.contains("behind the platform")
            && late.stdout.contains("timedatectl"),
        "{}",
        late.stdout
    );
    assert_nothing_was_created(&cli);
}

#[test]
fn disallowed_origin_is_reported_by_doctor_and_create() {
    let cli = TestCli::open(&["--rate-limit", "off", "--allow-origin", "example.com"]);
    let found = run(&cli, &["doctor"], &[]);
    assert!(
        found.code == 1 && found.stdout.contains("GENESYS_ORIGIN"),
        "{}",
        found.stdout
    );
    let refused = run(
        &cli,
        &["create", "--guest", "ann", "--idempotency-key", "a"],
        &[],
    );
    assert!(
        refused.code == 1 && refused.stderr.contains("GENESYS_ORIGIN"),
        "{}",
        refused.stderr
    );
    let allowed = [("GENESYS_ORIGIN", "https://shop.example.com")];
    run(&cli, &["doctor"], &allowed).ok();
    run(
        &cli,
        &["create", "--guest", "ann", "--idempotency-key", "a"],
        &allowed,
    )
    .ok();
    cli.assert_each_guest_once(1);
}
