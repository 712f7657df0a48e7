//! What every request gets, whichever route it takes: an id, a log line, the body of a problem and
//! the headers that all answers have.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;
use uuid::Uuid;

use super::error::Problem;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Wraps all routes. The log line names the route, never the path or the query: those may hold
/// names of files or secrets.
pub(super) async fn observe(request: Request, next: Next) -> Response {
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

    let mut response = next.run(request).instrument(span.clone()).await;

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
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    tracing::info!(
        %method,
        route,
        status = response.status().as_u16(),
        us = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX),
        "request"
    );
    response
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
