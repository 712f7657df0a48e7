//! The OpenAPI document is the product's face: the one in the repository is the one that is
//! served, and its examples are true.

use reqwest::StatusCode;
use serde_json::Value;

use crate::helpers::{spawn_app, spawn_app_with_policies};

async fn served() -> Value {
    let app = spawn_app().await;
    let response = app
        .client
        .get(format!("{}/openapi.json", app.base))
        .send()
        .await;
    response.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn the_document_in_the_repository_is_the_one_that_is_served() {
    let mut document: Value = serde_json::from_str(include_str!("../../openapi.json")).unwrap();
    // To mend it: cargo run -- openapi > openapi.json
    // It says all the ways in which callers may have to say who they are. This service asks nobody.
    for path in document["paths"].as_object_mut().unwrap().values_mut() {
        for operation in path.as_object_mut().unwrap().values_mut() {
            operation.as_object_mut().unwrap().remove("security");
        }
    }
    let components = document["components"].as_object_mut().unwrap();
    assert!(components.remove("securitySchemes").is_some());
    assert_eq!(document, served().await);
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
        .map(|(name, schema)| (name.clone(), schema["example"].clone()))
        .collect();
    assert_eq!(body.len(), 6, "{body:?}");
    // Only this policy of the example lets clients set metadata.
    body.insert("policy".into(), "avatar".into());
    let _granted: Value = app
        .granted("/upload/presigned-url", &Value::Object(body))
        .await;
}

#[tokio::test]
async fn every_problem_has_an_example_of_its_own_status() {
    for (path, item) in served().await["paths"].as_object().unwrap() {
        for operation in item.as_object().unwrap().values() {
            for (status, response) in operation["responses"].as_object().unwrap() {
                if status.starts_with('2') {
                    continue;
                }
                let example = &response["content"]["application/problem+json"]["example"];
                let status: u16 = status.parse().unwrap();
                assert_eq!(example["status"], status, "{path}");
                let title = StatusCode::from_u16(status).unwrap();
                assert_eq!(example["title"], title.canonical_reason().unwrap());
            }
        }
    }
}

#[tokio::test]
async fn every_route_in_the_document_exists() {
    let app = spawn_app().await;
    for (path, item) in served().await["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let method = method.to_uppercase().parse().unwrap();
            let request = app.client.request(method, format!("{}{path}", app.base));
            let status = request.send().await.unwrap().status();
            assert_ne!(status, StatusCode::NOT_FOUND, "{path}");
            assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
            assert!(!status.is_server_error(), "{path}");
        }
    }
}

#[tokio::test]
async fn swagger_ui_is_served_from_the_binary_and_points_at_the_document() {
    let app = spawn_app().await;
    let get = async |path: &str| {
        let response = app
            .client
            .get(format!("{}{path}", app.base))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.text().await.unwrap()
    };
    let page = get("/docs").await;
    assert!(page.contains("swagger-ui"), "{page}");
    assert!(
        !page.contains("https://") && !page.contains("http://"),
        "{page}"
    );
    assert!(
        get("/docs/swagger-initializer.js")
            .await
            .contains("/openapi.json")
    );
    assert!(get("/docs/swagger-ui-bundle.js").await.len() > 100_000);
}
