//! The OpenAPI document matches the service.

use guestlane::error::ErrorCode;
use http::Method;
use serde_json::Value;

use guestlane_testkit::service::{TestService, json};

#[tokio::test]
async fn openapi_document_matches_its_snapshot() {
    let test_service = TestService::new().await;
    let document = json(
        &test_service
            .send(Method::GET, "/openapi.json", &[], "")
            .await,
    );
    assert_eq!(document["openapi"], "3.1.0");
    insta::assert_json_snapshot!("openapi", document);
}

/// Calls `visit` for each schema, including nested ones.
fn each_schema(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        each_schema(&format!("{path}.{name}"), property, visit);
    }
    if schema["items"].is_object() {
        each_schema(&format!("{path}[]"), &schema["items"], visit);
    }
    for one in ["oneOf", "anyOf", "allOf"]
        .iter()
        .flat_map(|name| schema[*name].as_array().into_iter().flatten())
    {
        each_schema(path, one, visit);
    }
}

#[tokio::test]
async fn every_schema_has_bounds_a_description_and_an_example() {
    let test_service = TestService::new().await;
    let document = json(
        &test_service
            .send(Method::GET, "/openapi.json", &[], "")
            .await,
    );
    let mut missing = Vec::new();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        if schema["description"].as_str().is_none_or(str::is_empty) {
            missing.push(format!("{name}: no description"));
        }
        each_schema(name, schema, &mut |path, schema| {
            let is = |kind: &str| match &schema["type"] {
                Value::Array(kinds) => kinds.iter().any(|one| one == kind),
                one => one == kind,
            };
            let has = |member: &str| !schema[member].is_null();
            let element = path.ends_with("[]");
            if is("string") && !has("enum") && !has("maxLength") && !has("pattern") && !element {
                missing.push(format!("{path}: a text without maxLength"));
            }
            if (is("integer") || is("number")) && !has("minimum") && !element {
                missing.push(format!("{path}: a number without minimum"));
            }
            if is("array") && !has("maxItems") {
                missing.push(format!("{path}: an array without maxItems"));
            }
            let plain = is("string") || is("integer") || is("number");
            if plain && !has("enum") && !has("example") && !has("examples") && !element {
                missing.push(format!("{path}: no example"));
            }
        });
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[tokio::test]
async fn every_error_code_has_a_problem_page() {
    let test_service = TestService::new().await;
    for code in ErrorCode::ALL {
        let page = test_service
            .send(
                Method::GET,
                &guestlane_server::error_pages::page_path(*code),
                &[],
                "",
            )
            .await;
        let text = String::from_utf8(page.body.to_vec()).unwrap();
        assert!(
            page.status == 200 && text.starts_with(&format!("# {}", code.title())),
            "{code}"
        );
    }
}
