//! Text chosen by the platform or by a webhook receiver. It is bounded and cleaned on entry, before
//! a path, a record or a log contains it.
//!
//! A decoded response has no `String` for a value that a later step uses. It has one of these types
//! instead, each of which defines where its text may go:
//!
//! | Type | Bound | May go to |
//! |---|---|---|
//! | [`PlatformId`] | 1 to 1,024 visible ASCII | paths (percent-encoded), records, logs |
//! | [`CorrelationId`] | 256 characters on one line | records, logs |
//! | [`ErrorCode`] | 128 visible ASCII characters, or none | records, logs |
//! | [`PlatformMessage`] | 300 characters on one line | the caller whose request caused it |

use std::{fmt, ops::Deref, str::FromStr};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::Value;
use uuid::Uuid;

use guestlane_runtime::text::clean;

/// All characters except the unreserved ones of RFC 3986, section 2.3.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Maximum length of a message, in characters.
const MAX_SENTENCE: usize = 300;

/// Maximum size of a token in a response, in bytes; it must fit into a header.
const MAX_TOKEN: usize = 16 * 1024;

/// Implements the traits common to these types: they can be read as text, and only their
/// constructors create them.
macro_rules! text {
    ($name:ident) => {
        impl $name {
            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                *self.0 == *other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                *self.0 == **other
            }
        }
    };
}

/// An identifier assigned by the platform: 1 to [`PlatformId::MAX`] visible ASCII characters.
///
/// The platform itself uses UUIDs, but its documentation guarantees no format. So this type
/// requires only what a path, a record and a log can hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct PlatformId(Box<str>);

text!(PlatformId);

/// The text is not an identifier of the platform. The error does not repeat the text, which may be
/// long or personal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an ID must have 1 to {} visible ASCII characters", PlatformId::MAX)]
pub struct InvalidPlatformId;

impl PlatformId {
    /// Maximum length in characters.
    pub const MAX: usize = 1024;

    /// Wraps an ID from the store without validation. An older version may have stored an ID that
    /// would be rejected today; the session's row stays readable.
    pub fn from_store(id: impl Into<Box<str>>) -> Self {
        Self(id.into())
    }
}

impl FromStr for PlatformId {
    type Err = InvalidPlatformId;

    /// Parses an ID. The texts `.` and `..` are rejected, because path resolution would remove such
    /// a segment even if it is percent-encoded.
    fn from_str(text: &str) -> Result<Self, InvalidPlatformId> {
        let visible = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let fits = visible && text.len() <= Self::MAX && text != "." && text != "..";
        if fits {
            Ok(Self(text.into()))
        } else {
            Err(InvalidPlatformId)
        }
    }
}

impl From<Uuid> for PlatformId {
    fn from(id: Uuid) -> Self {
        Self(id.to_string().into())
    }
}

impl<'de> Deserialize<'de> for PlatformId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Correlation ID to quote to the platform's support: at most [`CorrelationId::MAX`] characters on
/// one line.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct CorrelationId(Box<str>);

text!(CorrelationId);

impl CorrelationId {
    /// Maximum length in characters.
    pub const MAX: usize = 256;

    /// Truncates and cleans `text`; returns `None` if nothing is left.
    pub fn new(text: &str) -> Option<Self> {
        let cleaned = clean(text, Self::MAX);
        let id = cleaned.trim();
        (!id.is_empty()).then(|| Self(id.into()))
    }
}

/// The platform's dotted error code, or OAuth's `error`: at most [`ErrorCode::MAX`] visible ASCII
/// characters; empty if there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct ErrorCode(Box<str>);

text!(ErrorCode);

impl ErrorCode {
    /// Maximum length in characters.
    pub const MAX: usize = 128;

    /// Creates an error code. A text that is not a code (it has spaces, or is an HTML page) becomes
    /// empty: codes are stored in records, and the platform's messages must not be.
    pub fn new(text: &str) -> Self {
        let fits = text.len() <= Self::MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
        Self(if fits { text.into() } else { Box::default() })
    }
}

/// An error message of the platform: at most 300 characters on one line; empty if there is none.
///
/// It may repeat request data, including attributes. Therefore [`for_caller`](Self::for_caller)
/// shows it only to the caller whose request caused it. The type has no `Display`, so that it
/// cannot get into a log or a record by accident.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PlatformMessage(Box<str>);

impl PlatformMessage {
    /// Truncates and cleans `text`.
    pub fn new(text: &str) -> Self {
        Self(clean(text, MAX_SENTENCE).into())
    }

    /// Whether there is no message.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the message, for the caller whose request caused it.
    pub fn for_caller(&self) -> &str {
        &self.0
    }

    /// Whether the message contains `phrase`, which must be lower case; the case of the message is
    /// ignored.
    pub fn mentions(&self, phrase: &str) -> bool {
        self.0.to_ascii_lowercase().contains(phrase)
    }

    /// Returns the wait that a message such as `Retry the request in [42] seconds` names: the first
    /// whole number before «second».
    pub(crate) fn seconds(&self) -> Option<u64> {
        let words: Vec<_> = self
            .0
            .split_ascii_whitespace()
            .map(|word| word.trim_matches(['[', ']', '(', ')', '.', ',']))
            .collect();
        let named = words
            .windows(2)
            .find(|pair| pair[1].starts_with("second") && !pair[0].is_empty())?;
        named[0].parse().ok()
    }
}

impl fmt::Debug for PlatformMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sentence({} bytes)", self.0.len())
    }
}

/// A path of the platform's API. Only fixed source text and percent-encoded segments can get into
/// it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiPath(String);

impl ApiPath {
    /// Creates a path without variable parts; it begins with a slash.
    pub fn new(fixed: &'static str) -> Self {
        Self(fixed.to_owned())
    }

    /// Appends a slash and one percent-encoded segment.
    #[must_use]
    pub fn segment(mut self, segment: impl fmt::Display) -> Self {
        self.0.push('/');
        self.0
            .extend(utf8_percent_encode(&segment.to_string(), SEGMENT));
        self
    }

    /// Appends fixed text.
    #[must_use]
    pub fn then(mut self, fixed: &'static str) -> Self {
        self.0.push_str(fixed);
        self
    }

    /// Returns the path as it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Deserializes an optional field; a value of another type counts as absent. Use it for fields that
/// no step depends on.
pub(crate) fn lenient<'de, D: Deserializer<'de>, T: Default + DeserializeOwned>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).unwrap_or_default())
}

/// Deserializes a list item by item; an item of another shape is omitted.
pub(crate) fn lenient_list<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let items = match Value::deserialize(deserializer)? {
        Value::Array(items) => items,
        _ => Vec::new(),
    };
    Ok(items
        .into_iter()
        .filter_map(|item| serde_json::from_value(item).ok())
        .collect())
}

/// Deserializes a whole number, also from text (`"1800"`) or with a zero fraction (`1800.0`). Any
/// other value counts as absent.
pub(crate) fn lenient_number<'de, D: Deserializer<'de>, T: TryFrom<i128>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let whole = |text: &str| -> Option<i128> {
        // Beyond 2^53 a number with a fraction is no longer exact.
        let exact = |number: &f64| number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0;
        text.parse().ok().or_else(|| {
            text.parse::<f64>()
                .ok()
                .filter(exact)
                .map(|number| number as i128)
        })
    };
    let number = match Value::deserialize(deserializer)? {
        Value::Number(number) => whole(&number.to_string()),
        Value::String(text) => whole(text.trim()),
        _ => None,
    };
    Ok(number.and_then(|number| T::try_from(number).ok()))
}

/// Deserializes an ID that may be absent, null or empty. Any other value must be a valid ID,
/// because the next step would use it.
pub(crate) fn optional_id<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<PlatformId>, D::Error> {
    match Option::<String>::deserialize(deserializer)? {
        None => Ok(None),
        Some(text) if text.is_empty() => Ok(None),
        Some(text) => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

/// Deserializes a token that must fit into a header: visible ASCII, at most 16 KiB.
pub(crate) fn token<'de, D: Deserializer<'de>, T: From<String>>(
    deserializer: D,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    let fits = !text.is_empty()
        && text.len() <= MAX_TOKEN
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits {
        Ok(text.into())
    } else {
        Err(serde::de::Error::custom(
            "the token is not 1 to 16384 visible ASCII characters",
        ))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn platform_id_is_visible_ascii_of_bounded_length() {
        let longest = "i".repeat(PlatformId::MAX);
        for good in [
            "a",
            "0a110000-0000-4000-8000-000000000002",
            "a/b?c",
            &longest,
        ] {
            assert_eq!(good.parse::<PlatformId>().unwrap(), good);
        }
        let too_long = "i".repeat(PlatformId::MAX + 1);
        for bad in [
            "",
            ".",
            "..",
            " ",
            "a b",
            "a\n",
            "a\u{202e}b",
            "é",
            &too_long,
        ] {
            assert_eq!(bad.parse::<PlatformId>(), Err(InvalidPlatformId), "{bad:?}");
            assert!(
                serde_json::from_value::<PlatformId>(bad.into()).is_err(),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn platform_id_cannot_escape_its_path_segment() {
        let path = |id: &str| {
            ApiPath::new("/api/v2/conversations")
                .segment(id.parse::<PlatformId>().unwrap())
                .then("/details")
        };
        assert_eq!(
            path("c-1.x_y~z").as_str(),
            "/api/v2/conversations/c-1.x_y~z/details"
        );
        assert_eq!(
            path("../queues?x=1#y").as_str(),
            "/api/v2/conversations/..%2Fqueues%3Fx%3D1%23y/details"
        );
        assert_eq!(
            path("%2e%2e").as_str(),
            "/api/v2/conversations/%252e%252e/details"
        );
    }

    #[test]
    fn correlation_id_is_one_bounded_line() {
        assert_eq!(CorrelationId::new("c-1").unwrap(), "c-1");
        assert_eq!(
            CorrelationId::new("a\nThe session is open.\u{1b}[31m").unwrap(),
            "a The session is open. [31m"
        );
        assert_eq!(
            CorrelationId::new(&"é".repeat(9000))
                .unwrap()
                .chars()
                .count(),
            CorrelationId::MAX
        );
        assert_eq!(CorrelationId::new(" \r\n "), None);
    }

    #[test]
    fn error_code_of_invalid_form_is_dropped() {
        assert_eq!(ErrorCode::new("too.many.requests"), "too.many.requests");
        for sentence in ["Invalid value: gold", "a\nb", &"x".repeat(129)] {
            assert_eq!(ErrorCode::new(sentence), "");
        }
    }

    #[test]
    fn sentence_is_hidden_in_debug_output_and_yields_its_wait() {
        let sentence = PlatformMessage::new(
            "Rate limit exceeded the maximum. Retry the request in [42] seconds",
        );
        assert_eq!(format!("{sentence:?}"), "Sentence(66 bytes)");
        assert_eq!(sentence.seconds(), Some(42));
        for (text, seconds) in [
            ("try again in 60 seconds", Some(60)),
            ("Retry in (1) second.", Some(1)),
            ("Retry the request in [] seconds", None),
            ("Retry the request in [-4] seconds", None),
            ("in [99999999999999999999999] seconds", None),
            ("a few seconds", None),
            ("seconds", None),
            ("", None),
        ] {
            assert_eq!(PlatformMessage::new(text).seconds(), seconds, "{text}");
        }
    }

    #[test]
    fn lenient_number_accepts_text_and_a_zero_fraction() {
        #[derive(Deserialize)]
        struct Life {
            #[serde(default, deserialize_with = "lenient_number")]
            seconds: Option<u32>,
        }
        let read = |json: &str| serde_json::from_str::<Life>(json).unwrap().seconds;
        for good in [
            r#"{"seconds":1800}"#,
            r#"{"seconds":"1800"}"#,
            r#"{"seconds":1800.0}"#,
            r#"{"seconds":" 1800.0 "}"#,
        ] {
            assert_eq!(read(good), Some(1800), "{good}");
        }
        for absent in [
            "{}",
            r#"{"seconds":null}"#,
            r#"{"seconds":[]}"#,
            r#"{"seconds":"soon"}"#,
            r#"{"seconds":-1}"#,
        ] {
            assert_eq!(read(absent), None, "{absent}");
        }
        for absent in [
            r#"{"seconds":1.5}"#,
            r#"{"seconds":1e300}"#,
            r#"{"seconds":"NaN"}"#,
            r#"{"seconds":4294967296}"#,
        ] {
            assert_eq!(read(absent), None, "{absent}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_platform_text_is_bounded(text in any::<String>()) {
            prop_assert!(CorrelationId::new(&text).is_none_or(|id| id.chars().count() <= CorrelationId::MAX));
            let _ = PlatformMessage::new(&text).seconds();
            if let Ok(id) = text.parse::<PlatformId>() {
                let path = ApiPath::new("/x").segment(&id);
                prop_assert_eq!(path.as_str().matches('/').count(), 2);
            }
        }
    }
}
