//! Requests to a service whose address is known, and what their answers say.

use reqwest::{Client, Method, RequestBuilder, Response};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub(crate) fn client() -> Client {
    Client::builder().no_proxy().build().unwrap()
}

/// Asks a service at this address.
pub(crate) async fn get(base: &str, path: &str) -> Response {
    let request = client().get(format!("{base}{path}"));
    request.send().await.unwrap()
}

/// The same with a body.
pub(crate) async fn post(base: &str, path: &str, body: &Value) -> Response {
    let request = client().post(format!("{base}{path}")).json(body);
    request.send().await.unwrap()
}

/// A request for a file.
pub(crate) fn asking_at(base: &str) -> RequestBuilder {
    let file = json!({"filename": "a.txt", "contentType": "text/plain"});
    let request = client().post(format!("{base}/upload/presigned-url"));
    request.json(&file)
}

/// The grant for a request to it.
pub(crate) async fn granted<T: DeserializeOwned>(base: &str, path: &str, body: &Value) -> T {
    answer(201, post(base, path, body).await).await
}

/// What an answer says, which must have this status.
pub(crate) async fn answer<T: DeserializeOwned>(status: u16, response: Response) -> T {
    let found = response.status();
    let text = response.text().await.unwrap();
    assert_eq!(found, status, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// What a browser asks before a page of `origin` may send such a request.
pub(crate) async fn preflight(url: &str, origin: &str, method: &str, headers: &str) -> Response {
    let request = client().request(Method::OPTIONS, url);
    let request = request.header("origin", origin);
    let request = request.header("access-control-request-method", method);
    let request = request.header("access-control-request-headers", headers);
    request.send().await.unwrap()
}

/// An object of JSON with these members besides.
pub(crate) fn with_members(mut object: Value, more: &Value) -> Value {
    let more = more.as_object().unwrap().clone();
    object.as_object_mut().unwrap().extend(more);
    object
}

/// The problem in a response, whose status and content type must agree with it.
pub(crate) async fn problem(response: Response) -> Value {
    let status = response.status();
    let headers = response.headers().clone();
    let content_type = &headers["content-type"];
    assert_eq!(content_type, "application/problem+json", "{status}");
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["status"], status.as_u16());
    assert_eq!(problem["title"], status.canonical_reason().unwrap());
    assert_eq!(problem["type"], "about:blank");
    assert_eq!(
        problem["requestId"],
        headers["x-request-id"].to_str().unwrap()
    );
    assert!(!problem["detail"].as_str().unwrap().is_empty());
    problem
}

#[track_caller]
pub(crate) fn is(problem: &Value, status: u16, code: &str) {
    let found = (&problem["status"], &problem["code"]);
    assert_eq!(found, (&json!(status), &json!(code)), "{problem}");
}

/// The fields that a problem names, each with its code.
pub(crate) fn fields(problem: &Value) -> Vec<(&str, &str)> {
    problem["errors"]
        .as_array()
        .map(|errors| {
            errors
                .iter()
                .map(|e| (e["pointer"].as_str().unwrap(), e["code"].as_str().unwrap()))
                .collect()
        })
        .unwrap_or_default()
}
