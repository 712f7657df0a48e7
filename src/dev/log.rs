//! The log of `presignd dev`: a line for people for each request to the service or the store. It
//! names files, keys and reasons, which the log of `presignd serve` never does.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use http_body_util::BodyExt;
use serde_json::Value;

use super::grants::{Grants, parameter};
use crate::http::HttpService;
use crate::http::auth::Refused;
use crate::http::events::Token;

/// The longest body that is copied for the log; longer ones are logged without names.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// The service with a log of its requests. The log also remembers its grants.
pub(super) fn logged(service: impl HttpService, grants: Grants) -> Router {
    Router::new()
        .fallback_service(service)
        .layer(from_fn_with_state(grants, log))
}

async fn log(State(grants): State<Grants>, request: Request, next: Next) -> Response {
    let begin = Instant::now();
    let method = request.method().clone();
    let path = short_path(request.uri().path());
    let query = parameter(request.uri().query().unwrap_or_default(), "filename");
    let (request, asked) = copied(request);
    let response = next.run(request).await;
    let refused = Refused::reason(&response);
    let (parts, body) = response.into_parts();
    let (body, answered) = json_in(&parts.headers, body).await;
    let asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
    let asked = serde_json::from_slice(&asked).unwrap_or_default();
    grants.remember(&answered);
    let mut names = Vec::from_iter(query);
    collect(&asked, "filename", &mut names);
    let what = if parts.status.is_success() {
        granted(&names, &keys_in(&answered))
    } else {
        // The detail of a problem names all fields that are wrong.
        let detail = answered["detail"].as_str().unwrap_or_default();
        refused.map_or(detail.to_owned(), |why| format!("{detail} ({why})"))
    };
    line("", &method, &path, parts.status, begin.elapsed(), &what);
    Response::from_parts(parts, body)
}

/// Logs a request; `to` says whether it is one to the store.
pub(super) fn line(
    to: &str,
    method: &Method,
    route: &str,
    status: StatusCode,
    duration: Duration,
    what: &str,
) {
    let (status, ms) = (status.as_u16(), duration.as_millis());
    let line = format!("{to}{method} {route} {status} {ms} ms  {what}");
    // Names and keys could move a terminal's cursor.
    tracing::info!("{}", line.replace(char::is_control, "\u{FFFD}"));
}

/// The path without ids and tokens: they are longer than any word of a route, and some are
/// credentials.
fn short_path(path: &str) -> String {
    let short = |segment| match str::len(segment) {
        Token::MIN_BYTES.. => "…",
        _ => segment,
    };
    path.split('/').map(short).collect::<Vec<_>>().join("/")
}

fn granted(names: &[String], keys: &[String]) -> String {
    let Some(key) = keys.first() else {
        return String::new();
    };
    let more = match keys.len() {
        1 => String::new(),
        keys => format!(" and {} more", keys - 1),
    };
    match names.first() {
        Some(name) => format!("{name} → {key}{more}"),
        None => format!("{key}{more}"),
    }
}

/// The keys of the uploads that an answer is about, each once: a form has the key among its fields, too.
fn keys_in(answered: &Value) -> Vec<String> {
    let mut keys = Vec::new();
    // The examples in `openapi.json` are no uploads.
    if answered.get("openapi").is_none() {
        collect(answered, "key", &mut keys);
    }
    let mut seen = HashSet::new();
    keys.retain(|key| seen.insert(key.clone()));
    keys
}

/// Collects the text of all members of this name, in order.
fn collect(value: &Value, name: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (member, value) in members {
                match value.as_str() {
                    Some(text) if member == name => found.push(text.to_owned()),
                    _ => collect(value, name, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, name, found)),
        _ => {}
    }
}

/// Copies a JSON body while the service reads it. So the service alone decides how long to wait for
/// a body, and how much of it to accept.
fn copied(request: Request) -> (Request, Arc<Mutex<Vec<u8>>>) {
    let copy = Arc::new(Mutex::new(Vec::new()));
    if !is_json(request.headers()) {
        return (request, copy);
    }
    let target = Arc::clone(&copy);
    let request = request.map(|body| {
        Body::new(body.map_frame(move |frame| {
            if let Some(data) = frame.data_ref() {
                let mut target = target.lock().unwrap_or_else(PoisonError::into_inner);
                if target.len() + data.len() <= MAX_BYTES {
                    target.extend_from_slice(data);
                }
            }
            frame
        }))
    });
    (request, copy)
}

/// The body of an answer, and its JSON if it has some that is not too long.
async fn json_in(headers: &HeaderMap, body: Body) -> (Body, Value) {
    let length = body.size_hint().upper();
    let is_short = length.is_some_and(|length| length <= MAX_BYTES as u64);
    if !is_json(headers) || !is_short {
        return (body, Value::Null);
    }
    // The whole answer is in memory already, so reading it neither waits nor fails.
    let bytes = to_bytes(body, MAX_BYTES).await.unwrap_or_default();
    let value = serde_json::from_slice(&bytes).unwrap_or_default();
    (Body::from(bytes), value)
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE);
    content_type.is_some_and(|it| it.to_str().is_ok_and(|it| it.contains("json")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_upload_of_an_answer_counts_once() {
        let form = json!({"url": "http://s3/", "key": "a", "fields": {"key": "a", "policy": "x"}});
        assert_eq!(granted(&[], &keys_in(&form)), "a");
        let verified = json!({"results": [
            {"key": "a", "status": 200, "upload": {"key": "a", "size": 1}},
            {"key": "b", "status": 404, "problem": {"code": "not-uploaded"}},
        ]});
        assert_eq!(granted(&[], &keys_in(&verified)), "a and 1 more");
        let document = json!({"openapi": "3.1.0", "components": {"example": {"key": "a"}}});
        assert_eq!(granted(&[], &keys_in(&document)), "");
    }

    #[test]
    fn routes_are_in_the_log_and_tokens_in_their_place_are_not() {
        let token = "0123456789abcdef";
        assert_eq!(short_path(&format!("/events/s3/{token}")), "/events/s3/…");
        let document = crate::http::openapi().to_json().unwrap();
        let document: Value = serde_json::from_str(&document).unwrap();
        for route in document["paths"].as_object().unwrap().keys() {
            assert_eq!(&short_path(route), route);
        }
    }
}
