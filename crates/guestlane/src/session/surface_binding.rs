//! By which of the platform's APIs a session's conversation is opened, with what was chosen before the first call.

use guestlane_genesys::TraceParent;
use uuid::Uuid;

use crate::surface::Surface;

/// By which of the platform's APIs a session's conversation is opened. It stays what it was when the session was admitted, whatever the settings say by then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SurfaceBinding {
    /// The calls of requirements R4 and R5 (docs/requirements.md).
    Rest,
    /// The guest socket.
    WebMessaging {
        /// The web deployment.
        deployment: Uuid,
        /// The session's token on the guest API, encrypted under the master key. Empty once the guest is erased.
        token: Vec<u8>,
    },
    /// Open Messaging: the session's own id is the sender's and the message's.
    OpenMessaging {
        /// The integration.
        integration: Uuid,
    },
}

/// What is recorded of a session's way with its admission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionContext {
    /// The way.
    pub way: SurfaceBinding,
    /// Whether nothing identifies the guest's contact: then it must not be asked for twice.
    pub contact_without_identifier: bool,
    /// The trace of whoever asks.
    pub trace: Option<TraceParent>,
}

impl From<SurfaceBinding> for SessionContext {
    fn from(way: SurfaceBinding) -> Self {
        Self { way, contact_without_identifier: false, trace: None }
    }
}

impl SurfaceBinding {
    /// The surface it belongs to.
    pub fn surface(&self) -> Surface {
        match self {
            Self::Rest => Surface::Rest,
            Self::WebMessaging { deployment, .. } => Surface::WebMessaging { deployment: *deployment },
            Self::OpenMessaging { integration } => Surface::OpenMessaging { integration: *integration },
        }
    }
}
