//! Parses and validates one frame of a guest, and dispatches it to its handler.

mod contents;

use aws_lc_rs::digest;
use contents::well_formed;
use guestlane_genesys::guest::frame::{
    Action, Body, ClientFrame, Configuration, Empty, ResumeToken, ServerFrame, SessionToken,
};
use guestlane_runtime::Timestamp;
use serde_json::{Value, json};

use crate::{
    frame::{Reply, error, response, too_fast},
    options::MAX_ATTRIBUTES,
    organization::{Organization, attachments::FileInfo, guests::REQUESTS_PER_MINUTE},
};

/// A text from a client, as far as it could be parsed.
#[derive(Debug)]
pub(crate) struct Given {
    value: Value,
    pub(crate) tracing_id: Option<String>,
}

impl Given {
    pub(crate) fn read(text: &str) -> Self {
        let value: Value = serde_json::from_str(text).unwrap_or(Value::Null);
        let tracing_id = value["tracingId"].as_str().map(str::to_owned);
        Self { value, tracing_id }
    }

    pub(crate) fn action(&self) -> &str {
        self.value["action"].as_str().unwrap_or_default()
    }

    /// Returns the text for the journal, without its secrets.
    pub(crate) fn without_secrets(&self) -> String {
        let mut shown = self.value.clone();
        let secret = |secret: &Value| {
            secret
                .as_str()
                .filter(|secret| !secret.is_empty())
                .map(str::to_owned)
        };
        let secrets: Vec<String> = [
            &self.value["token"],
            &self.value["data"]["code"],
            &self.value["resumeToken"],
        ]
        .into_iter()
        .filter_map(secret)
        .collect();
        hide(&mut shown, &secrets);
        if shown.is_null() {
            String::new()
        } else {
            shown.to_string()
        }
    }
}

/// Removes the secrets from all other fields. Clients also send the token as the customer ID of the
/// journey.
fn hide(value: &mut Value, secrets: &[String]) {
    match value {
        Value::String(text) => {
            for secret in secrets
                .iter()
                .filter(|secret| text.contains(secret.as_str()))
                .collect::<Vec<_>>()
            {
                *text = text.replace(secret.as_str(), "***");
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| hide(value, secrets)),
        Value::Object(fields) => fields.values_mut().for_each(|value| hide(value, secrets)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

impl Organization {
    /// Handles a frame.
    pub(crate) fn frame(&mut self, connection: u64, given: &Given, now: Timestamp) -> Reply {
        let tracing_id = given.tracing_id.clone();
        if let Err(refusal) = self.count_request(connection, &tracing_id, now) {
            return refusal.into();
        }
        let (key, action) = match self.parse(given) {
            Ok(parsed) => parsed,
            Err((code, text)) => return error(code, text, tracing_id).into(),
        };
        match action {
            Action::ConfigureSession(configure) => {
                self.configure(connection, &key, &configure, None, tracing_id, now)
            }
            Action::ConfigureAuthenticatedSession { configure, data } => {
                match self.guests.authenticated.subject_of_jwt(&data.code, now) {
                    Some(subject) => {
                        self.configure(connection, &key, &configure, Some(subject), tracing_id, now)
                    }
                    None => error(401, "User is unauthorized", tracing_id).into(),
                }
            }
            Action::GetConfiguration { deployment_id } => {
                self.configuration(&deployment_id, tracing_id)
            }
            action => match self.living_session(connection, &key, &tracing_id, now) {
                Ok(()) => self.act(connection, &key, given, action, now),
                Err(refusal) => refusal.into(),
            },
        }
    }

    /// Parses a frame into the key of its session and its action.
    ///
    /// # Errors
    ///
    /// Fails with the code and text of the error frame.
    fn parse(&mut self, given: &Given) -> Result<(String, Action), (u16, &'static str)> {
        const MALFORMED: (u16, &str) = (400, "Request failed.");
        if !given.value.is_object() || given.action().is_empty() {
            return Err(MALFORMED);
        }
        let is_empty = |field: &str| given.value[field].as_str().unwrap_or_default().is_empty();
        if is_empty("token") {
            return Err((4020, "Missing parameter token"));
        }
        let token = given.value["token"].as_str().unwrap_or_default();
        if token.len() > SessionToken::MAX {
            return Err((400, "The token is too long."));
        }
        let needs_deployment = [
            "configureSession",
            "configureAuthenticatedSession",
            "getConfiguration",
        ];
        if needs_deployment.contains(&given.action()) && is_empty("deploymentId") {
            return Err((4020, "Missing parameter deploymentId"));
        }
        let mut value = given.value.clone();
        if given.action() == "onAttachment" {
            if value["fileSize"].is_null() {
                return Err((4020, "Missing parameter fileSize"));
            }
            if is_empty("attachmentId") {
                value["attachmentId"] = json!(self.new_id());
            }
        }
        let frame: ClientFrame = serde_json::from_value(value).map_err(|_| MALFORMED)?;
        Ok((token_key(token), frame.action))
    }

    /// Performs an action in a session.
    fn act(
        &mut self,
        connection: u64,
        key: &str,
        given: &Given,
        action: Action,
        now: Timestamp,
    ) -> Reply {
        let tracing_id = given.tracing_id.clone();
        match action {
            Action::OnMessage { message, .. } => {
                let well_formed = well_formed(&given.value["message"]);
                self.on_message(connection, key, *message, well_formed, tracing_id, now)
            }
            Action::Echo { message } => self.echo(connection, key, *message, tracing_id, now),
            Action::GetJwt {} => self.history_jwt(key, tracing_id, now),
            Action::OnAttachment {
                attachment_id,
                file_name,
                file_type,
                file_size,
                errors_as_json,
                ..
            } => {
                let file = FileInfo {
                    attachment_id,
                    file_name,
                    file_type,
                    file_size: file_size.unwrap_or_default(),
                };
                self.on_attachment(key, file, errors_as_json == Some(true), tracing_id, now)
            }
            Action::GetAttachment { attachment_id } => {
                self.get_attachment(key, &attachment_id, tracing_id, now)
            }
            Action::DeleteAttachment { attachment_id } => {
                self.delete_attachment(key, &attachment_id, tracing_id)
            }
            Action::CloseSession {
                close_all_connections,
            } => self.close_session(connection, key, close_all_connections, tracing_id),
            Action::ResumeToken {} => {
                let resume_token = self.new_id().simple().to_string();
                let body = ResumeToken {
                    resume_token,
                    exp: now.unix_seconds() + 3600,
                };
                response(Body::ResumeToken(body), tracing_id).into()
            }
            // The platform lists this action, but its parameters are not documented.
            _ => error(4000, "Feature unavailable", tracing_id).into(),
        }
    }

    fn count_request(
        &mut self,
        connection: u64,
        tracing_id: &Option<String>,
        now: Timestamp,
    ) -> Result<(), ServerFrame> {
        let Some(known) = self.guests.connections.get_mut(&connection) else {
            return Ok(());
        };
        let (rate, room) = known.requests.take_of_minute(REQUESTS_PER_MINUTE, now);
        if room {
            Ok(())
        } else {
            Err(too_fast(
                "Too many requests on this connection",
                rate,
                tracing_id,
            ))
        }
    }

    fn configuration(&self, deployment_id: &str, tracing_id: Option<String>) -> Reply {
        if deployment_id != self.options.deployment.id.to_string() {
            return error(400, "Request failed.", tracing_id).into();
        }
        let configuration = Configuration {
            allowed_media: self.allowed_media(),
            blocked_extensions: Some(self.blocked_extensions()),
            max_custom_data_bytes: MAX_ATTRIBUTES,
            message_routing_enabled: true,
            session_duration_seconds: Some(self.options.deployment.session_seconds),
        };
        response(Body::Configuration(configuration), tracing_id).into()
    }

    pub(super) fn allowed_media(&self) -> Value {
        let deployment = &self.options.deployment;
        let types: Vec<_> = deployment
            .file_types
            .iter()
            .map(|kind| json!({"type": kind}))
            .collect();
        json!({"inbound": {"fileTypes": types, "maxFileSizeKB": deployment.max_file_kb}})
    }

    pub(super) fn blocked_extensions(&self) -> Vec<String> {
        [".exe", ".bat"].map(str::to_owned).to_vec()
    }

    fn living_session(
        &mut self,
        connection: u64,
        key: &str,
        tracing_id: &Option<String>,
        now: Timestamp,
    ) -> Result<(), ServerFrame> {
        let mine = self
            .guests
            .connections
            .get(&connection)
            .is_some_and(|known| known.session.as_deref() == Some(key));
        match self.guests.sessions.get(key) {
            Some(session) if session.expires_at <= now => {
                self.end_conversation_of(key, now);
                self.guests.detach(connection);
                Err(response(Body::SessionExpired(Empty {}), tracing_id.clone()))
            }
            Some(_) if mine => Ok(()),
            // A connection may act only for the session that it configured.
            _ => Err(error(4007, "Session not found", tracing_id.clone())),
        }
    }
}

/// Returns the hash under which a token is stored.
fn token_key(token: &str) -> String {
    let hash = digest::digest(&digest::SHA256, token.as_bytes());
    hash.as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
