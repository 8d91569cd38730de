//! Interoperability with programs that know only the service's OpenAPI document; see
//! `interop/service` and `interop/clients`.

use std::process::Command;

use serde_json::Value;

use crate::{
    harness::{Ended, Office},
    interop::repository,
    service_process::Served,
};

fn playground() -> (Office, Served, String) {
    let office = Office::open(&["--rate-limit", "off"]);
    office.register_keys();
    let key = office.api_key("admin");
    let served = office.serve(
        &[],
        &[
            ("GUESTLANE_PLATFORM_RATE_LIMIT", "off"),
            ("GUESTLANE_API_KEY_RATE_LIMIT", "off"),
        ],
    );
    (office, served, key)
}

/// Returns the last line of a program's output, as JSON.
fn said(program: &mut Command) -> Value {
    let ended = Ended::of(program.output().unwrap());
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    serde_json::from_str(ended.stdout.lines().last().unwrap()).unwrap()
}

#[test]
#[ignore = "needs Python with schemathesis (.ci/run installs it); takes some minutes"]
fn five_thousand_requests_of_a_fuzzer_find_nothing_that_the_document_does_not_say() {
    let (office, served, key) = playground();
    let python = repository().join("target/interop/python/bin/python");
    let mut fuzz = Command::new(python);
    fuzz.arg(repository().join("interop/service/fuzz.py"))
        .args([served.address.as_str(), key.as_str()]);
    let count = said(&mut fuzz);
    assert!(
        count["cases"].as_u64().unwrap() >= 5000 && count["withoutKey"].as_u64().unwrap() > 100,
        "{count}"
    );
    assert_eq!(count["findings"], 0);
    assert!(
        !served.log.lock().unwrap().contains("panicked"),
        "{}",
        served.log.lock().unwrap()
    );
    // Whatever was sent, no session was created twice.
    assert_eq!(
        office.state()["duplicates"]["idempotencyKeys"]
            .as_u64()
            .unwrap_or(0),
        0
    );
}

#[test]
#[ignore = "needs Node.js with openapi-typescript, and Python with openapi-python-client (.ci/run installs them)"]
fn clients_in_two_languages_are_generated_from_the_document_and_create_a_session() {
    let (office, served, key) = playground();
    for language in ["typescript", "python"] {
        let mut client = Command::new("bash");
        client
            .arg(repository().join(format!("interop/clients/{language}/run.sh")))
            .args([served.address.as_str(), key.as_str()]);
        let seen = said(&mut client);
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
    office.assert_each_guest_once(2);
}
