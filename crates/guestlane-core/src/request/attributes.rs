//! Attributes of a guest, which become claims of the guest token.

use std::{collections::BTreeMap, fmt};

use super::{ValidationError, hidden, shorten};

/// Attributes of a guest: names and values that become claims of the guest token and attributes of
/// the contact.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Attributes(BTreeMap<String, String>);

impl Attributes {
    /// Largest size of all names and values together, in bytes: `maxCustomDataBytes` of the guest
    /// API (docs/platform.md#attributes).
    pub const MAX_BYTES: usize = 2048;

    /// Largest number of attributes.
    pub const MAX_COUNT: usize = 50;

    /// Longest name, in characters.
    pub const MAX_NAME: usize = 64;

    /// Names that belong to the product or to JWT (RFC 7519, section 4.1). They are compared
    /// without regard to case, because some downstream readers do so.
    pub const RESERVED: [&'static str; 11] = [
        "guestToken",
        "sessionToken",
        "routingTarget",
        "guestId",
        "iss",
        "sub",
        "aud",
        "exp",
        "nbf",
        "iat",
        "jti",
    ];

    /// Parses pairs of names and values. A name that occurs twice is an error.
    ///
    /// # Errors
    /// The error names the first invalid attribute.
    pub fn from_pairs<N: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, ValidationError> {
        Self::checked(pairs, |name| {
            let field = format!("attributes.{}", shorten(name));
            hidden::check_identifier(&field, name).map_err(|invalid| ValidationError {
                reason: format!("the name {}", invalid.reason),
                ..invalid
            })?;
            check_reserved(name)
        })
    }

    /// Parses attributes that a store has already. Earlier versions accepted names with invisible
    /// characters, and names that a later version reserves.
    ///
    /// # Errors
    /// The error names the first attribute that is invalid by the rules of earlier versions.
    pub fn recorded(pairs: BTreeMap<String, String>) -> Result<Self, ValidationError> {
        Self::checked(pairs, |_| Ok(()))
    }

    fn checked<N: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (N, V)>,
        check_new: impl Fn(&str) -> Result<(), ValidationError>,
    ) -> Result<Self, ValidationError> {
        let mut attributes = BTreeMap::new();
        for (name, value) in pairs {
            let (name, value) = (name.into(), value.into());
            check_new(&name)?;
            check_name(&name)?;
            check_value(&name, &value)?;
            let field = format!("attributes.{name}");
            if attributes.insert(name, value).is_some() {
                return Err(ValidationError::new(
                    field,
                    "is given twice",
                    "give it once",
                ));
            }
        }
        if attributes.len() > Self::MAX_COUNT {
            let reason = format!("are too many: {}", attributes.len());
            return Err(ValidationError::new(
                "attributes",
                reason,
                format!("use at most {}", Self::MAX_COUNT),
            ));
        }
        let bytes = attributes
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum::<usize>();
        if bytes > Self::MAX_BYTES {
            let reason = format!("have {bytes} bytes in names and values together");
            return Err(ValidationError::new(
                "attributes",
                reason,
                format!(
                    "shorten them to at most {} bytes, the platform's maximum",
                    Self::MAX_BYTES
                ),
            ));
        }
        Ok(Self(attributes))
    }

    /// The attributes, sorted by name.
    pub fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

fn check_name(name: &str) -> Result<(), ValidationError> {
    let field = format!("attributes.{}", shorten(name));
    if name.is_empty() {
        return Err(ValidationError::new(
            "attributes",
            "one has an empty name",
            "write NAME=VALUE",
        ));
    }
    if name.chars().count() > Attributes::MAX_NAME {
        return Err(ValidationError::new(
            field,
            "the name is too long",
            format!("use at most {} characters", Attributes::MAX_NAME),
        ));
    }
    if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(ValidationError::new(
            field,
            "the name has white space or a control character",
            "remove it",
        ));
    }
    Ok(())
}

fn check_reserved(name: &str) -> Result<(), ValidationError> {
    let reserved = Attributes::RESERVED
        .iter()
        .find(|reserved| reserved.eq_ignore_ascii_case(name));
    match reserved {
        Some(reserved) => Err(ValidationError::new(
            format!("attributes.{}", shorten(name)),
            format!("the name is reserved ({reserved} is set by guestlane or by the token)"),
            "use another name",
        )),
        None => Ok(()),
    }
}

fn check_value(name: &str, value: &str) -> Result<(), ValidationError> {
    let bad = value
        .chars()
        .position(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'));
    match bad {
        Some(at) => {
            let reason = format!("the value has a control character at position {}", at + 1);
            Err(ValidationError::new(
                format!("attributes.{name}"),
                reason,
                "remove it",
            ))
        }
        None => Ok(()),
    }
}

/// Shows the names only: the values are personal data.
impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
