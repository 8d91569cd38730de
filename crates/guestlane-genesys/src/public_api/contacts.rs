//! External contacts: find, create, and link to a conversation (docs/platform.md#contacts).

use http::Method;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    call_context::CallContext,
    client::{GenesysClient, RequestSpec, to_json},
    error::{CallError, Operation},
    foreign::{ApiPath, PlatformId, lenient},
    gateway_api::CreatedResource,
    retry::{Completed, RetrySafety},
};

/// A contact, with the fields that this client sets. The platform requires no field.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalContact {
    /// First name, at most 1,000 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_name: Option<String>,
    /// Last name, at most 1,000 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_name: Option<String>,
    /// E-mail address, at most 256 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub personal_email: Option<String>,
    /// Telephone number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cell_phone: Option<PhoneNumber>,
    /// IDs of the contact in other systems; at most 10.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub external_ids: Vec<ExternalId>,
}

/// A telephone number.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhoneNumber {
    /// The number as written by people, at most 512 characters.
    pub display: String,
}

/// The ID of a contact in another system.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalId {
    /// The other system.
    pub external_source: ExternalSourceRef,
    /// The ID, at most 255 characters.
    pub value: String,
}

/// A reference to an external source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalSourceRef {
    /// The ID of the external source.
    pub id: Uuid,
}

/// An identifier by which a contact is found. A claimed identifier belongs to one contact.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContactIdentifier {
    /// The kind.
    #[serde(rename = "type")]
    pub kind: IdentifierKind,
    /// The value, at most 255 characters.
    pub value: String,
    /// The external source of an external ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_source: Option<ExternalSourceRef>,
}

/// The kinds of identifiers that this client uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IdentifierKind {
    /// The ID in another system.
    ExternalId,
    /// An e-mail address.
    Email,
    /// A telephone number.
    Phone,
}

/// `POST …/contacts/enrich`: finds the contact by its identifiers, or creates it.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UpsertContactRequest<'a> {
    /// 1 to 25 identifiers.
    pub matching_identifiers: &'a [ContactIdentifier],
    /// Always `Upsert`.
    pub action: &'static str,
    /// The fields to set.
    pub contact: &'a ExternalContact,
}

/// `PUT …/externalcontacts/conversations/{conversationId}`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Link<'a> {
    external_contact_id: &'a PlatformId,
    conversation_id: &'a PlatformId,
    communication_id: &'a PlatformId,
    media_type: &'static str,
}

impl<'a> UpsertContactRequest<'a> {
    /// Creates an upsert request.
    pub fn upsert(identifiers: &'a [ContactIdentifier], contact: &'a ExternalContact) -> Self {
        Self {
            matching_identifiers: identifiers,
            action: "Upsert",
            contact,
        }
    }
}

/// What an upsert would do to the contact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "would")]
pub enum UpsertPreview {
    /// The contact does not exist and would be created.
    Create,
    /// The contact exists and would be updated.
    Update {
        /// The contact's ID, if the platform returns it.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<PlatformId>,
    },
}

const CONTACTS: &str = "/api/v2/externalcontacts/contacts";
const ENRICH: &str = "/api/v2/externalcontacts/contacts/enrich";

impl GenesysClient {
    /// Finds or creates the contact with these identifiers. A retry creates no second contact.
    ///
    /// A 409 means that another request upserts the same guest at the same time. The contact that
    /// then has the first identifier is returned.
    ///
    /// # Errors
    ///
    /// Fails if the platform rejects the request, or gives no response before `deadline`.
    pub async fn upsert_contact(
        &self,
        identifiers: &[ContactIdentifier],
        contact: &ExternalContact,
        context: &CallContext,
    ) -> Result<Completed<CreatedResource>, CallError> {
        let body = to_json(&UpsertContactRequest::upsert(identifiers, contact));
        let call = RequestSpec::post(
            Operation::EnrichContact,
            ApiPath::new(ENRICH),
            body,
            RetrySafety::Idempotent,
        );
        let failed = match self.call(&call, context).await {
            Err(failed) if failed.is_conflict() => failed,
            done => return done,
        };
        let Some(first) = identifiers.first() else {
            return Err(failed);
        };
        match self.find_contact(first, context).await {
            Ok(found) => Ok(Completed {
                attempts: failed.attempts + found.attempts,
                ..found
            }),
            Err(not_found) if not_found.is_not_found() => Err(failed),
            Err(other) => Err(other),
        }
    }

    /// Returns what [`upsert_contact`](Self::upsert_contact) would do, without changing anything.
    ///
    /// # Errors
    ///
    /// Fails if the platform rejects the request, or gives no response before `deadline`.
    pub async fn dry_run_upsert_contact(
        &self,
        identifiers: &[ContactIdentifier],
        contact: &ExternalContact,
        context: &CallContext,
    ) -> Result<UpsertPreview, CallError> {
        #[derive(Deserialize)]
        struct Preview {
            #[serde(default, deserialize_with = "lenient")]
            id: Option<PlatformId>,
        }
        let body = to_json(&UpsertContactRequest::upsert(identifiers, contact));
        let path = ApiPath::new(ENRICH).then("?dryRun=true");
        let call = RequestSpec::post(
            Operation::EnrichContact,
            path,
            body,
            RetrySafety::Idempotent,
        );
        let (status, preview) = self
            .call_with_status::<Preview>(&call, context)
            .await?
            .value;
        Ok(if status == http::StatusCode::CREATED {
            UpsertPreview::Create
        } else {
            UpsertPreview::Update { id: preview.id }
        })
    }

    /// Returns the contact that has an identifier.
    ///
    /// # Errors
    ///
    /// Fails with status 404 if no contact has the identifier.
    pub async fn find_contact(
        &self,
        identifier: &ContactIdentifier,
        context: &CallContext,
    ) -> Result<Completed<CreatedResource>, CallError> {
        let path = ApiPath::new("/api/v2/externalcontacts/identifierlookup/contacts");
        let call = RequestSpec::post(
            Operation::FindContact,
            path,
            to_json(identifier),
            RetrySafety::Idempotent,
        );
        self.call(&call, context).await
    }

    /// Creates a contact without identifiers. An unknown outcome is not retried, because a second
    /// request would create another contact.
    ///
    /// # Errors
    ///
    /// Fails if the platform rejects the request, or gives no response before `deadline`.
    pub async fn create_contact(
        &self,
        contact: &ExternalContact,
        context: &CallContext,
    ) -> Result<Completed<CreatedResource>, CallError> {
        let call = RequestSpec::post(
            Operation::CreateContact,
            ApiPath::new(CONTACTS),
            to_json(contact),
            RetrySafety::NotIfOutcomeUnknown,
        );
        self.call(&call, context).await
    }

    /// Links a contact to a conversation. The call is idempotent; the platform links asynchronously
    /// (202).
    ///
    /// # Errors
    ///
    /// Fails if the platform rejects the request, or gives no response before `deadline`.
    pub async fn link_contact(
        &self,
        contact_id: &PlatformId,
        conversation_id: &PlatformId,
        communication_id: &PlatformId,
        context: &CallContext,
    ) -> Result<Completed<()>, CallError> {
        let link = Link {
            external_contact_id: contact_id,
            conversation_id,
            communication_id,
            media_type: "MESSAGE",
        };
        let path = ApiPath::new("/api/v2/externalcontacts/conversations").segment(conversation_id);
        let call = RequestSpec {
            method: Method::PUT,
            ..RequestSpec::post(
                Operation::LinkContact,
                path,
                to_json(&link),
                RetrySafety::Idempotent,
            )
        };
        self.call_no_body(&call, context).await
    }
}
