//! Parses the request headers with a meaning of their own: `Idempotency-Key`, `Prefer` and
//! `traceparent`.

use std::time::Duration;

use guestlane_core::request::{IdempotencyKey, ValidationError};
use guestlane_runtime::TraceParent;
use http::{HeaderMap, HeaderValue};

/// The header `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header).
pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Returns the idempotency key of the header. The value may be a quoted string, as the draft
/// requires (RFC 9651, section 3.3.3), or unquoted, as many clients send it.
///
/// # Errors
/// The header occurs twice, is not a complete string, or is not a valid idempotency key.
pub(crate) fn idempotency_key(
    headers: &HeaderMap,
) -> Result<Option<IdempotencyKey>, ValidationError> {
    let invalid = |reason: &str| {
        let fix = "send one header, like Idempotency-Key: \"order-2231-chat\", with 1 to 255 \
            visible ASCII characters";
        ValidationError::new("Idempotency-Key", reason, fix)
    };
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(invalid("occurs more than once"));
    }
    let text = std::str::from_utf8(value.as_bytes())
        .map_err(|_| invalid("has a character that is not visible ASCII"))?
        .trim();
    let key = match text.strip_prefix('"') {
        Some(rest) => unquoted(rest).ok_or_else(|| invalid("is not a complete quoted string"))?,
        None => text.to_owned(),
    };
    key.parse()
        .map(Some)
        .map_err(|error: ValidationError| ValidationError {
            field: "Idempotency-Key".to_owned(),
            ..error
        })
}

/// Returns the text up to the closing quote, or `None` if anything follows it.
fn unquoted(text: &str) -> Option<String> {
    let mut key = String::new();
    let mut characters = text.chars();
    loop {
        match characters.next()? {
            '"' => return characters.as_str().is_empty().then_some(key),
            '\\' => key.push(
                characters
                    .next()
                    .filter(|escaped| matches!(escaped, '"' | '\\'))?,
            ),
            character => key.push(character),
        }
    }
}

/// Formats the key as a quoted string for the response header.
pub(crate) fn quoted(key: &IdempotencyKey) -> Option<HeaderValue> {
    let escaped = key.as_str().replace('\\', "\\\\").replace('"', "\\\"");
    HeaderValue::from_str(&format!("\"{escaped}\"")).ok()
}

/// Parses `Prefer: wait=n` and `Prefer: respond-async` (RFC 7240, sections 4.1 and 4.3). Unknown
/// and malformed preferences are ignored, as the RFC requires. If a preference occurs twice, the
/// first one counts.
pub(crate) fn wait(headers: &HeaderMap) -> Option<Preference> {
    let values = headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok());
    let preferences: Vec<_> = values
        .flat_map(|value| value.split(','))
        .map(|preference| {
            let preference = preference.split(';').next().unwrap_or_default();
            let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
            (
                name.trim().to_ascii_lowercase(),
                value.trim().trim_matches('"').to_owned(),
            )
        })
        .collect();
    // Both preferences together mean: respond asynchronously after the wait (RFC 7240, section
    // 4.3).
    let wait = preferences
        .iter()
        .filter(|(name, _)| name == "wait")
        .find_map(|(_, value)| value.parse().ok());
    let asynchronous = preferences.iter().any(|(name, _)| name == "respond-async");
    match (wait, asynchronous) {
        (Some(seconds), _) => Some(Preference {
            wait: Duration::from_secs(seconds),
            applied: format!("wait={seconds}"),
        }),
        (None, true) => Some(Preference {
            wait: Duration::ZERO,
            applied: "respond-async".to_owned(),
        }),
        (None, false) => None,
    }
}

/// How long the caller waits, and the value of `Preference-Applied` in the response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Preference {
    pub(crate) wait: Duration,
    pub(crate) applied: String,
}

impl Preference {
    /// Limits the wait to `longest`.
    pub(crate) fn at_most(self, longest: Duration) -> Self {
        if self.wait <= longest {
            self
        } else {
            Self {
                wait: longest,
                applied: format!("wait={}", longest.as_secs()),
            }
        }
    }
}

/// Parses `traceparent`. A malformed or repeated header counts as absent (W3C Trace Context,
/// section 3.2.2).
pub(crate) fn traceparent(headers: &HeaderMap) -> Option<TraceParent> {
    let mut values = headers.get_all("traceparent").iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        None
    } else {
        value.trim().parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn idempotency_key_is_read_quoted_or_bare_and_written_quoted() {
        let read = |values: &[&str]| idempotency_key(&headers(IDEMPOTENCY_KEY, values));
        for text in ["\"order-2231\"", "order-2231", " order-2231 "] {
            assert_eq!(
                read(&[text]).unwrap().unwrap().as_str(),
                "order-2231",
                "{text}"
            );
        }
        let escaped = read(&[r#""a\"b\\c""#]).unwrap().unwrap();
        assert_eq!(
            (
                escaped.as_str(),
                quoted(&escaped).unwrap().to_str().unwrap()
            ),
            (r#"a"b\c"#, r#""a\"b\\c""#)
        );
        assert!(read(&[]).unwrap().is_none());
        for bad in [
            &[""][..],
            &["\"\""],
            &["\"open"],
            &["\"a\"b"],
            &["\"a\";p=1"],
            &["a b"],
            &["a", "b"],
            &["\u{e9}"],
            &[r#""a\b""#],
        ] {
            let invalid = read(bad).unwrap_err();
            assert_eq!(invalid.field, "Idempotency-Key", "{bad:?}");
        }
        assert!(read(&["x".repeat(256).as_str()]).is_err());
        let hidden = read(&["order\u{200b}"]).unwrap_err();
        assert_eq!(
            (hidden.field.as_str(), hidden.reason.as_str()),
            (
                "Idempotency-Key",
                "has an invisible character (U+200B) at position 6"
            )
        );
    }

    #[test]
    fn prefer_header_yields_wait_and_respond_async() {
        let read = |values: &[&str]| {
            wait(&headers("prefer", values)).map(|preference| preference.wait.as_secs())
        };
        assert_eq!(read(&["wait=10"]), Some(10));
        assert_eq!(read(&["handling=lenient, Wait = \"3\"; foo"]), Some(3));
        assert_eq!(read(&["respond-async"]), Some(0));
        assert_eq!(read(&["return=minimal", "wait=5"]), Some(5));
        assert_eq!(
            read(&["respond-async, wait=10"]),
            Some(10),
            "both: ten seconds, then an answer"
        );
        for none in [
            &["wait=soon"][..],
            &["wait=-1"],
            &["wait"],
            &["return=minimal"],
            &[],
        ] {
            assert_eq!(read(none), None, "{none:?}");
        }
    }
}
