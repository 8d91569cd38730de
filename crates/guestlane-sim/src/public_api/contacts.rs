//! Operations on external contacts: create, enrich, look up, read (docs/platform.md#contacts).

use guestlane_runtime::Timestamp;
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::{
    organization::{
        Organization,
        contact::{self, Identifier},
    },
    request::parse,
    response::{self, Body, Refusal},
};

impl Organization {
    /// `POST /api/v2/externalcontacts/contacts`. Of the identifiers only external ids are claimed by it.
    pub(crate) fn create_contact(
        &mut self,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Response<Body>, Refusal> {
        let fields = contact::read(&parse(body)?, self.options.external_source)?;
        let identifiers = contact::identifiers(&fields);
        self.contacts.clash(&identifiers, &[])?;
        let id = self.insert(fields, identifiers, now);
        Ok(response::json(StatusCode::OK, &self.contacts.shown(id)?))
    }

    /// `GET /api/v2/externalcontacts/contacts/{contactId}`
    pub(crate) fn read_contact(&self, id: &str) -> Result<Response<Body>, Refusal> {
        let id = Uuid::try_parse(id)
            .map_err(|_| Refusal::bad_request("The contact id is not a UUID."))?;
        Ok(response::json(StatusCode::OK, &self.contacts.shown(id)?))
    }

    /// `POST /api/v2/externalcontacts/identifierlookup/contacts`
    pub(crate) fn look_up_contact(&self, body: &[u8]) -> Result<Response<Body>, Refusal> {
        let wanted = contact::identifier(&parse(body)?)?;
        let id = self
            .contacts
            .owner(&wanted)
            .ok_or_else(Refusal::not_found)?;
        Ok(response::json(StatusCode::OK, &self.contacts.shown(id)?))
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
            .filter_map(|identifier| self.contacts.owner(identifier))
        {
            if !found.contains(&id) {
                found.push(id);
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
                self.contacts.clash(&identifiers, &[])?;
                if dry {
                    return Ok(response::json(
                        StatusCode::CREATED,
                        &contact::shown(None, &fields, now, now),
                    ));
                }
                let id = self.insert(fields, identifiers, now);
                Ok(response::json(
                    StatusCode::CREATED,
                    &self.contacts.shown(id)?,
                ))
            }
            ("Merge" | "Upsert" | "Update", Some(first)) => {
                self.contacts.clash(&identifiers, &found)?;
                let first = *first;
                if dry {
                    let mut shown = self.contacts.shown(first)?;
                    shown
                        .as_object_mut()
                        .into_iter()
                        .for_each(|shown| shown.extend(fields.clone()));
                    return Ok(response::json(StatusCode::OK, &shown));
                }
                self.contacts
                    .merge(&found, fields, identifiers, &mut self.duplicates, now);
                Ok(response::json(StatusCode::OK, &self.contacts.shown(first)?))
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
        let duplicates = &mut self.duplicates;
        self.contacts
            .insert(id, fields, identifiers, duplicates, now);
        id
    }
}
