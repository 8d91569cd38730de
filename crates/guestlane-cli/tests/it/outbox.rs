//! `guestlane outbox`: webhook secrets, their rotation, and endpoints that answer 410 Gone.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    thread,
};

use guestlane_testkit::cli::{CRM_SECRET, Exited, TestCli, run_in};

const TWO: (&str, &str) = (
    "CRM_WEBHOOK_URL",
    "https://crm.example.com/a https://bi.example.com/b",
);

#[test]
fn each_webhook_endpoint_has_its_own_rotatable_secret() {
    let directory = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        run_in(
            directory.path(),
            &[&["outbox", "secret"], arguments].concat(),
            &[TWO],
        )
    };
    let listed = run(&[]).ok().stdout;
    let secrets: Vec<_> = listed
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .collect();
    assert!(
        secrets[0].0 == "1" && secrets[1].0 == "2" && secrets[0].1 != secrets[1].1,
        "{listed}"
    );
    assert_eq!(run(&["--endpoint", "2"]).ok().stdout.trim(), secrets[1].1);

    let which = run(&["--rotate"]);
    assert!(
        which.code == 2 && which.stderr.contains("--endpoint is missing"),
        "{}",
        which.stderr
    );
    let rotated = run(&["--endpoint", "2", "--rotate", "--json"]).ok().json();
    assert_ne!(rotated["webhookSecret"], secrets[1].1);
    assert!(rotated["earlierSignsUntil"].is_string(), "{rotated}");
    assert_eq!(
        run(&["--endpoint", "1"]).ok().stdout.trim(),
        secrets[0].1,
        "the other one stays"
    );
    let exited = run(&["--endpoint", "2", "--rotate", "--overlap", "0h", "--json"])
        .ok()
        .json();
    assert!(exited["earlierSignsUntil"].is_null(), "{exited}");
    assert!(
        run_in(directory.path(), &["audit", "show"], &[])
            .ok()
            .stdout
            .contains("webhook_key.rotate")
    );

    let public = run(&["--endpoint", "1", "--ed25519"]).ok().stdout;
    assert!(
        public.starts_with("whpk_") && run(&["--endpoint", "1", "--ed25519"]).ok().stdout == public
    );
    assert_ne!(
        run(&["--endpoint", "1", "--ed25519", "--rotate"])
            .ok()
            .stdout,
        public
    );

    for (arguments, field) in [
        (&["--endpoint", "3"][..], "--endpoint"),
        (&["--endpoint", "0", "--rotate"], "endpoint's number"),
        (
            &["--endpoint", "1", "--rotate", "--overlap", "91d"],
            "overlap is longer than 90 days",
        ),
        (
            &["--endpoint", "1", "--rotate", "--overlap", "soon"],
            "--overlap",
        ),
    ] {
        let refused = run(arguments);
        assert!(
            refused.code == 2 && refused.stderr.contains(field),
            "{arguments:?}: {}",
            refused.stderr
        );
    }
}

#[test]
fn webhook_secret_from_settings_is_rotated_in_settings() {
    let cli = TestCli::open(&[]);
    let refused = cli.run(&["outbox", "secret", "--rotate"]);
    assert!(
        refused.code == 2 && refused.stderr.contains("CRM_WEBHOOK_SECRET is set"),
        "{}",
        refused.stderr
    );
    assert!(refused.stderr.contains("NEW,OLD"), "{}", refused.stderr);
    let new = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let both = format!("{new},{CRM_SECRET}");
    let created = cli
        .command(&["create", "--guest", "ann"])
        .env("CRM_WEBHOOK_SECRET", &both)
        .output()
        .unwrap();
    Exited::of(created).ok();
    assert_eq!(
        cli.state()["crm"]["badSignature"],
        0,
        "the receiver still has the old one"
    );
    let sent = cli.journal("crm").remove(0);
    assert_eq!(
        sent["headers"]["webhook-signature"]
            .as_str()
            .unwrap()
            .matches("v1,")
            .count(),
        2
    );
}

/// Starts a receiver that answers 410 to the first request and 204 to all others.
fn start_receiver_answering_410_once() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    thread::spawn(move || {
        for (number, mut stream) in listener.incoming().flatten().enumerate() {
            let head = BufReader::new(&stream).lines().map_while(Result::ok);
            let _ = head.take_while(|line| !line.is_empty()).count();
            let status = if number == 0 {
                "410 Gone"
            } else {
                "204 No Content"
            };
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
        }
    });
    url
}

#[test]
fn endpoint_disabled_by_410_is_reported_and_can_be_enabled() {
    let cli = TestCli::open(&[]);
    let crm = start_receiver_answering_410_once();
    let run = |arguments: &[&str]| {
        Exited::of(
            cli.command(arguments)
                .env("CRM_WEBHOOK_URL", &crm)
                .output()
                .unwrap(),
        )
    };
    let created = run(&["create", "--guest", "ann"]).ok();
    assert!(
        created
            .stderr
            .contains("responded with 410 Gone; disabling it"),
        "{}",
        created.stderr
    );
    let listed = run(&["outbox", "list"]).ok();
    assert!(
        listed.stderr.contains("guestlane outbox enable 1") && listed.stdout.contains("HTTP 410"),
        "{}",
        listed.stderr
    );
    let waits = run(&["outbox", "deliver", "--json"]);
    assert_eq!(
        (waits.code, &waits.json()["pending"]),
        (1, &1.into()),
        "{}",
        waits.stderr
    );
    assert!(
        waits.stderr.contains("guestlane outbox enable 1"),
        "{}",
        waits.stderr
    );
    let result = run(&["doctor"]).stdout;
    assert!(
        result.contains("warn  webhook endpoint 1: disabled since")
            && result.contains("outbox enable 1"),
        "{result}"
    );
    assert!(
        run(&["outbox", "enable", "1"])
            .ok()
            .stdout
            .contains("is enabled again")
    );
    assert!(!run(&["doctor"]).stdout.contains("webhook endpoint"));
    assert!(
        run(&["outbox", "enable", "1"])
            .ok()
            .stdout
            .contains("is not disabled")
    );
    assert_eq!(
        run(&["outbox", "deliver", "--json"]).ok().json()["delivered"],
        1
    );
}
