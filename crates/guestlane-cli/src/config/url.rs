//! Settings that are URLs. Each part of a URL is either used or rejected by name, and a possible
//! password is never repeated.

use ::url::Url;
use guestlane_genesys::is_loopback;

use super::{
    API_URL, BASE_URL, CDN_URL, DATABASE_URL, LOGIN_URL, ORG_DOMAIN, ORIGIN, OTLP_ENDPOINT, REGION,
    WEBHOOK_URL, WEBMESSAGING_URL,
};
use guestlane_store::Database;

/// The parts of a URL that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Scheme, host, port and path.
    Origin,
    /// Also the query.
    WithQuery,
}

/// Why a URL is rejected. The URL is left out, because it may contain a password.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) reason: &'static str,
    /// What to do, if the example of the setting is not enough.
    pub(super) fix: Option<&'static str>,
}

/// Parses one `https` URL, or an `http` URL to a loopback host.
///
/// # Errors
/// Returns an error if the text is not such a URL, or has a part that would not be used.
pub(super) fn checked(text: &str, extent: Extent) -> Result<Url, Fault> {
    let fault = |reason, fix| Err(Fault { reason, fix });
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    if text.ends_with([',', ';'])
        || [",http", ";http"]
            .iter()
            .any(|second| rest.contains(second))
    {
        let fix = "separate URLs with one space, without commas or semicolons";
        return fault(
            "contains more than one URL, or ends with a comma or semicolon",
            Some(fix),
        );
    }
    // A slash in a password ends the host too early, so that the @ appears to be in the path.
    // Reject an @ in the path too.
    if rest
        .split(['?', '#'])
        .next()
        .is_some_and(|hierarchy| hierarchy.contains('@'))
    {
        let fix = "remove user name and password; write %40 for an @ that is part of the path";
        return fault(
            "has a user name or a password (@), which would not be sent",
            Some(fix),
        );
    }
    let Ok(url) = Url::parse(text) else {
        return fault("is not a URL", None);
    };
    if url.fragment().is_some() {
        return fault(
            "has a fragment (#), which would not be sent",
            Some("remove it, or write %23 for a # that is part of the path"),
        );
    }
    if extent == Extent::Origin && url.query().is_some() {
        return fault(
            "has a query (?), which would not be sent",
            Some("write only scheme, host, port and path"),
        );
    }
    match url.scheme() {
        "https" if url.host().is_some() => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => fault(
            "is plain http to another machine, so the network could read its content",
            Some("use https"),
        ),
        _ => fault("is not an https URL", None),
    }
}

/// Returns a value in the form in which it may be shown. A value that cannot be parsed is hidden,
/// because it may contain a password.
pub(super) fn shown(env: &str, value: &str) -> String {
    match env {
        DATABASE_URL => database(value),
        WEBHOOK_URL => value
            .split_whitespace()
            .map(webhook)
            .collect::<Vec<_>>()
            .join(" "),
        OTLP_ENDPOINT => webhook(value),
        BASE_URL | LOGIN_URL | API_URL | WEBMESSAGING_URL | CDN_URL | ORIGIN => origin(value),
        ORG_DOMAIN | REGION if !is_host(value) => HIDDEN.to_owned(),
        // The URL of a database or webhook was set as the value of another setting.
        _ if value.contains("://") && value.contains('@') => HIDDEN.to_owned(),
        _ => value.to_owned(),
    }
}

const HIDDEN: &str = "(hidden)";

/// Whether the value is a host, possibly with scheme, port or path, and without a possible
/// password.
fn is_host(value: &str) -> bool {
    let rest = value.split_once("://").map_or(value, |(_, rest)| rest);
    let port = rest
        .split_once(':')
        .map_or("", |(_, port)| port.trim_end_matches('/'));
    !rest.contains('@') && port.bytes().all(|byte| byte.is_ascii_digit())
}

fn database(value: &str) -> String {
    match value.parse::<Database>() {
        Ok(Database::Sqlite(_)) => value.to_owned(),
        Ok(database) if database.to_string() == value => value.to_owned(),
        Ok(database) => format!("{database} (and a hidden part)"),
        Err(_) => HIDDEN.to_owned(),
    }
}

/// Hides the query, which may be a secret.
fn webhook(value: &str) -> String {
    match checked(value, Extent::WithQuery) {
        Ok(mut url) if url.query().is_some() => {
            url.set_query(None);
            format!("{url} (and a hidden part)")
        }
        Ok(_) => value.to_owned(),
        Err(_) => HIDDEN.to_owned(),
    }
}

fn origin(value: &str) -> String {
    let https = value
        .strip_prefix("wss://")
        .map(|rest| format!("https://{rest}"));
    let usable = checked(https.as_deref().unwrap_or(value), Extent::Origin).is_ok();
    let is_name = !value.contains([':', '@', '?', '#']);
    if usable || is_name {
        value.to_owned()
    } else {
        HIDDEN.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_with_an_unsupported_part_is_refused() {
        for good in [
            "https://crm.example/x?k=v",
            "http://127.0.0.1:9/x",
            "http://crm.localhost/x",
            "https://crm.example/a,b",
            "https://crm.example/x?to=https://other.example",
        ] {
            assert!(checked(good, Extent::WithQuery).is_ok(), "{good}");
        }
        for (bad, part) in [
            ("https://user:hunter2@crm.example/x", "user name"),
            ("https://user:12/hunter2@crm.example/x", "user name"),
            ("https://@crm.example/x", "user name"),
            ("https://crm.example/x#hunter2", "fragment"),
            ("https://crm.example/a,", "more than one URL"),
            (
                "https://crm.example/a;http://crm.example/b",
                "more than one URL",
            ),
            ("http://crm.example/x", "plain http"),
            ("ftp://crm.example/x", "not an https URL"),
            ("https://user:hunter2", "not a URL"),
            ("crm", "not a URL"),
        ] {
            let refused = checked(bad, Extent::WithQuery).unwrap_err();
            assert!(refused.reason.contains(part), "{bad}: {refused:?}");
            assert!(!shown(WEBHOOK_URL, bad).contains("hunter2"));
        }
        assert!(
            checked("https://gw.example/?q=1", Extent::Origin)
                .unwrap_err()
                .reason
                .contains("query")
        );
    }

    #[test]
    fn possible_password_in_a_url_is_masked() {
        for env in [
            WEBHOOK_URL,
            OTLP_ENDPOINT,
            BASE_URL,
            API_URL,
            ORIGIN,
            ORG_DOMAIN,
            REGION,
            DATABASE_URL,
        ] {
            for value in [
                "https://u:hunter2@h.example",
                "https://u:hunter2",
                "u:hunter2@h",
                "postgres://u:hunter2@h@i/d",
            ] {
                assert!(
                    !shown(env, value).contains("hunter2"),
                    "{env} {value}: {}",
                    shown(env, value)
                );
            }
        }
        assert_eq!(
            shown(WEBHOOK_URL, "https://a.example/x https://b.example/y"),
            "https://a.example/x https://b.example/y"
        );
        assert_eq!(
            shown(WEBHOOK_URL, "https://a.example/x?k=hunter2"),
            "https://a.example/x (and a hidden part)"
        );
        assert_eq!(
            shown(ORG_DOMAIN, "https://acme.example/"),
            "https://acme.example/"
        );
    }
}
