//! The public platform's surfaces from the command line: regions and TLS, dry run, and `doctor`.

mod doctor;

use guestlane_testkit::cli::{Exited, SUPPORT, TestCli};
use serde_json::{Value, json};

const WEB: [(&str, &str); 2] = [
    ("GUESTLANE_SURFACE", "web-messaging"),
    ("GUESTLANE_PLATFORM_RATE_LIMIT", "off"),
];

fn run(cli: &TestCli, arguments: &[&str], settings: &[(&str, &str)]) -> Exited {
    let mut command = cli.command(arguments);
    Exited::of(
        command
            .envs(WEB)
            .envs(settings.iter().copied())
            .output()
            .unwrap(),
    )
}

/// Asserts that neither the platform nor the state directory has anything new.
fn assert_nothing_was_created(cli: &TestCli) {
    let state = cli.state();
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
        !cli.directory.path().join(".guestlane").exists(),
        "nor here"
    );
}

#[test]
fn web_messaging_returns_a_guest_session_and_open_messaging_none() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    let web = run(
        &cli,
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
    assert_eq!(guest["deploymentId"], cli.startup["deploymentId"]);
    assert!(
        guest["token"].as_str().unwrap().len() == 36
            && guest["expiresAt"].as_str().unwrap().ends_with('Z'),
        "{guest}"
    );
    let open = run(
        &cli,
        &["create", "--guest", "bob", "--json"],
        &[("GUESTLANE_SURFACE", "open-messaging")],
    )
    .ok()
    .json();
    assert_eq!(
        (&open["surface"], &open["guestSession"]),
        (&json!("open-messaging"), &Value::Null)
    );
    cli.assert_each_guest_once(2);

    let shown = run(
        &cli,
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
        "a secret is shown on request"
    );
    let asked = run(
        &cli,
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
    let text = run(&cli, &["create", "--guest", "eve"], &[]).ok().stdout;
    assert!(!text.contains("session token"), "{text}");
}

#[test]
fn batch_sends_names_and_email_with_the_contact() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    cli
        .write("rows.csv", "guest_id,first_name,last_name,email,phone\nann,Ann,Guest,ann@example.org,+31 20 555 0100\nbob,,,,\n");
    run(&cli, &["batch", "rows.csv"], &[]).ok();
    cli.assert_each_guest_once(2);
    let sent: Value =
        serde_json::from_str(cli.journal("contact")[0]["body"].as_str().unwrap()).unwrap();
    let of_ann = [&cli.journal("contact")[0], &cli.journal("contact")[1]]
        .into_iter()
        .any(|entry| {
            entry["body"].as_str().unwrap().contains(
                r#""firstName":"Ann","lastName":"Guest","personalEmail":"ann@example.org""#,
            )
        });
    assert!(of_ann, "{sent}");
    cli.write("bad.csv", "guest_id,email\nann,no-address\n");
    let refused = run(&cli, &["batch", "bad.csv"], &[]);
    assert!(
        refused.code == 3 && refused.stderr.contains("email"),
        "{}",
        refused.stderr
    );
}

#[test]
fn region_over_tls_is_trusted_by_the_configured_ca_file() {
    let cli = TestCli::open(&["--rate-limit", "off", "--tls", "--region", "localhost"]);
    let port = cli.startup["baseUrl"]
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
    let created = run(&cli, &["create", "--guest", "ann", "--json"], &by_region)
        .ok()
        .json();
    assert_eq!(created["state"], "open");
    run(&cli, &["doctor"], &by_region).ok();
    let distrusting = [by_region[0], by_region[1], ("GENESYS_CA_FILE", "")];
    let refused = run(&cli, &["doctor", "--json"], &distrusting);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stdout.contains("certificate") && refused.stdout.contains("GENESYS_CA_FILE"),
        "{}",
        refused.stdout
    );
}

#[test]
fn create_dry_run_predicts_calls_and_only_looks_up_the_contact() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
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
    let dry = run(&cli, &[&arguments[..], &["--dry-run"]].concat(), &[])
        .ok()
        .json();
    assert_nothing_was_created(&cli);
    assert_eq!(
        (&dry["rateLimitedCalls"], &dry["contact"]["would"]),
        (&json!(4), &json!("create"))
    );
    run(&cli, &arguments, &[]).ok();
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
    let enrich = cli.journal("contact").pop().unwrap();
    let sent: Value = serde_json::from_str(enrich["body"].as_str().unwrap()).unwrap();
    assert!(
        planned.contains(&("POST".to_owned(), sent.to_string())),
        "{planned:?}"
    );
    let message: Value =
        serde_json::from_str(cli.journal("message")[0]["body"].as_str().unwrap()).unwrap();
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
        calls(&cli.state()),
        4 + 1,
        "what it costs, and the question of the dry run"
    );
    let known = run(&cli, &[&arguments[..], &["--dry-run"]].concat(), &[])
        .ok()
        .json();
    assert_eq!(known["contact"]["would"], "update");
}

#[test]
fn store_is_bound_only_to_a_platform_that_responds() {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    let base = cli.startup["baseUrl"].as_str().unwrap().to_owned();
    let wrong = [
        ("GENESYS_BASE_URL", ""),
        ("GENESYS_REGION", "localhost:1"),
        ("GUESTLANE_MAX_RETRIES", "0"),
    ];
    assert_eq!(run(&cli, &["create", "--guest", "ann"], &wrong).code, 1);
    run(
        &cli,
        &["create", "--guest", "ann"],
        &[("GENESYS_BASE_URL", &base)],
    )
    .ok();
    let another = run(&cli, &["create", "--guest", "bob"], &wrong);
    assert!(
        another.code == 2 && another.stderr.contains("belongs to the platform"),
        "{}",
        another.stderr
    );
    let found = run(&cli, &["doctor"], &wrong);
    assert!(
        found.stdout.contains("belongs to the platform"),
        "{}",
        found.stdout
    );
}

#[test]
fn batch_stays_within_the_rate_limit() {
    let cli = TestCli::open(&["--rate-limit", "600/min"]);
    let rows: String = (0..24).map(|row| format!("guest-{row}\n")).collect();
    cli.write("rows.csv", &format!("guest_id\n{rows}"));
    run(
        &cli,
        &["batch", "rows.csv", "--max-concurrency", "64"],
        &[
            ("GUESTLANE_PLATFORM_RATE_LIMIT", "600/min"),
            ("GUESTLANE_SESSION_TIMEOUT", "6s"),
        ],
    )
    .ok();
    cli.assert_each_guest_once(24);
    assert_eq!(cli.state()["throttled"], 0);
}
