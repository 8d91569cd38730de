//! Frames that a guest client sends.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::event::Message;

/// A request of the client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "action",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Action {
    /// Begins or resumes a session: the first frame on every connection.
    ConfigureSession(Configure),
    /// Begins or resumes the session of an authenticated guest.
    ConfigureAuthenticatedSession {
        /// The parameters of `ConfigureSession`.
        #[serde(flatten)]
        configure: Configure,
        /// The Genesys JWT.
        data: AuthenticationCode,
    },
    /// A message or an event of the guest.
    OnMessage {
        /// The message.
        message: Box<Message>,
        /// Listed as required, but omitted by clients that work.
        #[serde(skip_serializing_if = "Option::is_none")]
        time: Option<String>,
        /// The former location of custom attributes, ignored since June 2026.
        #[serde(skip_serializing_if = "Option::is_none")]
        channel: Option<Value>,
    },
    /// Checks whether the session is alive.
    Echo {
        /// A text that the platform returns.
        message: Box<Message>,
    },
    /// Requests a JWT that grants access to the history.
    GetJwt {},
    /// Requests an upload URL for a file.
    OnAttachment {
        /// The attachment ID, chosen by the client.
        attachment_id: String,
        /// The file name with its extension.
        file_name: String,
        /// MIME type.
        file_type: String,
        /// Size in bytes.
        #[serde(skip_serializing_if = "Option::is_none")]
        file_size: Option<u64>,
        /// Required by the schema, but omitted by clients that work.
        #[serde(skip_serializing_if = "Option::is_none")]
        file_md5: Option<String>,
        /// Sent by the mobile transport.
        #[serde(skip_serializing_if = "Option::is_none")]
        errors_as_json: Option<bool>,
    },
    /// Requests a new download URL.
    GetAttachment {
        /// The attachment ID.
        attachment_id: String,
    },
    /// Deletes a file that was not sent.
    DeleteAttachment {
        /// The attachment ID.
        attachment_id: String,
    },
    /// Closes the connection, or all connections of the session.
    CloseSession {
        /// Whether to close all connections.
        close_all_connections: bool,
    },
    /// Requests the deployment's limits.
    GetConfiguration {
        /// The deployment ID.
        deployment_id: String,
    },
    /// Part of the platform's list of actions; its parameters are not documented.
    DisconnectCustomer {},
    /// Part of the platform's list of actions; its parameters are not documented.
    ResumeToken {},
}

/// Parameters that begin or resume a session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Configure {
    /// The web deployment.
    #[serde(default)]
    pub deployment_id: String,
    /// Starts a new conversation in the same session after it became read-only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_new: Option<bool>,
    /// Where the guest comes from, as journey data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journey_context: Option<Value>,
    /// In the schema; its use is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume_token: Option<String>,
}

/// The JWT that the code exchange returned.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthenticationCode {
    /// The JWT.
    pub code: String,
}

impl fmt::Debug for AuthenticationCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthenticationCode(hidden)")
    }
}

impl Action {
    /// Returns the action's name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::ConfigureSession(_) => "configureSession",
            Self::ConfigureAuthenticatedSession { .. } => "configureAuthenticatedSession",
            Self::OnMessage { .. } => "onMessage",
            Self::Echo { .. } => "echo",
            Self::GetJwt {} => "getJwt",
            Self::OnAttachment { .. } => "onAttachment",
            Self::GetAttachment { .. } => "getAttachment",
            Self::DeleteAttachment { .. } => "deleteAttachment",
            Self::CloseSession { .. } => "closeSession",
            Self::GetConfiguration { .. } => "getConfiguration",
            Self::DisconnectCustomer {} => "disconnectCustomer",
            Self::ResumeToken {} => "resumeToken",
        }
    }
}
