//! The platform API that opens a session's conversation, with the values chosen before the first
//! call.

use guestlane_runtime::TraceParent;
use uuid::Uuid;

use crate::surface::Surface;

/// The platform API that opens a session's conversation.
///
/// It is fixed when the session is admitted, and does not follow later changes of the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SurfaceBinding {
    /// The calls of requirements R4 and R5 (docs/requirements.md).
    Rest,
    /// Web messaging over the guest WebSocket.
    WebMessaging {
        /// ID of the web deployment.
        deployment: Uuid,
        /// Guest session token, encrypted under the master key. It is empty once the guest is
        /// erased.
        token: Vec<u8>,
    },
    /// Open Messaging. The session's own ID is the ID of the sender and of the message.
    OpenMessaging {
        /// ID of the integration.
        integration: Uuid,
    },
}

/// What is recorded at admission besides the request and the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionContext {
    /// The surface, with the values chosen for this session.
    pub surface: SurfaceBinding,
    /// Whether no identifier finds the guest's contact. Such a contact must not be created twice.
    pub contact_without_identifier: bool,
    /// Trace context of the request that admits the session.
    pub trace: Option<TraceParent>,
}

impl From<SurfaceBinding> for SessionContext {
    fn from(way: SurfaceBinding) -> Self {
        Self {
            surface: way,
            contact_without_identifier: false,
            trace: None,
        }
    }
}

impl SurfaceBinding {
    /// Returns the surface to which this binding belongs.
    pub fn surface(&self) -> Surface {
        match self {
            Self::Rest => Surface::Rest,
            Self::WebMessaging { deployment, .. } => Surface::WebMessaging {
                deployment: *deployment,
            },
            Self::OpenMessaging { integration } => Surface::OpenMessaging {
                integration: *integration,
            },
        }
    }
}
