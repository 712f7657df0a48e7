//! What every request gets, whichever route it takes: an id, a log line, the body of a problem and
//! the headers that all answers have.

use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument;
use uuid::Uuid;

use super::error::Problem;
use crate::telemetry::Metrics;
use crate::upload::Caller;

/// What all answers say, unless their route says something else. Nothing here is a page, but for the two
/// that allow themselves scripts: no browser is to run, keep, embed or tell of any of it.
const ON_ALL: [(HeaderName, HeaderValue); 5] = [
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

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

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
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "<unknown>".to_owned(), |path| path.as_str().to_owned());
    let method = request.method().clone();
    let for_uppy = request.uri().path().starts_with("/s3/");
    // Of the level of the gravest line, so that no filter takes the id from one.
    let span = tracing::error_span!("request", request_id = id);

    let run = tokio::time::timeout(REQUEST_TIMEOUT, next.run(request));
    let mut response = match run.instrument(span.clone()).await {
        Ok(response) => response,
        Err(_) => request_timed_out().into_response(),
    };

    let _in_request = span.enter();
    let problem = match response.extensions_mut().remove::<Problem>() {
        // Swagger UI has answers of its own for assets that it does not have.
        None if response.status().is_client_error() => Some(Problem::not_found()),
        problem => problem,
    };
    if let Some(problem) = problem {
        let body = problem.render(&id, for_uppy);
        let (parts, body) = body.into_parts();
        *response.status_mut() = parts.status;
        *response.body_mut() = body;
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().extend(parts.headers);
    }
    let caller = response.extensions_mut().remove::<Caller>();
    let caller = caller.filter(|caller| !caller.is_anonymous());
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    for (name, value) in ON_ALL {
        headers.entry(name).or_insert(value);
    }
    let took = begin.elapsed();
    metrics.request(own_name(&method), &route, response.status().as_u16(), took);
    tracing::info!(
        %method,
        route,
        caller = caller.as_ref().map(Caller::segment),
        status = response.status().as_u16(),
        us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        "request"
    );
    response
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
        _ => "<unknown>",
    }
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
