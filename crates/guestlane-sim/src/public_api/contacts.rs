//! Operations on external contacts: create, enrich, look up, read (docs/platform.md#contacts).

use std::collections::HashMap;

use guestlane_runtime::Timestamp;
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::contact::{self, Identifier};
use crate::{
    organization::{Organization, parse},
    response::{self, Body, Refusal},
};

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
    /// Returns the contact of this ID, or the contact that it was merged into.
    pub(crate) fn resolve_merged(&self, id: Uuid) -> Option<Uuid> {
        let id = self.merged.get(&id).copied().unwrap_or(id);
        self.people.contains_key(&id).then_some(id)
    }

    fn shown(&self, id: Uuid) -> Result<Value, Refusal> {
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
    fn clash(&self, identifiers: &[Identifier], mine: &[Uuid]) -> Result<(), Refusal> {
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
}

impl Organization {
    /// Deletes all contacts, as the platform deletes those without interaction after 60 days.
    pub(crate) fn forget_contacts(&mut self) {
        let directory = std::mem::take(&mut self.directory);
        for person in directory.people.values() {
            self.tally.contact_gone(&person.guest);
        }
    }

    /// `POST /api/v2/externalcontacts/contacts`. Of the identifiers only external ids are claimed by it.
    pub(crate) fn create_official_contact(
        &mut self,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Response<Body>, Refusal> {
        let fields = contact::read(&parse(body)?, self.options.external_source)?;
        let identifiers = contact::identifiers(&fields);
        self.directory.clash(&identifiers, &[])?;
        let id = self.insert(fields, identifiers, now);
        Ok(response::json(StatusCode::OK, &self.directory.shown(id)?))
    }

    /// `GET /api/v2/externalcontacts/contacts/{contactId}`
    pub(crate) fn read_contact(&self, id: &str) -> Result<Response<Body>, Refusal> {
        let id = Uuid::try_parse(id)
            .map_err(|_| Refusal::bad_request("The contact id is not a UUID."))?;
        Ok(response::json(StatusCode::OK, &self.directory.shown(id)?))
    }

    /// `POST /api/v2/externalcontacts/identifierlookup/contacts`
    pub(crate) fn look_up_contact(&self, body: &[u8]) -> Result<Response<Body>, Refusal> {
        let wanted = contact::identifier(&parse(body)?)?;
        let id = self
            .directory
            .claims
            .get(&wanted)
            .ok_or_else(Refusal::not_found)?;
        Ok(response::json(StatusCode::OK, &self.directory.shown(*id)?))
    }

    /// `POST /api/v2/externalcontacts/contacts/enrich`
    pub(crate) fn enrich_contact(
        &mut self,
        body: &[u8],
        dry: bool,
        now: Timestamp,
    ) -> Result<Response<Body>, Refusal> {
        let body: Value = parse(body)?;
        let source = self.options.external_source;
        let matching = body["matchingIdentifiers"]
            .as_array()
            .filter(|matching| (1..=25).contains(&matching.len()));
        let matching = matching
            .ok_or_else(|| Refusal::bad_request("matchingIdentifiers are 1 to 25 identifiers."))?;
        let mut identifiers = matching
            .iter()
            .map(contact::identifier)
            .collect::<Result<Vec<_>, _>>()?;
        if !identifiers
            .iter()
            .all(|identifier| contact::known_source(identifier, source))
        {
            let message = "externalSource.id is not a source of this organization.";
            return Err(Refusal::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid.value",
                message,
            ));
        }
        let none = json!({});
        let fields = contact::read(
            if body["contact"].is_null() {
                &none
            } else {
                &body["contact"]
            },
            source,
        )?;
        let mut found: Vec<Uuid> = Vec::new();
        for id in identifiers
            .iter()
            .filter_map(|identifier| self.directory.claims.get(identifier))
        {
            if !found.contains(id) {
                found.push(*id);
            }
        }
        for identifier in contact::identifiers(&fields) {
            if !identifiers.contains(&identifier) {
                identifiers.push(identifier);
            }
        }
        let action = body["action"].as_str().unwrap_or_default();
        match (action, found.first()) {
            ("Insert", Some(_)) => Err(Refusal::new(
                StatusCode::CONFLICT,
                "conflict",
                "A contact with a matching identifier exists.",
            )),
            ("Update", Some(_)) if found.len() > 1 => Err(Refusal::new(
                StatusCode::CONFLICT,
                "conflict",
                "The identifiers match more than one contact.",
            )),
            ("Update" | "Merge", None) => Err(Refusal::not_found()),
            ("Insert" | "Upsert", None) => {
                self.directory.clash(&identifiers, &[])?;
                if dry {
                    return Ok(response::json(
                        StatusCode::CREATED,
                        &contact::shown(None, &fields, now, now),
                    ));
                }
                let id = self.insert(fields, identifiers, now);
                Ok(response::json(
                    StatusCode::CREATED,
                    &self.directory.shown(id)?,
                ))
            }
            ("Merge" | "Upsert" | "Update", Some(first)) => {
                self.directory.clash(&identifiers, &found)?;
                let first = *first;
                if dry {
                    let mut shown = self.directory.shown(first)?;
                    shown
                        .as_object_mut()
                        .into_iter()
                        .for_each(|shown| shown.extend(fields.clone()));
                    return Ok(response::json(StatusCode::OK, &shown));
                }
                self.update(first, &found[1..], fields, identifiers, now);
                Ok(response::json(
                    StatusCode::OK,
                    &self.directory.shown(first)?,
                ))
            }
            _ => Err(Refusal::bad_request(
                "action is not Merge, Upsert, Update or Insert.",
            )),
        }
    }

    fn insert(
        &mut self,
        fields: Map<String, Value>,
        identifiers: Vec<Identifier>,
        now: Timestamp,
    ) -> Uuid {
        let id = self.new_id();
        let guest = contact::guest(id, &fields, &identifiers);
        self.tally.contact(&guest);
        for identifier in &identifiers {
            self.directory.claims.insert(identifier.clone(), id);
        }
        self.directory.people.insert(
            id,
            Person {
                fields,
                identifiers,
                guest,
                created: now,
                modified: now,
            },
        );
        id
    }

    /// Merges contacts: the given fields replace existing ones, and the other contacts' fields fill
    /// the missing ones.
    fn update(
        &mut self,
        first: Uuid,
        others: &[Uuid],
        fields: Map<String, Value>,
        identifiers: Vec<Identifier>,
        now: Timestamp,
    ) {
        let directory = &mut self.directory;
        let others: Vec<_> = others
            .iter()
            .filter_map(|id| Some((*id, directory.people.remove(id)?)))
            .collect();
        let Some(person) = directory.people.get_mut(&first) else {
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
            self.tally.contact_gone(&other.guest);
            for into in directory.merged.values_mut().filter(|into| **into == id) {
                *into = first;
            }
            directory.merged.insert(id, first);
        }
        for identifier in gained {
            directory.claims.insert(identifier.clone(), first);
            if !person.identifiers.contains(&identifier) {
                person.identifiers.push(identifier);
            }
        }
        person.modified = now;
        person.guest = contact::guest(first, &person.fields, &person.identifiers);
        if person.guest != before {
            self.tally.contact_gone(&before);
            self.tally.contact(&person.guest);
        }
    }
}
