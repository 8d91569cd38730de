//! Attachments: requested on the socket, and uploaded and downloaded by HTTP under `/_upload/`,
//! which stands in for the platform's storage.

use std::collections::BTreeMap;

use bytes::Bytes;
use guestlane_genesys::guest::frame::{
    AttachmentDeleted, Body as FrameBody, ErrorMessage, FrameKind, PresignedUrl, ServerFrame,
    UploadSuccess,
};
use guestlane_runtime::Timestamp;
use http::{HeaderMap, Response, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::{
    frame::{self, Reply},
    organization::{Organization, attachments::FileInfo},
    request::parameter,
    response::{self, Body, Refusal},
};

const MAX_NAME: usize = 1024;

impl Organization {
    /// `onAttachment`
    pub(super) fn on_attachment(
        &mut self,
        key: &str,
        info: FileInfo,
        errors_as_json: bool,
        tracing_id: Option<String>,
        now: Timestamp,
    ) -> Reply {
        if let Err((code, text)) = self.check_file(&info) {
            let error = ErrorMessage {
                name: Some("GenerateUrlError".to_owned()),
                message: Some(text.to_owned()),
                error_code: Some(code),
                error_message: Some(text.to_owned()),
                attachment_id: Some(info.attachment_id),
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
        let id = info.attachment_id.clone();
        if self
            .guests
            .attachments
            .get(key, &id)
            .is_some_and(|known| known.sent)
        {
            return frame::error(400, "The attachment was sent already.", tracing_id).into();
        }
        let answer = PresignedUrl {
            attachment_id: id.clone(),
            url: self.signed_url("PUT", key, &id, now),
            headers: BTreeMap::from([("x-amz-tagging".to_owned(), tagging(&info))]),
            file_name: Some(info.file_name.clone()),
            file_size: None,
            file_type: Some(info.file_type.clone()),
        };
        self.guests.attachments.add(key, info);
        frame::response(FrameBody::PresignedUrl(answer), tracing_id).into()
    }

    fn check_file(&self, info: &FileInfo) -> Result<(), (u16, &'static str)> {
        let deployment = &self.options.deployment;
        let extension = info
            .file_name
            .rsplit_once('.')
            .map(|(_, extension)| format!(".{}", extension.to_lowercase()));
        if info.file_name.chars().count() >= MAX_NAME {
            return Err((4005, "File name is too long"));
        }
        let Some(extension) = extension.filter(|extension| extension.len() > 1) else {
            return Err((4004, "File name is invalid"));
        };
        if self.blocked_extensions().contains(&extension)
            || !deployment.file_types.contains(&info.file_type)
        {
            return Err((4001, "File type not allowed"));
        }
        match info.file_size {
            0 => Err((4102, "File size is zero")),
            size if size > deployment.max_file_kb * 1024 => Err((4002, "File size is invalid")),
            _ => Ok(()),
        }
    }

    /// Creates a signed URL of a file.
    fn signed_url(
        &mut self,
        method: &'static str,
        session: &str,
        id: &str,
        now: Timestamp,
    ) -> String {
        let signature = self.new_id().simple().to_string();
        let signed = signature.clone();
        self.guests
            .attachments
            .sign(signed, method, session, id, now);
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
        let Some(known) = self.guests.attachments.get(key, id) else {
            return frame::error(4009, "Attachment not found", tracing_id).into();
        };
        let Some(content) = &known.content else {
            return frame::error(4010, "Attachment was not uploaded successfully", tracing_id)
                .into();
        };
        let mut answer = PresignedUrl {
            attachment_id: id.to_owned(),
            url: String::new(),
            headers: BTreeMap::new(),
            file_name: Some(known.info.file_name.clone()),
            file_size: Some(content.len() as u64),
            file_type: Some(known.info.file_type.clone()),
        };
        answer.url = self.signed_url("GET", key, id, now);
        frame::response(FrameBody::PresignedUrl(answer), tracing_id).into()
    }

    /// `deleteAttachment`
    pub(super) fn delete_attachment(
        &mut self,
        key: &str,
        id: &str,
        tracing_id: Option<String>,
    ) -> Reply {
        match self.guests.attachments.get(key, id) {
            None => return frame::error(4009, "Attachment not found", tracing_id).into(),
            Some(known) if known.sent => {
                return frame::error(400, "The attachment was sent already.", tracing_id).into();
            }
            Some(_) => {}
        }
        self.guests.attachments.remove(key, id);
        let body = AttachmentDeleted {
            attachment_id: id.to_owned(),
        };
        frame::response(FrameBody::AttachmentDeleted(body), tracing_id).into()
    }

    /// Marks the file as part of a message.
    pub(super) fn sent(&mut self, key: &str, id: &str) {
        if let Some(known) = self.guests.attachments.get_mut(key, id) {
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
        let known = self.guests.attachments.get(key, &id);
        let known = known.ok_or_else(|| (4009, "Attachment not found".to_owned()))?;
        let content = known
            .content
            .as_ref()
            .ok_or_else(|| (4010, "Attachment was not uploaded successfully".to_owned()))?;
        let media = if known.info.file_type.starts_with("image/") {
            "Image"
        } else {
            "File"
        };
        let mut shown = json!({
            "id": id, "filename": known.info.file_name, "fileSize": content.len(), "mediaType": media,
            "mime": known.info.file_type,
        });
        shown["url"] = json!(self.signed_url("GET", key, &id, now));
        fields.insert("attachment".to_owned(), shown);
        Ok(())
    }

    /// Verifies a signed URL, and returns the session of its file.
    fn verified(
        &self,
        method: &str,
        id: &str,
        query: Option<&str>,
        now: Timestamp,
    ) -> Result<String, Refusal> {
        let signature = parameter(query, "sig").unwrap_or_default();
        self.guests.attachments.verify(&signature, method, id, now)
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
        let session = self.verified("PUT", id, query, now)?;
        let known = self
            .guests
            .attachments
            .get_mut(&session, id)
            .ok_or_else(|| denied("The attachment no longer exists."))?;
        let given = |name: &str| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default()
        };
        if given("x-amz-tagging") != tagging(&known.info) {
            return Err(denied(
                "A header that the URL requires is missing or has another value.",
            ));
        }
        let size = body.len() as u64;
        let right_type = given(header::CONTENT_TYPE.as_str()).is_empty()
            || given("content-type") == known.info.file_type;
        let refused = match known.info.file_size {
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
                download_url: self.signed_url("GET", &session, id, now),
                timestamp: now.to_string(),
            }),
        };
        self.guests.broadcast(&session, &frame::push(event), None);
        Ok(response::empty(StatusCode::OK))
    }

    /// `GET /_upload/{attachmentId}?sig=…`
    pub(crate) fn download(
        &mut self,
        id: &str,
        query: Option<&str>,
        now: Timestamp,
    ) -> Result<Response<Body>, Refusal> {
        let session = self.verified("GET", id, query, now)?;
        let content = self
            .guests
            .attachments
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

fn tagging(info: &FileInfo) -> String {
    let name: String = url::form_urlencoded::byte_serialize(info.file_name.as_bytes()).collect();
    format!("organizationId=simulated&originalFilename={name}")
}

fn denied(message: &str) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "access.denied", message)
}
