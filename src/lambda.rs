//! The service as a function of AWS Lambda, behind a function URL, an API Gateway or an ALB: makes each
//! event a request to the router, and its response the event's answer. What S3 reports is no request, and
//! goes to [`events`]. Knows no route.

mod events;

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Result, anyhow};
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::uri::InvalidUri;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::Response;
use http_body_util::BodyExt;
use lambda_http::lambda_runtime::{self, LambdaEvent};
use lambda_http::request::{LambdaRequest, RequestContext};
use lambda_http::{Adapter, Error, Request, RequestExt};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serialize;
use serde_json::value::{RawValue, Value};
use tower::{ServiceExt, service_fn};

use crate::http::events::Events;
use crate::http::{self, HttpService};

/// [What a query may not hold](https://url.spec.whatwg.org/#query-percent-encode-set).
const NOT_IN_QUERIES: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>');

/// The answer to an event.
#[derive(Serialize)]
#[serde(untagged)]
enum Answer<R> {
    ToRequest(R),
    ToStore(Value),
}

/// Answers events, one after the other, until the process exits. `events` receives what S3 reports.
pub(crate) async fn run(router: impl HttpService, events: Option<Events>) -> Result<()> {
    let requests = service_fn(move |request: Request| {
        let router = router.clone();
        async move {
            let most = most_bytes(&request);
            let response = router.oneshot(from_client(request)).await?;
            Ok::<_, Infallible>(no_longer_than(most, response).await)
        }
    });
    let requests = Adapter::from(requests).map_request(readable);
    let events = events.map(Arc::new);
    let service = service_fn(move |event: LambdaEvent<Box<RawValue>>| {
        let (requests, events) = (requests.clone(), events.clone());
        async move {
            let LambdaEvent { payload, context } = event;
            if !events::is_request(&payload) {
                let events = events.ok_or("the event is not an HTTP request; for presignd to accept events of a store, set WEBHOOK_URL")?;
                let answer = events::receive(&events, &context.request_id, &payload).await;
                return answer.map(Answer::ToStore).map_err(Error::from);
            }
            let request = serde_json::from_str(payload.get())?;
            let answer = requests.oneshot(LambdaEvent::new(request, context)).await;
            answer.map(Answer::ToRequest).map_err(Error::from)
        }
    });
    lambda_runtime::run(service)
        .await
        .map_err(|error| anyhow!(error))
}

/// The longest answer that the API Gateway, ALB or function URL accepts. To a longer one it answers 502.
fn most_bytes(request: &Request) -> usize {
    match request.request_context_ref() {
        // [Limits of an ALB](https://docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html)
        Some(RequestContext::Alb(_)) => 1_000_000,
        // [Those of Lambda](https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html)
        _ => 6_000_000,
    }
}

/// The response, or a problem with the same headers if it is longer than `most` bytes as the event's answer.
async fn no_longer_than(most: usize, response: Response) -> Response {
    /// For the headers of an answer.
    const HEADERS: usize = 8 * 1024;
    let (parts, body) = response.into_parts();
    // The bodies of the router are in memory.
    let body = body.collect().await.unwrap_or_default().to_bytes();
    // It is a string of JSON, or base64.
    let length = match str::from_utf8(&body) {
        Ok(text) => serde_json::to_string(text).map_or(0, |json| json.len()),
        Err(_) => body.len() / 3 * 4,
    };
    let mut response = Response::from_parts(parts, Body::from(body));
    if length + HEADERS > most {
        let id = response.headers().get("x-request-id");
        tracing::warn!(
            request_id = id.and_then(|id| id.to_str().ok()),
            length,
            most,
            "an answer was too long for the API Gateway, ALB or function URL, so the client got 413"
        );
        let refusal = http::answer_too_large(response.headers());
        *response.status_mut() = refusal.status();
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.remove(header::CONTENT_ENCODING);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.extend(refusal.headers().clone());
        *response.body_mut() = refusal.into_body();
    }
    response
}

/// Rewrites the parts of an event that `lambda_http` would change, or panic at.
///
/// - `lambda_http` builds a URL of it, and panics if that does not parse. Clients choose the scheme, the
///   host and the query, so the host is removed (`PUBLIC_URL` replaces it), without which there is no
///   scheme, and the query is encoded.
/// - Of headers that an event has in two forms, it would take the last value of each for the only one.
/// - The name of a stage is no part of a route.
fn readable(mut event: LambdaEvent<LambdaRequest>) -> LambdaEvent<LambdaRequest> {
    match &mut event.payload {
        LambdaRequest::ApiGatewayV1(request) => {
            // The path of a REST API never has the stage, unlike the one in its context.
            let has_stage = request.path == request.request_context.path;
            let stage = request.request_context.stage.take();
            request.path = below(stage.filter(|_| has_stage), request.path.take());
            request.request_context.domain_name = None;
            if !request.multi_value_headers.is_empty() {
                request.headers.clear();
            }
            request.headers.remove(header::HOST);
        }
        LambdaRequest::ApiGatewayV2(request) => {
            let stage = request.request_context.stage.take();
            request.raw_path = below(stage, request.raw_path.take());
            request.request_context.domain_name = None;
            request.headers.remove(header::HOST);
            if let Some(query) = &mut request.raw_query_string {
                *query = utf8_percent_encode(query, NOT_IN_QUERIES).to_string();
            }
        }
        LambdaRequest::Alb(request) => {
            request.path = below(None, request.path.take());
            request.headers.remove(header::HOST);
        }
        _ => {}
    }
    event
}

/// The path without the stage that some gateways put before it. It begins with a slash.
fn below(stage: Option<String>, path: Option<String>) -> Option<String> {
    let path = path?;
    // `$default` is the stage of a function URL and of an API without stages. No path contains it.
    let rest = stage
        .filter(|stage| stage != "$default")
        .and_then(|stage| path.strip_prefix('/')?.strip_prefix(&stage))
        .filter(|rest| rest.starts_with('/'));
    let path = rest.unwrap_or(&path);
    Some(format!("/{}", path.strip_prefix('/').unwrap_or(path)))
}

/// Adds the address that the request comes from, as a listener does, and the id of the invocation, which
/// Lambda's own lines in the log have.
fn from_client(mut request: Request) -> axum::extract::Request {
    // Without an address, limits count all as one client.
    let address = peer(&request).unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    // Nobody asks for the port.
    let peer = SocketAddr::new(address, 0);
    request.extensions_mut().insert(ConnectInfo(peer));
    let id = request.lambda_context_ref().map(|of| of.request_id.clone());
    if let Some(id) = id {
        request.extensions_mut().insert(http::RequestId(id));
    }
    // It can always be parsed, as everything else is encoded.
    *request.uri_mut() = target(&request).unwrap_or_default();
    // HTTP requires one; that of the event was removed, as it may be invalid.
    let host = HeaderValue::from_static("localhost");
    request.headers_mut().insert(header::HOST, host);
    request.map(Body::new)
}

/// The target of the request as the client sent it. That of `lambda_http` has a host, where HTTP/1.1 has
/// none, and a path without `..`: another one than the front may have authorised.
fn target(request: &Request) -> Result<Uri, InvalidUri> {
    /// [What a path may not hold](https://url.spec.whatwg.org/#path-percent-encode-set), and `\`.
    const NOT_IN_PATHS: &AsciiSet = &NOT_IN_QUERIES
        .add(b'?')
        .add(b'^')
        .add(b'`')
        .add(b'{')
        .add(b'|')
        .add(b'}')
        .add(b'\\');
    let path = utf8_percent_encode(request.raw_http_path(), NOT_IN_PATHS);
    match request.uri().query() {
        Some(query) => format!("{path}?{query}").parse(),
        None => path.to_string().parse(),
    }
}

/// Who sent the request to the gateway or the load balancer.
fn peer(request: &Request) -> Option<IpAddr> {
    match request.request_context_ref()? {
        RequestContext::ApiGatewayV1(context) => {
            http::parse_address(context.identity.source_ip.as_deref()?)
        }
        RequestContext::ApiGatewayV2(context) => {
            http::parse_address(context.http.source_ip.as_deref()?)
        }
        RequestContext::Alb(_) => last_forwarded(request.headers()),
        _ => None,
    }
}

/// A load balancer writes it to the end of what the client wrote.
fn last_forwarded(headers: &HeaderMap) -> Option<IpAddr> {
    let line = headers.get_all("x-forwarded-for").iter().next_back()?;
    http::parse_address(line.to_str().ok()?.rsplit(',').next()?.trim())
}
