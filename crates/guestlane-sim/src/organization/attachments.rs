//! The files of guests, and the signed URLs that stand in for the platform's storage
//! (docs/platform.md#guest-limits).

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use guestlane_runtime::Timestamp;
use http::StatusCode;

use crate::response::Refusal;

/// The lifetime of a signed URL.
const SIGNED_URL_TTL: Duration = Duration::from_secs(600);

/// A file that a guest sends, as the client describes it.
#[derive(Debug)]
pub(crate) struct FileInfo {
    pub(crate) attachment_id: String,
    pub(crate) file_name: String,
    pub(crate) file_type: String,
    /// In bytes.
    pub(crate) file_size: u64,
}

/// A file, before and after its upload.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) info: FileInfo,
    pub(crate) content: Option<Bytes>,
    /// Whether the file is part of a message. If so, it is kept.
    pub(crate) sent: bool,
}

/// The files, by session and the client's ID, and their signed URLs.
#[derive(Debug, Default)]
pub(crate) struct Attachments {
    files: HashMap<(String, String), Attachment>,
    /// By signature.
    signed_urls: HashMap<String, SignedUrl>,
}

#[derive(Debug)]
struct SignedUrl {
    session: String,
    id: String,
    /// The method that the URL is valid for: `PUT` or `GET`.
    method: &'static str,
    expires_at: Timestamp,
}

impl Attachments {
    pub(crate) fn get(&self, session: &str, id: &str) -> Option<&Attachment> {
        self.files.get(&(session.to_owned(), id.to_owned()))
    }

    pub(crate) fn get_mut(&mut self, session: &str, id: &str) -> Option<&mut Attachment> {
        self.files.get_mut(&(session.to_owned(), id.to_owned()))
    }

    pub(crate) fn add(&mut self, session: &str, info: FileInfo) {
        let key = (session.to_owned(), info.attachment_id.clone());
        let attachment = Attachment {
            info,
            content: None,
            sent: false,
        };
        self.files.insert(key, attachment);
    }

    pub(crate) fn remove(&mut self, session: &str, id: &str) {
        self.files.remove(&(session.to_owned(), id.to_owned()));
        self.signed_urls
            .retain(|_, url| url.session != session || url.id != id);
    }

    /// Makes a URL with this signature valid. Earlier URLs stay valid until they expire.
    pub(crate) fn sign(
        &mut self,
        signature: String,
        method: &'static str,
        session: &str,
        id: &str,
        now: Timestamp,
    ) {
        self.signed_urls.retain(|_, url| url.expires_at > now);
        let url = SignedUrl {
            session: session.to_owned(),
            id: id.to_owned(),
            method,
            expires_at: now + SIGNED_URL_TTL,
        };
        self.signed_urls.insert(signature, url);
    }

    /// Verifies a signed URL, and returns the session of its file.
    ///
    /// # Errors
    ///
    /// Fails with 403 if no such URL was signed, or if it has expired.
    pub(crate) fn verify(
        &self,
        signature: &str,
        method: &str,
        id: &str,
        now: Timestamp,
    ) -> Result<String, Refusal> {
        let url = self
            .signed_urls
            .get(signature)
            .filter(|url| url.method == method && url.id == id && url.expires_at > now);
        let url = url.ok_or_else(|| {
            let message = "The URL is not valid, or has expired.";
            Refusal::new(StatusCode::FORBIDDEN, "access.denied", message)
        })?;
        Ok(url.session.clone())
    }
}
