//! The surface: which API of the platform opens conversations.

use std::fmt;

use uuid::Uuid;

/// API of the platform that opens conversations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Surface {
    /// The calls of requirements R4 and R5 (docs/requirements.md), which the public platform does
    /// not have.
    Rest,
    /// The guest WebSocket of the public platform (web messaging).
    WebMessaging {
        /// ID of the web deployment.
        deployment: Uuid,
    },
    /// Open Messaging of the public platform.
    OpenMessaging {
        /// ID of the integration.
        integration: Uuid,
    },
}

impl Surface {
    /// The names in settings, documents and the store.
    pub const NAMES: [&'static str; 3] = ["rest", "web-messaging", "open-messaging"];

    /// The name in settings, documents and the store.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rest => Self::NAMES[0],
            Self::WebMessaging { .. } => Self::NAMES[1],
            Self::OpenMessaging { .. } => Self::NAMES[2],
        }
    }

    /// Whether the public platform has this surface.
    pub fn is_public_api(&self) -> bool {
        !matches!(self, Self::Rest)
    }
}

impl fmt::Display for Surface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
