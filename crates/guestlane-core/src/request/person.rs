//! Name and contact details of a guest, as far as the platform's contact has fields for them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ValidationError, hidden, phone};

/// Name, e-mail address and telephone of a guest. This is personal data, and no log shows it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContactDetails {
    #[serde(skip_serializing_if = "Option::is_none")]
    first_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone: Option<String>,
}

/// Rules for one field: its name, its largest length in characters, and its checks.
struct FieldRule {
    name: &'static str,
    most: usize,
    is_good: fn(&str) -> bool,
    check_characters: fn(&str, &str) -> Result<(), ValidationError>,
    wanted: &'static str,
}

// Lengths of the platform (`ExternalContact`). E-mail and telephone are also identifiers, whose
// limit is shorter than that of the fields.
const FIRST_NAME: FieldRule = FieldRule {
    name: "firstName",
    ..NAME
};
const LAST_NAME: FieldRule = FieldRule {
    name: "lastName",
    ..NAME
};
const NAME: FieldRule = FieldRule {
    name: "",
    most: 1000,
    is_good: |_| true,
    check_characters: hidden::check_name,
    wanted: "a name",
};
const EMAIL: FieldRule = FieldRule {
    name: "email",
    most: 255,
    is_good: is_email,
    check_characters: hidden::check_identifier,
    wanted: "an e-mail address like ann@example.org",
};
const PHONE: FieldRule = FieldRule {
    name: "phone",
    most: 255,
    is_good: |text| phone::e164(text).is_some(),
    check_characters: hidden::check_identifier,
    wanted: "an international number like +31 20 555 0100 or 0031 20 555 0100, without a (0)",
};

impl ContactDetails {
    /// Parses the values that a caller gave. An empty text counts as absent.
    ///
    /// # Errors
    /// The error names the first field that is too long, malformed, or has an invisible character.
    pub fn new(
        first_name: Option<String>,
        last_name: Option<String>,
        email: Option<String>,
        phone: Option<String>,
    ) -> Result<Self, ValidationError> {
        Ok(Self {
            first_name: FIRST_NAME.check(first_name)?,
            last_name: LAST_NAME.check(last_name)?,
            email: EMAIL.check(email)?,
            phone: PHONE.check(phone)?,
        })
    }

    /// Whether all fields are absent.
    pub fn is_empty(&self) -> bool {
        self.fields().into_iter().all(|(_, value)| value.is_none())
    }

    /// First name, if known.
    pub fn first_name(&self) -> Option<&str> {
        self.first_name.as_deref()
    }

    /// Last name, if known.
    pub fn last_name(&self) -> Option<&str> {
        self.last_name.as_deref()
    }

    /// E-mail address, if known.
    pub fn email(&self) -> Option<&str> {
        self.email.as_deref()
    }

    /// Telephone number with its country code, if known, as the caller wrote it.
    pub fn phone(&self) -> Option<&str> {
        self.phone.as_deref()
    }

    /// The telephone number as an identifier: a plus sign and digits (E.164), without an extension.
    pub fn phone_e164(&self) -> Option<String> {
        // A number that an earlier version stored keeps its identifier; otherwise a resumed session
        // would find another contact.
        let recorded = |phone: &str| {
            format!(
                "+{}",
                phone
                    .chars()
                    .filter(char::is_ascii_digit)
                    .collect::<String>()
            )
        };
        self.phone()
            .map(|phone| phone::e164(phone).unwrap_or_else(|| recorded(phone)))
    }

    /// All fields with names and values.
    pub fn fields(&self) -> [(&'static str, Option<&str>); 4] {
        [
            (FIRST_NAME.name, self.first_name()),
            (LAST_NAME.name, self.last_name()),
            (EMAIL.name, self.email()),
            (PHONE.name, self.phone()),
        ]
    }

    /// Names of the fields in which `other` differs.
    pub(super) fn differences<'a>(
        &'a self,
        other: &'a Self,
    ) -> impl Iterator<Item = &'static str> + 'a {
        let both = self.fields().into_iter().zip(other.fields());
        both.filter(|((_, mine), (_, theirs))| mine != theirs)
            .map(|((name, _), _)| name)
    }
}

impl FieldRule {
    fn check(&self, text: Option<String>) -> Result<Option<String>, ValidationError> {
        let invalid = |reason: String, fix: &str| Err(ValidationError::new(self.name, reason, fix));
        let Some(text) = text
            .map(|text| text.trim().to_owned())
            .filter(|text| !text.is_empty())
        else {
            return Ok(None);
        };
        let length = text.chars().count();
        if length > self.most {
            return invalid(
                format!("has {length} characters"),
                &format!(
                    "shorten it to at most {}, the platform's maximum",
                    self.most
                ),
            );
        }
        (self.check_characters)(self.name, &text)?;
        if !(self.is_good)(&text) {
            return invalid(
                "has an invalid format".to_owned(),
                &format!("write {}", self.wanted),
            );
        }
        Ok(Some(text))
    }
}

/// Whether the text may be an e-mail address. It rejects only what is certainly not one; the
/// platform decides.
fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else {
        return false;
    };
    let labels = domain.split('.').all(|label| !label.is_empty());
    !local.is_empty()
        && !text.contains(char::is_whitespace)
        && !local.contains('@')
        && labels
        && domain.contains('.')
}

impl fmt::Debug for ContactDetails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self
            .fields()
            .into_iter()
            .filter(|(_, value)| value.is_some())
            .map(|(name, _)| name);
        write!(
            f,
            "ContactDetails({})",
            known.collect::<Vec<_>>().join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(first: &str, email: &str, phone: &str) -> ValidationError {
        ContactDetails::new(
            Some(first.into()),
            None,
            Some(email.into()),
            Some(phone.into()),
        )
        .unwrap_err()
    }

    #[test]
    fn invalid_contact_field_is_rejected_by_name() {
        assert_eq!(refused(&"x".repeat(1001), "", "").field, "firstName");
        assert_eq!(
            refused("a\u{7}", "", "").reason,
            "has a control character (U+0007) at position 2"
        );
        for email in [
            "ann",
            "ann@",
            "@example.org",
            "ann@example",
            "a nn@example.org",
            "a@b@example.org",
            "ann@example..org",
        ] {
            assert_eq!(refused("", email, "").field, "email", "{email}");
        }
        for phone in [
            "5550100",
            "+",
            "+1234",
            "+31 20 555 x",
            "+1234567890123456",
            "+31 (0)20 555 0100",
        ] {
            assert_eq!(refused("", "", phone).field, "phone", "{phone}");
        }
    }

    #[test]
    fn contact_details_are_trimmed_and_hidden_in_debug_output() {
        let person = ContactDetails::new(
            Some(" Ann ".into()),
            Some(String::new()),
            Some("ann@example.org".into()),
            Some("+31 20 555 0100".into()),
        );
        let person = person.unwrap();
        assert_eq!(
            (person.first_name(), person.last_name()),
            (Some("Ann"), None)
        );
        assert_eq!(person.phone_e164().as_deref(), Some("+31205550100"));
        assert_eq!(
            format!("{person:?}"),
            "ContactDetails(firstName, email, phone)"
        );
    }
}
