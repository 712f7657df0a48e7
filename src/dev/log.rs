//! The log of `presignd dev`: a line for people for each request to the service or the store. It
//! names files, keys and reasons, which the log of `presignd serve` never does.

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use serde_json::Value;
use tower::Service;

use super::grants::Grants;
use super::strict::parameter;

/// The longest body that is read for the log; longer ones pass unread.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// The service, whose requests are logged and whose grants are remembered.
pub(super) fn watched<S>(service: S, grants: Grants) -> Router
where
    S: Service<Request, Response = Response, Error = std::convert::Infallible, Future: Send>,
    S: Clone + Send + Sync + 'static,
{
    Router::new()
        .fallback_service(service)
        .layer(from_fn_with_state(grants, watch))
}

async fn watch(State(grants): State<Grants>, request: Request, next: Next) -> Response {
    let begin = Instant::now();
    let method = request.method().clone();
    let path = short_path(request.uri().path());
    let query = parameter(request.uri().query().unwrap_or_default(), "filename");
    let (parts, body) = request.into_parts();
    let (body, asked) = json_in(&parts.headers, body).await;
    let response = next.run(Request::from_parts(parts, body)).await;
    let (parts, body) = response.into_parts();
    let (body, answered) = json_in(&parts.headers, body).await;
    grants.remember(&answered);
    let mut names = Vec::from_iter(query);
    collect(&asked, "filename", &mut names);
    let what = if parts.status.is_success() {
        let mut keys = Vec::new();
        collect(&answered, "key", &mut keys);
        granted(&names, &keys)
    } else {
        refused(&answered)
    };
    line("", &method, &path, parts.status, begin.elapsed(), &what);
    Response::from_parts(parts, body)
}

/// Logs a request to the store.
pub(super) fn store(
    method: &Method,
    key: &str,
    status: StatusCode,
    duration: Duration,
    reason: Option<&str>,
) {
    line(
        "store ",
        method,
        key,
        status,
        duration,
        reason.unwrap_or_default(),
    );
}

fn line(
    to: &str,
    method: &Method,
    route: &str,
    status: StatusCode,
    duration: Duration,
    what: &str,
) {
    let (status, ms) = (status.as_u16(), duration.as_millis());
    let what: String = what
        .chars()
        .map(|c| if c.is_control() { '\u{FFFD}' } else { c })
        .collect();
    let route: String = route
        .chars()
        .map(|c| if c.is_control() { '\u{FFFD}' } else { c })
        .collect();
    tracing::info!("{to}{method} {route} {status} {ms} ms  {what}");
}

/// The path, without ids and tokens: they are long, and some let their holder in.
fn short_path(path: &str) -> String {
    let short = |segment| {
        if str::len(segment) > 30 {
            "…"
        } else {
            segment
        }
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

/// Why the service refuses: its problem document in a line.
fn refused(problem: &Value) -> String {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let errors = problem["errors"].as_array().into_iter().flatten();
    let errors = errors.take(3).filter_map(|error| {
        let (pointer, detail) = (text(&error["pointer"])?, text(&error["detail"])?);
        Some(format!("{pointer} {detail}"))
    });
    let all: Vec<String> = text(&problem["detail"]).into_iter().chain(errors).collect();
    all.join("; ")
}

/// All text under members of this name, in order.
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

/// The body, and what it says if it is JSON that is not too long.
async fn json_in(headers: &HeaderMap, body: Body) -> (Body, Value) {
    /// A client that pauses for longer has its body cut, which the service then refuses.
    const TIMEOUT: Duration = Duration::from_secs(10);
    let content_type = headers.get(header::CONTENT_TYPE);
    let is_json = content_type.is_some_and(|it| it.to_str().is_ok_and(|it| it.contains("json")));
    if !is_json
        || body
            .size_hint()
            .upper()
            .is_none_or(|length| length > MAX_BYTES)
    {
        return (body, Value::Null);
    }
    let bytes = tokio::time::timeout(TIMEOUT, to_bytes(body, usize::MAX)).await;
    let bytes: Bytes = bytes.unwrap_or(Ok(Bytes::new())).unwrap_or_default();
    let value = serde_json::from_slice(&bytes).unwrap_or_default();
    (Body::from(bytes), value)
}
