//! External contacts and the identifiers that they hold (docs/platform.md#contacts).

use std::collections::HashMap;

use guestlane_runtime::Timestamp;
use http::StatusCode;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::contact::{self, Identifier};
use crate::{duplicates::DuplicateCounter, response::Refusal};

/// The contacts, and the contact that holds each identifier.
#[derive(Debug, Default)]
pub(crate) struct Contacts {
    people: HashMap<Uuid, Person>,
    claims: HashMap<Identifier, Uuid>,
    /// Contacts that were merged into another contact.
    merged: HashMap<Uuid, Uuid>,
}

#[derive(Debug)]
struct Person {
    fields: Map<String, Value>,
    identifiers: Vec<Identifier>,
    guest: String,
    created: Timestamp,
    modified: Timestamp,
}

impl Contacts {
    /// Returns the contact that holds this identifier.
    pub(crate) fn owner(&self, identifier: &Identifier) -> Option<Uuid> {
        self.claims.get(identifier).copied()
    }

    /// Returns the contact of this ID, or the contact that it was merged into.
    pub(crate) fn resolve_merged(&self, id: Uuid) -> Option<Uuid> {
        let id = self.merged.get(&id).copied().unwrap_or(id);
        self.people.contains_key(&id).then_some(id)
    }

    pub(crate) fn shown(&self, id: Uuid) -> Result<Value, Refusal> {
        let id = self.resolve_merged(id).ok_or_else(Refusal::not_found)?;
        let person = self.people.get(&id).ok_or_else(Refusal::not_found)?;
        Ok(contact::shown(
            Some(id),
            &person.fields,
            person.created,
            person.modified,
        ))
    }

    /// Returns whether another contact holds one of these identifiers. An identifier belongs to one
    /// contact.
    pub(crate) fn clash(&self, identifiers: &[Identifier], mine: &[Uuid]) -> Result<(), Refusal> {
        let taken = identifiers.iter().any(|known| {
            self.claims
                .get(known)
                .is_some_and(|owner| !mine.contains(owner))
        });
        let message = "An identifier of the contact is claimed by another contact.";
        if taken {
            Err(Refusal::new(StatusCode::CONFLICT, "conflict", message))
        } else {
            Ok(())
        }
    }

    pub(crate) fn insert(
        &mut self,
        id: Uuid,
        fields: Map<String, Value>,
        identifiers: Vec<Identifier>,
        duplicates: &mut DuplicateCounter,
        now: Timestamp,
    ) {
        let guest = contact::guest(id, &fields, &identifiers);
        duplicates.contact(&guest);
        for identifier in &identifiers {
            self.claims.insert(identifier.clone(), id);
        }
        self.people.insert(
            id,
            Person {
                fields,
                identifiers,
                guest,
                created: now,
                modified: now,
            },
        );
    }

    /// Merges these contacts into the first: the given fields replace existing ones, and the other
    /// contacts' fields fill the missing ones.
    pub(crate) fn merge(
        &mut self,
        ids: &[Uuid],
        fields: Map<String, Value>,
        identifiers: Vec<Identifier>,
        duplicates: &mut DuplicateCounter,
        now: Timestamp,
    ) {
        let Some((first, others)) = ids.split_first() else {
            return;
        };
        let others: Vec<_> = others
            .iter()
            .filter_map(|id| Some((*id, self.people.remove(id)?)))
            .collect();
        let Some(person) = self.people.get_mut(first) else {
            return;
        };
        let before = person.guest.clone();
        person.fields.extend(fields);
        let mut gained = identifiers;
        for (id, other) in others {
            for (name, value) in other.fields {
                person.fields.entry(name).or_insert(value);
            }
            gained.extend(other.identifiers);
            duplicates.contact_gone(&other.guest);
            for into in self.merged.values_mut().filter(|into| **into == id) {
                *into = *first;
            }
            self.merged.insert(id, *first);
        }
        for identifier in gained {
            self.claims.insert(identifier.clone(), *first);
            if !person.identifiers.contains(&identifier) {
                person.identifiers.push(identifier);
            }
        }
        person.modified = now;
        person.guest = contact::guest(*first, &person.fields, &person.identifiers);
        if person.guest != before {
            duplicates.contact_gone(&before);
            duplicates.contact(&person.guest);
        }
    }

    /// Deletes all contacts.
    pub(crate) fn forget_all(&mut self, duplicates: &mut DuplicateCounter) {
        for person in std::mem::take(self).people.values() {
            duplicates.contact_gone(&person.guest);
        }
    }
}
