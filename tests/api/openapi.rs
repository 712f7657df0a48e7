//! The OpenAPI document is the product's face: the one in the repository is the one that is
//! served, and its examples are true.

use std::collections::BTreeSet;

use reqwest::StatusCode;
use reqwest::header::HeaderName;
use serde_json::{Value, json};

use crate::helpers::{App, spawn_app, spawn_app_with_policies};

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
    // To update it: cargo run -- openapi > openapi.json
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
    assert_eq!(body.len(), 6, "{body:?}");
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

/// Headers of HTTP itself, and of browsers' CORS.
const UNNAMED: [&str; 5] = [
    "connection",
    "content-type",
    "content-length",
    "date",
    "vary",
];

/// Sends a request, `METHOD PATH`, and holds its answer against what the document says of `ID STATUS`, the operation
/// and the status that it has to have.
async fn answers_as_documented(app: &App, document: &Value, said: &str, sent: &str, body: &Value) {
    let (id, status) = said.split_once(' ').unwrap();
    let (method, path) = sent.split_once(' ').unwrap();
    let request = app
        .client
        .request(method.parse().unwrap(), format!("{}{path}", app.base));
    let response = request.json(body).send().await.unwrap();
    assert_eq!(response.status().as_str(), status, "{said}");
    let all = responses(document);
    let (_, responses) = all.iter().find(|(operation, _)| *operation == id).unwrap();
    let documented = resolved(document, &responses[status]);
    let headers = documented["headers"].as_object().unwrap();
    let named: BTreeSet<&str> = headers.keys().map(String::as_str).collect();
    let seen = response.headers().keys().map(HeaderName::as_str);
    let seen: BTreeSet<&str> = seen.filter(|name| !UNNAMED.contains(name)).collect();
    assert_eq!(seen, named, "{said}");
    let content_type = response.headers()["content-type"].to_str().unwrap();
    assert!(
        documented["content"].get(content_type).is_some(),
        "{said}: {content_type}"
    );
}

#[tokio::test]
async fn answers_to_plain_requests_have_the_status_and_the_headers_that_the_document_names() {
    let app = spawn_app().await;
    let document = served().await;
    let file = &json!({"filename": "a.txt", "contentType": "text/plain"});
    let unknown = &json!({"filename": "a.txt", "contentType": "text/plain", "policy": "unknown"});
    let key = "uploads/00000000-0000-0000-0000-000000000000/a";
    for (said, sent, body) in [
        ("presignedUrl 201", "POST /upload/presigned-url", file),
        ("presignedUrl 400", "POST /upload/presigned-url", &json!({})),
        ("presignedUrl 422", "POST /upload/presigned-url", unknown),
        (
            "presignedUrls 201",
            "POST /upload/presigned-urls",
            &json!({"files": [file]}),
        ),
        (
            "presignedUrls 400",
            "POST /upload/presigned-urls",
            &json!({"files": []}),
        ),
        (
            "presignedUrls 422",
            "POST /upload/presigned-urls",
            &json!({"files": [unknown]}),
        ),
        ("presignedPost 201", "POST /upload/presigned-post", file),
        ("presignedPost 422", "POST /upload/presigned-post", unknown),
        ("verify 200", "POST /upload/verify", &json!({"keys": [key]})),
        (
            "verify 400",
            "POST /upload/verify",
            &json!({"key": key, "keys": [key]}),
        ),
        ("verify 404", "POST /upload/verify", &json!({"key": key})),
        ("healthz 200", "GET /healthz", &Value::Null),
        ("readyz 200", "GET /readyz", &Value::Null),
    ] {
        answers_as_documented(&app, &document, said, sent, body).await;
    }
}

#[tokio::test]
async fn answers_to_uppy_have_the_status_and_the_headers_that_the_document_names() {
    let app = spawn_app().await;
    let document = served().await;
    let file = &json!({"filename": "a"});
    let begun = app.post("/s3/multipart", file).await;
    let begun: Value = begun.json().await.unwrap();
    let upload = format!("/s3/multipart/{}", begun["uploadId"].as_str().unwrap());
    let key = begun["key"].as_str().unwrap();
    for (said, sent, body) in [
        ("presignForm 200", "GET /s3/params?filename=a", &Value::Null),
        ("presignForm 400", "GET /s3/params", &Value::Null),
        (
            "presignForm 422",
            "GET /s3/params?filename=a&policy=unknown",
            &Value::Null,
        ),
        ("createMultipartUpload 200", "POST /s3/multipart", file),
        (
            "createMultipartUpload 400",
            "POST /s3/multipart",
            &json!({}),
        ),
    ] {
        answers_as_documented(&app, &document, said, sent, body).await;
    }
    for (said, method, path) in [
        ("signPart 200", "GET", format!("/1?key={key}")),
        ("signPart 400", "GET", format!("/0?key={key}")),
        ("signPart 404", "GET", "/1?key=other".into()),
        (
            "signParts 200",
            "GET",
            format!("/batch?key={key}&partNumbers=1,2"),
        ),
        ("signParts 400", "GET", format!("/batch?key={key}")),
        ("listParts 200", "GET", format!("?key={key}")),
        ("listParts 400", "GET", String::new()),
        (
            "completeMultipartUpload 400",
            "POST",
            format!("/complete?key={key}"),
        ),
        (
            "completeMultipartUpload 404",
            "POST",
            "/complete?key=other".into(),
        ),
        ("abortMultipartUpload 200", "DELETE", format!("?key={key}")),
        ("abortMultipartUpload 404", "DELETE", "?key=other".into()),
    ] {
        let sent = format!("{method} {upload}{path}");
        answers_as_documented(&app, &document, said, &sent, &json!({})).await;
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
    for path in ["/healthz", "/readyz"] {
        assert_eq!(document["paths"][path]["get"]["security"], json!([]));
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
