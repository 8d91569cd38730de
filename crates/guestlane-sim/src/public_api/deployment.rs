//! Read operations on configuration: queues, web deployment, open messaging integration, external
//! source, limits.

use guestlane_genesys::Queue;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    organization::{
        Organization,
        guests::{CONNECTIONS_PER_MINUTE, REQUESTS_PER_MINUTE},
    },
    request::{Page, parameter},
    response::{self, Body, Refusal},
};

impl Organization {
    /// `GET /api/v2/routing/queues/{queueId}`
    pub(crate) fn queue(&self, id: &str) -> Result<Response<Body>, Refusal> {
        let id =
            Uuid::try_parse(id).map_err(|_| Refusal::bad_request("The queue id is not a UUID."))?;
        let queue = self
            .options
            .queues
            .iter()
            .find(|queue| queue.id == id)
            .ok_or_else(Refusal::not_found)?;
        Ok(response::json(StatusCode::OK, &shown(queue)))
    }

    /// `GET /api/v2/routing/queues?pageSize&pageNumber&name`: `*` in a name stands for anything.
    pub(crate) fn list_queues(&self, query: Option<&str>) -> Result<Response<Body>, Refusal> {
        let page = Page::read(query)?;
        let name = parameter(query, "name");
        let fits = |queue: &&Queue| {
            name.as_ref()
                .is_none_or(|name| like(&queue.name.to_lowercase(), &name.to_lowercase()))
        };
        let found: Vec<_> = self.options.queues.iter().filter(fits).map(shown).collect();
        Ok(response::json(StatusCode::OK, &page.of(&found)))
    }

    /// `GET /webdeployments/v1/deployments/{deploymentId}/config.json`
    pub(crate) fn config(&self, id: &str) -> Response<Body> {
        let deployment = &self.options.deployment;
        let (api, messaging) = self.hosts();
        let modes: Vec<_> =
            [json!({"fileTypes": deployment.file_types, "maxFileSizeKB": deployment.max_file_kb})]
                .to_vec();
        let disconnect = if deployment.read_only_on_disconnect {
            "ReadOnly"
        } else {
            "Send"
        };
        self.of_deployment(
            id,
            &json!({
                "id": deployment.id, "version": "3", "languages": ["en-us"], "defaultLanguage": "en-us", "apiEndpoint": api,
                "headlessMode": {"enabled": false},
                "messenger": {
                    "enabled": true,
                    "apps": {"conversations": {
                        "messagingEndpoint": messaging,
                        "showAgentTypingIndicator": true, "showUserTypingIndicator": true, "autoStart": {"enabled": false},
                        "conversationDisconnect": {"enabled": true, "type": disconnect},
                        "conversationClear": {"enabled": deployment.clear},
                        "notifications": {"enabled": false}, "markdown": {"enabled": true},
                        "sessionDurationSeconds": deployment.session_seconds,
                    }},
                    "styles": {"primaryColor": "#0d6efd"}, "launcherButton": {"visibility": "On"},
                    "fileUpload": {"enableAttachments": !deployment.file_types.is_empty(), "modes": modes},
                },
                "journeyEvents": {"enabled": false}, "status": "Active",
                "auth": {"enabled": deployment.authentication, "allowSessionUpgrade": deployment.session_upgrade},
            }),
        )
    }

    /// `GET /webdeployments/v1/deployments/{deploymentId}/domains.json`
    pub(crate) fn domains(&self, id: &str) -> Response<Body> {
        let deployment = &self.options.deployment;
        let domains = json!({"allowAllDomains": deployment.allow_all_domains, "allowedDomains": deployment.allowed_domains});
        self.of_deployment(id, &domains)
    }

    /// Serves a file of the deployment. As on the content network, a file of another deployment is
    /// a 403.
    fn of_deployment(&self, id: &str, file: &Value) -> Response<Body> {
        let mine = Uuid::try_parse(id).is_ok_and(|id| id == self.options.deployment.id);
        let mut response = if mine {
            response::json(StatusCode::OK, file)
        } else {
            response::empty(StatusCode::FORBIDDEN)
        };
        response.headers_mut().insert(
            header::ACCESS_CONTROL_ALLOW_ORIGIN,
            HeaderValue::from_static("*"),
        );
        response
    }

    /// The addresses of the API and of the guest socket.
    fn hosts(&self) -> (String, String) {
        match &self.options.tls {
            Some(tls) => (
                format!("https://api.{}", tls.region),
                format!("wss://webmessaging.{}", tls.region),
            ),
            None => (self.origin.clone(), self.origin.replacen("http", "ws", 1)),
        }
    }

    /// `GET /api/v2/conversations/messaging/integrations/open/{integrationId}`
    pub(crate) fn integration(&self, id: &str) -> Result<Response<Body>, Refusal> {
        let id = self.known_integration(id)?;
        Ok(response::json(
            StatusCode::OK,
            &json!({
                "id": id, "name": "Open Messaging", "status": "Active", "createStatus": "Completed",
                "selfUri": format!("/api/v2/conversations/messaging/integrations/open/{id}"),
            }),
        ))
    }

    /// `GET /api/v2/externalcontacts/externalsources/{externalSourceId}`
    pub(crate) fn source(&self, id: &str) -> Result<Response<Body>, Refusal> {
        let id = Uuid::try_parse(id)
            .map_err(|_| Refusal::bad_request("The source id is not a UUID."))?;
        if id != self.options.external_source {
            return Err(Refusal::not_found());
        }
        Ok(response::json(
            StatusCode::OK,
            &json!({"id": id, "name": "Guests", "active": true}),
        ))
    }

    /// `GET /api/v2/organizations/limits/namespaces/{namespaceName}`
    pub(crate) fn limits(&self, namespace: &str) -> Result<Response<Body>, Refusal> {
        let quota = self.options.quota.map_or(0, guestlane_genesys::Rate::calls);
        let limits = match namespace {
            "platform.api" => vec![("client.credentials.token.rate.per.minute", quota)],
            "web.messaging" => vec![
                (
                    "message.rate.per.second.per.session",
                    self.options.message_rate,
                ),
                ("requests.per.minute.per.connection", REQUESTS_PER_MINUTE),
                (
                    "connections.per.minute.per.deployment",
                    CONNECTIONS_PER_MINUTE,
                ),
            ],
            "external.contacts" | "messaging" | "web.deployments" | "conversation" | "routing"
            | "auth.api" => Vec::new(),
            _ => return Err(Refusal::not_found()),
        };
        let limit = |(key, value): &(&str, u32)| json!({"key": key, "namespace": namespace, "value": value});
        let entities: Vec<_> = limits.iter().map(limit).collect();
        Ok(response::json(
            StatusCode::OK,
            &json!({"name": namespace, "entities": entities}),
        ))
    }
}

fn shown(queue: &Queue) -> Value {
    json!({"id": queue.id, "name": queue.name, "selfUri": format!("/api/v2/routing/queues/{}", queue.id)})
}

/// Matches a name against a pattern: `Sales*` matches `Sales EN`.
fn like(text: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => text == pattern,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len())
                .filter(|at| rest.is_char_boundary(*at))
                .any(|at| like(&rest[at..], after))
        }),
    }
}
