//! Settings of the platform: surface, hosts and credentials.

mod hosts;

use ::url::Url;
use guestlane::messaging::{FirstMessage, MessagingConfig};
use guestlane_core::surface::Surface;
use guestlane_genesys::{Credentials, Endpoints, MAX_CLIENTS, OAuthClient, TokenRequestAuth};
use guestlane_runtime::TlsRoots;
use http::HeaderValue;
use uuid::Uuid;

use super::*;

fn count(number: usize, one: &str) -> String {
    if number == 1 {
        format!("1 {one}")
    } else {
        format!("{number} {one}s")
    }
}

impl Reader<'_> {
    pub(super) fn surface(&mut self) -> Option<Surface> {
        let name = self.settings.value(SURFACE).unwrap_or_default().to_owned();
        let [rest, web_messaging, open_messaging] = Surface::NAMES;
        match name.as_str() {
            _ if name == rest => Some(Surface::Rest),
            _ if name == web_messaging => {
                let fix = "copy it from Admin > Message > Messenger Deployments; it is a UUID";
                self.required_id(DEPLOYMENT_ID, fix)
                    .map(|deployment| Surface::WebMessaging { deployment })
            }
            _ if name == open_messaging => {
                let fix = "copy it from Admin > Message > Platforms, the Open Messaging integration; it is a UUID";
                self.required_id(INTEGRATION_ID, fix)
                    .map(|integration| Surface::OpenMessaging { integration })
            }
            _ => {
                self.refuse(
                    SURFACE,
                    format!("`{}` is not a surface", shorten(&name)),
                    "write rest, web-messaging or open-messaging",
                );
                None
            }
        }
    }

    fn required_id(&mut self, env: &str, fix: &str) -> Option<Uuid> {
        if self.settings.value(env).is_none() {
            self.missing(env, fix);
            return None;
        }
        self.parsed(env, fix, |text| {
            Uuid::try_parse(text).ok().filter(|_| text.len() == 36)
        })
    }

    pub(super) fn credentials(&mut self) -> Option<Credentials> {
        let public = self.settings.is_public_api();
        let known = self
            .settings
            .value(SURFACE)
            .is_some_and(|name| Surface::NAMES.contains(&name));
        let (hosts, sign_in) = match (known, public) {
            // The surface is unknown, so the required host is unknown too.
            (false, _) => (None, TokenRequestAuth::Form),
            (true, true) => (self.cloud_hosts(), TokenRequestAuth::Basic),
            (true, false) => (
                self.base().map(Endpoints::one_origin),
                TokenRequestAuth::Form,
            ),
        };
        let required = |reader: &mut Self, env, fix: &str| {
            let value = reader.settings.value(env).map(str::to_owned);
            if value.is_none() {
                reader.missing(env, fix);
            }
            value
        };
        let fix = "copy it from Admin > Integrations > OAuth (grant type: client credentials)";
        let ids = required(self, CLIENT_ID, fix);
        let secrets = required(self, CLIENT_SECRET, fix);
        let trust = self.trust(CA_FILE);
        let clients = self.clients(&ids?, &secrets?);
        Some(Credentials {
            hosts: hosts?,
            sign_in,
            clients: clients?,
            trust: trust?,
        })
    }

    /// Parses one OAuth client, or several whose rate limits are used together.
    fn clients(&mut self, ids: &str, secrets: &str) -> Option<Vec<OAuthClient>> {
        let (ids, secrets): (Vec<_>, Vec<_>) = (
            ids.split_whitespace().collect(),
            secrets.split_whitespace().collect(),
        );
        let fix = "write the IDs separated by spaces, and the secrets in the same order";
        if ids.len() != secrets.len() {
            let reason = format!(
                "has {} of OAuth clients, but {CLIENT_ID} has {}",
                count(secrets.len(), "secret"),
                count(ids.len(), "ID")
            );
            self.refuse(CLIENT_SECRET, reason, fix);
            return None;
        }
        let listed =
            |items: &[&str]| items.len() > 1 && items.iter().any(|item| item.ends_with([',', ';']));
        for (env, items) in [(CLIENT_ID, &ids), (CLIENT_SECRET, &secrets)] {
            if listed(items)
                || (env == CLIENT_ID && items.iter().any(|item| item.contains([',', ';'])))
            {
                self.refuse(
                    env,
                    "separates its values with commas or semicolons",
                    "separate them with spaces only",
                );
                return None;
            }
        }
        if let Some(double) = ids
            .iter()
            .enumerate()
            .find_map(|(n, id)| ids[..n].contains(id).then_some(*id))
        {
            self.refuse(
                CLIENT_ID,
                format!("contains `{}` twice", shorten(double)),
                "name each OAuth client once: a client has one rate limit",
            );
            return None;
        }
        if ids.is_empty() || ids.len() > MAX_CLIENTS {
            self.refuse(
                CLIENT_ID,
                format!("names {} OAuth clients", ids.len()),
                &format!("name 1 to {MAX_CLIENTS}"),
            );
            return None;
        }
        let client = |(id, secret): (&str, &str)| OAuthClient {
            id: id.to_owned(),
            secret: secret.to_owned().into(),
        };
        Some(ids.into_iter().zip(secrets).map(client).collect())
    }

    pub(super) fn trust(&mut self, env: &str) -> Option<TlsRoots> {
        let Some(path) = self.settings.value(env).map(str::to_owned) else {
            return Some(TlsRoots::System);
        };
        let fix = "name a PEM file with the certificates of your certificate authority";
        let trust = TlsRoots::from_file(std::path::Path::new(&path))
            .map_err(|error| format!("`{}` {error}", shorten(&path)));
        let is_there = std::path::Path::new(&path).exists();
        let refused = trust.map_err(|reason| self.refuse(env, reason, fix));
        if let (Err(()), false, Some(last)) = (&refused, is_there, self.refused.last_mut()) {
            last.may_pass = true; // The file may be on a volume that is not mounted yet.
        }
        refused.ok()
    }

    pub(super) fn cloud(&mut self, hosts: Option<&Endpoints>) -> Option<MessagingConfig> {
        let yes_or_no = |reader: &mut Self, env| {
            reader.parsed(env, "write true or false", |text| text.parse().ok())
        };
        let link_contact = yes_or_no(self, LINK_CONTACT);
        let move_to_queue = yes_or_no(self, MOVE_TO_QUEUE);
        let send_guest_token = yes_or_no(self, SEND_GUEST_TOKEN);
        let external_source = match self.settings.value(EXTERNAL_SOURCE_ID) {
            None => None,
            Some(_) => {
                let fix = "copy it from Admin > External Contacts > External Sources; it is a UUID";
                Some(self.required_id(EXTERNAL_SOURCE_ID, fix)?)
            }
        };
        let first_message = self.first_message();
        let origin = self.origin(hosts);
        let mut config = MessagingConfig::default();
        config.origin = origin?;
        config.external_source = external_source;
        config.first_message = first_message?;
        config.link_contact = link_contact?;
        config.move_to_queue = move_to_queue?;
        config.send_guest_token = send_guest_token?;
        Some(config)
    }

    fn first_message(&mut self) -> Option<FirstMessage> {
        let text = self.settings.value(FIRST_MESSAGE)?.to_owned();
        if text == "join" {
            if self.settings.value(SURFACE) == Some(Surface::NAMES[2]) {
                self.refuse(
                    FIRST_MESSAGE,
                    "is `join`, an event that Open Messaging does not have",
                    "write a text message",
                );
                return None;
            }
            return Some(FirstMessage::Join);
        }
        let length = text.chars().count();
        if length > FirstMessage::MAX {
            self.refuse(
                FIRST_MESSAGE,
                format!("has {length} characters"),
                "shorten it: the platform accepts at most 4096 characters",
            );
            return None;
        }
        if text.trim().is_empty() || text.chars().any(|c| c.is_control() && c != '\n') {
            self.refuse(
                FIRST_MESSAGE,
                "is empty or has a control character",
                "write a text, or join",
            );
            return None;
        }
        Some(FirstMessage::Text(text))
    }

    /// The `Origin` header. The default is the host of the guest WebSocket, as the platform's own
    /// clients send it.
    fn origin(&mut self, hosts: Option<&Endpoints>) -> Option<HeaderValue> {
        let origin = match self.settings.value(ORIGIN) {
            Some(origin) => origin.to_owned(),
            None => match hosts.and_then(|hosts| Url::parse(hosts.webmessaging.as_str()).ok()) {
                Some(url) => url.origin().ascii_serialization(),
                None => return Some(MessagingConfig::default().origin),
            },
        };
        let whole = Url::parse(&origin)
            .ok()
            .filter(|url| url.host().is_some() && url.origin().ascii_serialization() == origin);
        let header = whole.and_then(|_| HeaderValue::try_from(&origin).ok());
        if header.is_none() {
            let reason = format!(
                "`{}` is not an origin",
                shorten(&url::shown(ORIGIN, &origin))
            );
            self.refuse(
                ORIGIN,
                reason,
                "write it as a browser sends it, like https://www.example.com",
            );
        }
        header
    }
}
