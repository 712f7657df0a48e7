//! What every request gets, whichever route it takes: an id, a log line, the body of a problem and
//! the headers that all answers have.
//!
//! It stands around the router, and not in it as a layer: axum boxes each layer of each route, and clones what
//! is in the box for each request.

use std::convert::Infallible;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::future::RouteFuture;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, CatchUnwind};
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower::util::{Either, option_layer};
use tower::{Layer, Service};
use tower_http::cors::{Cors, CorsLayer};
use uuid::Uuid;

use super::problem::{Cause, Problem};
use crate::telemetry::Metrics;
#[cfg(feature = "otlp")]
use crate::telemetry::traces;
use crate::upload::Caller;

/// What all answers say, unless their route says something else. Nothing here is a page, but for the two
/// that allow themselves scripts: no browser is to run, keep, embed or tell of any of it.
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

/// A route or a method that there is not.
const UNKNOWN: &str = "<unknown>";

/// How long an answer may take: longer than the longest question to the store, to make an object of its
/// parts.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(150);

/// Routes, and what all their requests and answers get. The log line names the route, never the path or the query:
/// those may hold names of files or secrets.
#[derive(Clone)]
pub struct Observed(Arc<Inner>);

struct Inner {
    routes: Either<Cors<Bounded>, Bounded>,
    measures: Measures,
    /// Whether callers have names, which the log tells.
    names_callers: bool,
}

impl Observed {
    /// `patterns` are those of all routes of `router`.
    pub(super) fn new<'a>(
        router: Router,
        patterns: impl IntoIterator<Item = &'a str>,
        cors: Option<CorsLayer>,
        metrics: &Metrics,
        names_callers: bool,
    ) -> Self {
        Self(Arc::new(Inner {
            routes: option_layer(cors).layer(Bounded(router)),
            measures: Measures::new(patterns, metrics),
            names_callers,
        }))
    }
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observed")
    }
}

impl Service<Request> for Observed {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let seen = Seen::begin(&self.0, &mut request);
        // They are always ready. The request is not kept for later, which would be in the box.
        let answer = self.0.routes.clone().call(request).map(|answer| {
            let Ok(response) = answer;
            Ok(seen.finish(response))
        });
        Box::pin(answer)
    }
}

/// What is measured of each route.
struct Measures {
    /// By paths of which nothing varies. Most are asked for these, and a few lengths are compared in less time than a
    /// tree is walked.
    fixed: Vec<(Box<str>, Arc<str>)>,
    /// By what other paths match.
    patterns: matchit::Router<Arc<str>>,
    /// Of all requests for something else.
    unknown: Arc<str>,
    metrics: Metrics,
}

impl Measures {
    fn new<'a>(patterns: impl IntoIterator<Item = &'a str>, metrics: &Metrics) -> Self {
        let mut measures = Self {
            fixed: Vec::new(),
            patterns: matchit::Router::new(),
            unknown: UNKNOWN.into(),
            metrics: metrics.clone(),
        };
        for pattern in patterns {
            let route = Arc::<str>::from(pattern);
            if pattern.contains('{') {
                // Otherwise the router would have refused it, too.
                let _is_a_pattern = measures.patterns.insert(pattern, route);
            } else {
                measures.fixed.push((pattern.into(), route));
            }
        }
        measures
    }

    fn of(&self, path: &str) -> Option<&Arc<str>> {
        let fixed = self.fixed.iter().find(|(fixed, _)| **fixed == *path);
        match fixed {
            Some((_, route)) => Some(route),
            None => self.patterns.at(path).ok().map(|route| route.value),
        }
    }
}

/// A router that answers, whatever its handlers do.
#[derive(Clone)]
struct Bounded(Router);

impl Service<Request> for Bounded {
    type Response = Response;
    type Error = Infallible;
    type Future = Run;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Run {
        Run {
            answer: AssertUnwindSafe(self.0.call(request)).catch_unwind(),
            timer: None,
        }
    }
}

pin_project! {
    /// Of a handler.
    struct Run {
        #[pin]
        answer: CatchUnwind<AssertUnwindSafe<RouteFuture<Infallible>>>,
        // There once the handler waits for something; most never do.
        timer: Option<Pin<Box<Sleep>>>,
    }
}

impl Future for Run {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.answer.poll(cx) {
            Poll::Ready(Ok(answer)) => return Poll::Ready(answer),
            Poll::Ready(Err(_panic)) => return Poll::Ready(Ok(panicked())),
            Poll::Pending => {}
        }
        let new = || Box::pin(tokio::time::sleep(REQUEST_TIMEOUT));
        let timer = this.timer.get_or_insert_with(new).as_mut();
        timer
            .poll(cx)
            .map(|()| Ok(request_timed_out().into_response()))
    }
}

/// Where the log finds out who called, once that is known.
#[derive(Clone, Default)]
pub(super) struct CallerSlot(Arc<OnceLock<Caller>>);

impl CallerSlot {
    pub(super) fn fill(&self, caller: Caller) {
        let _is_the_first = self.0.set(caller);
    }
}

/// A request, which is counted and logged when it has its answer; or else when the client has hung up.
///
/// What names it in the log stands in each of its lines, not in a span, which would be made, entered and closed
/// whether or not anything is said in it.
struct Seen {
    begin: Instant,
    method: &'static str,
    route: Arc<str>,
    metrics: Metrics,
    for_uppy: bool,
    id: String,
    status: Option<StatusCode>,
    caller: Option<CallerSlot>,
    #[cfg(feature = "otlp")]
    trace: Option<opentelemetry_sdk::trace::Span>,
}

impl Seen {
    fn begin(service: &Inner, request: &mut Request) -> Self {
        let begin = Instant::now();
        let id = request_id(request);
        let path = request.uri().path();
        let known = service.measures.of(path);
        let route = known.unwrap_or(&service.measures.unknown);
        let for_uppy = path.starts_with("/s3/");
        let method = own_name(request.method());
        #[cfg(feature = "otlp")]
        let trace = {
            let method = if method == UNKNOWN { "_OTHER" } else { method };
            let known = known.map(|route| &**route);
            traces::begin(method, known, request.headers())
        };
        let caller = service.names_callers.then(CallerSlot::default);
        if let Some(slot) = &caller {
            request.extensions_mut().insert(slot.clone());
        }
        Self {
            begin,
            method,
            route: Arc::clone(route),
            metrics: service.measures.metrics.clone(),
            for_uppy,
            id,
            status: None,
            caller,
            #[cfg(feature = "otlp")]
            trace,
        }
    }

    /// The answer, with what all of them get.
    fn finish(mut self, mut response: Response) -> Response {
        if !response.status().is_success() {
            self.explain(&mut response);
        }
        let headers = response.headers_mut();
        // At once: a map that grows bit by bit is laid out anew each time.
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

    /// Gives an answer that tells of a problem its body, and the log the cause.
    #[cold]
    fn explain(&self, response: &mut Response) {
        let extensions = response.extensions_mut();
        if let Some(Cause(error)) = extensions.remove() {
            self.failed(&error);
        }
        let problem = match extensions.remove::<Problem>() {
            // Swagger UI has answers of its own for assets that it does not have, and axum for a path or a
            // query that is no text.
            None if response.status() == StatusCode::NOT_FOUND => Some(Problem::not_found()),
            None if response.status().is_client_error() => Some(unreadable()),
            problem => problem,
        };
        let Some(problem) = problem else { return };
        let (parts, body) = problem.render(&self.id, self.for_uppy).into_parts();
        *response.status_mut() = parts.status;
        *response.body_mut() = body;
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().extend(parts.headers);
    }

    fn failed(&self, error: &str) {
        tracing::error!(
            request_id = self.id,
            trace_id = self.trace_id(),
            error,
            "request failed"
        );
    }

    fn caller(&self) -> Option<&str> {
        self.caller.as_ref()?.0.get().map(Caller::segment)
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
        tracing::info!(
            request_id = self.id,
            trace_id = self.trace_id(),
            method = self.method,
            route = &*self.route,
            caller = self.caller(),
            status,
            us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            "request"
        );
        self.metrics.request(self.method, &self.route, status, took);
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

fn new_id() -> String {
    let id = Uuid::new_v4().hyphenated();
    id.encode_lower(&mut Uuid::encode_buffer()).to_owned()
}

fn unreadable() -> Problem {
    let detail = "the path or the query of the request cannot be read";
    Problem::new(StatusCode::BAD_REQUEST, "invalid-request", detail)
}

/// The panic's message is on standard error already, by the standard hook.
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
        .map_or_else(new_id, str::to_owned)
}
