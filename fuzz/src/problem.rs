//! What holds for every answer, whatever the request: its status is one of the OpenAPI document, and the pointers of
//! a problem lead into the body.

use std::fmt;
use std::sync::{Arc, LazyLock};

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use presignd::http;
use presignd::upload::UploadService;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use tower::ServiceExt;

use crate::block_on;

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let document = http::openapi();
    serde_json::to_value(document).expect("a document")
});

/// The service with its usual settings.
pub fn router(service: UploadService) -> axum::Router {
    router_with(service, &http::Settings::default())
}

pub fn router_with(service: UploadService, settings: &http::Settings) -> axum::Router {
    let service = http::router(Arc::new(service), settings);
    axum::Router::new().fallback_service(service)
}

/// Posts `body` as JSON, checks the answer, and returns its status. `route` is the path in the OpenAPI
/// document, `uri` the requested one.
pub fn post(router: &axum::Router, route: &str, uri: &str, body: &[u8]) -> StatusCode {
    let request = Request::post(uri)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_vec()))
        .expect("a request");
    let (parts, answer) = block_on(async {
        let response = router.clone().oneshot(request).await.expect("an answer");
        let (parts, answer) = response.into_parts();
        let answer = to_bytes(answer, usize::MAX).await.expect("a body");
        (parts, answer)
    });
    let status = parts.status;
    let documented = &DOCUMENT["paths"][route]["post"]["responses"][status.as_str()];
    assert!(
        documented.is_object(),
        "{status} is not documented: {answer:?}"
    );
    if status.is_success() && documented.get("content").is_none() {
        assert!(answer.is_empty(), "{answer:?}");
        return status;
    }
    let answer: Value = serde_json::from_slice(&answer).expect("JSON");
    assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{answer}");
    if status.is_success() {
        assert_eq!(parts.headers[header::CONTENT_TYPE], "application/json");
        return status;
    }
    assert_eq!(
        parts.headers[header::CONTENT_TYPE],
        "application/problem+json"
    );
    assert_eq!(answer["status"], status.as_u16());
    let text = |member: &str| answer[member].as_str().unwrap_or_default();
    assert!(
        !text("detail").is_empty() && !text("code").is_empty(),
        "{answer}"
    );
    assert_eq!(text("requestId"), parts.headers["x-request-id"]);
    // The errors of a conflict are about the stored object.
    if status != StatusCode::CONFLICT {
        check_pointers(&answer, body);
    }
    status
}

/// Every pointer leads to something in the body, or to a field that is missing there.
fn check_pointers(problem: &Value, body: &[u8]) {
    let Some(errors) = problem.get("errors") else {
        return;
    };
    let errors = errors.as_array().expect("a list");
    assert!(!errors.is_empty(), "{problem}");
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    // Unlike the service, it cannot read half of a surrogate pair or a number like 1e999.
    let Ok(tree) = Tree::deserialize(&mut deserializer) else {
        return;
    };
    for error in errors {
        let pointer = error["pointer"].as_str().expect("a pointer");
        let allows_absence = error["code"].as_str().is_some_and(allows_absence);
        let (parent, name) = pointer.rsplit_once('/').unwrap_or_default();
        let is_missing = allows_absence && tree.has(parent) && !name.is_empty();
        assert!(tree.has(pointer) || is_missing, "{error}");
    }
}

/// Whether a code may belong to a field that is missing: a required one, the size of all parts, or a type that has
/// a default.
fn allows_absence(code: &str) -> bool {
    matches!(
        code,
        "required" | "multipart-not-supported" | "file-too-large" | "type-not-allowed"
    ) || code.ends_with("-required")
}

/// JSON that keeps all members of the same name.
enum Tree {
    Object(Vec<(String, Tree)>),
    Array(Vec<Tree>),
    Leaf,
}

impl Tree {
    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Node.deserialize(deserializer)
    }

    /// Whether a pointer (RFC 6901) leads to anything.
    fn has(&self, pointer: &str) -> bool {
        let Some(rest) = pointer.strip_prefix('/') else {
            return pointer.is_empty();
        };
        let (name, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let name = name.replace("~1", "/").replace("~0", "~");
        match self {
            Self::Object(members) => {
                // A problem names the beginning of a long name.
                let is_meant = |other: &str| match name.strip_suffix('…') {
                    Some(beginning) => other == name || other.starts_with(beginning),
                    None => other == name,
                };
                let mut members = members.iter();
                members.any(|(other, member)| is_meant(other) && member.has(rest))
            }
            Self::Array(elements) => {
                let element = name
                    .parse()
                    .ok()
                    .and_then(|index: usize| elements.get(index));
                element.is_some_and(|element| element.has(rest))
            }
            Self::Leaf => false,
        }
    }
}

struct Node;

impl<'de> DeserializeSeed<'de> for Node {
    type Value = Tree;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_str<E>(self, _: &str) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Tree, A::Error> {
        let mut array = Vec::new();
        while let Some(element) = elements.next_element_seed(Node)? {
            array.push(element);
        }
        Ok(Tree::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Tree, A::Error> {
        let mut object = Vec::new();
        while let Some(name) = members.next_key()? {
            object.push((name, members.next_value_seed(Node)?));
        }
        Ok(Tree::Object(object))
    }
}
