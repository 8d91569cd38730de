//! JSON model of a request to create a session.

use guestlane_core::request::{
    Attributes, ContactDetails, IdempotencyKey, Owner, QueueId, SessionRequest, ValidationError,
};
use serde::{Deserialize, Deserializer};
use utoipa::{
    ToSchema,
    openapi::{Object, ObjectBuilder, Type},
};

/// A request to create one session. The whole request is validated before anything is created.
#[derive(Clone, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateSessionRequest {
    /// The ID under which the CRM knows the guest. It has no control characters, no invisible
    /// characters (such as U+200B), and no white space at either end.
    #[schema(
        min_length = 1,
        max_length = 128,
        pattern = r"^[^\s\u0000-\u001f\u007f-\u009f]([^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f])?$",
        example = "user-8842-xyz"
    )]
    pub guest_id: String,
    /// The ID of the queue [default: the setting GENESYS_QUEUE_ID].
    #[schema(format = Uuid, min_length = 36, max_length = 36, example = "5e0c0000-0000-4000-8000-000000000001")]
    pub queue_id: Option<String>,
    /// The idempotency key of the session, unless the header `Idempotency-Key` has it. Visible
    /// ASCII characters only.
    #[schema(
        min_length = 1,
        max_length = 255,
        pattern = "^[!-~]+$",
        example = "order-2231-chat"
    )]
    pub idempotency_key: Option<String>,
    /// The contact's first name. Only the surfaces `web-messaging` and `open-messaging` use it.
    #[schema(max_length = 1000, example = "Ada")]
    pub first_name: Option<String>,
    /// The contact's last name. Only the surfaces `web-messaging` and `open-messaging` use it.
    #[schema(max_length = 1000, example = "Lovelace")]
    pub last_name: Option<String>,
    /// The contact's e-mail address. Only the surfaces `web-messaging` and `open-messaging` use it.
    #[schema(max_length = 255, example = "ada@example.com")]
    pub email: Option<String>,
    /// The contact's telephone number. Only the surfaces `web-messaging` and `open-messaging` use
    /// it.
    #[schema(max_length = 255, example = "+31 20 555 0100")]
    pub phone: Option<String>,
    /// Attributes of the guest: strings that become claims of the guest token and attributes of the
    /// contact. At most 50, with 2,048 bytes in names and values. The names `guestToken`,
    /// `sessionToken`, `routingTarget`, `guestId` and the registered claims of JWT are reserved.
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

/// Deserializes an object into its name-value pairs, so that a duplicate name can be refused.
/// `null` and `[]` give no pairs: PHP serialises an empty map as `[]`.
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

/// Source of the idempotency key for a request that has none.
#[derive(Debug, Clone, Copy)]
pub enum DefaultKey<'a> {
    /// Generates a random key.
    Fresh,
    /// Derives the key from the batch's name and the content of the row.
    OfRow(&'a str),
}

impl CreateSessionRequest {
    /// Validates the request. `queue` is the default for a request without a queue ID; the
    /// idempotency key is one of this owner.
    ///
    /// # Errors
    /// A field is missing or invalid; the error names the field and the fix.
    pub fn request(
        self,
        queue: Option<QueueId>,
        key: DefaultKey<'_>,
        owner: &Owner,
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
            key: key.owned_by(owner.clone()),
        })
    }
}
