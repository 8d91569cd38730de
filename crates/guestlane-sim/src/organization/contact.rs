//! External contacts as the platform accepts them: fields, limits and identifiers
//! (docs/platform.md#contacts).

use guestlane_runtime::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::response::Refusal;

/// An identifier of a contact: its kind, its normalized value, and the source of an external ID.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Identifier {
    pub(crate) kind: &'static str,
    pub(crate) value: String,
    pub(crate) source: Option<Uuid>,
}

const KINDS: [&str; 12] = [
    "SocialLine",
    "SocialFacebook",
    "SocialTwitter",
    "SocialWhatsapp",
    "SocialWhatsappBsuid",
    "SocialInstagram",
    "SocialInstagramHandle",
    "AppleOpaqueId",
    "Email",
    "Phone",
    "Cookie",
    "ExternalId",
];

const NAMES: [&str; 5] = ["firstName", "middleName", "lastName", "salutation", "title"];
const EMAILS: [&str; 3] = ["personalEmail", "workEmail", "otherEmail"];
const PHONES: [&str; 4] = ["cellPhone", "workPhone", "homePhone", "otherPhone"];
const OBJECTS: [&str; 10] = [
    "address",
    "twitterId",
    "lineId",
    "whatsAppId",
    "facebookId",
    "instagramId",
    "externalOrganization",
    "schema",
    "customFields",
    "division",
];
const ADDRESS: [(&str, usize); 6] = [
    ("address1", 200),
    ("address2", 200),
    ("city", 100),
    ("state", 50),
    ("postalCode", 25),
    ("countryCode", 25),
];

/// Parses and validates a contact. Values are trimmed and phone numbers normalized. Unknown fields
/// and fields that only the platform sets are dropped.
pub(crate) fn read(given: &Value, source: Uuid) -> Result<Map<String, Value>, Refusal> {
    let given = given
        .as_object()
        .ok_or_else(|| Refusal::bad_request("A contact is an object."))?;
    let mut contact = Map::new();
    for (name, value) in given.iter().filter(|(_, value)| !value.is_null()) {
        let name = name.as_str();
        let value = if NAMES.contains(&name) {
            json!(text(name, value, 1000)?)
        } else if EMAILS.contains(&name) {
            json!(email(name, value)?)
        } else if PHONES.contains(&name) {
            phone(name, value)?
        } else if name == "externalSystemUrl" {
            let address = text(name, value, 1000)?;
            url::Url::parse(&address).map_err(|_| invalid(name, "is not a full URL"))?;
            json!(address)
        } else if name == "externalIds" {
            external_ids(value, source)?
        } else if name == "appleOpaqueIds" {
            value
                .as_array()
                .filter(|ids| ids.len() <= 10)
                .ok_or_else(|| invalid(name, "is not a list of at most 10"))?;
            value.clone()
        } else if name == "surveyOptOut" {
            value
                .as_bool()
                .ok_or_else(|| invalid(name, "is not true or false"))?
                .into()
        } else if OBJECTS.contains(&name) {
            object(name, value)?
        } else {
            continue;
        };
        contact.insert(name.to_owned(), value);
    }
    Ok(contact)
}

/// Returns the identifiers in a contact's fields.
pub(crate) fn identifiers(contact: &Map<String, Value>) -> Vec<Identifier> {
    let ids = contact
        .get("externalIds")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    ids.filter_map(|id| {
        identifier(&json!({"type": "ExternalId", "value": id["value"], "externalSource": id["externalSource"]})).ok()
    })
    .collect()
}

/// Parses a `ContactIdentifier`.
pub(crate) fn identifier(given: &Value) -> Result<Identifier, Refusal> {
    let kind = given["type"].as_str().unwrap_or_default();
    let kind = KINDS.into_iter().find(|known| *known == kind);
    let kind = kind.ok_or_else(|| invalid("type", "is not a type of identifier"))?;
    let value = text("value", &given["value"], 255)?;
    if value.is_empty() {
        return Err(invalid("value", "is empty"));
    }
    let source = match &given["externalSource"]["id"] {
        Value::Null => None,
        id => Some(uuid("externalSource.id", id)?),
    };
    if kind == "ExternalId" && source.is_none() {
        return Err(invalid("externalSource.id", "is missing"));
    }
    let value = match kind {
        "Email" => value.to_lowercase(),
        "Phone" => e164(&value).unwrap_or(value),
        _ => value,
    };
    Ok(Identifier {
        kind,
        value,
        source,
    })
}

/// Returns the external source that an identifier names. The source must exist.
pub(crate) fn known_source(identifier: &Identifier, source: Uuid) -> bool {
    identifier.source.is_none_or(|named| named == source)
}

/// Returns the guest of a contact, for the count of duplicates. A contact without guest data counts
/// as a guest of its own.
pub(crate) fn guest(id: Uuid, contact: &Map<String, Value>, identifiers: &[Identifier]) -> String {
    let by = |kind| {
        identifiers
            .iter()
            .find(|known| known.kind == kind)
            .map(|known| known.value.clone())
    };
    let field = |name: &str| {
        contact
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let email = || {
        EMAILS
            .iter()
            .map(|name| field(name))
            .find(|email| !email.is_empty())
            .map(str::to_lowercase)
    };
    let number = |phone: &Value| {
        phone["e164"]
            .as_str()
            .or(phone["display"].as_str())
            .map(str::to_owned)
    };
    let phone = || PHONES.iter().find_map(|name| number(contact.get(*name)?));
    let name = || {
        format!("{} {}", field("firstName"), field("lastName"))
            .trim()
            .to_owned()
    };
    by("ExternalId")
        .or_else(|| by("Email"))
        .or_else(email)
        .or_else(|| by("Phone"))
        .or_else(phone)
        .or_else(|| Some(name()).filter(|name| !name.is_empty()))
        .unwrap_or_else(|| id.to_string())
}

/// Returns the contact as a response body.
pub(crate) fn shown(
    id: Option<Uuid>,
    contact: &Map<String, Value>,
    created: Timestamp,
    modified: Timestamp,
) -> Value {
    let mut shown = contact.clone();
    if let Some(id) = id {
        shown.insert("id".to_owned(), json!(id));
        shown.insert(
            "selfUri".to_owned(),
            json!(format!("/api/v2/externalcontacts/contacts/{id}")),
        );
        shown.insert("createDate".to_owned(), json!(created));
        shown.insert("modifyDate".to_owned(), json!(modified));
    }
    shown.insert("type".to_owned(), json!("Curated"));
    Value::Object(shown)
}

fn invalid(field: &str, why: &str) -> Refusal {
    Refusal::new(
        http::StatusCode::BAD_REQUEST,
        "invalid.value",
        format!("{field} {why}."),
    )
}

fn text(field: &str, value: &Value, max: usize) -> Result<String, Refusal> {
    let text = value
        .as_str()
        .ok_or_else(|| invalid(field, "is not a string"))?
        .trim();
    if text.chars().count() > max {
        return Err(invalid(field, &format!("is longer than {max}")));
    }
    Ok(text.to_owned())
}

fn email(field: &str, value: &Value) -> Result<String, Refusal> {
    let email = text(field, value, 256)?;
    let good = email.split_once('@').is_some_and(|(local, domain)| {
        let labels = || domain.split('.');
        !local.is_empty()
            && !domain.contains('@')
            && labels().count() > 1
            && labels().all(|label| !label.is_empty())
    });
    if good && !email.contains(char::is_whitespace) {
        Ok(email)
    } else {
        Err(invalid(field, "is not an e-mail address"))
    }
}

fn phone(field: &str, value: &Value) -> Result<Value, Refusal> {
    let given = value
        .as_object()
        .ok_or_else(|| invalid(field, "is not an object"))?;
    let mut phone = Map::new();
    for name in [
        "extension",
        "acceptsSMS",
        "normalizationCountryCode",
        "countryCode",
    ] {
        if let Some(value) = given.get(name) {
            phone.insert(name.to_owned(), value.clone());
        }
    }
    if let Some(display) = given.get("display").filter(|display| !display.is_null()) {
        let display = text(&format!("{field}.display"), display, 512)?;
        if let Some(e164) = e164(&display) {
            phone.insert("e164".to_owned(), json!(e164));
        }
        phone.insert("userInput".to_owned(), json!(display));
        phone.insert("display".to_owned(), json!(display));
    }
    Ok(Value::Object(phone))
}

/// Normalizes a phone number: `+31 20 555 0100` is `+31205550100`, and so are `0031…` and `(+31)…`.
/// An extension is not part of it ("Format phone numbers for bulk import" in the platform's help).
/// A number without a country code is unchanged.
fn e164(display: &str) -> Option<String> {
    let (number, extension) = display.split_once(['x', 'X']).unwrap_or((display, "0"));
    let rest = number
        .strip_prefix("(+")
        .or_else(|| number.strip_prefix('+'))
        .or_else(|| number.strip_prefix("00"))?;
    let good = rest
        .chars()
        .all(|c| c.is_ascii_digit() || matches!(c, ' ' | '-' | '.' | '(' | ')' | '/'))
        && extension.trim().parse::<u32>().is_ok();
    let digits: String = rest.chars().filter(char::is_ascii_digit).collect();
    (good && (7..=15).contains(&digits.len())).then(|| format!("+{digits}"))
}

fn external_ids(value: &Value, source: Uuid) -> Result<Value, Refusal> {
    let field = "externalIds";
    let ids = value
        .as_array()
        .filter(|ids| ids.len() <= 10)
        .ok_or_else(|| invalid(field, "is not a list of at most 10"))?;
    let read = |id: &Value| {
        let named = uuid("externalIds.externalSource.id", &id["externalSource"]["id"])?;
        if named != source {
            return Err(invalid(
                "externalIds.externalSource.id",
                "is not a source of this organization",
            ));
        }
        let value = text("externalIds.value", &id["value"], 255)?;
        if value.is_empty() {
            return Err(invalid("externalIds.value", "is empty"));
        }
        Ok(json!({"externalSource": {"id": named}, "value": value}))
    };
    ids.iter().map(read).collect()
}

fn object(field: &str, value: &Value) -> Result<Value, Refusal> {
    let object = value
        .as_object()
        .ok_or_else(|| invalid(field, "is not an object"))?;
    if field == "address" {
        for (name, max) in ADDRESS {
            if let Some(value) = object.get(name).filter(|value| !value.is_null()) {
                text(&format!("address.{name}"), value, max)?;
            }
        }
    }
    Ok(value.clone())
}

fn uuid(field: &str, value: &Value) -> Result<Uuid, Refusal> {
    value
        .as_str()
        .and_then(|text| Uuid::try_parse(text).ok())
        .ok_or_else(|| invalid(field, "is not a UUID"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phone_number_is_normalized_to_e164() {
        for (display, number) in [
            ("+31 20 555 0100", Some("+31205550100")),
            ("(+44)121.555.5251", Some("+441215555251")),
            ("0044 121 555 5251", Some("+441215555251")),
            ("001 321 555 9872", Some("+13215559872")),
            ("+1 321 555 9872 x 123", Some("+13215559872")),
            ("+1 (415) 555-2629", Some("+14155552629")),
            ("020 555 0100", None),
            ("+1 321 555 9872 x y", None),
            ("+1 321 555 fax", None),
        ] {
            assert_eq!(e164(display).as_deref(), number, "{display}");
        }
    }
}
