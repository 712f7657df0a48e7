//! presignd's own address as clients see it, for URLs that lead back to it.

use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, header};

use super::AppState;
use super::context::RequestContext;
use super::problem::{Problem, catalogue};

/// The address, without a slash at its end: `PUBLIC_URL`, or the host that the request was sent to.
/// Only a trusted proxy may name another one in `X-Forwarded-Host` and `X-Forwarded-Proto`.
#[derive(Debug)]
pub(super) struct OwnAddress(pub(super) String);

impl FromRequestParts<AppState> for OwnAddress {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        if let Some(url) = &state.public_url {
            return Ok(Self(url.trim_end_matches('/').to_owned()));
        }
        let is_by_proxy = RequestContext::of(&parts.extensions).is_by_proxy;
        let address = from_request(&parts.headers, is_by_proxy);
        address.map(Self).ok_or_else(|| {
            let detail = "the request must have a `host` header that names a host";
            Problem::with_detail(&catalogue::INVALID_REQUEST, detail)
        })
    }
}

fn from_request(headers: &HeaderMap, is_by_proxy: bool) -> Option<String> {
    // A proxy writes its own value after one that a client sent.
    let forwarded = |name: &str| {
        let line = headers.get_all(name).iter().next_back();
        let line = line.filter(|_| is_by_proxy)?.to_str().ok()?;
        line.rsplit(',').next().map(str::trim)
    };
    let scheme = match forwarded("x-forwarded-proto") {
        Some(scheme) if scheme.eq_ignore_ascii_case("https") => "https",
        _ => "http",
    };
    let host = forwarded("x-forwarded-host").and_then(authority);
    let host = host.or_else(|| authority(headers.get(header::HOST)?.to_str().ok()?))?;
    Some(format!("{scheme}://{host}"))
}

fn authority(text: &str) -> Option<Authority> {
    let authority = Authority::from_str(text).ok()?;
    (!authority.as_str().contains('@')).then_some(authority)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn address(headers: &[(&'static str, &'static str)], is_by_proxy: bool) -> Option<String> {
        let headers = headers.iter().map(|(name, value)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        });
        from_request(&headers.collect(), is_by_proxy)
    }

    #[test]
    fn an_invalid_host_gives_no_address() {
        for host in ["", "a b", "a/b", "user@a", "a?b", "a#b"] {
            assert_eq!(address(&[("host", host)], false), None, "{host}");
        }
        assert_eq!(address(&[], false), None);
        let invalid = [("host", "a"), ("x-forwarded-host", "b/c")];
        assert_eq!(address(&invalid, true).unwrap(), "http://a");
    }
}
