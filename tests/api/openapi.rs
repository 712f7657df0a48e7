//! The OpenAPI document is the product's face: the one in the repository is the one that is
//! served, and its examples are true.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::helpers::{built_in, spawn_app, spawn_app_with_both, spawn_app_with_policies};

async fn served() -> Value {
    spawn_app().await.document().await
}

#[tokio::test]
async fn the_document_in_the_repository_is_the_one_that_is_served() {
    let mut document: Value = serde_json::from_str(include_str!("../../openapi.json")).unwrap();
    // To update it: cargo run -- openapi > openapi.json
    let settings = crate::events::settings("http://127.0.0.1:1/");
    let app = spawn_app_with_both(built_in(), &settings).await;
    let mut served = app.document().await;
    // It says all the ways in which callers may have to say who they are. This service asks nobody.
    for document in [&mut document, &mut served] {
        for path in document["paths"].as_object_mut().unwrap().values_mut() {
            for operation in path.as_object_mut().unwrap().values_mut() {
                let operation = operation.as_object_mut().unwrap();
                operation.remove("security");
                // A user can only be named beside an API key.
                if let Some(parameters) = operation.get_mut("parameters") {
                    let parameters = parameters.as_array_mut().unwrap();
                    parameters.retain(|it| it["$ref"] != "#/components/parameters/onBehalfOf");
                    if parameters.is_empty() {
                        operation.remove("parameters");
                    }
                }
            }
        }
        let components = document["components"].as_object_mut().unwrap();
        assert!(components.remove("securitySchemes").is_some());
        components.remove("parameters");
    }
    let members = |document: &Value| {
        document
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(members(&document), members(&served));
    for member in document.as_object().unwrap().keys() {
        assert!(document[member] == served[member], "`{member}` differs");
    }
}

/// What `value` is, or what it refers to.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let Some(reference) = value["$ref"].as_str() else {
        return value;
    };
    let pointer = reference.strip_prefix('#').unwrap();
    document
        .pointer(pointer)
        .unwrap_or_else(|| panic!("there is no {reference}"))
}

fn example<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let schema = resolved(document, schema);
    schema.get("example").unwrap_or(&schema["examples"][0])
}

/// The responses of each operation, by its id.
fn responses(document: &Value) -> Vec<(&str, &serde_json::Map<String, Value>)> {
    let paths = document["paths"].as_object().unwrap();
    paths
        .values()
        .flat_map(|item| item.as_object().unwrap().values())
        .map(|operation| {
            let id = operation["operationId"].as_str().unwrap();
            (id, operation["responses"].as_object().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn the_example_of_each_request_is_granted() {
    let app = spawn_app().await;
    let document = served().await;
    let example = &document["components"]["schemas"]["FileRequest"]["example"];
    let files = &document["components"]["schemas"]["FilesRequest"]["example"];
    for (path, body) in [
        ("/upload/presigned-url", example),
        ("/upload/presigned-post", example),
        ("/upload/presigned-urls", files),
    ] {
        let _granted: Value = app.granted(path, body).await;
    }
}

#[tokio::test]
async fn the_examples_of_all_fields_are_granted_with_the_example_policies() {
    let app = spawn_app_with_policies(include_str!("../../policies.example.toml")).await;
    let document = served().await;
    let properties = &document["components"]["schemas"]["FileRequest"]["properties"];
    let mut body: serde_json::Map<String, Value> = properties
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, schema)| (name.clone(), example(&document, schema).clone()))
        .collect();
    assert_eq!(body.len(), 8, "{body:?}");
    // Only this policy of the example lets clients set metadata.
    body.insert("policy".into(), "avatar".into());
    let _granted: Value = app
        .granted("/upload/presigned-url", &Value::Object(body))
        .await;
}

#[tokio::test]
async fn every_problem_has_an_example_of_its_own_status() {
    let document = served().await;
    for (operation, responses) in responses(&document) {
        for (status, response) in responses {
            if status.starts_with('2') {
                continue;
            }
            let response = resolved(&document, response);
            let example = &response["content"]["application/problem+json"]["example"];
            let status: u16 = status.parse().unwrap();
            assert_eq!(example["status"], status, "{operation}");
            let title = StatusCode::from_u16(status).unwrap();
            assert_eq!(example["title"], title.canonical_reason().unwrap());
        }
    }
}

#[tokio::test]
async fn every_link_leads_to_parameters_of_an_operation() {
    let document = served().await;
    let mut links = Vec::new();
    for (_, responses) in responses(&document) {
        for response in responses.values() {
            let found = resolved(&document, response)["links"].as_object();
            links.extend(found.into_iter().flat_map(serde_json::Map::values));
        }
    }
    assert!(links.len() > 5, "{links:?}");
    for link in links {
        let id = &link["operationId"];
        let mut operations = document["paths"].as_object().unwrap().values();
        let operation = operations
            .find_map(|item| {
                let mut operations = item.as_object().unwrap().values();
                operations.find(|operation| operation["operationId"] == *id)
            })
            .unwrap_or_else(|| panic!("there is no {id}"));
        for name in link["parameters"]
            .as_object()
            .into_iter()
            .flat_map(serde_json::Map::keys)
        {
            let mut parameters = operation["parameters"].as_array().unwrap().iter();
            assert!(
                parameters.any(|parameter| parameter["name"] == **name),
                "{link}"
            );
        }
    }
}

#[test]
fn names_read_well_and_nothing_that_generators_need_is_missing() {
    let document = serde_json::to_value(presignd::http::openapi()).unwrap();
    assert_eq!(document["servers"][0]["url"], "/");
    assert_eq!(document["info"]["license"]["name"], "MIT OR Apache-2.0");
    assert!(document["info"]["contact"]["name"].is_string());
    let verify = &document["components"]["schemas"]["VerifyRequest"]["oneOf"];
    assert_eq!(verify[0]["$ref"], "#/components/schemas/VerifyOne");
    assert_eq!(verify[1]["$ref"], "#/components/schemas/VerifyMany");
    for name in ["VerifyOne", "VerifyMany"] {
        assert!(document["components"]["schemas"][name]["properties"].is_object());
    }
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values() {
            let summary = operation["summary"].as_str().unwrap();
            assert!(summary.len() < 50, "{summary}");
            assert!(operation["description"].is_string(), "{summary}");
            assert!(operation["security"].is_array(), "{summary}");
        }
    }
    for path in ["/healthz", "/readyz", "/.well-known/jwks.json"] {
        assert_eq!(document["paths"][path]["get"]["security"], json!([]));
    }
}

#[tokio::test]
async fn swagger_ui_is_served_from_the_binary_and_points_at_the_document() {
    let app = spawn_app().await;
    let get = async |path: &str| {
        let response = app.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        response.text().await.unwrap()
    };
    let page = get("/docs").await;
    assert!(page.contains("swagger-ui"), "{page}");
    assert!(
        !page.contains("https://") && !page.contains("http://"),
        "{page}"
    );
    let initializer = get("/docs/swagger-initializer.js").await;
    assert!(initializer.contains("/openapi.json"), "{initializer}");
    assert!(get("/docs/swagger-ui-bundle.js").await.len() > 100_000);
}
