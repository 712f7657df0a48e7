//! The head of a request, before any route sees it: what HTTP forbids, its method, its id, and the
//! origin of a preflight.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};
use percent_encoding::percent_decode_str;
use uuid::Uuid;

use super::problem::{Problem, catalogue};

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Refuses a head that HTTP or [`local_hosts_only`](super::Settings::local_hosts_only) forbids.
pub(super) fn check(request: &Request, local_hosts_only: bool) -> Result<(), Problem> {
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
    let is_unknown = |coding: &HeaderValue| !coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    if codings.next().is_some_and(is_unknown) || codings.next().is_some() {
        return Err(Problem::new(&catalogue::UNSUPPORTED_TRANSFER_CODING));
    }
    if local_hosts_only && !names_local_host(request) {
        return Err(Problem::new(&catalogue::HOST_NOT_ALLOWED));
    }
    // Lenient decoding could turn a name into another one than the client meant.
    let query = request.uri().query().unwrap_or_default();
    if percent_decode_str(query).decode_utf8().is_err() {
        let detail = "the query must be UTF-8 once its `%` escapes are decoded";
        return Err(Problem::with_detail(&catalogue::INVALID_REQUEST, detail));
    }
    Ok(())
}

/// The value of a header that must not be repeated.
pub(super) fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// The name of a standard method. Clients can send any other word.
pub(super) fn standard_name(method: &Method) -> Option<&'static str> {
    let names = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];
    names.into_iter().find(|name| method == name)
}

/// Whether the request names no host that somebody else can control: see [`is_local`]. Its target may
/// name a host, too, which then
/// [replaces](https://www.rfc-editor.org/rfc/rfc9112#section-3.2.2) that of the header.
fn names_local_host(request: &Request) -> bool {
    let header = request.headers().get(header::HOST);
    let parsed = |host: &HeaderValue| host.to_str().ok()?.parse::<Authority>().ok();
    header.is_none_or(|host| parsed(host).is_some_and(|host| is_local(&host)))
        && request.uri().authority().is_none_or(is_local)
}

/// Whether a host cannot be a name that somebody else controls.
fn is_local(authority: &Authority) -> bool {
    let host = authority.host().trim_end_matches('.');
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let is_localhost = || {
        let top_level = host.rsplit('.').next();
        top_level.is_some_and(|name| name.eq_ignore_ascii_case("localhost"))
    };
    address.parse::<IpAddr>().is_ok() || is_localhost()
}

/// The origin in a preflight: that of the page which wants to call.
pub(crate) fn preflight_origin(request: &Request) -> Option<HeaderValue> {
    let headers = request.headers();
    let is_preflight = request.method() == Method::OPTIONS
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let origin = headers.get(header::ORIGIN).filter(|_| is_preflight)?;
    (origin.len() <= 255).then(|| origin.clone())
}

/// The id of a request that was made from something else, such as an event.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) String);

/// The id that a trusted proxy set, if it is safe to log; otherwise a new one.
pub(super) fn request_id(request: &Request, by_proxy: bool) -> String {
    if let Some(RequestId(id)) = request.extensions().get() {
        return id.clone();
    }
    let is_safe = |id: &&str| {
        (1..=128).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
    };
    let id = request.headers().get(REQUEST_ID).filter(|_| by_proxy);
    let id = id.and_then(|id| id.to_str().ok()).filter(is_safe);
    id.map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}
