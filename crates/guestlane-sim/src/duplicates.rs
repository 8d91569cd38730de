//! Counts contacts and conversations by guest, across all surfaces. One guest is one entry.

use std::collections::HashMap;

use guestlane_genesys::guest_address;
use serde::Serialize;

/// Contacts and conversations by guest, under the guest's address.
#[derive(Debug, Default)]
pub(crate) struct DuplicateCounter(HashMap<String, Counts>);

#[derive(Debug, Default)]
struct Counts {
    guest_id: String,
    contacts: u64,
    conversations: u64,
}

/// The duplicates among contacts and conversations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Duplicates {
    /// Contacts beyond a guest's first.
    pub contacts: u64,
    /// Conversations beyond a guest's first.
    pub conversations: u64,
    /// The guests that have duplicates, at most 100.
    pub guests: Vec<GuestCounts>,
}

/// The counts of one guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GuestCounts {
    /// The guest.
    pub guest_id: String,
    /// Contacts under the guest's address.
    pub contacts: u64,
    /// Conversations under the guest's address.
    pub conversations: u64,
}

impl DuplicateCounter {
    fn counts(&mut self, guest_id: &str) -> &mut Counts {
        let counts = self.0.entry(guest_address(guest_id)).or_default();
        guest_id.clone_into(&mut counts.guest_id);
        counts
    }

    pub(crate) fn contact(&mut self, guest_id: &str) {
        self.counts(guest_id).contacts += 1;
    }

    /// Removes one contact from this guest's count.
    pub(crate) fn contact_gone(&mut self, guest_id: &str) {
        let counts = self.counts(guest_id);
        counts.contacts = counts.contacts.saturating_sub(1);
        self.forget_empty(guest_id);
    }

    /// Removes one conversation from this guest's count.
    pub(crate) fn conversation_gone(&mut self, guest_id: &str) {
        let counts = self.counts(guest_id);
        counts.conversations = counts.conversations.saturating_sub(1);
        self.forget_empty(guest_id);
    }

    fn forget_empty(&mut self, guest_id: &str) {
        if self
            .0
            .get(&guest_address(guest_id))
            .is_some_and(|counts| counts.contacts + counts.conversations == 0)
        {
            self.0.remove(&guest_address(guest_id));
        }
    }

    pub(crate) fn conversation(&mut self, guest_id: &str) {
        self.counts(guest_id).conversations += 1;
    }

    /// Returns the guest that has a contact with this address.
    pub(crate) fn guest_at(&self, address: &str) -> Option<&str> {
        self.0
            .get(address)
            .filter(|counts| counts.contacts > 0)
            .map(|counts| counts.guest_id.as_str())
    }

    pub(crate) fn contacts(&self) -> u64 {
        self.0.values().map(|counts| counts.contacts).sum()
    }

    pub(crate) fn conversations(&self) -> u64 {
        self.0.values().map(|counts| counts.conversations).sum()
    }

    pub(crate) fn guests(&self) -> u64 {
        self.0.len() as u64
    }

    pub(crate) fn duplicates(&self) -> Duplicates {
        let mut found = Duplicates::default();
        for counts in self
            .0
            .values()
            .filter(|counts| counts.contacts > 1 || counts.conversations > 1)
        {
            found.contacts += counts.contacts.saturating_sub(1);
            found.conversations += counts.conversations.saturating_sub(1);
            found.guests.push(GuestCounts {
                guest_id: counts.guest_id.clone(),
                contacts: counts.contacts,
                conversations: counts.conversations,
            });
        }
        found.guests.sort_by(|a, b| a.guest_id.cmp(&b.guest_id));
        found.guests.truncate(100);
        found
    }
}
