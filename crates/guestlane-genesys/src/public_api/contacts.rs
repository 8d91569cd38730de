//! External contacts: found or made, and linked to a conversation (docs/platform.md#contacts).

use http::Method;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    client::{GenesysClient, RequestSpec, RetrySafety},
    clock::Timestamp,
    error::{CallError, Operation},
    foreign::{ApiPath, PlatformId, lenient},
    gateway_api::contacts::{CreatedResource, to_json},
    retry::Completed,
};

/// A contact, as far as we fill it. The platform requires no field.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalContact {
    /// At most 1,000 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_name: Option<String>,
    /// At most 1,000 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_name: Option<String>,
    /// At most 256 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub personal_email: Option<String>,
    /// The telephone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cell_phone: Option<PhoneNumber>,
    /// Under which ids other systems know the contact; at most 10.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub external_ids: Vec<ExternalId>,
}

/// A telephone number.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhoneNumber {
    /// As people write it, at most 512 characters.
    pub display: String,
}

/// The id of another system.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalId {
    /// The system.
    pub external_source: ExternalSourceRef,
    /// The id, at most 255 characters.
    pub value: String,
}

/// An external source, by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalSourceRef {
    /// Its id.
    pub id: Uuid,
}

/// By what a contact is found. A claimed identifier belongs to one contact.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContactIdentifier {
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: IdentifierKind,
    /// Its value, at most 255 characters.
    pub value: String,
    /// Of an external id: whose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_source: Option<ExternalSourceRef>,
}

/// The kinds of identifiers that we use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IdentifierKind {
    /// The id in another system.
    ExternalId,
    /// An e-mail address.
    Email,
    /// A telephone number.
    Phone,
}

/// `POST …/contacts/enrich`: finds the contact by its identifiers, or makes it.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UpsertContactRequest<'a> {
    /// 1 to 25.
    pub matching_identifiers: &'a [ContactIdentifier],
    /// Always `Upsert`.
    pub action: &'static str,
    /// What the contact shall have.
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
    /// Found or made.
    pub fn upsert(identifiers: &'a [ContactIdentifier], contact: &'a ExternalContact) -> Self {
        Self { matching_identifiers: identifiers, action: "Upsert", contact }
    }
}

/// What an upsert would do to the contact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "would")]
pub enum UpsertPreview {
    /// There is none yet: it would be made.
    Create,
    /// It is there, and would be brought up to date.
    Update {
        /// Its id, if the platform tells it.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<PlatformId>,
    },
}

const CONTACTS: &str = "/api/v2/externalcontacts/contacts";
const ENRICH: &str = "/api/v2/externalcontacts/contacts/enrich";

impl GenesysClient {
    /// Finds or makes the contact with these identifiers. Repeating it makes no second one. Should the platform say that an identifier is taken
    /// (409: somebody else upserts the same guest at this moment), the one who has it is the contact.
    pub async fn upsert_contact(
        &self,
        identifiers: &[ContactIdentifier],
        contact: &ExternalContact,
        deadline: Timestamp,
    ) -> Result<Completed<CreatedResource>, CallError> {
        let body = to_json(&UpsertContactRequest::upsert(identifiers, contact));
        let call = RequestSpec::post(Operation::EnrichContact, ApiPath::new(ENRICH), body, RetrySafety::Idempotent);
        let failed = match self.call(&call, deadline).await {
            Err(failed) if failed.is_conflict() => failed,
            done => return done,
        };
        let Some(first) = identifiers.first() else { return Err(failed) };
        match self.find_contact(first, deadline).await {
            Ok(found) => Ok(Completed { tries: failed.tries + found.tries, ..found }),
            Err(not_found) if not_found.is_not_found() => Err(failed),
            Err(other) => Err(other),
        }
    }

    /// What [`upsert_contact`](Self::upsert_contact) would do. Nothing is changed.
    pub async fn dry_run_upsert_contact(
        &self,
        identifiers: &[ContactIdentifier],
        contact: &ExternalContact,
        deadline: Timestamp,
    ) -> Result<UpsertPreview, CallError> {
        #[derive(Deserialize)]
        struct Preview {
            #[serde(default, deserialize_with = "lenient")]
            id: Option<PlatformId>,
        }
        let body = to_json(&UpsertContactRequest::upsert(identifiers, contact));
        let path = ApiPath::new(ENRICH).then("?dryRun=true");
        let call = RequestSpec::post(Operation::EnrichContact, path, body, RetrySafety::Idempotent);
        let (status, preview) = self.call_with_status::<Preview>(&call, deadline).await?.value;
        Ok(if status == http::StatusCode::CREATED { UpsertPreview::Create } else { UpsertPreview::Update { id: preview.id } })
    }

    /// The contact that has an identifier; 404 when nobody has.
    pub async fn find_contact(
        &self,
        identifier: &ContactIdentifier,
        deadline: Timestamp,
    ) -> Result<Completed<CreatedResource>, CallError> {
        let path = ApiPath::new("/api/v2/externalcontacts/identifierlookup/contacts");
        let call = RequestSpec::post(Operation::FindContact, path, to_json(identifier), RetrySafety::Idempotent);
        self.call(&call, deadline).await
    }

    /// Makes a contact that nothing identifies. Sent again only when it surely was not done: a second one would be another contact.
    pub async fn create_contact(
        &self,
        contact: &ExternalContact,
        deadline: Timestamp,
    ) -> Result<Completed<CreatedResource>, CallError> {
        let call = RequestSpec::post(
            Operation::CreateContact,
            ApiPath::new(CONTACTS),
            to_json(contact),
            RetrySafety::NotIfOutcomeUnknown,
        );
        self.call(&call, deadline).await
    }

    /// Links a contact to a conversation. Repeating it changes nothing; the platform does it a little later (202).
    pub async fn link_contact(
        &self,
        contact_id: &PlatformId,
        conversation_id: &PlatformId,
        communication_id: &PlatformId,
        deadline: Timestamp,
    ) -> Result<Completed<()>, CallError> {
        let link = Link { external_contact_id: contact_id, conversation_id, communication_id, media_type: "MESSAGE" };
        let path = ApiPath::new("/api/v2/externalcontacts/conversations").segment(conversation_id);
        let call = RequestSpec {
            method: Method::PUT,
            ..RequestSpec::post(Operation::LinkContact, path, to_json(&link), RetrySafety::Idempotent)
        };
        self.call_no_body(&call, deadline).await
    }
}
