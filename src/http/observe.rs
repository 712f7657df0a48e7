//! What every request gets, whichever route it takes: an id, a log line, the body of a problem and
//! the headers that all answers have.

use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use uuid::Uuid;

use super::error::{Cause, Problem};
use crate::telemetry::Metrics;
#[cfg(feature = "otlp")]
use crate::telemetry::traces;
use crate::upload::Caller;

/// What all answers say, unless their route says something else. Nothing here is a page, but for the two
/// that allow themselves scripts: no browser is to run, keep, embed or tell of any of it.
pub(super) const ON_ALL: [(HeaderName, HeaderValue); 5] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    ),
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A route or a method that there is not.
const UNKNOWN: &str = "<unknown>";

/// How long an answer may take: longer than the longest question to the store, to make an object of its
/// parts.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(150);

/// Wraps all routes. The log line names the route, never the path or the query: those may hold
/// names of files or secrets.
pub(super) async fn observe(
    State(metrics): State<Metrics>,
    request: Request,
    next: Next,
) -> Response {
    let begin = Instant::now();
    let id = request_id(&request);
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = own_name(request.method());
    let for_uppy = request.uri().path().starts_with("/s3/");
    #[cfg(feature = "otlp")]
    let trace = {
        let route = route.as_ref().map(MatchedPath::as_str);
        let method = if method == UNKNOWN { "_OTHER" } else { method };
        traces::begin(method, route, request.headers())
    };
    let mut seen = Seen {
        begin,
        metrics,
        method,
        route,
        id,
        status: None,
        caller: None,
        #[cfg(feature = "otlp")]
        trace,
    };
    let run = tokio::time::timeout(REQUEST_TIMEOUT, next.run(request));
    let mut response = match run.await {
        Ok(response) => response,
        Err(_) => request_timed_out().into_response(),
    };

    let extensions = response.extensions_mut();
    if let Some(Cause(error)) = extensions.remove() {
        seen.failed(&error);
    }
    let problem = match extensions.remove::<Problem>() {
        // Swagger UI has answers of its own for assets that it does not have, and axum for a path or a
        // query that is no text.
        None if response.status() == StatusCode::NOT_FOUND => Some(Problem::not_found()),
        None if response.status().is_client_error() => Some(unreadable()),
        problem => problem,
    };
    if let Some(problem) = problem {
        let body = problem.render(&seen.id, for_uppy);
        let (parts, body) = body.into_parts();
        *response.status_mut() = parts.status;
        *response.body_mut() = body;
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().extend(parts.headers);
    }
    seen.caller = response.extensions_mut().remove();
    let headers = response.headers_mut();
    // At once: a map that grows bit by bit is laid out anew each time.
    headers.reserve(1 + ON_ALL.len());
    if let Ok(id) = HeaderValue::from_str(&seen.id) {
        headers.insert(REQUEST_ID, id);
    }
    for (name, value) in ON_ALL {
        headers.entry(name).or_insert(value);
    }
    seen.status = Some(response.status());
    response
}

/// A request, which is counted and logged when it has its answer; or else when the client has hung up.
///
/// What names it in the log stands in each of its lines, not in a span, which would be made, entered and closed
/// whether or not anything is said in it.
struct Seen {
    begin: Instant,
    metrics: Metrics,
    method: &'static str,
    route: Option<MatchedPath>,
    id: String,
    status: Option<StatusCode>,
    caller: Option<Caller>,
    #[cfg(feature = "otlp")]
    trace: Option<opentelemetry_sdk::trace::Span>,
}

impl Seen {
    fn failed(&self, error: &str) {
        tracing::error!(
            request_id = self.id,
            trace_id = self.trace_id(),
            error,
            "request failed"
        );
    }

    #[cfg(feature = "otlp")]
    fn trace_id(&self) -> Option<String> {
        self.trace.as_ref().map(traces::id)
    }

    #[cfg(not(feature = "otlp"))]
    #[expect(clippy::unused_self, reason = "with traces it is used")]
    fn trace_id(&self) -> Option<String> {
        None
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        /// As nginx has it for a client that closed the connection.
        const CANCELLED: u16 = 499;
        let status = self.status.map_or(CANCELLED, |status| status.as_u16());
        let took = self.begin.elapsed();
        let route = self.route.as_ref().map_or(UNKNOWN, MatchedPath::as_str);
        self.metrics.request(self.method, route, status, took);
        tracing::info!(
            request_id = self.id,
            trace_id = self.trace_id(),
            method = self.method,
            route,
            caller = self.caller.as_ref().map(Caller::segment),
            status,
            us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            "request"
        );
        #[cfg(feature = "otlp")]
        if let Some(trace) = self.trace.take() {
            traces::end(trace, status);
        }
    }
}

/// The name of one of HTTP's own methods; a client can make up others.
fn own_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => UNKNOWN,
    }
}

fn unreadable() -> Problem {
    let detail = "the path or the query of the request cannot be read";
    Problem::new(StatusCode::BAD_REQUEST, "invalid-request", detail)
}

fn request_timed_out() -> Problem {
    let detail = format!("there was no answer within {REQUEST_TIMEOUT:?}; try again later");
    Problem::new(StatusCode::GATEWAY_TIMEOUT, "request-timeout", detail)
}

/// The id that a proxy in front gave, if it is a harmless one; otherwise one of ours.
fn request_id(request: &Request) -> String {
    let is_harmless = |id: &&str| {
        (1..=128).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
    };
    request
        .headers()
        .get(REQUEST_ID)
        .and_then(|id| id.to_str().ok())
        .filter(is_harmless)
        .map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}
