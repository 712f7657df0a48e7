//! Anyone who has a URL may send headers that it does not sign. Objects whose headers are no text, or far too
//! long, get an answer like all others, and delay nobody's.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, Uri};
use axum::response::Response;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::SNIFF;
use super::stand_ins::ask;
use crate::helpers::{fields, is, problem};
use crate::stand_in::{StandIn, object};

const POLICY: &str = "[policies.default]\nallowed_metadata = ['album']";
const FOLDER: &str = "uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e";

/// An object with this header, once for each line.
fn with(name: &'static str, lines: &[u8]) -> Response {
    let mut response = object(&[]);
    response.headers_mut().remove(name);
    for line in lines.split(|byte| *byte == b'\n') {
        let value = HeaderValue::from_bytes(line).unwrap();
        response.headers_mut().append(name, value);
    }
    response
}

/// A service whose store has objects with this header under names that begin with `odd`.
async fn service(policy: &str, name: &'static str, value: &[u8]) -> String {
    let value = value.to_vec();
    let store = StandIn::answering(move |request: Request| {
        let is_odd = |uri: &Uri| uri.path().contains("/odd");
        let mut response = if is_odd(request.uri()) {
            with(name, &value)
        } else {
            object(&[])
        };
        if request.method() == Method::GET {
            *response.body_mut() = Body::from("hello");
        }
        std::future::ready(response)
    });
    store.await.service(policy).await
}

/// The answer for the odd object, alone and among others.
async fn answer(policy: &str, name: &'static str, value: &[u8]) -> (StatusCode, Value) {
    let base = service(policy, name, value).await;
    let key = |name: &str| format!("{FOLDER}/{name}.txt");
    let alone = ask(&base, json!({"key": key("odd")})).await;
    let status = alone.status();
    let keys = [key("a"), key("odd"), key("b")];
    let list = ask(&base, json!({"keys": keys})).await;
    let list: Value = list.json().await.unwrap();
    let statuses: Vec<&Value> = list["results"]
        .as_array()
        .unwrap_or_else(|| panic!("{name}: {list}"))
        .iter()
        .map(|result| &result["status"])
        .collect();
    assert_eq!(statuses, [200, status.as_u16(), 200], "{name}: {list}");
    if status == 200 {
        return (status, alone.json().await.unwrap());
    }
    (status, problem(alone).await)
}

#[track_caller]
fn differs((status, problem): &(StatusCode, Value), field: &str, code: &str) {
    assert_eq!(*status, 409, "{field}: {problem}");
    is(problem, 409, "mismatch");
    assert_eq!(fields(problem), [(field, code)], "{problem}");
}

#[tokio::test]
async fn a_header_that_is_no_text_makes_a_mismatch_and_no_error_of_the_store() {
    for (name, value, field, code) in [
        (
            "content-type",
            &b"text/\xffplain"[..],
            "/contentType",
            "not-a-media-type",
        ),
        (
            "content-disposition",
            b"attachment; filename=\"caf\xe9.txt\"",
            "/contentDisposition",
            "disposition-differs",
        ),
        (
            "content-encoding",
            b"\xff",
            "/contentEncoding",
            "encoding-not-allowed",
        ),
        (
            "cache-control",
            b"\xff",
            "/cacheControl",
            "cache-control-differs",
        ),
        (
            "x-amz-meta-foreign",
            b"\xff",
            "/metadata/foreign",
            "metadata-not-allowed",
        ),
    ] {
        differs(&answer(POLICY, name, value).await, field, code);
    }
}

#[tokio::test]
async fn a_header_that_policies_say_nothing_about_may_be_anything() {
    for name in ["content-language", "expires", "x-odd"] {
        for policy in [POLICY, SNIFF] {
            let (status, upload) = answer(policy, name, b"\xff").await;
            assert_eq!(status, 200, "{name}: {upload}");
        }
    }
}

#[tokio::test]
async fn a_text_that_is_longer_than_any_granted_one_is_a_mismatch_and_not_kept() {
    let long = vec![b'x'; 300_000];
    let types = [245, 300_000].map(|length| [b"text/plain;", &long[..length]].concat());
    for (name, value, field, code) in [
        ("content-type", &types[0][..], "/contentType", "length"),
        ("content-type", &types[1], "/contentType", "length"),
        (
            "content-disposition",
            &long,
            "/contentDisposition",
            "disposition-differs",
        ),
        (
            "content-encoding",
            &long,
            "/contentEncoding",
            "encoding-not-allowed",
        ),
        (
            "cache-control",
            &long,
            "/cacheControl",
            "cache-control-differs",
        ),
        ("x-amz-meta-album", &long, "/metadata", "metadata-too-large"),
        (
            "x-amz-meta-foreign",
            &long,
            "/metadata",
            "metadata-too-large",
        ),
    ] {
        let answer = answer(POLICY, name, value).await;
        differs(&answer, field, code);
        assert!(answer.1.to_string().len() < 1000, "{}", answer.1);
    }
}

#[tokio::test]
async fn an_object_with_more_headers_than_can_be_read_is_a_mismatch() {
    for lines in [vec![b'x'; 900_000], b"x\n".repeat(120)] {
        let (status, problem) = answer(POLICY, "x-amz-meta-album", &lines).await;
        assert_eq!(status, 409, "{problem}");
        is(&problem, 409, "mismatch");
        assert_eq!(fields(&problem), [("/metadata", "metadata-too-large")]);
    }
}

#[tokio::test]
async fn metadata_is_never_decoded_to_control_characters() {
    for (value, text) in [
        (
            "=?UTF-8?B?eA0KSW5qZWN0ZWQ6IDEABw==?=",
            "=?UTF-8?B?eA0KSW5qZWN0ZWQ6IDEABw==?=",
        ),
        ("=?utf-8?q?=0D=0Aevil?=", "=?utf-8?q?=0D=0Aevil?="),
        ("=?UTF-8?B?7JWo67KU?=", "앨범"),
    ] {
        let (status, upload) = answer(POLICY, "x-amz-meta-album", value.as_bytes()).await;
        assert_eq!(status, 200, "{upload}");
        assert_eq!(upload["metadata"], json!({"album": text}));
    }
}
