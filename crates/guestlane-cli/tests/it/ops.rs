//! The files in `ops/` for operators: complete, and consistent with the product.

use std::{collections::BTreeSet, fs, path::PathBuf};

use guestlane_cli::config::{SETTINGS, Settings};
use guestlane_testkit::{cli::run_in, repository};
use serde_json::Value;

pub(crate) fn ops(path: &str) -> PathBuf {
    repository().join("ops").join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn after<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines()
        .filter_map(move |line| line.trim().trim_start_matches("- ").strip_prefix(word))
        .map(str::trim)
}

#[test]
fn every_alert_has_firing_and_quiet_tests_and_a_runbook() {
    let (alerts, tests) = (
        read("ops/prometheus/alerts.yml"),
        read("ops/prometheus/alerts_test.yml"),
    );
    let names: Vec<&str> = after(&alerts, "alert:").collect();
    let pages: BTreeSet<String> = after(&alerts, "runbook_url:").map(str::to_owned).collect();
    assert!(
        names.len() > 10 && names.len() == pages.len(),
        "{names:?} {pages:?}"
    );
    for name in names {
        assert!(
            tests.contains(&format!("- alertname: {name}\n")),
            "{name} has no test in which it fires"
        );
        let quiet = tests.lines().any(|line| {
            line.contains(&format!("alertname: {name},")) && line.contains("exp_alerts: []")
        });
        assert!(quiet, "{name} has no test in which it does not fire");
        assert!(
            pages.iter().any(|page| read(page).contains(name)),
            "{name} is on no runbook page"
        );
    }
    let there = fs::read_dir(repository().join("docs/runbooks"))
        .unwrap()
        .flatten();
    let there: BTreeSet<String> = there
        .map(|entry| format!("docs/runbooks/{}", entry.file_name().display()))
        .collect();
    let readme = "docs/runbooks/README.md".to_owned();
    assert_eq!(
        there,
        pages.iter().cloned().chain([readme.clone()]).collect()
    );
    let list = read(&readme);
    for page in &pages {
        assert!(
            list.contains(page.rsplit('/').next().unwrap()),
            "{readme} does not list {page}"
        );
    }
}

#[test]
fn caller_error_codes_excluded_from_alerts_are_documented() {
    let mut lists = BTreeSet::new();
    for file in ["ops/prometheus/alerts.yml", "ops/grafana/guestlane.json"] {
        let text = read(file).replace("\\\"", "\"");
        let found: Vec<_> = text
            .split("code!~\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .map(str::to_owned)
            .collect();
        assert!(!found.is_empty(), "{file}");
        lists.extend(found.into_iter().filter(|list| list != "…"));
    }
    assert_eq!(lists.len(), 1, "everywhere the same: {lists:?}");
    for code in lists.iter().flat_map(|list| list.split('|')) {
        assert!(
            repository()
                .join("crates/guestlane-server/errors")
                .join(format!("{code}.md"))
                .exists(),
            "{code}"
        );
        assert!(
            read("docs/runbooks/sessions-failing.md").contains(&format!("`{code}`")),
            "{code}"
        );
    }
}

#[test]
fn every_dashboard_panel_has_description_and_unit() {
    let dashboard: Value = serde_json::from_str(&read("ops/grafana/guestlane.json")).unwrap();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        if panel["type"] == "row" {
            continue;
        }
        assert!(
            panel["description"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{panel}"
        );
        assert!(
            panel["fieldConfig"]["defaults"]["unit"].is_string(),
            "{panel}"
        );
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
    }
}

#[test]
fn example_settings_are_valid_and_name_every_setting() {
    let example = ops("guestlane.toml");
    let another = tempfile::tempdir().unwrap();
    let shown = run_in(
        another.path(),
        &["config", "show", "--config", example.to_str().unwrap()],
        &[],
    )
    .ok()
    .stdout;
    assert!(
        shown.contains("/var/lib/guestlane")
            && shown.contains(example.file_name().unwrap().to_str().unwrap()),
        "{shown}"
    );
    // With the client's credentials from the environment, as in the systemd unit, these settings
    // suffice.
    let mut settings = Settings::default();
    settings
        .add_file(&example, &fs::read_to_string(&example).unwrap())
        .unwrap();
    settings.add_environment(|name| {
        ["GENESYS_CLIENT_ID", "GENESYS_CLIENT_SECRET"]
            .contains(&name)
            .then(|| "a".to_owned())
    });
    settings.service().unwrap();
    settings.engine(false).unwrap();
    // The commented-out settings must be valid as well.
    let text = fs::read_to_string(&example).unwrap();
    let setting = |line: &str| {
        line.strip_prefix("#")
            .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_lowercase()))
    };
    let whole: String = text
        .lines()
        .map(|line| format!("{}\n", if setting(line) { &line[1..] } else { line }))
        .collect();
    let file = another.path().join("whole.toml");
    fs::write(&file, &whole).unwrap();
    run_in(
        another.path(),
        &["config", "show", "--config", file.to_str().unwrap()],
        &[],
    )
    .ok();
    let table: toml_names::Names = toml_names::of(&whole);
    for setting in SETTINGS {
        assert!(
            table.contains(setting.key),
            "ops/guestlane.toml does not name {}",
            setting.key
        );
    }
}

/// Returns the names in a settings file, prefixed with their tables.
mod toml_names {
    use std::collections::BTreeSet;

    pub(super) type Names = BTreeSet<String>;

    pub(super) fn of(text: &str) -> Names {
        let mut table = String::new();
        let mut names = Names::new();
        for line in text.lines() {
            if let Some(name) = line
                .strip_prefix('[')
                .and_then(|line| line.strip_suffix(']'))
            {
                table = format!("{name}.");
            } else if let Some((name, _)) =
                line.split_once(" = ").filter(|_| !line.starts_with('#'))
            {
                names.insert(format!("{table}{name}"));
            }
        }
        names
    }
}
