//! What every request gets, whichever route it takes: an id, a log line, a metric, a trace, the body
//! of a problem, and the headers that all answers have. Knows no route.

use std::convert::Infallible;
use std::future::ready;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use ipnet::IpNet;
use tokio::time::{Instant, timeout_at};
use tower::util::MapRequestLayer;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_http::cors::CorsLayer;

use super::auth::Refused;
use super::client_ip::is_trusted;
use super::context::RequestContext;
use super::head::{self, REQUEST_ID};
use super::memory::Memory;
use super::problem::{Problem, catalogue};
use super::{HttpService, Settings};
use crate::telemetry::{Metrics, Trace};

/// Headers of every answer, unless its route sets another value. Only the pages need scripts; no
/// browser may run, cache or embed anything else.
pub(super) static ON_ALL: [(HeaderName, HeaderValue); 3] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
];

/// An extension of answers that are logged only if the level is `debug`, as they are sent every few seconds: those to
/// probes and scrapes that succeed.
#[derive(Clone, Copy)]
pub(super) struct Routine;

/// Label for unknown routes and methods.
const UNKNOWN: &str = "<unknown>";

/// How long a handler may run. The slowest call to the store is the one that completes an upload; this
/// leaves time to list the parts before it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(150);

/// Adds the middleware to all routes and fallbacks that `router` has so far.
///
/// Most of it is around the router, as axum boxes a route's layers several times for each request.
pub(super) fn add(router: Router, observer: Observer) -> impl HttpService {
    let note_route = MapRequestLayer::new(note_route);
    let router = match &observer.cors {
        Some(cors) => router.layer(ServiceBuilder::new().layer(note_route).layer(cors.clone())),
        None => router.layer(note_route),
    };
    let observer = Arc::new(observer);
    // The future is large: it would be moved several times, and be a part of each idle connection.
    service_fn(move |request| Box::pin(observe(Arc::clone(&observer), router.clone(), request)))
}

/// The router alone knows which of its routes a request matches.
fn note_route(request: Request) -> Request {
    let extensions = request.extensions();
    if let Some(route) = extensions.get() {
        let context = RequestContext::of(extensions);
        context.route.set(MatchedPath::clone(route)).ok(); // a request matches one route
    }
    request
}

/// The middleware's part of the configuration, and its state.
#[derive(Debug)]
pub(super) struct Observer {
    metrics: Metrics,
    trusted_proxies: Vec<IpNet>,
    local_hosts_only: bool,
    cors: Option<CorsLayer>,
    pub(super) memory: Memory,
}

impl Observer {
    pub(super) fn new(settings: &Settings, cors: Option<CorsLayer>, metrics: Metrics) -> Self {
        Self {
            metrics,
            trusted_proxies: settings.trusted_proxies.clone(),
            local_hosts_only: settings.local_hosts_only,
            cors,
            memory: Memory::new(),
        }
    }

    /// An answer that no route has made, with the headers that let a page of `origin` read it.
    async fn readable(&self, problem: Problem, origin: Option<HeaderValue>) -> Response {
        let mut response = problem.into_response();
        if let (Some(cors), Some(origin)) = (&self.cors, origin) {
            let empty =
                service_fn(|_: Request| ready(Ok::<Response, Infallible>(Response::default())));
            let mut request = Request::default();
            request.headers_mut().insert(header::ORIGIN, origin);
            let Ok(answer) = cors.layer(empty).oneshot(request).await;
            response.headers_mut().extend(answer.into_parts().0.headers);
        }
        response
    }
}

async fn observe(
    observer: Arc<Observer>,
    router: Router,
    mut request: Request,
) -> Result<Response, Infallible> {
    let observation = Observation::begin(observer, &mut request);
    let context = observation.context.clone();
    let observer = &context.observer;
    let origin = request.headers().get(header::ORIGIN).cloned();
    // Clients of a proxy name its host.
    let local_hosts_only = observer.local_hosts_only && !context.is_by_proxy;
    if let Err(problem) = head::check(&request, local_hosts_only) {
        let response = observer.readable(problem, origin).await;
        return Ok(observation.finish(response));
    }
    let refused_origin = head::preflight_origin(&request);
    request.extensions_mut().insert(context.clone());
    let answer = AssertUnwindSafe(router.oneshot(request)).catch_unwind();
    let response = match timeout_at(observation.begin + REQUEST_TIMEOUT, answer).await {
        Ok(Ok(Ok(response))) => response,
        Ok(Err(_panic)) => observer.readable(panicked(), origin).await,
        Err(_elapsed) => observer.readable(request_timed_out(), origin).await,
    };
    if let Some(origin) = refused_origin
        && !response
            .headers()
            .contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN)
    {
        tracing::warn!(
            request_id = observation.context.id,
            origin = origin.to_str().unwrap_or_default(),
            "a page of this origin may not call; add the origin to CORS_ALLOWED_ORIGINS"
        );
    }
    let response = match context.caller() {
        Some(caller) => observer.memory.unread.within_budget(response, caller).await,
        None => response, // of these, static files alone are long
    };
    Ok(observation.finish(response))
}

/// A request in progress. It is logged, counted and traced when it is dropped: after the answer, or
/// when the client has closed the connection before it.
///
/// The log line carries the route's pattern and never the path or the query, which may hold secrets
/// and names of files.
struct Observation {
    begin: Instant,
    method: &'static str,
    status: Option<StatusCode>,
    /// The code of the problem that the answer is.
    code: Option<&'static str>,
    refused: Option<&'static str>,
    is_routine: bool,
    context: Arc<RequestContext>,
    trace: Trace,
}

impl Observation {
    fn begin(observer: Arc<Observer>, request: &mut Request) -> Self {
        let method = head::standard_name(request.method());
        let peer = request.extensions_mut().remove::<ConnectInfo<SocketAddr>>();
        let peer = peer.map(|peer| peer.ip().to_canonical());
        // Anyone could write into the traces and logs of others under ids that they know.
        let by_proxy = peer.is_some_and(|peer| is_trusted(peer, &observer.trusted_proxies));
        let id = head::request_id(request, by_proxy);
        let named_trace = by_proxy.then(|| request.headers());
        Self {
            begin: Instant::now(),
            method: method.unwrap_or(UNKNOWN),
            status: None,
            code: None,
            refused: None,
            is_routine: false,
            context: Arc::new(RequestContext::new(observer, id, (peer, by_proxy))),
            trace: Trace::begin(method.unwrap_or("_OTHER"), named_trace),
        }
    }

    /// Completes an answer with what all answers have.
    fn finish(mut self, mut response: Response) -> Response {
        if !response.status().is_success() {
            self.explain(&mut response);
        }
        let headers = response.headers_mut();
        headers.reserve(ON_ALL.len() + 1);
        for (name, value) in &ON_ALL {
            headers.entry(name).or_insert_with(|| value.clone());
        }
        if let Ok(id) = HeaderValue::from_str(&self.context.id) {
            headers.insert(REQUEST_ID, id);
        }
        self.status = Some(response.status());
        self.refused = Refused::reason(&response);
        self.is_routine = response.extensions_mut().remove::<Routine>().is_some();
        response
    }

    /// Renders the problem of an answer, and logs its cause.
    fn explain(&mut self, response: &mut Response) {
        let extensions = response.extensions_mut();
        let problem = match extensions.remove::<Problem>() {
            // Swagger UI has its own answer for unknown assets, and axum for a path or a query that
            // is not UTF-8.
            None if response.status() == StatusCode::NOT_FOUND => {
                Some(Problem::new(&catalogue::NO_SUCH_ROUTE))
            }
            None if response.status().is_client_error() => Some(unreadable()),
            problem => problem,
        };
        let Some(problem) = problem else { return };
        self.code = Some(problem.code);
        if let Some(error) = &problem.cause {
            tracing::error!(
                request_id = self.context.id,
                trace_id = self.trace.id(),
                error,
                "request failed"
            );
        }
        let (parts, body) = problem
            .render(&self.context.id, self.context.dialect.get().copied())
            .into_parts();
        *response.status_mut() = parts.status;
        response.extensions_mut().extend(parts.extensions);
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
        let route = self.context.route();
        if !self.is_routine || tracing::enabled!(tracing::Level::DEBUG) {
            tracing::info!(
                request_id = self.context.id,
                trace_id = self.trace.id(),
                method = self.method,
                route = route.unwrap_or(UNKNOWN),
                caller = self.context.sender_name(),
                on_behalf_of = self.context.on_behalf_of(),
                status,
                code = self.code,
                refused = self.refused,
                us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                "request"
            );
        }
        let metrics = &self.context.observer.metrics;
        metrics.request(self.method, route.unwrap_or(UNKNOWN), status, took);
        self.trace.end(route, status);
    }
}

fn unreadable() -> Problem {
    let detail = "the path or the query of the request cannot be read";
    Problem::with_detail(&catalogue::INVALID_REQUEST, detail)
}

/// The standard panic hook has written the message to standard error already.
fn panicked() -> Problem {
    Problem::internal("a handler panicked")
}

fn request_timed_out() -> Problem {
    let detail = format!("there was no answer within {REQUEST_TIMEOUT:?}; try again later");
    Problem::with_detail(&catalogue::REQUEST_TIMEOUT, &detail)
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use axum::Extension;
    use axum::body::Body;
    use axum::http::HeaderMap;
    use axum::routing::get;
    use http_body_util::BodyExt;
    use serde_json::Value;
    use tower_http::cors::Any;

    use super::*;
    use crate::http::context::problems_in;
    use crate::http::problem::Dialect;
    use crate::upload::Caller;

    /// A service of Uppy's routes, which fail after their handlers or instead of them.
    fn service() -> impl HttpService {
        let long = async |Extension(context): Extension<Arc<RequestContext>>| {
            context.set_caller(&Caller::named("alice", None));
            vec![b'x'; 5 * 1024 * 1024]
        };
        let routes = Router::new()
            .route(
                "/panics",
                get(async || -> String { panic!("as the test wants") }),
            )
            .route("/hangs", get(pending::<String>))
            .route("/long", get(long));
        let routes = routes.layer(problems_in(Dialect::Uppy));
        let cors = CorsLayer::new().allow_origin(Any);
        let observer = Observer::new(&Settings::default(), Some(cors), Metrics::default());
        add(routes, observer)
    }

    async fn answer(service: &impl HttpService, path: &str) -> Response {
        let request = Request::get(path).header("origin", "https://a.example");
        let request = request.header("host", "localhost").body(Body::empty());
        service.clone().oneshot(request.unwrap()).await.unwrap()
    }

    async fn headers_and_problem(response: Response) -> (HeaderMap, Value) {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.headers, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_of_another_origin_can_read_answers_that_no_handler_made() {
        let service = service();
        let first = answer(&service, "/long").await;
        assert_eq!(first.status(), StatusCode::OK);
        // The first answer is not read meanwhile.
        for (path, code) in [
            ("/long", "answers-unread"),
            ("/hangs", "request-timeout"),
            ("/panics", "internal"),
        ] {
            let response = answer(&service, path).await;
            let (headers, problem) = headers_and_problem(response).await;
            assert_eq!(problem["code"], code);
            assert_eq!(problem["error"], problem["detail"], "{code}");
            assert_eq!(headers["access-control-allow-origin"], "*", "{code}");
            assert_eq!(headers["content-type"], "application/problem+json");
            assert_eq!(
                headers.contains_key("retry-after"),
                code == "answers-unread"
            );
        }
        drop(first);
        let response = answer(&service, "/long?%ff").await;
        let (headers, problem) = headers_and_problem(response).await;
        assert_eq!(problem["code"], "invalid-request");
        assert_eq!(headers["access-control-allow-origin"], "*");
    }
}
