//! Attachments: requested on the socket, and uploaded and downloaded by HTTP under `/_upload/`,
//! which stands in for the platform's storage.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use bytes::Bytes;
use guestlane_genesys::guest::frame::{
    AttachmentDeleted, Body as FrameBody, ErrorMessage, FrameKind, PresignedUrl, ServerFrame,
    UploadSuccess,
};
use guestlane_runtime::Timestamp;
use http::{HeaderMap, Response, StatusCode, header};
use serde_json::{Map, Value, json};

use super::frames::{self, Reply};
use crate::{
    organization::Organization,
    public_api::deployment::parameter,
    response::{self, Body, Refusal},
};

/// The lifetime of a signed URL (docs/platform.md#guest-limits).
const ADDRESS_LIFE: Duration = Duration::from_secs(600);
const MAX_NAME: usize = 1024;

/// A file that a guest sends.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) attachment_id: String,
    pub(super) file_name: String,
    pub(super) file_type: String,
    pub(super) file_size: u64,
}

#[derive(Debug)]
pub(super) struct Attachment {
    wanted: Wanted,
    content: Option<Bytes>,
    /// Whether the file is part of a message. If so, it is kept.
    sent: bool,
}

/// The files, by session and the client's ID, and their signed URLs.
#[derive(Debug, Default)]
pub(super) struct Files {
    files: HashMap<(String, String), Attachment>,
    /// By signature.
    addresses: HashMap<String, Address>,
}

#[derive(Debug)]
struct Address {
    session: String,
    id: String,
    /// The method that the URL is valid for: `PUT` or `GET`.
    method: &'static str,
    good_until: Timestamp,
}

impl Files {
    fn get(&self, session: &str, id: &str) -> Option<&Attachment> {
        self.files.get(&(session.to_owned(), id.to_owned()))
    }

    fn get_mut(&mut self, session: &str, id: &str) -> Option<&mut Attachment> {
        self.files.get_mut(&(session.to_owned(), id.to_owned()))
    }

    /// Verifies a signed URL, and returns the session of its file.
    fn signed(
        &self,
        method: &str,
        id: &str,
        query: Option<&str>,
        now: Timestamp,
    ) -> Result<String, Refusal> {
        let signature = parameter(query, "sig").unwrap_or_default();
        let address = self
            .addresses
            .get(&signature)
            .filter(|address| address.method == method && address.id == id);
        let good = address.filter(|address| address.good_until > now);
        good.map(|address| address.session.clone())
            .ok_or_else(|| denied("The URL is not valid, or has expired."))
    }
}

impl Organization {
    /// `onAttachment`
    pub(super) fn on_attachment(
        &mut self,
        key: &str,
        wanted: Wanted,
        errors_as_json: bool,
        tracing_id: Option<String>,
        now: Timestamp,
    ) -> Reply {
        if let Err((code, text)) = self.check_file(&wanted) {
            let error = ErrorMessage {
                name: Some("GenerateUrlError".to_owned()),
                message: Some(text.to_owned()),
                error_code: Some(code),
                error_message: Some(text.to_owned()),
                attachment_id: Some(wanted.attachment_id),
                timestamp: Some(now.to_string()),
                ..ErrorMessage::default()
            };
            // Both forms were seen; the one with 200 by clients that request errors as JSON.
            let (kind, code) = if errors_as_json {
                (FrameKind::Message, 200)
            } else {
                (FrameKind::Response, 400)
            };
            return ServerFrame {
                kind,
                code,
                body: FrameBody::GenerateUrlError(error),
                tracing_id,
            }
            .into();
        }
        let id = wanted.attachment_id.clone();
        if self
            .guests
            .files
            .get(key, &id)
            .is_some_and(|known| known.sent)
        {
            return frames::error(400, "The attachment was sent already.", tracing_id).into();
        }
        let answer = PresignedUrl {
            attachment_id: id.clone(),
            url: self.address_of("PUT", key, &id, now),
            headers: BTreeMap::from([("x-amz-tagging".to_owned(), tagging(&wanted))]),
            file_name: Some(wanted.file_name.clone()),
            file_size: None,
            file_type: Some(wanted.file_type.clone()),
        };
        self.guests.files.files.insert(
            (key.to_owned(), id),
            Attachment {
                wanted,
                content: None,
                sent: false,
            },
        );
        frames::response(FrameBody::PresignedUrl(answer), tracing_id).into()
    }

    fn check_file(&self, wanted: &Wanted) -> Result<(), (u16, &'static str)> {
        let deployment = &self.options.deployment;
        let extension = wanted
            .file_name
            .rsplit_once('.')
            .map(|(_, extension)| format!(".{}", extension.to_lowercase()));
        if wanted.file_name.chars().count() >= MAX_NAME {
            return Err((4005, "File name is too long"));
        }
        let Some(extension) = extension.filter(|extension| extension.len() > 1) else {
            return Err((4004, "File name is invalid"));
        };
        if self.blocked_extensions().contains(&extension)
            || !deployment.file_types.contains(&wanted.file_type)
        {
            return Err((4001, "File type not allowed"));
        }
        match wanted.file_size {
            0 => Err((4102, "File size is zero")),
            size if size > deployment.max_file_kb * 1024 => Err((4002, "File size is invalid")),
            _ => Ok(()),
        }
    }

    /// Creates a signed URL. Earlier URLs stay valid until they expire.
    fn address_of(
        &mut self,
        method: &'static str,
        session: &str,
        id: &str,
        now: Timestamp,
    ) -> String {
        let signature = self.new_id().simple().to_string();
        let address = Address {
            session: session.to_owned(),
            id: id.to_owned(),
            method,
            good_until: now + ADDRESS_LIFE,
        };
        self.guests
            .files
            .addresses
            .retain(|_, known| known.good_until > now);
        self.guests
            .files
            .addresses
            .insert(signature.clone(), address);
        let id: String = url::form_urlencoded::byte_serialize(id.as_bytes()).collect();
        format!("{}/_upload/{id}?sig={signature}", self.origin)
    }

    /// `getAttachment`: returns a new signed URL.
    pub(super) fn get_attachment(
        &mut self,
        key: &str,
        id: &str,
        tracing_id: Option<String>,
        now: Timestamp,
    ) -> Reply {
        let Some(known) = self.guests.files.get(key, id) else {
            return frames::error(4009, "Attachment not found", tracing_id).into();
        };
        let Some(content) = &known.content else {
            return frames::error(4010, "Attachment was not uploaded successfully", tracing_id)
                .into();
        };
        let mut answer = PresignedUrl {
            attachment_id: id.to_owned(),
            url: String::new(),
            headers: BTreeMap::new(),
            file_name: Some(known.wanted.file_name.clone()),
            file_size: Some(content.len() as u64),
            file_type: Some(known.wanted.file_type.clone()),
        };
        answer.url = self.address_of("GET", key, id, now);
        frames::response(FrameBody::PresignedUrl(answer), tracing_id).into()
    }

    /// `deleteAttachment`
    pub(super) fn delete_attachment(
        &mut self,
        key: &str,
        id: &str,
        tracing_id: Option<String>,
    ) -> Reply {
        match self.guests.files.get(key, id) {
            None => return frames::error(4009, "Attachment not found", tracing_id).into(),
            Some(known) if known.sent => {
                return frames::error(400, "The attachment was sent already.", tracing_id).into();
            }
            Some(_) => {}
        }
        let files = &mut self.guests.files;
        files.files.remove(&(key.to_owned(), id.to_owned()));
        files
            .addresses
            .retain(|_, known| known.session != key || known.id != id);
        let body = AttachmentDeleted {
            attachment_id: id.to_owned(),
        };
        frames::response(FrameBody::AttachmentDeleted(body), tracing_id).into()
    }

    /// Marks the file as part of a message.
    pub(super) fn sent(&mut self, key: &str, id: &str) {
        if let Some(known) = self.guests.files.get_mut(key, id) {
            known.sent = true;
        }
    }

    /// Resolves a message's reference to a file. The file must exist, and its known fields are
    /// added.
    pub(super) fn attached(
        &mut self,
        key: &str,
        fields: &mut Map<String, Value>,
        now: Timestamp,
    ) -> Result<(), (u16, String)> {
        let id = fields
            .get("attachment")
            .and_then(|attachment| attachment["id"].as_str())
            .unwrap_or_default()
            .to_owned();
        let known = self.guests.files.get(key, &id);
        let known = known.ok_or_else(|| (4009, "Attachment not found".to_owned()))?;
        let content = known
            .content
            .as_ref()
            .ok_or_else(|| (4010, "Attachment was not uploaded successfully".to_owned()))?;
        let media = if known.wanted.file_type.starts_with("image/") {
            "Image"
        } else {
            "File"
        };
        let mut shown = json!({
            "id": id, "filename": known.wanted.file_name, "fileSize": content.len(), "mediaType": media,
            "mime": known.wanted.file_type,
        });
        shown["url"] = json!(self.address_of("GET", key, &id, now));
        fields.insert("attachment".to_owned(), shown);
        Ok(())
    }

    /// `PUT /_upload/{attachmentId}?sig=…`, with every header that was listed.
    pub(crate) fn upload(
        &mut self,
        id: &str,
        query: Option<&str>,
        headers: &HeaderMap,
        body: &Bytes,
        now: Timestamp,
    ) -> Result<Response<Body>, Refusal> {
        let max = self.options.deployment.max_file_kb * 1024;
        let session = self.guests.files.signed("PUT", id, query, now)?;
        let known = self
            .guests
            .files
            .get_mut(&session, id)
            .ok_or_else(|| denied("The attachment no longer exists."))?;
        let given = |name: &str| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
        };
        if given("x-amz-tagging") != tagging(&known.wanted) {
            return Err(denied(
                "A header that the URL requires is missing or has another value.",
            ));
        }
        let size = body.len() as u64;
        let right_type = given(header::CONTENT_TYPE.as_str()).is_empty()
            || given("content-type") == known.wanted.file_type;
        let refused = match known.wanted.file_size {
            _ if !right_type => Some((4001, "File type not allowed")),
            _ if size == 0 => Some((4102, "File size is zero")),
            promised if promised != size => Some((4002, "File size is invalid")),
            _ if size > max => Some((4002, "File size is invalid")),
            _ => None,
        };
        if refused.is_none() {
            known.content = Some(body.clone());
        }
        let event = match refused {
            Some((code, text)) => FrameBody::UploadFailure(ErrorMessage {
                attachment_id: Some(id.to_owned()),
                error_code: Some(code),
                error_message: Some(text.to_owned()),
                timestamp: Some(now.to_string()),
                ..ErrorMessage::default()
            }),
            None => FrameBody::UploadSuccess(UploadSuccess {
                attachment_id: id.to_owned(),
                download_url: self.address_of("GET", &session, id, now),
                timestamp: now.to_string(),
            }),
        };
        self.guests.broadcast(&session, &frames::push(event), None);
        Ok(response::empty(StatusCode::OK))
    }

    /// `GET /_upload/{attachmentId}?sig=…`
    pub(crate) fn download(
        &mut self,
        id: &str,
        query: Option<&str>,
        now: Timestamp,
    ) -> Result<Response<Body>, Refusal> {
        let session = self.guests.files.signed("GET", id, query, now)?;
        let content = self
            .guests
            .files
            .get(&session, id)
            .and_then(|known| known.content.clone());
        let content = content.ok_or_else(Refusal::not_found)?;
        Ok(response::bytes(
            StatusCode::OK,
            "application/octet-stream",
            content,
        ))
    }
}

fn tagging(wanted: &Wanted) -> String {
    let name: String = url::form_urlencoded::byte_serialize(wanted.file_name.as_bytes()).collect();
    format!("organizationId=simulated&originalFilename={name}")
}

fn denied(message: &str) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "access.denied", message)
}
