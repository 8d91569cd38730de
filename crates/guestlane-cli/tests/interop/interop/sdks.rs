//! The SDKs of the platform talk to the simulator.

use super::*;

const REGION: &str = "mypurecloud.de";

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
