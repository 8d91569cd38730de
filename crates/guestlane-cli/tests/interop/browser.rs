//! The pages in a real browser, with live traffic and faults.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use guestlane_testkit::cli::bare;

use guestlane_testkit::repository;

#[test]
fn dashboard_works_by_keyboard_in_both_themes_without_third_parties() {
    let mut demo = bare();
    demo.env("TMPDIR", std::env::temp_dir()).args([
        "demo",
        "--serve",
        "--listen",
        "127.0.0.1:0",
        "--json",
    ]);
    let mut demo = demo.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let startup: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    let (address, key) = (
        startup["address"].as_str().unwrap(),
        startup["key"].as_str().unwrap(),
    );

    let chromium = ["/usr/bin/chromium", "/usr/bin/chromium-browser"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .unwrap();
    let packages = repository().join("target/interop/node_modules/");
    let shots = repository().join("target/interop/screenshots");
    std::fs::create_dir_all(&shots).unwrap();
    let mut browser = Command::new("node");
    browser
        .arg(repository().join("interop/page/dashboard.mjs"))
        .arg(&packages)
        .args([address, key, chromium])
        .arg(&shots);
    let output = browser.output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{stdout}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let seen: Value = serde_json::from_str(stdout.trim()).unwrap();

    assert_eq!(
        seen["complaints"],
        serde_json::json!([]),
        "errors, warnings, and requests to others"
    );
    assert_eq!(
        (&seen["strangerSeesDashboard"], &seen["keyInAddress"]),
        (&false.into(), &false.into())
    );
    assert!(
        seen["wrongKey"]
            .as_str()
            .unwrap()
            .contains("no valid API key"),
        "{seen}"
    );
    assert_eq!(seen["rights"], "admin");
    let happened: Vec<_> = seen["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .map(|kind| kind.as_str().unwrap())
        .collect();
    assert!(
        happened.starts_with(&["admitted"])
            && happened.contains(&"call")
            && happened.contains(&"audit"),
        "{happened:?}"
    );
    assert_eq!(seen["timelineClosed"], true);
    assert!(
        seen["audit"].as_str().unwrap().starts_with("Verified"),
        "{seen}"
    );
    assert_eq!(seen["scrollsSideways"], false);
    for width in ["unreadableNarrow", "unreadableWide"] {
        assert_eq!(
            seen[width],
            serde_json::json!({"cut": 0, "times": 5, "touching": 0}),
            "{width}: {seen}"
        );
    }
    assert!(seen["operations"].as_u64().unwrap() >= 14, "{seen}");

    kill(
        Pid::from_raw(i32::try_from(demo.id()).unwrap()),
        Signal::SIGTERM,
    )
    .unwrap();
    let counts: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(
        counts["platform"]["duplicates"]["guests"],
        serde_json::json!([])
    );
    assert_eq!(demo.wait().unwrap().code(), Some(0));
}
