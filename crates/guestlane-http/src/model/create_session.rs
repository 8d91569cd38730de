//! JSON model of a request to create a session.

use guestlane::request::{
    Attributes, ContactDetails, IdempotencyKey, QueueId, SessionRequest, ValidationError,
};
use serde::{Deserialize, Deserializer};
use utoipa::{
    ToSchema,
    openapi::{Object, ObjectBuilder, Type},
};

/// A session to be created. Nothing is created before all of it was checked.
#[derive(Clone, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateSessionRequest {
    /// The id under which the CRM knows the guest: no control characters, no characters that are invisible (like U+200B), no white space at either end.
    #[schema(
        min_length = 1,
        max_length = 128,
        pattern = r"^[^\s\u0000-\u001f\u007f-\u009f]([^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f])?$",
        example = "user-8842-xyz"
    )]
    pub guest_id: String,
    /// The queue [default: GENESYS_QUEUE_ID].
    #[schema(format = Uuid, min_length = 36, max_length = 36, example = "5e0c0000-0000-4000-8000-000000000001")]
    pub queue_id: Option<String>,
    /// The name of this wish, where it is not in the header `Idempotency-Key`: visible ASCII.
    #[schema(
        min_length = 1,
        max_length = 255,
        pattern = "^[!-~]+$",
        example = "order-2231-chat"
    )]
    pub idempotency_key: Option<String>,
    /// The contact's first name. Of the official surfaces.
    #[schema(max_length = 1000, example = "Ada")]
    pub first_name: Option<String>,
    /// The contact's last name. Of the official surfaces.
    #[schema(max_length = 1000, example = "Lovelace")]
    pub last_name: Option<String>,
    /// The contact's e-mail address. Of the official surfaces.
    #[schema(max_length = 255, example = "ada@example.com")]
    pub email: Option<String>,
    /// The contact's telephone number. Of the official surfaces.
    #[schema(max_length = 255, example = "+31 20 555 0100")]
    pub phone: Option<String>,
    /// What is known of the guest: texts that become claims of the guest token and attributes of the contact. At most 50, with 2,048 bytes in names and
    /// values; not `guestToken`, `sessionToken`, `routingTarget`, `guestId` nor a registered claim of JWT.
    #[serde(default, deserialize_with = "pairs")]
    #[schema(schema_with = attributes)]
    pub attributes: Vec<(String, String)>,
}

fn attributes() -> Object {
    let text = ObjectBuilder::new()
        .schema_type(Type::String)
        .max_length(Some(Attributes::MAX_BYTES));
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .additional_properties(Some(text))
        .max_properties(Some(Attributes::MAX_COUNT))
        .examples([serde_json::json!({"source": "web-portal", "tier": "premium"})])
        .description(Some(
            "Attributes of the guest: strings that become claims of the guest token and \
             attributes of the contact. At most 50, with 2,048 bytes in names and values. \
             Reserved names: guestToken, sessionToken, routingTarget, guestId and the registered \
             claims of JWT. `null`, and `[]` as PHP writes an empty map, mean no attributes.",
        ))
        .build()
}

/// An object as its pairs, so that a name that comes twice can be refused. `null` and `[]` are no attributes: PHP writes an empty map as `[]`.
fn pairs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, String)>, D::Error> {
    struct Pairs;

    impl<'de> serde::de::Visitor<'de> for Pairs {
        type Value = Vec<(String, String)>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object whose values are strings")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(
            self,
            mut map: A,
        ) -> Result<Self::Value, A::Error> {
            let mut pairs = Vec::new();
            while let Some(pair) = map.next_entry()? {
                pairs.push(pair);
            }
            Ok(pairs)
        }

        fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(
            self,
            mut list: A,
        ) -> Result<Self::Value, A::Error> {
            match list.next_element::<serde::de::IgnoredAny>()? {
                None => Ok(Vec::new()),
                Some(_) => Err(serde::de::Error::invalid_type(
                    serde::de::Unexpected::Seq,
                    &self,
                )),
            }
        }
    }

    deserializer.deserialize_any(Pairs)
}

/// The key of a wish that names none.
#[derive(Debug, Clone, Copy)]
pub enum DefaultKey<'a> {
    /// A fresh one.
    Fresh,
    /// One that depends on the batch's name and on what the row says.
    OfRow(&'a str),
}

impl CreateSessionRequest {
    /// Checks all of it. `queue` is that of sessions that name none.
    pub fn request(
        self,
        queue: Option<QueueId>,
        key: DefaultKey<'_>,
    ) -> Result<SessionRequest, ValidationError> {
        let guest = self.guest_id.parse()?;
        let missing = || {
            ValidationError::new(
                "queueId",
                "is missing",
                "send queueId, or set GENESYS_QUEUE_ID",
            )
        };
        let queue = self
            .queue_id
            .map(|id| id.parse())
            .transpose()?
            .or(queue)
            .ok_or_else(missing)?;
        let attributes = Attributes::from_pairs(self.attributes)?;
        let person = ContactDetails::new(self.first_name, self.last_name, self.email, self.phone)?;
        let key = match (self.idempotency_key, key) {
            (Some(key), _) => key.parse()?,
            (None, DefaultKey::Fresh) => IdempotencyKey::generate(),
            (None, DefaultKey::OfRow(batch)) => {
                IdempotencyKey::derive_for_row(batch, &guest, &person, queue, &attributes)
            }
        };
        Ok(SessionRequest {
            guest,
            contact_details: person,
            queue,
            attributes,
            key,
        })
    }
}
