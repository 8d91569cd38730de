//! The OpenAPI 3.1 document, generated from the annotations of the routes that serve the requests.

use guestlane_core::request::Attributes;
use serde_json::{Value, json};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        self,
        security::{Http, HttpAuthScheme, SecurityScheme},
    },
};

use crate::{model::CreateSessionRequest, problem::Problem, routes::batch};

/// What all routes have in common.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "guestlane",
        description = "Creates Genesys Cloud web-messaging guest sessions without losing or \
            duplicating one, and proves it.\n\nEvery error response is a problem document (RFC \
            9457) with cause and fix. Every request can be retried with its idempotency key.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    servers((url = "/", description = "This service")),
    tags(
        (name = "sessions", description = "Create and read sessions"),
        (name = "tokens", description = "Guest tokens and signing keys"),
        (name = "crm", description = "Events for the CRM"),
        (name = "audit", description = "Audit log and its proofs"),
        (name = "operation", description = "Health, metrics and errors"),
    ),
    components(schemas(Problem, CreateSessionRequest, batch::RowFailed, batch::Summary, crate::model::Overview)),
    modifiers(&ApiKey),
)]
pub(crate) struct Document;

struct ApiKey;

impl Modify for ApiKey {
    fn modify(&self, document: &mut openapi::OpenApi) {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.bearer_format = Some("gl_…".to_owned());
        scheme.description = Some(
            "An API key, created with `guestlane api-keys create`. Scopes: sessions:write, \
             sessions:read, tokens:verify, admin."
                .to_owned(),
        );
        let components = document.components.get_or_insert_default();
        components
            .security_schemes
            .insert("apiKey".to_owned(), SecurityScheme::Http(scheme).into());
    }
}

/// The document as it is served, with corrections that the annotations cannot express.
pub(crate) fn normalize(document: &openapi::OpenApi) -> Value {
    let mut json = serde_json::to_value(document).unwrap_or_default();
    for operation in json["paths"]
        .as_object_mut()
        .into_iter()
        .flat_map(|paths| paths.values_mut())
    {
        for operation in operation
            .as_object_mut()
            .into_iter()
            .flat_map(|item| item.values_mut())
        {
            let parameters = operation
                .get_mut("parameters")
                .and_then(Value::as_array_mut);
            parameters
                .into_iter()
                .flatten()
                .filter_map(|parameter| parameter.get_mut("schema"))
                .for_each(never_null);
        }
    }
    let attributes =
        &mut json["components"]["schemas"]["CreateSessionRequest"]["properties"]["attributes"];
    attributes["propertyNames"] = json!({"minLength": 1, "maxLength": Attributes::MAX_NAME, "pattern": "^[^\\s\\u0000-\\u001f\\u007f-\\u009f]+$"});
    json
}

/// Removes `null` from the types of a parameter: an optional parameter can be absent, but not null.
fn never_null(schema: &mut Value) {
    if let Some(kinds) = schema.get_mut("type").and_then(Value::as_array_mut) {
        kinds.retain(|kind| kind != "null");
        if let [kind] = kinds.as_slice() {
            schema["type"] = kind.clone();
        }
    }
    if let Some(one) = schema.get_mut("oneOf").and_then(Value::as_array_mut) {
        one.retain(|one| one["type"] != "null");
        if let [one] = one.as_slice() {
            *schema = one.clone();
        }
    }
}
