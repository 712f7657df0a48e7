//! What every request gets, whichever route it takes: an id, a log line, a metric, a trace, the body
//! of a problem, and the headers that all answers have. Knows no route.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tower::ServiceBuilder;
use tower_http::cors::CorsLayer;
use uuid::Uuid;

use super::problem::{Cause, ForUppy, Problem};
use crate::telemetry::{Metrics, Trace};
use crate::upload::Caller;

/// Headers of every answer, unless its route sets another value. Only the pages need scripts; no
/// browser may run, cache or embed anything else, or name it as a referrer.
pub(super) static ON_ALL: [(HeaderName, HeaderValue); 5] = [
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

/// Label for unknown routes and methods.
const UNKNOWN: &str = "<unknown>";

/// How long a handler may run. It is longer than the slowest call to the store, which completes an
/// upload.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(150);

/// Adds the middleware to all routes and fallbacks that `router` has so far.
///
/// It is one layer: axum boxes every layer of every route, and clones the boxes for each request.
pub(super) fn add(router: Router, cors: Option<CorsLayer>, metrics: &Metrics) -> Router {
    router.layer(
        ServiceBuilder::new()
            .layer(from_fn_with_state(metrics.clone(), observe))
            .option_layer(cors),
    )
}

async fn observe(State(metrics): State<Metrics>, mut request: Request, next: Next) -> Response {
    let observation = Observation::begin(metrics, &request);
    let caller = observation.caller.clone();
    request.extensions_mut().insert(caller);
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind();
    let response = match tokio::time::timeout(REQUEST_TIMEOUT, answer).await {
        Ok(Ok(response)) => response,
        Ok(Err(_panic)) => panicked(),
        Err(_elapsed) => request_timed_out().into_response(),
    };
    observation.finish(response)
}

/// Holds the caller of a request as soon as it is known. The authentication of a route fills it, so
/// that the log line, which is written outside of all routes, can name the caller.
#[derive(Clone, Debug, Default)]
pub(super) struct CallerSlot(Arc<OnceLock<Caller>>);

impl CallerSlot {
    pub(super) fn fill(&self, caller: Caller) {
        self.0.set(caller).ok(); // only the first extractor of a request counts
    }

    fn name(&self) -> Option<&str> {
        let caller = self.0.get().filter(|caller| !caller.is_anonymous());
        caller.map(Caller::segment)
    }
}

/// A request in progress. It is logged, counted and traced when it is dropped: after the answer, or
/// when the client has closed the connection before it.
///
/// The log line carries the route's pattern and never the path or the query, which may hold secrets
/// and names of files.
struct Observation {
    begin: Instant,
    metrics: Metrics,
    method: &'static str,
    route: Option<MatchedPath>,
    id: String,
    status: Option<StatusCode>,
    caller: CallerSlot,
    trace: Trace,
}

impl Observation {
    fn begin(metrics: Metrics, request: &Request) -> Self {
        let route = request.extensions().get::<MatchedPath>().cloned();
        let method = own_name(request.method());
        let pattern = route.as_ref().map(MatchedPath::as_str);
        let trace = Trace::begin(method.unwrap_or("_OTHER"), pattern, request.headers());
        Self {
            begin: Instant::now(),
            metrics,
            method: method.unwrap_or(UNKNOWN),
            id: request_id(request),
            status: None,
            caller: CallerSlot::default(),
            trace,
            route,
        }
    }

    /// Completes an answer with what all answers have.
    fn finish(mut self, mut response: Response) -> Response {
        if !response.status().is_success() {
            self.explain(&mut response);
        }
        let headers = response.headers_mut();
        // One allocation: a map that grows step by step is rehashed at each step.
        headers.reserve(1 + ON_ALL.len());
        if let Ok(id) = HeaderValue::from_str(&self.id) {
            headers.insert(REQUEST_ID, id);
        }
        for (name, value) in &ON_ALL {
            headers.entry(name).or_insert_with(|| value.clone());
        }
        self.status = Some(response.status());
        response
    }

    /// Renders the problem of an answer, and logs its cause.
    fn explain(&self, response: &mut Response) {
        let extensions = response.extensions_mut();
        if let Some(Cause(error)) = extensions.remove() {
            tracing::error!(
                request_id = self.id,
                trace_id = self.trace.id(),
                error,
                "request failed"
            );
        }
        let for_uppy = extensions.remove::<ForUppy>().is_some();
        let problem = match extensions.remove::<Problem>() {
            // Swagger UI has its own answer for unknown assets, and axum for a path or a query that
            // is not UTF-8.
            None if response.status() == StatusCode::NOT_FOUND => Some(Problem::not_found()),
            None if response.status().is_client_error() => Some(unreadable()),
            problem => problem,
        };
        let Some(problem) = problem else { return };
        let (parts, body) = problem.render(&self.id, for_uppy).into_parts();
        *response.status_mut() = parts.status;
        *response.body_mut() = body;
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().extend(parts.headers);
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        /// nginx's status for a client that closed the connection before the answer.
        const CLIENT_CLOSED: u16 = 499;
        let status = self.status.map_or(CLIENT_CLOSED, |status| status.as_u16());
        let took = self.begin.elapsed();
        let route = self.route.as_ref().map_or(UNKNOWN, MatchedPath::as_str);
        tracing::info!(
            request_id = self.id,
            trace_id = self.trace.id(),
            method = self.method,
            route,
            caller = self.caller.name(),
            status,
            us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            "request"
        );
        self.metrics.request(self.method, route, status, took);
        self.trace.end(status);
    }
}

/// The name of a standard method. Clients can send any other word.
fn own_name(method: &Method) -> Option<&'static str> {
    match *method {
        Method::GET => Some("GET"),
        Method::HEAD => Some("HEAD"),
        Method::POST => Some("POST"),
        Method::PUT => Some("PUT"),
        Method::DELETE => Some("DELETE"),
        Method::OPTIONS => Some("OPTIONS"),
        Method::PATCH => Some("PATCH"),
        _ => None,
    }
}

/// The id that a proxy set, if it is safe to log; otherwise a new one.
fn request_id(request: &Request) -> String {
    let is_safe = |id: &&str| {
        (1..=128).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
    };
    let id = request.headers().get(REQUEST_ID);
    let id = id.and_then(|id| id.to_str().ok()).filter(is_safe);
    id.map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}

fn unreadable() -> Problem {
    let detail = "the path or the query of the request cannot be read";
    Problem::new(StatusCode::BAD_REQUEST, "invalid-request", detail)
}

/// The standard panic hook has written the message to standard error already.
fn panicked() -> Response {
    let mut response = Problem::internal().into_response();
    let cause = Cause("a handler panicked".to_owned());
    response.extensions_mut().insert(cause);
    response
}

fn request_timed_out() -> Problem {
    let detail = format!("there was no answer within {REQUEST_TIMEOUT:?}; try again later");
    Problem::new(StatusCode::GATEWAY_TIMEOUT, "request-timeout", detail)
}
