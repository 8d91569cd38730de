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
mod tests;
