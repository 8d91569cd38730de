//! Which step of the saga comes next. The decision depends on the session record alone.

use guestlane_genesys::PlatformId;
use uuid::Uuid;

use super::{SessionRecord, SessionState, SurfaceBinding};

/// A step of the saga. Each ends with one transition of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// Creates the contact on the surface `rest` (requirement R4, docs/requirements.md).
    RegisterContact,
    /// Opens the conversation on the surface `rest` (requirement R5, docs/requirements.md).
    OpenConversation,
    /// Finds or creates the guest's contact on a surface of the public platform.
    UpsertContact,
    /// Sends the guest's first message over the guest WebSocket.
    SendGuestMessage {
        /// ID of the web deployment.
        deployment: Uuid,
    },
    /// Sends the guest's first message by Open Messaging.
    SendInboundMessage {
        /// ID of the integration.
        integration: Uuid,
    },
    /// Looks up the conversation of the first message.
    FindConversation {
        /// The first message.
        message: &'a PlatformId,
    },
    /// Links the contact and moves the conversation to its queue.
    LinkAndRoute {
        /// The conversation.
        conversation: &'a PlatformId,
    },
}

/// Returns the next step of a session, or `None` if the session is not active or its record
/// contradicts its state.
#[deny(clippy::wildcard_enum_match_arm)]
pub fn next_step(session: &SessionRecord) -> Option<Step<'_>> {
    use SessionState::{
        Admitted, ContactReady, ConversationFound, Failed, MessageSent, NeedsAttention, Open,
        Parked,
    };
    use SurfaceBinding::{OpenMessaging, Rest, WebMessaging};
    match (session.state, &session.surface_binding) {
        (Admitted, Rest) => Some(Step::RegisterContact),
        (ContactReady, Rest) => Some(Step::OpenConversation),

        (Admitted, WebMessaging { .. } | OpenMessaging { .. }) => Some(Step::UpsertContact),
        (ContactReady, WebMessaging { deployment, .. }) => Some(Step::SendGuestMessage {
            deployment: *deployment,
        }),
        (ContactReady, OpenMessaging { integration }) => Some(Step::SendInboundMessage {
            integration: *integration,
        }),
        (MessageSent, WebMessaging { .. } | OpenMessaging { .. }) => {
            let message = session.message_id.as_ref()?;
            Some(Step::FindConversation { message })
        }
        (ConversationFound, WebMessaging { .. } | OpenMessaging { .. }) => {
            let conversation = session.conversation_id.as_ref()?;
            Some(Step::LinkAndRoute { conversation })
        }

        (MessageSent | ConversationFound, Rest) => None,
        (
            Open | Failed | Parked | NeedsAttention,
            Rest | WebMessaging { .. } | OpenMessaging { .. },
        ) => None,
    }
}

#[cfg(test)]
mod tests {
    use guestlane_runtime::Timestamp;

    use super::*;
    use crate::{
        request::{Attributes, ContactDetails, IdempotencyKey, SessionRequest},
        session::SessionContext,
        token::TokenIdentity,
    };

    const NOW: Timestamp = Timestamp::from_unix_micros(1_795_361_029_000_000);

    fn admitted(surface: SurfaceBinding) -> SessionRecord {
        let request = SessionRequest {
            guest: "ann".parse().unwrap(),
            contact_details: ContactDetails::default(),
            queue: "5e0c0000-0000-4000-8000-000000000001".parse().unwrap(),
            attributes: Attributes::from_pairs([("tier", "gold")]).unwrap(),
            key: IdempotencyKey::generate(),
        };
        let token = TokenIdentity::new("key-1", NOW);
        SessionRecord::new(request, SessionContext::from(surface), token, NOW)
    }

    fn id(text: &str) -> PlatformId {
        text.parse().unwrap()
    }

    #[test]
    fn rest_creates_the_contact_and_then_the_conversation() {
        let session = admitted(SurfaceBinding::Rest);
        assert_eq!(next_step(&session), Some(Step::RegisterContact));
        let session = session.contact_ready(Some(id("c")), 1, NOW).unwrap();
        assert_eq!(next_step(&session), Some(Step::OpenConversation));
        let session = session.completed(id("v"), 1, NOW, NOW).unwrap();
        assert_eq!(next_step(&session), None);
    }

    #[test]
    fn open_messaging_plan_skips_lookup_of_a_named_conversation() {
        let integration = Uuid::new_v4();
        let session = admitted(SurfaceBinding::OpenMessaging { integration });
        assert_eq!(next_step(&session), Some(Step::UpsertContact));
        let session = session.contact_ready(None, 1, NOW).unwrap();
        assert_eq!(
            next_step(&session),
            Some(Step::SendInboundMessage { integration })
        );

        let sent = session.clone().message_sent(id("m"), None, None, 1, NOW);
        let sent = sent.unwrap();
        let message = &id("m");
        assert_eq!(next_step(&sent), Some(Step::FindConversation { message }));
        let found = sent.conversation_found(id("v"), 1, NOW).unwrap();
        let conversation = &id("v");
        assert_eq!(next_step(&found), Some(Step::LinkAndRoute { conversation }));

        let named = session.message_sent(id("m"), Some(id("v")), None, 1, NOW);
        assert_eq!(
            next_step(&named.unwrap()),
            Some(Step::LinkAndRoute { conversation })
        );
    }

    #[test]
    fn inactive_session_has_no_next_step() {
        let deployment = Uuid::new_v4();
        let mut session = admitted(SurfaceBinding::WebMessaging {
            deployment,
            token: Vec::new(),
        });
        for state in SessionState::ALL {
            session.state = state;
            if !state.is_active() {
                assert_eq!(next_step(&session), None, "{state}");
            }
        }
    }
}
