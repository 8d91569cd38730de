//! The modelled platform.

use super::*;

/// How long the platform remembers a key (requirement R6, docs/requirements.md).
pub(super) const PLATFORM_KEY_LIFE: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone, Copy, Default)]
pub(super) struct Platform {
    pub(super) contacts: u8,
    pub(super) conversations: u8,
    pub(super) contact_key: Option<Timestamp>,
    pub(super) conversation_key: Option<Timestamp>,
    /// A request that its sender gave up and that the platform may still perform.
    pub(super) late: Option<Step>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Step {
    Contact,
    Conversation,
    /// Web messaging: sends the first message, which opens the conversation.
    Message,
    /// Web messaging: looks up the conversation of the message.
    Find,
    /// Web messaging: links the contact and moves the conversation to its queue. Both are
    /// idempotent.
    Arrange,
}

impl Platform {
    /// Performs a step. A repeated platform key creates nothing while the platform remembers it.
    pub(super) fn perform(&mut self, step: Step, is_public: bool, now: Timestamp) {
        let (count, key) = match step {
            Step::Contact if is_public => return self.contacts = 1,
            Step::Message => return self.conversations = 1,
            Step::Find | Step::Arrange => return,
            Step::Contact => (&mut self.contacts, &mut self.contact_key),
            Step::Conversation => (&mut self.conversations, &mut self.conversation_key),
        };
        if key.is_none_or(|used| now.since(used) >= PLATFORM_KEY_LIFE) {
            *count += 1;
            *key = Some(now);
        }
    }
}
