//! `POST /api/v2/externalcontacts/contacts` on the surface `rest` (requirements R4 and R6,
//! docs/requirements.md).

use std::{borrow::Cow, collections::BTreeMap};

use http::Method;
use serde::{Deserialize, Serialize};

use crate::{
    call_context::CallContext,
    client::{GenesysClient, RequestSpec},
    error::{CallError, Operation},
    foreign::{ApiPath, PlatformId},
    rate_limit::ExcludedClients,
    retry::{Completed, RetrySafety},
};

/// Request to create the guest's contact.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegisterContactRequest<'a> {
    /// Always [`RegisterContactRequest::TYPE`].
    #[serde(rename = "type")]
    pub kind: Cow<'a, str>,
    /// `guest-<guest id>`
    pub address: Cow<'a, str>,
    /// The guest ID.
    pub external_contact_id: Cow<'a, str>,
    /// The guest token and the caller's attributes.
    pub custom_attributes: ContactAttributes<'a>,
}

/// Attributes stored with the contact. `guestToken` comes first, and no attribute of the caller can
/// have that name.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContactAttributes<'a> {
    /// The guest token.
    pub guest_token: Cow<'a, str>,
    /// The caller's attributes.
    #[serde(flatten)]
    pub attributes: Cow<'a, BTreeMap<String, String>>,
}

/// The platform's response to a create request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedResource {
    /// The platform's ID of the resource.
    pub id: PlatformId,
}

/// Returns the address of a guest on the platform, by which the conversation refers to the contact.
pub fn guest_address(guest_id: &str) -> String {
    format!("guest-{guest_id}")
}

impl<'a> RegisterContactRequest<'a> {
    /// The contact type of web messaging guests.
    pub const TYPE: &'static str = "webchat";

    /// Creates the request for a guest.
    pub fn new(
        guest_id: &'a str,
        guest_token: &'a str,
        attributes: &'a BTreeMap<String, String>,
    ) -> Self {
        Self {
            kind: Self::TYPE.into(),
            address: guest_address(guest_id).into(),
            external_contact_id: guest_id.into(),
            custom_attributes: ContactAttributes {
                guest_token: guest_token.into(),
                attributes: Cow::Borrowed(attributes),
            },
        }
    }
}

impl GenesysClient {
    /// Creates a contact (step A). Every attempt sends `idempotency_key` and the same bytes.
    ///
    /// # Errors
    ///
    /// Fails if the platform rejects the request, or gives no response before `deadline`.
    pub async fn register_contact(
        &self,
        contact: &RegisterContactRequest<'_>,
        idempotency_key: String,
        context: &CallContext,
    ) -> Result<Completed<CreatedResource>, CallError> {
        let call = RequestSpec {
            operation: Operation::Contact,
            method: Method::POST,
            path: ApiPath::new("/api/v2/externalcontacts/contacts"),
            idempotency_key: Some(idempotency_key),
            body: to_json(contact),
            repeat: RetrySafety::Idempotent,
            tried: ExcludedClients::default(),
        };
        self.call(&call, context).await
    }
}

/// Serializes a request body. Structs of strings always serialize, so there is no error case.
pub(crate) fn to_json(value: &impl Serialize) -> bytes::Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}
