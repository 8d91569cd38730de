//! Interoperability with programs that know only the service's OpenAPI document; see
//! `interop/service` and `interop/clients`.

use std::process::Command;

use serde_json::Value;

use guestlane_testkit::{
    cli::{Exited, TestCli},
    service_process::ServiceProcess,
};

use guestlane_testkit::repository;

fn start_service_with_admin_key() -> (TestCli, ServiceProcess, String) {
    let cli = TestCli::open(&["--rate-limit", "off"]);
    cli.register_keys();
    let key = cli.api_key("admin");
    let service = cli.serve(
        &[],
        &[
            ("GUESTLANE_PLATFORM_RATE_LIMIT", "off"),
            ("GUESTLANE_API_KEY_RATE_LIMIT", "off"),
        ],
    );
    (cli, service, key)
}

/// Returns the last line of a program's output, as JSON.
fn last_json_line(program: &mut Command) -> Value {
    let exited = Exited::of(program.output().unwrap());
    assert_eq!(exited.code, 0, "{}{}", exited.stdout, exited.stderr);
    serde_json::from_str(exited.stdout.lines().last().unwrap()).unwrap()
}

#[test]
fn fuzzed_requests_conform_to_the_openapi_document() {
    let (cli, service, key) = start_service_with_admin_key();
    let python = repository().join("target/interop/python/bin/python");
    let mut fuzz = Command::new(python);
    fuzz.arg(repository().join("interop/service/fuzz.py"))
        .args([service.address.as_str(), key.as_str()]);
    let count = last_json_line(&mut fuzz);
    assert!(
        count["cases"].as_u64().unwrap() >= 5000 && count["withoutKey"].as_u64().unwrap() > 100,
        "{count}"
    );
    assert_eq!(count["findings"], 0);
    assert!(
        !service.log.lock().unwrap().contains("panicked"),
        "{}",
        service.log.lock().unwrap()
    );
    // Whatever was sent, no session was created twice.
    assert_eq!(
        cli.state()["duplicates"]["idempotencyKeys"]
            .as_u64()
            .unwrap_or(0),
        0
    );
}

#[test]
fn generated_clients_create_read_and_replay_sessions() {
    let (cli, service, key) = start_service_with_admin_key();
    for language in ["typescript", "python"] {
        let mut client = Command::new("bash");
        client
            .arg(repository().join(format!("interop/clients/{language}/run.sh")))
            .args([service.address.as_str(), key.as_str()]);
        let seen = last_json_line(&mut client);
        assert_eq!(
            (&seen["state"], &seen["read"], &seen["replayed"]),
            (&"open".into(), &"open".into(), &true.into()),
            "{language}: {seen}"
        );
        assert_eq!(
            (&seen["problem"], &seen["field"]),
            (&"unknown_queue".into(), &"queueId".into()),
            "{language}: {seen}"
        );
    }
    cli.assert_each_guest_once(2);
}
