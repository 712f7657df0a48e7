//! What every request gets, whichever route it takes: an id, a log line, a metric, a trace, the body
//! of a problem, and the headers that all answers have. Knows no route.

use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use ipnet::IpNet;
use tokio::sync::OwnedSemaphorePermit;
use tower::ServiceBuilder;
use tower_http::cors::CorsLayer;
use uuid::Uuid;

use super::Settings;
use super::auth::{CallerKey, TICKET_PATH, retry_later};
use super::client_ip::is_trusted;
use super::problem::catalogue::{self, Kind};
use super::problem::{Cause, ForUppy, Problem};
use super::shares::{Share, Shares};
use crate::telemetry::{Metrics, Trace};
use crate::turns::Turns;
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

/// Longer answers count against the budget of bytes that wait to be read.
const SHORT_ANSWER_BYTES: usize = 64 * 1024;
const UNREAD_PER_CALLER: usize = 8 * 1024 * 1024;
const UNREAD_IN_ALL: usize = 64 * 1024 * 1024;
/// How many bytes the long bodies of one caller may have, from their arrival to the answer.
const LONG_BODIES_PER_CALLER: usize = 4 * 1024 * 1024;
/// How many units of memory, of 2 MiB each, the requests of one caller may use while they are worked
/// on.
const WORK_UNITS_PER_CALLER: usize = 16;
/// How long a request waits for earlier ones of the same caller.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// Adds the middleware to all routes and fallbacks that `router` has so far.
///
/// It is one layer: axum boxes every layer of every route, and clones the boxes for each request.
pub(super) fn add(router: Router, cors: Option<CorsLayer>, observer: Observer) -> Router {
    router.layer(
        ServiceBuilder::new()
            .layer(from_fn_with_state(Arc::new(observer), observe))
            .option_layer(cors),
    )
}

/// The middleware's part of the configuration, and its state.
#[derive(Debug)]
pub(super) struct Observer {
    metrics: Metrics,
    trusted_proxies: Vec<IpNet>,
    local_hosts_only: bool,
    /// Bytes of long answers that are being sent.
    unread: Shares,
    long_bodies: Arc<Turns<CallerKey>>,
    work: Arc<Turns<CallerKey>>,
}

impl Observer {
    pub(super) fn new(settings: &Settings, metrics: Metrics) -> Self {
        Self {
            metrics,
            trusted_proxies: settings.trusted_proxies.clone(),
            local_hosts_only: settings.local_hosts_only,
            unread: Shares::new(UNREAD_PER_CALLER, UNREAD_IN_ALL),
            long_bodies: Arc::new(Turns::new(LONG_BODIES_PER_CALLER)),
            work: Arc::new(Turns::new(WORK_UNITS_PER_CALLER)),
        }
    }
}

async fn observe(
    State(observer): State<Arc<Observer>>,
    mut request: Request,
    next: Next,
) -> Response {
    let observation = Observation::begin(&observer, &request);
    if let Err(problem) = check_head(&request, observer.local_hosts_only) {
        return observation.finish(problem.into_response());
    }
    let refused_origin = preflight_origin(&request);
    let caller = observation.caller.clone();
    request.extensions_mut().insert(caller.clone());
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind();
    let response = match tokio::time::timeout(REQUEST_TIMEOUT, answer).await {
        Ok(Ok(response)) => response,
        Ok(Err(_panic)) => panicked(),
        Err(_elapsed) => request_timed_out().into_response(),
    };
    if let Some(origin) = refused_origin
        && !response
            .headers()
            .contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN)
    {
        tracing::warn!(
            request_id = observation.id,
            origin = origin.to_str().unwrap_or_default(),
            "a page of this origin may not call; CORS_ALLOWED_ORIGINS allows it"
        );
    }
    let response = match caller.key.get() {
        Some(key) => within_budget(response, key, &observer.unread).await,
        None => response,
    };
    observation.finish(response)
}

/// The origin of a page whose browser asks whether it may call.
pub(crate) fn preflight_origin(request: &Request) -> Option<HeaderValue> {
    let headers = request.headers();
    let is_preflight = request.method() == Method::OPTIONS
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let origin = headers.get(header::ORIGIN).filter(|_| is_preflight)?;
    (origin.len() <= 255).then(|| origin.clone())
}

/// Refuses a head that HTTP or [`Settings::local_hosts_only`] forbids.
fn check_head(request: &Request, local_hosts_only: bool) -> Result<(), Problem> {
    let headers = request.headers();
    let mut hosts = headers.get_all(header::HOST).iter();
    // RFC 9112, 3.2. HTTP/1.0 has no such rule.
    let is_well_formed = match (hosts.next(), hosts.next()) {
        (None, _) => request.version() < Version::HTTP_11,
        (Some(_), None) => true,
        (Some(_), Some(_)) => false,
    };
    if !is_well_formed {
        let detail = "the request must have exactly one `host` header";
        return Err(Problem::with_detail(&catalogue::INVALID_REQUEST, detail));
    }
    // RFC 9112, 6.1.
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        return Err(Problem::new(&catalogue::UNSUPPORTED_TRANSFER_CODING));
    }
    if local_hosts_only && !headers.get(header::HOST).is_none_or(is_local) {
        return Err(Problem::new(&catalogue::HOST_NOT_ALLOWED));
    }
    Ok(())
}

/// Whether a host cannot be a name that somebody else controls.
fn is_local(host: &HeaderValue) -> bool {
    let authority = host
        .to_str()
        .ok()
        .and_then(|host| host.parse::<Authority>().ok());
    authority.is_some_and(|authority| {
        let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.ends_with(".localhost") || address.parse::<IpAddr>().is_ok()
    })
}

/// A long answer stays in memory until the client has read it, so each caller, and all of them
/// together, may only have a number of bytes waiting. Answers without a caller are static files.
async fn within_budget(response: Response, caller: &CallerKey, unread: &Shares) -> Response {
    let length = response.body().size_hint().lower();
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length <= SHORT_ANSWER_BYTES {
        return response;
    }
    let Some(share) = unread.try_take(caller, length) else {
        return retry_later(&catalogue::ANSWERS_UNREAD, Duration::from_secs(1));
    };
    let (parts, body) = response.into_parts();
    let Ok(bytes) = body.collect().await else {
        return Problem::internal().into_response();
    };
    // The share lives exactly as long as the bytes, which hyper keeps until they are sent.
    // A copy is as long as its bytes; what an answer was written to may have twice the room.
    let bytes = Bytes::copy_from_slice(&bytes.to_bytes());
    let bytes = Bytes::from_owner(Unread(bytes, share));
    Response::from_parts(parts, Body::from(bytes))
}

struct Unread(
    Bytes,
    #[expect(dead_code, reason = "held until it is dropped")] Share,
);

impl AsRef<[u8]> for Unread {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Holds the caller of a request as soon as it is known. The authentication of a route fills it, so
/// that what happens outside of all routes can name the caller: the log line, and limits on answers.
#[derive(Clone, Debug)]
pub(super) struct CallerSlot {
    key: Arc<OnceLock<CallerKey>>,
    /// Whom the sender calls for, if that is not itself.
    on_behalf_of: Arc<OnceLock<Arc<str>>>,
    long_bodies: Arc<Turns<CallerKey>>,
    work: Arc<Turns<CallerKey>>,
}

/// What a request has waited for. Others can have it when this is dropped.
pub(super) type Turn = Option<OwnedSemaphorePermit>;

impl CallerSlot {
    /// `sender` is whose credentials the request has.
    pub(super) fn fill(&self, sender: CallerKey, on_behalf_of: Option<&Caller>) {
        self.key.set(sender).ok(); // only the first extractor of a request counts
        if let Some(caller) = on_behalf_of {
            let name = Arc::clone(caller.shared_segment());
            self.on_behalf_of.set(name).ok(); // the same
        }
    }

    /// Waits until there is room for a long body of the caller, from its arrival to the answer.
    ///
    /// # Errors
    ///
    /// The answer when earlier bodies keep the room for too long.
    pub(super) async fn room_for_body(&self, bytes: usize) -> Result<Turn, Response> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let kind = &catalogue::TOO_MANY_LONG_BODIES;
        self.wait(&self.long_bodies, bytes, kind).await
    }

    /// Waits until earlier requests of the caller leave `units` of memory, of 2 MiB each, for the work on
    /// this one. So one caller makes the service use little memory, however many requests it sends.
    ///
    /// # Errors
    ///
    /// The answer when the earlier requests take too long.
    pub(super) async fn turn(&self, units: u32) -> Result<Turn, Response> {
        self.wait(&self.work, units, &catalogue::TOO_MUCH_AT_ONCE)
            .await
    }

    async fn wait(
        &self,
        turns: &Turns<CallerKey>,
        permits: u32,
        kind: &Kind,
    ) -> Result<Turn, Response> {
        let Some(key) = self.key.get().filter(|_| permits > 0) else {
            return Ok(None);
        };
        let turn = turns.of(key).acquire_many_owned(permits);
        match tokio::time::timeout(TURN_TIMEOUT, turn).await {
            Ok(turn) => Ok(turn.ok()), // it fails only once the semaphore is closed, which nobody does
            Err(_elapsed) => Err(retry_later(kind, Duration::from_secs(1))),
        }
    }

    fn name(&self) -> Option<&str> {
        match self.key.get()? {
            CallerKey::Name(name) => Some(name),
            CallerKey::Network(_) => None,
        }
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
    fn begin(observer: &Observer, request: &Request) -> Self {
        let route = request.extensions().get::<MatchedPath>().cloned();
        let method = own_name(request.method());
        let pattern = route.as_ref().map(pattern);
        let trace = Trace::begin(method.unwrap_or("_OTHER"), pattern, request.headers());
        Self {
            begin: Instant::now(),
            metrics: observer.metrics.clone(),
            method: method.unwrap_or(UNKNOWN),
            id: request_id(request, &observer.trusted_proxies),
            status: None,
            caller: CallerSlot {
                key: Arc::default(),
                on_behalf_of: Arc::default(),
                long_bodies: Arc::clone(&observer.long_bodies),
                work: Arc::clone(&observer.work),
            },
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
            None if response.status() == StatusCode::NOT_FOUND => {
                Some(Problem::new(&catalogue::NO_SUCH_ROUTE))
            }
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
        let route = self.route.as_ref().map_or(UNKNOWN, pattern);
        tracing::info!(
            request_id = self.id,
            trace_id = self.trace.id(),
            method = self.method,
            route,
            caller = self.caller.name(),
            on_behalf_of = self.caller.on_behalf_of.get().map(|name| &**name),
            status,
            us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            "request"
        );
        self.metrics.request(self.method, route, status, took);
        self.trace.end(status);
    }
}

/// The pattern of a route, which is the same with a ticket in the path.
fn pattern(route: &MatchedPath) -> &str {
    let pattern = route.as_str();
    pattern.strip_prefix(TICKET_PATH).unwrap_or(pattern)
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

/// The id of a request that was made from something else, such as an event.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) String);

/// The id that a trusted proxy set, if it is safe to log; otherwise a new one.
fn request_id(request: &Request, trusted: &[IpNet]) -> String {
    if let Some(RequestId(id)) = request.extensions().get() {
        return id.clone();
    }
    let is_safe = |id: &&str| {
        (1..=128).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
    };
    let is_from_proxy = !trusted.is_empty()
        && request
            .extensions()
            .get()
            .is_some_and(|ConnectInfo(peer): &ConnectInfo<SocketAddr>| {
                is_trusted(peer.ip().to_canonical(), trusted)
            });
    let id = request.headers().get(REQUEST_ID).filter(|_| is_from_proxy);
    let id = id.and_then(|id| id.to_str().ok()).filter(is_safe);
    id.map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}

fn unreadable() -> Problem {
    let detail = "the path or the query of the request cannot be read";
    Problem::with_detail(&catalogue::INVALID_REQUEST, detail)
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
    Problem::with_detail(&catalogue::REQUEST_TIMEOUT, &detail)
}
