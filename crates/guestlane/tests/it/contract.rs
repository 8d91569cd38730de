//! Every request that the client makes is listed in `contract/rest.json`, and every response of the
//! simulator has a status that is listed there.

use std::collections::{BTreeMap, BTreeSet};

use guestlane_cli::{config::Settings, doctor};
use guestlane_core::{
    request::{ContactDetails, SessionRequest},
    surface::Surface,
};
use guestlane_sim::{Entry as Sent, PERMISSIONS};
use guestlane_testkit::{
    Backend::Sqlite,
    platform::{OPEN_MESSAGING, TestPlatform, WEB_MESSAGING, request},
};
use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
struct Call {
    name: String,
    method: String,
    path: String,
    #[serde(default)]
    query: BTreeMap<String, String>,
    auth: String,
    permissions: Vec<String>,
    request: Option<Body>,
    responses: BTreeMap<String, Value>,
    source: String,
}

#[derive(Debug, Deserialize)]
struct Body {
    content_type: String,
    fields: BTreeMap<String, Field>,
    #[serde(default)]
    headers: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize)]
struct Field {
    r#type: String,
    required: bool,
    max: Option<usize>,
    r#enum: Option<Vec<String>>,
    note: Option<String>,
}

fn contract() -> Vec<Call> {
    serde_json::from_str(include_str!("../../../../contract/rest.json")).unwrap()
}

/// Statuses that every call may return; the table does not repeat them.
const ANY: [u16; 7] = [408, 413, 415, 500, 502, 503, 504];

impl Call {
    fn is_of(&self, sent: &Sent) -> bool {
        let path = sent.path.split('?').next().unwrap_or_default();
        let (mine, theirs): (Vec<_>, Vec<_>) =
            (self.path.split('/').collect(), path.split('/').collect());
        let same = mine.len() == theirs.len()
            && mine
                .iter()
                .zip(&theirs)
                .all(|(mine, theirs)| mine.starts_with('{') || mine == theirs);
        let keyed = sent.headers.contains_key("idempotency-key");
        let wants_key = self.request.as_ref().is_some_and(|body| {
            body.headers
                .keys()
                .any(|name| name.eq_ignore_ascii_case("idempotency-key"))
        });
        same && self.method == sent.method && (keyed == wants_key)
    }

    fn check(&self, sent: &Sent) {
        let name = &self.name;
        let query = sent.path.split_once('?').map_or("", |(_, query)| query);
        let given: BTreeSet<_> = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split('=').next().unwrap())
            .collect();
        assert!(
            given.iter().all(|known| self.query.contains_key(*known)),
            "{name}: {query}"
        );
        for (wanted, what) in &self.query {
            assert!(
                what.starts_with("optional") || given.contains(wanted.as_str()),
                "{name}: {wanted} is missing in {query}"
            );
        }
        let authorization = sent
            .headers
            .get("authorization")
            .map(String::as_str)
            .unwrap_or_default();
        let scheme = authorization
            .split(' ')
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase();
        let wanted = match self.auth.as_str() {
            "basic" => "basic",
            "bearer" | "guest-jwt" => "bearer",
            _ => "",
        };
        assert_eq!(scheme, wanted, "{name}");
        if let Some(status) = sent.status {
            assert!(
                ANY.contains(&status) || self.responses.contains_key(&status.to_string()),
                "{name}: {status}"
            );
        }
        let Some(body) = &self.request else {
            assert_eq!(sent.body, "", "{name}");
            return;
        };
        assert_eq!(
            sent.headers.get("content-type"),
            Some(&body.content_type),
            "{name}"
        );
        let value = if body.content_type == "application/json" {
            serde_json::from_str(&sent.body).unwrap()
        } else {
            let pairs = url::form_urlencoded::parse(sent.body.as_bytes());
            Value::Object(
                pairs
                    .map(|(name, value)| (name.into_owned(), Value::from(value.into_owned())))
                    .collect(),
            )
        };
        body.check(name, "", &value);
    }
}

impl Body {
    /// Asserts that every present field is known and valid, and that every required field is
    /// present.
    fn check(&self, name: &str, at: &str, value: &Value) {
        match value {
            Value::Object(fields) => {
                for (field, value) in fields {
                    let path = if at.is_empty() {
                        field.clone()
                    } else {
                        format!("{at}.{field}")
                    };
                    let free = self
                        .fields
                        .get(at)
                        .is_some_and(|parent| parent.r#type == "map");
                    match self.fields.get(&path) {
                        Some(known) => known.check(name, &path, value),
                        None => assert!(
                            free && value.is_string(),
                            "{name}: the field {path} is not in the table"
                        ),
                    }
                    self.check(name, &path, value);
                }
                for (path, _) in self.fields.iter().filter(|(_, field)| field.required) {
                    let (parent, last) = path.rsplit_once('.').unwrap_or(("", path));
                    if parent == at && !last.is_empty() {
                        assert!(fields.contains_key(last), "{name}: {path} is missing");
                    }
                }
            }
            Value::Array(items) => items
                .iter()
                .for_each(|item| self.check(name, &format!("{at}[]"), item)),
            _ => {}
        }
    }
}

impl Field {
    fn check(&self, name: &str, path: &str, value: &Value) {
        let fits = match self.r#type.as_str() {
            "string" => value.is_string(),
            "uuid" => value
                .as_str()
                .is_some_and(|text| text.len() == 36 && uuid::Uuid::try_parse(text).is_ok()),
            "integer" => value.is_i64(),
            "boolean" => value.is_boolean(),
            "array" => value.is_array(),
            "object" | "map" => value.is_object(),
            other => panic!("{name}: {path} has the type {other}"),
        };
        assert!(fits, "{name}: {path} is not of the type {}", self.r#type);
        let length = value
            .as_str()
            .map(|text| text.chars().count())
            .or_else(|| value.as_array().map(Vec::len))
            .unwrap_or(0);
        assert!(
            self.max.is_none_or(|max| length <= max),
            "{name}: {path} is too long"
        );
        if let (Some(known), Some(text)) = (&self.r#enum, value.as_str()) {
            assert!(
                known.iter().any(|known| known == text),
                "{name}: {path} is {text}"
            );
        }
        assert!(
            !self
                .note
                .as_deref()
                .unwrap_or_default()
                .starts_with("not sent"),
            "{name}: {path} is not sent"
        );
    }
}

fn settings(platform: &TestPlatform, surface: &Surface) -> Settings {
    let base = platform.sim.base_url();
    let id = match surface {
        Surface::Rest => String::new(),
        Surface::WebMessaging { deployment: id } | Surface::OpenMessaging { integration: id } => {
            id.to_string()
        }
    };
    let mut settings = Settings::default();
    settings.add_environment(|name| {
        Some(match name {
            "GENESYS_BASE_URL" => base.clone(),
            "GENESYS_CLIENT_ID" => "sim-client".to_owned(),
            "GENESYS_CLIENT_SECRET" => "sim-client-secret".to_owned(),
            "GUESTLANE_SURFACE" => surface.name().to_owned(),
            "GENESYS_DEPLOYMENT_ID" | "GENESYS_INTEGRATION_ID" => id.clone(),
            "GENESYS_EXTERNAL_SOURCE_ID" => guestlane_sim::EXTERNAL_SOURCE_ID.to_string(),
            "GENESYS_MOVE_TO_QUEUE" => "true".to_owned(),
            "GUESTLANE_STATE_DIR" => platform.directory.path().join("none").display().to_string(),
            _ => return None,
        })
    });
    settings
}

/// Makes every call that a surface can make, with and without faults.
async fn everything(surface: &Surface) -> Vec<Sent> {
    let mut platform = TestPlatform::on(Sqlite, surface).await;
    let engine = platform.engine().await;
    engine.create(request("ann")).await.unwrap();
    if surface.is_public_api() {
        let person = ContactDetails::new(
            Some("Bob".to_owned()),
            Some("Builder".to_owned()),
            Some("bob@example.org".to_owned()),
            Some("+31 20 555 0100".to_owned()),
        );
        let bob = SessionRequest {
            contact_details: person.unwrap(),
            ..request("bob")
        };
        engine.create(bob.clone()).await.unwrap();
        platform.faults(&[
            "contact:409:nth=1",
            "message:answer-lost:nth=1",
            "open-message:answer-lost:nth=1",
        ]);
        engine
            .create(SessionRequest {
                key: "again".parse().unwrap(),
                ..bob.clone()
            })
            .await
            .unwrap();
        platform.config.messaging.external_source = None;
        let engine = platform.engine().await;
        engine
            .create(SessionRequest {
                key: "by e-mail".replace(' ', "-").parse().unwrap(),
                ..bob
            })
            .await
            .unwrap();
        engine.create(request("unused")).await.unwrap();
        let findings =
            doctor::run_checks(&settings(&platform, surface), &[], &platform.clock()).await;
        assert!(
            findings
                .iter()
                .all(|finding| finding.outcome != doctor::CheckStatus::Failed),
            "{findings:#?}"
        );
    }
    platform.sim.journal()
}

#[tokio::test]
async fn contract_covers_every_request_and_status_and_has_no_unused_call() {
    let calls = contract();
    let mut made = BTreeSet::new();
    for surface in [Surface::Rest, WEB_MESSAGING, OPEN_MESSAGING] {
        for sent in everything(&surface).await {
            if sent.method == "FRAME" || sent.path.starts_with("/crm/") || sent.path == "/" {
                continue;
            }
            let call = calls.iter().find(|call| call.is_of(&sent));
            let call =
                call.unwrap_or_else(|| panic!("{} {} is not in the table", sent.method, sent.path));
            call.check(&sent);
            made.insert(call.name.clone());
        }
    }
    let never: Vec<_> = calls
        .iter()
        .map(|call| &call.name)
        .filter(|name| !made.contains(*name))
        .collect();
    assert!(never.is_empty(), "nothing makes {never:?}");
}

#[test]
fn every_contract_entry_has_a_source_and_known_permissions() {
    for call in contract() {
        assert!(!call.source.is_empty(), "{}", call.name);
        let known = call
            .permissions
            .iter()
            .any(|permission| PERMISSIONS.contains(&permission.as_str()));
        let gateway = call.name.starts_with("gateway-");
        assert!(
            gateway || call.permissions.is_empty() || known,
            "{}: {:?}",
            call.name,
            call.permissions
        );
    }
}

/// The permissions that `doctor` and the errors recommend are those of the table.
#[test]
fn error_permissions_equal_those_of_the_contract() {
    use guestlane_genesys::Operation;
    for (operation, name) in [
        (Operation::Queue, "queue"),
        (Operation::EnrichContact, "contact-enrich"),
        (Operation::CreateContact, "contact-create"),
        (Operation::FindContact, "contact-lookup"),
        (Operation::OpenMessage, "open-inbound"),
        (Operation::Details, "message-details"),
        (Operation::Conversation, "conversation"),
        (Operation::LinkContact, "contact-link"),
        (Operation::MoveToQueue, "queue-transfer"),
        (Operation::Contact, "gateway-contact"),
        (Operation::OpenConversation, "gateway-conversation"),
    ] {
        let calls = contract();
        let call = calls.iter().find(|call| call.name == name).unwrap();
        let (told, listed): (BTreeSet<_>, BTreeSet<_>) = (
            operation.permissions().iter().copied().collect(),
            call.permissions.iter().map(String::as_str).collect(),
        );
        assert_eq!(told, listed, "{name}");
    }
}
