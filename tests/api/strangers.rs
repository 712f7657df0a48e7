//! A stranger's key gets the answer of a key that never was, on every route that accepts one.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::auth::{api_keys, spawn};
use crate::helpers::{App, Grant, answer, with_policies};

const POLICIES: &str = "
    [policies.default]
    key = '{caller}/{uuid}/{filename}'
    download = true
    delete = true

    [policies.held]
    key = 'held/{caller}/{uuid}/{filename}'
    pending = true
    download = true
    delete = true
";

/// An app, and the API keys of Alice and Bob.
async fn with_two_callers() -> (App, [String; 2]) {
    let settings = with_policies(POLICIES);
    let (keys, auth) = api_keys([("alice", ""), ("bob", "")], &settings.policies);
    (spawn(settings, auth).await, keys)
}

/// All of an answer but the id and the time of its request.
type Answer = (StatusCode, BTreeMap<String, String>, String);

/// A request to a route of the document.
struct Request<'a> {
    method: &'a str,
    path: &'a str,
    body: Option<Value>,
}

impl Request<'_> {
    /// The answer to a caller who gives this key, and this token of an upload where the path has one.
    async fn answer(&self, app: &App, caller: &str, token: &str, key: &str) -> Answer {
        let path = self.path.replace("{uploadId}", token);
        let url = format!("{}{}", app.base, path.replace("{partNumber}", "1"));
        let method = Method::from_bytes(self.method.to_uppercase().as_bytes()).unwrap();
        let mut request = app.client.request(method, url).bearer_auth(caller);
        if self.path.contains("{uploadId}") {
            request = request.query(&[("key", key)]);
        }
        if self.path.ends_with("/batch") {
            request = request.query(&[("partNumbers", "1")]);
        }
        if let Some(body) = &self.body {
            let body = body.to_string().replace("KEY", key);
            let body = body.replace("TOKEN", token);
            request = request
                .header("content-type", "application/json")
                .body(body);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        let headers = response.headers().iter();
        let mut headers: BTreeMap<String, String> = headers
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        headers.remove("date");
        let id = headers.remove("x-request-id").unwrap();
        let body = response.text().await.unwrap().replace(&id, "ID");
        (status, headers, body.replace(key, "KEY"))
    }
}

/// The names of the fields that a schema of the document has, whichever of its kinds a body is.
fn names(document: &Value, schema: &Value) -> BTreeSet<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let schema = document.pointer(reference.trim_start_matches('#'));
        return names(document, schema.unwrap());
    }
    let kinds = schema["oneOf"].as_array().into_iter().flatten();
    let own = schema["properties"].as_object().into_iter();
    own.flat_map(|properties| properties.keys().cloned())
        .chain(kinds.flat_map(|kind| names(document, kind)))
        .collect()
}

/// The method and the path of each operation that accepts a key.
async fn operations_with_a_key(app: &App) -> BTreeSet<(String, String)> {
    let document = app.document().await;
    let mut found = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let mut parameters = operation["parameters"].as_array().into_iter().flatten();
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            if parameters.any(|it| it["name"] == "key") || names(&document, schema).contains("key")
            {
                found.insert((method.clone(), path.clone()));
            }
        }
    }
    found
}

/// A request of each kind, under this policy.
fn requests(policy: &str) -> Vec<Request<'static>> {
    let body = |mut body: Value| {
        body["policy"] = policy.into();
        Some(body)
    };
    let requests = [
        ("post", "/upload/verify", body(json!({"key": "KEY"}))),
        ("post", "/upload/verify", body(json!({"keys": ["KEY"]}))),
        ("post", "/upload/commit", body(json!({"key": "KEY"}))),
        ("post", "/upload/commit", body(json!({"keys": ["KEY"]}))),
        (
            "post",
            "/download/presigned-url",
            body(json!({"key": "KEY"})),
        ),
        (
            "post",
            "/download/presigned-url",
            body(json!({"keys": ["KEY"]})),
        ),
        (
            "post",
            "/download/presigned-url",
            body(json!({"key": "KEY", "disposition": "inline"})),
        ),
        ("post", "/upload/delete", body(json!({"key": "KEY"}))),
        ("get", "/s3/multipart/{uploadId}", None),
        ("get", "/s3/multipart/{uploadId}/{partNumber}", None),
        ("get", "/s3/multipart/{uploadId}/batch", None),
        (
            "post",
            "/s3/multipart/{uploadId}/complete",
            Some(json!({"parts": [{"PartNumber": 1, "ETag": "x"}]})),
        ),
        ("delete", "/s3/multipart/{uploadId}", None),
    ];
    // Each call of an upload in parts that Uppy 6 asks for.
    let signed = ["GET", "PUT", "POST", "DELETE"].map(|method| {
        let mut body = json!({"method": method, "key": "KEY", "uploadId": "TOKEN"});
        if method == "PUT" {
            body["partNumber"] = 1.into();
        }
        ("post", "/s3/sign", Some(body))
    });
    let requests = requests.into_iter().chain(signed);
    requests
        .map(|(method, path, body)| Request { method, path, body })
        .collect()
}

#[tokio::test]
async fn a_strangers_key_gets_the_answer_of_a_key_that_never_was_on_every_route() {
    let (app, [alice, bob]) = with_two_callers().await;
    let post = async |path: &str, body: Value| {
        let request = app.client.post(format!("{}{path}", app.base));
        let request = request.bearer_auth(&alice).json(&body);
        request.send().await.unwrap()
    };
    let mut tried = BTreeSet::new();
    for policy in ["default", "held"] {
        let file = json!({"filename": "a.txt", "contentType": "text/plain", "policy": policy});
        let grant: Grant = answer(201, post("/upload/presigned-url", file).await).await;
        assert_eq!(app.upload(&grant, "hello").await.status(), 200);
        let file = json!({"filename": "b.bin", "type": "a/b", "policy": policy});
        let multipart: Value = answer(200, post("/s3/multipart", file).await).await;
        let of_parts = ["uploadId", "key"].map(|name| multipart[name].as_str().unwrap());
        for request in requests(policy) {
            let (method, path) = (request.method, request.path);
            tried.insert((method.to_owned(), path.to_owned()));
            let is_multipart = path.contains("{uploadId}") || path == "/s3/sign";
            let is_list = request
                .body
                .as_ref()
                .is_some_and(|body| body["keys"].is_array());
            let (token, key) = if is_multipart {
                (of_parts[0], of_parts[1])
            } else {
                ("", &*grant.key)
            };
            let of_stranger = request.answer(&app, &bob, token, key).await;
            let status = if is_list {
                [200, 201].contains(&of_stranger.0.as_u16())
            } else {
                of_stranger.0 == 404
            };
            assert!(status, "{path} {}", of_stranger.2);
            if is_list {
                assert!(of_stranger.2.contains("\"status\":404"), "{path}");
            }
            // As long as the others, so that the lengths of the answers can be compared.
            let never = key.replace(|c: char| c.is_ascii_digit(), "0");
            assert_ne!(never, key);
            let of_none = request
                .answer(&app, &bob, &"x".repeat(token.len()), &never)
                .await;
            assert_eq!(of_stranger, of_none, "{method} {path}");
            if !is_multipart {
                let nothing = "/".repeat(key.len());
                let of_nothing = request.answer(&app, &bob, token, &nothing).await;
                assert_eq!(of_stranger, of_nothing, "{method} {path}");
            }
        }
        // All of it is still there for Alice.
        assert!(app.stored(&grant.key).await.is_some());
        let verify = json!({"key": grant.key, "policy": policy});
        assert_eq!(post("/upload/verify", verify).await.status(), 200);
        let parts = Request {
            method: "get",
            path: "/s3/multipart/{uploadId}",
            body: None,
        };
        let parts = parts.answer(&app, &alice, of_parts[0], of_parts[1]).await;
        assert_eq!(parts.0, 200);
    }
    assert_eq!(
        tried,
        operations_with_a_key(&app).await,
        "a route is not tried here"
    );
}
