//! Tests of `config`.

use super::*;
use std::path::PathBuf;

fn settings(values: &[(&str, &str)]) -> Settings {
    let mut settings = Settings::default();
    settings.add_environment(|name| {
        values
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| (*value).to_owned())
    });
    settings
}

fn refused(values: &[(&str, &str)]) -> Vec<ValidationError> {
    match settings(values).engine(true) {
        Err(Error::Settings(refused)) => refused,
        other => panic!("{other:?}"),
    }
}

const GOOD: [(&str, &str); 4] = [
    (ORG_DOMAIN, "acme.mygenesyscloud.com"),
    (CLIENT_ID, "id"),
    (CLIENT_SECRET, "secret"),
    (QUEUE_ID, "5e0c0000-0000-4000-8000-000000000001"),
];

fn with(name: &'static str, value: &'static str) -> Vec<(&'static str, &'static str)> {
    GOOD.into_iter()
        .filter(|(known, _)| *known != name)
        .chain([(name, value)])
        .collect()
}

#[test]
fn missing_settings_are_listed_all_at_once() {
    let missing: Vec<_> = refused(&[])
        .into_iter()
        .map(|invalid| invalid.field)
        .collect();
    assert_eq!(missing, [SURFACE, CLIENT_ID, CLIENT_SECRET, QUEUE_ID]);
}

#[test]
fn unset_surface_is_reported_instead_of_the_missing_host() {
    let unset = refused(&[]).remove(0);
    assert!(
        unset.field == SURFACE && unset.fix.contains("web-messaging for a real organization"),
        "{unset:?}"
    );
    let chosen = refused(&[(SURFACE, "rest")]).remove(0);
    assert_eq!(chosen.field, ORG_DOMAIN);
}

#[test]
fn public_metrics_listener_requires_an_explicit_setting() {
    let service = |values: &[(&str, &str)]| settings(values).service();
    for address in ["0.0.0.0:8972", "[::]:8972", "192.0.2.1:8972"] {
        let refused = service(&[(METRICS_LISTEN, address)])
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains(METRICS_LISTEN) && refused.contains(METRICS_ALLOW_PUBLIC),
            "{refused}"
        );
        assert!(service(&[(METRICS_LISTEN, address), (METRICS_ALLOW_PUBLIC, "true")]).is_ok());
    }
    assert!(service(&[(METRICS_LISTEN, "[::1]:8972")]).is_ok());
    assert!(service(&[(METRICS_ALLOW_PUBLIC, "yes")]).is_err());
}

#[test]
fn a_domain_with_a_scheme_or_a_path_is_refused() {
    for (domain, reason) in [
        ("https://acme.mygenesyscloud.com", "has a scheme"),
        ("acme.mygenesyscloud.com/x", "has a path"),
        ("acme example", "has a character"),
        ("acme.example?x", "has a character"),
    ] {
        let invalid = refused(&with(ORG_DOMAIN, domain));
        assert!(
            invalid.len() == 1 && invalid[0].reason.contains(reason),
            "{domain}: {invalid:?}"
        );
    }
}

#[test]
fn plain_http_to_a_host_that_is_not_loopback_is_refused() {
    assert!(
        refused(&with(BASE_URL, "http://acme.mygenesyscloud.com"))[0]
            .reason
            .contains("plain http")
    );
    assert!(
        refused(&with(WEBHOOK_URL, "http://crm.example.com/x"))[0]
            .reason
            .contains("plain http")
    );
    assert!(
        settings(&with(BASE_URL, "http://127.0.0.1:8080"))
            .engine(true)
            .is_ok()
    );
}

#[test]
fn each_malformed_setting_is_refused_by_its_name() {
    for (name, value) in [
        (QUEUE_ID, "sales"),
        (PLATFORM_RATE_LIMIT, "many"),
        (MAX_RETRIES, "-1"),
        (RETRY_INITIAL_BACKOFF, "6s"),
        (RETRY_MAX_BACKOFF, "soon"),
        (ATTEMPT_TIMEOUT, "0s"),
        (SESSION_TIMEOUT, "5"),
        (SESSION_TIMEOUT, "31min"),
        (SURFACE, "carrier-pigeon"),
        (LINK_CONTACT, "perhaps"),
        (MOVE_TO_QUEUE, "perhaps"),
        (SEND_GUEST_TOKEN, "perhaps"),
        (EXTERNAL_SOURCE_ID, "crm"),
        (FIRST_MESSAGE, "a\u{7}b"),
        (ORIGIN, "www.example.com"),
        (ORIGIN, "https://www.example.com/shop"),
        (CA_FILE, "/nowhere.pem"),
        (ALLOW_PRIVATE, "maybe"),
        (WEBHOOK_URL, "crm"),
        (WEBHOOK_URL, "https://a.example/x,https://b.example/y"),
        (DATABASE_URL, "postgres://x"),
        (AUDIT_GUEST_ID_MODE, "secret"),
        (AUDIT_MAX_FILE_SIZE, "64"),
        (AUDIT_MAX_FILE_SIZE, "0MiB"),
        (SESSION_RETENTION, "30"),
        (SESSION_RETENTION, "500ms"),
        (SESSION_RETENTION, "0d"),
        (SESSION_RETENTION, "23h"),
        (SIGNING_KEY_PUBLISH_LEAD, "off"),
        (SIGNING_KEY_PUBLISH_LEAD, "59s"),
        (SIGNING_KEY_ROTATION_INTERVAL, "monthly"),
        (SIGNING_KEY_ROTATION_INTERVAL, "0d"),
        (SIGNING_KEY_ROTATION_INTERVAL, "24h"),
    ] {
        let invalid = refused(&with(name, value));
        assert!(
            invalid.len() == 1 && invalid[0].field.contains(name),
            "{name}: {invalid:?}"
        );
    }
}

#[test]
fn session_retention_is_off_or_at_least_24_hours() {
    let keep = |value| {
        settings(&with(SESSION_RETENTION, value))
            .engine(true)
            .unwrap()
            .retention
    };
    let hours = |hours: u64| Some(Duration::from_secs(hours * 3600));
    assert_eq!(settings(&GOOD).engine(true).unwrap().retention, None);
    assert_eq!(
        [keep("off"), keep("24h"), keep("1d"), keep("30d")],
        [None, hours(24), hours(24), hours(720)]
    );
    let invalid = refused(&with(SESSION_RETENTION, "23h")).remove(0);
    assert!(
        invalid.reason.contains("shorter than 24h") && invalid.fix.contains("72h"),
        "{invalid:?}"
    );
}

#[test]
fn key_rotation_interval_must_exceed_the_publish_lead_time() {
    let schedule = |values: &[(&str, &str)]| settings(values).key_schedule();
    let days = |days: u64| Duration::from_secs(days * 24 * 3600);
    assert_eq!(schedule(&[]).unwrap(), RotationPolicy::default());
    let monthly = schedule(&[
        (SIGNING_KEY_ROTATION_INTERVAL, "30d"),
        (SIGNING_KEY_PUBLISH_LEAD, "90min"),
    ])
    .unwrap();
    assert_eq!(
        (monthly.rotation_interval(), monthly.publish_lead_time()),
        (Some(days(30)), Duration::from_secs(5400))
    );
    assert!(schedule(&[(SIGNING_KEY_ROTATION_INTERVAL, "25h")]).is_ok());
    let text = schedule(&[
        (SIGNING_KEY_ROTATION_INTERVAL, "2d"),
        (SIGNING_KEY_PUBLISH_LEAD, "2d"),
    ])
    .unwrap_err()
    .to_string();
    assert!(
        text.contains(SIGNING_KEY_ROTATION_INTERVAL)
            && text.contains("not longer")
            && text.contains("30d"),
        "{text}"
    );
}

const CLOUD: [(&str, &str); 6] = [
    (SURFACE, "web-messaging"),
    (REGION, "eu-west-1"),
    (DEPLOYMENT_ID, "dddd0000-0000-4000-8000-000000000001"),
    (CLIENT_ID, "id"),
    (CLIENT_SECRET, "secret"),
    (QUEUE_ID, "5e0c0000-0000-4000-8000-000000000001"),
];

#[test]
fn region_determines_hosts_and_defaults_for_web_messaging() {
    let config = settings(&CLOUD).engine(true).unwrap();
    let hosts = &config.credentials.hosts;
    assert_eq!(hosts.login.as_str(), "https://login.mypurecloud.ie");
    assert_eq!(
        config.credentials.sign_in,
        guestlane_genesys::TokenRequestAuth::Basic
    );
    assert_eq!(config.call_policy.quota, Some(Rate::PLATFORM_DEFAULT));
    assert_eq!(
        config.messaging.origin,
        "https://webmessaging.mypurecloud.ie"
    );
    assert_eq!(config.surface.name(), "web-messaging");
}

#[test]
fn each_platform_host_can_be_overridden() {
    let own = [
        (LOGIN_URL, "https://login.gw.example"),
        (API_URL, "https://gw.example/genesys"),
        (WEBMESSAGING_URL, "wss://socket.gw.example/v1"),
        (CDN_URL, "http://127.0.0.1:9"),
    ];
    let hosts = settings(&[CLOUD.as_slice(), &own].concat())
        .engine(true)
        .unwrap()
        .credentials
        .hosts;
    assert_eq!(hosts.login.as_str(), "https://login.gw.example");
    assert_eq!(hosts.api.as_str(), "https://gw.example/genesys");
    assert_eq!(hosts.webmessaging.as_str(), "https://socket.gw.example");
    assert_eq!(hosts.cdn.as_str(), "http://127.0.0.1:9");
}

#[test]
fn missing_or_invalid_surface_settings_are_named() {
    let fields = |values: &[(&str, &str)]| {
        refused(values)
            .into_iter()
            .map(|invalid| invalid.field)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        fields(&[(SURFACE, "web-messaging")]),
        [DEPLOYMENT_ID, REGION, CLIENT_ID, CLIENT_SECRET, QUEUE_ID]
    );
    assert_eq!(fields(&[(SURFACE, "open-messaging")])[0], INTEGRATION_ID);
    let but = |name, value| {
        fields(
            &CLOUD
                .into_iter()
                .filter(|(known, _)| *known != name)
                .chain([(name, value)])
                .collect::<Vec<_>>(),
        )
    };
    for region in [
        "https://mypurecloud.ie",
        "api.mypurecloud.ie",
        "eu-west-9",
        "ireland",
    ] {
        assert_eq!(but(REGION, region), [REGION], "{region}");
    }
    assert_eq!(but(DEPLOYMENT_ID, "shop"), [DEPLOYMENT_ID]);
    assert_eq!(but(API_URL, "http://api.mypurecloud.ie"), [API_URL]);
}

#[test]
fn no_message_shows_a_secret() {
    let secret = "hunter2hunter2";
    let text = format!(
        "{:?} {}",
        settings(&with(CLIENT_SECRET, secret)),
        Error::Settings(refused(&with(MASTER_KEY, secret).split_off(4)))
    );
    assert!(!text.contains(secret), "{text}");
}

#[test]
fn flags_override_environment_and_environment_overrides_file() {
    let mut settings = Settings::default();
    let path = std::path::Path::new("guestlane.toml");
    settings
        .add_file(
            path,
            "platform_rate_limit = \"1/s\"\nsession_timeout = \"1s\"\n[retry]\nmax_retries = 1\n",
        )
        .unwrap();
    settings.add_environment(|name| {
        (name == PLATFORM_RATE_LIMIT || name == SESSION_TIMEOUT).then(|| "2s".to_owned())
    });
    settings.add_flag(PLATFORM_RATE_LIMIT, Some("3/s".to_owned()));
    assert_eq!(
        settings.get(PLATFORM_RATE_LIMIT),
        Some(("3/s", ValueSource::Flag))
    );
    assert_eq!(
        settings.get(SESSION_TIMEOUT),
        Some(("2s", ValueSource::Environment))
    );
    assert_eq!(
        settings.get(MAX_RETRIES),
        Some(("1", ValueSource::File(path.to_owned())))
    );
    assert_eq!(settings.get(SURFACE), Some(("rest", ValueSource::Default)));
}

#[test]
fn settings_file_error_names_the_setting_or_the_line() {
    let refuse = |text| {
        Settings::default()
            .add_file(std::path::Path::new("g.toml"), text)
            .unwrap_err()
            .to_string()
    };
    assert!(
        refuse("[genesys]\nclinet_id = \"x\"")
            .contains("genesys.clinet_id in g.toml: is not a setting")
    );
    assert!(refuse("\nplatform_rate_limit = [").contains("line 2"));
    assert!(refuse("platform_rate_limit = [1]").contains("is not a string"));
}

#[test]
fn audit_log_path_follows_the_state_directory() {
    assert_eq!(
        settings(&GOOD).storage().unwrap().audit.path,
        PathBuf::from("audit/session-audit.jsonl")
    );
    let places = settings(&with(STATE_DIR, "/var/lib/g")).storage().unwrap();
    assert_eq!(
        places.audit.path,
        PathBuf::from("/var/lib/g/audit/session-audit.jsonl")
    );
}
