//! The public platform's surfaces from the command line: regions and TLS, dry run, and `doctor`.

use serde_json::{Value, json};

use crate::harness::{Ended, Office, SUPPORT};

const WEB: [(&str, &str); 2] = [
    ("GUESTLANE_SURFACE", "web-messaging"),
    ("GUESTLANE_PLATFORM_RATE_LIMIT", "off"),
];

fn run(office: &Office, arguments: &[&str], settings: &[(&str, &str)]) -> Ended {
    let mut command = office.command(arguments);
    Ended::of(
        command
            .envs(WEB)
            .envs(settings.iter().copied())
            .output()
            .unwrap(),
    )
}

fn findings(ended: &Ended) -> Vec<Value> {
    ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Asserts that neither the platform nor the state directory has anything new.
fn assert_nothing_was_created(office: &Office) {
    let state = office.state();
    assert_eq!(
        (
            &state["contacts"],
            &state["conversations"],
            &state["guestSessions"],
            &state["linked"],
            &state["transfers"]
        ),
        (&json!(0), &json!(0), &json!(0), &json!(0), &json!(0)),
        "{state}"
    );
    assert!(
        !office.directory.path().join(".guestlane").exists(),
        "nor here"
    );
}

#[test]
fn a_session_on_each_official_surface_has_what_the_caller_needs() {
    let office = Office::open(&["--rate-limit", "off"]);
    let web = run(
        &office,
        &[
            "create",
            "--guest",
            "ann",
            "--email",
            "ann@example.org",
            "--json",
        ],
        &[],
    )
    .ok()
    .json();
    assert_eq!(
        (&web["state"], &web["surface"]),
        (&json!("open"), &json!("web-messaging"))
    );
    let guest = &web["guestSession"];
    assert_eq!(guest["deploymentId"], office.says["deploymentId"]);
    assert!(
        guest["token"].as_str().unwrap().len() == 36
            && guest["expiresAt"].as_str().unwrap().ends_with('Z'),
        "{guest}"
    );
    let open = run(
        &office,
        &["create", "--guest", "bob", "--json"],
        &[("GUESTLANE_SURFACE", "open-messaging")],
    )
    .ok()
    .json();
    assert_eq!(
        (&open["surface"], &open["guestSession"]),
        (&json!("open-messaging"), &Value::Null)
    );
    office.assert_each_guest_once(2);

    let shown = run(
        &office,
        &[
            "sessions",
            "show",
            web["sessionId"].as_str().unwrap(),
            "--json",
        ],
        &[],
    )
    .ok()
    .json();
    assert_eq!(
        shown["guestSession"]["token"],
        Value::Null,
        "a secret is shown when it is asked for"
    );
    let asked = run(
        &office,
        &[
            "sessions",
            "show",
            web["sessionId"].as_str().unwrap(),
            "--json",
            "--show-token",
        ],
        &[],
    )
    .ok()
    .json();
    assert_eq!(asked["guestSession"]["token"], guest["token"]);
    let text = run(&office, &["create", "--guest", "eve"], &[]).ok().stdout;
    assert!(!text.contains("session token"), "{text}");
}

#[test]
fn a_batch_carries_names_and_addresses() {
    let office = Office::open(&["--rate-limit", "off"]);
    office
        .write("rows.csv", "guest_id,first_name,last_name,email,phone\nann,Ann,Guest,ann@example.org,+31 20 555 0100\nbob,,,,\n");
    run(&office, &["batch", "rows.csv"], &[]).ok();
    office.assert_each_guest_once(2);
    let sent: Value =
        serde_json::from_str(office.journal("contact")[0]["body"].as_str().unwrap()).unwrap();
    let of_ann = [&office.journal("contact")[0], &office.journal("contact")[1]]
        .into_iter()
        .any(|entry| {
            entry["body"].as_str().unwrap().contains(
                r#""firstName":"Ann","lastName":"Guest","personalEmail":"ann@example.org""#,
            )
        });
    assert!(of_ann, "{sent}");
    office.write("bad.csv", "guest_id,email\nann,nobody\n");
    let refused = run(&office, &["batch", "bad.csv"], &[]);
    assert!(
        refused.code == 3 && refused.stderr.contains("email"),
        "{}",
        refused.stderr
    );
}

#[test]
fn by_the_name_of_a_region_over_tls_with_a_ca_of_ones_own() {
    let office = Office::open(&["--rate-limit", "off", "--tls", "--region", "localhost"]);
    let port = office.says["baseUrl"]
        .as_str()
        .unwrap()
        .rsplit(':')
        .next()
        .unwrap()
        .to_owned();
    let region = format!("localhost:{port}");
    let by_region = [
        ("GENESYS_BASE_URL", ""),
        ("GENESYS_REGION", region.as_str()),
    ];
    let created = run(&office, &["create", "--guest", "ann", "--json"], &by_region)
        .ok()
        .json();
    assert_eq!(created["state"], "open");
    run(&office, &["doctor"], &by_region).ok();
    let distrusting = [by_region[0], by_region[1], ("GENESYS_CA_FILE", "")];
    let refused = run(&office, &["doctor", "--json"], &distrusting);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stdout.contains("certificate") && refused.stdout.contains("GENESYS_CA_FILE"),
        "{}",
        refused.stdout
    );
}

#[test]
fn a_dry_run_shows_what_is_then_sent_and_sends_nothing_but_the_question() {
    let office = Office::open(&["--rate-limit", "off"]);
    let arguments = [
        "create",
        "--guest",
        "ann",
        "--attr",
        "tier=gold",
        "--json",
        "--queue",
        SUPPORT,
    ];
    let dry = run(&office, &[&arguments[..], &["--dry-run"]].concat(), &[])
        .ok()
        .json();
    assert_nothing_was_created(&office);
    assert_eq!(
        (&dry["quotaCost"], &dry["contact"]["would"]),
        (&json!(4), &json!("create"))
    );
    run(&office, &arguments, &[]).ok();
    let planned: Vec<(String, String)> = dry["calls"]
        .as_array()
        .unwrap()
        .iter()
        .map(|call| {
            (
                call["method"].as_str().unwrap().to_owned(),
                call["body"].to_string(),
            )
        })
        .collect();
    let enrich = office.journal("contact").pop().unwrap();
    let sent: Value = serde_json::from_str(enrich["body"].as_str().unwrap()).unwrap();
    assert!(
        planned.contains(&("POST".to_owned(), sent.to_string())),
        "{planned:?}"
    );
    let message: Value =
        serde_json::from_str(office.journal("message")[0]["body"].as_str().unwrap()).unwrap();
    let planned_message = planned
        .iter()
        .find(|(method, body)| method == "FRAME" && body.contains("onMessage"))
        .unwrap();
    let planned_message: Value = serde_json::from_str(&planned_message.1).unwrap();
    assert_eq!(planned_message["message"], message["message"]);
    let bytes = "guestId".len() + 3 + "routingTarget".len() + 36 + "tiergold".len();
    assert_eq!(dry["attributeBytes"], bytes);
    let calls = |state: &Value| {
        ["contact", "details", "conversation-read", "link"]
            .map(|route| state["calls"][route].as_u64().unwrap())
            .iter()
            .sum::<u64>()
    };
    assert_eq!(
        calls(&office.state()),
        4 + 1,
        "what it costs, and the question of the dry run"
    );
    let known = run(&office, &[&arguments[..], &["--dry-run"]].concat(), &[])
        .ok()
        .json();
    assert_eq!(known["contact"]["would"], "update");
}

#[test]
fn doctor_finds_all_well_and_changes_nothing() {
    let office = Office::open(&["--rate-limit", "300/min"]);
    for surface in ["rest", "web-messaging", "open-messaging"] {
        let ended = run(
            &office,
            &["doctor", "--json"],
            &[
                ("GUESTLANE_SURFACE", surface),
                ("GENESYS_MOVE_TO_QUEUE", "true"),
            ],
        )
        .ok();
        let findings = findings(&ended);
        assert!(
            findings
                .iter()
                .all(|finding| finding["outcome"] != "failed"),
            "{surface}: {findings:?}"
        );
        assert!(findings.len() > 9, "{surface}: {findings:?}");
    }
    assert_nothing_was_created(&office);
}

#[test]
fn doctor_names_what_is_wrong_why_and_what_to_do() {
    let office = Office::open(&["--rate-limit", "off"]);
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
        let ended = run(&office, &["doctor", "--json"], &[(setting, value)]);
        assert_eq!(ended.code, 1, "{setting}={value}: {}", ended.stdout);
        let findings = findings(&ended);
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
    office.admin("POST", "/_sim/clock", r#"{"advanceSeconds": 7200}"#);
    let late = run(&office, &["doctor"], &[]);
    assert!(
        late.code == 1
            && late.stdout.contains("behind the platform")
            && late.stdout.contains("timedatectl"),
        "{}",
        late.stdout
    );
    assert_nothing_was_created(&office);
}

#[test]
fn an_origin_that_the_deployment_does_not_allow_is_found_before_and_told_after() {
    let office = Office::open(&["--rate-limit", "off", "--allow-origin", "example.com"]);
    let found = run(&office, &["doctor"], &[]);
    assert!(
        found.code == 1 && found.stdout.contains("GENESYS_ORIGIN"),
        "{}",
        found.stdout
    );
    let refused = run(
        &office,
        &["create", "--guest", "ann", "--idempotency-key", "a"],
        &[],
    );
    assert!(
        refused.code == 1 && refused.stderr.contains("GENESYS_ORIGIN"),
        "{}",
        refused.stderr
    );
    let allowed = [("GENESYS_ORIGIN", "https://shop.example.com")];
    run(&office, &["doctor"], &allowed).ok();
    run(
        &office,
        &["create", "--guest", "ann", "--idempotency-key", "a"],
        &allowed,
    )
    .ok();
    office.assert_each_guest_once(1);
}

#[test]
fn a_region_that_was_mistyped_claims_no_store() {
    let office = Office::open(&["--rate-limit", "off"]);
    let base = office.says["baseUrl"].as_str().unwrap().to_owned();
    let wrong = [
        ("GENESYS_BASE_URL", ""),
        ("GENESYS_REGION", "localhost:1"),
        ("GUESTLANE_MAX_RETRIES", "0"),
    ];
    assert_eq!(run(&office, &["create", "--guest", "ann"], &wrong).code, 1);
    run(
        &office,
        &["create", "--guest", "ann"],
        &[("GENESYS_BASE_URL", &base)],
    )
    .ok();
    let elsewhere = run(&office, &["create", "--guest", "bob"], &wrong);
    assert!(
        elsewhere.code == 2 && elsewhere.stderr.contains("belongs to the platform"),
        "{}",
        elsewhere.stderr
    );
    let found = run(&office, &["doctor"], &wrong);
    assert!(
        found.stdout.contains("belongs to the platform"),
        "{}",
        found.stdout
    );
}

#[test]
fn a_batch_keeps_to_what_the_quota_can_serve() {
    let office = Office::open(&["--rate-limit", "600/min"]);
    let rows: String = (0..24).map(|row| format!("guest-{row}\n")).collect();
    office.write("rows.csv", &format!("guest_id\n{rows}"));
    run(
        &office,
        &["batch", "rows.csv", "--max-concurrency", "64"],
        &[
            ("GUESTLANE_PLATFORM_RATE_LIMIT", "600/min"),
            ("GUESTLANE_SESSION_TIMEOUT", "6s"),
        ],
    )
    .ok();
    office.assert_each_guest_once(24);
    assert_eq!(office.state()["throttled"], 0);
}
