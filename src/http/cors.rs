//! Which pages of other origins may call the service from a browser.

use std::net::IpAddr;
use std::time::Duration;

use axum::http::uri::Authority;
use axum::http::{HeaderValue, Method, header};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use super::head::REQUEST_ID;

/// How long a browser may cache the answer to a preflight: Chromium's maximum.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_hours(2);

/// Which origins' pages may call the service from a browser.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// Only pages that the service itself serves.
    #[default]
    None,
    /// Pages of this machine: `http://localhost:5173`.
    Loopback,
    Any,
    /// Each may have `*.` before its domain, for all names below it.
    Exactly(Vec<HeaderValue>),
}

impl AllowedOrigins {
    pub(crate) fn allow_origin(&self) -> AllowOrigin {
        match self {
            Self::None => AllowOrigin::list([]),
            Self::Loopback => AllowOrigin::predicate(|origin, _| is_of_this_machine(origin)),
            Self::Any => AllowOrigin::any(),
            Self::Exactly(allowed) => {
                let allowed = allowed.clone();
                AllowOrigin::predicate(move |origin, _| {
                    allowed.iter().any(|allowed| is_allowed(origin, allowed))
                })
            }
        }
    }

    /// The headers of the service; `None` if no page of another origin may call it.
    pub(super) fn layer(&self) -> Option<CorsLayer> {
        if *self == Self::None {
            return None;
        }
        Some(
            CorsLayer::new()
                .allow_origin(self.allow_origin())
                .allow_methods([Method::GET, Method::POST, Method::DELETE])
                // Libraries add headers of their own, to trace requests for example. Those that are
                // unknown change nothing here.
                .allow_headers(AllowHeaders::mirror_request())
                .expose_headers([REQUEST_ID, header::RETRY_AFTER, header::WWW_AUTHENTICATE])
                .max_age(PREFLIGHT_MAX_AGE),
        )
    }
}

/// Whether an allowed origin, which may be `https://*.example.com`, is the one of a page.
fn is_allowed(origin: &HeaderValue, allowed: &HeaderValue) -> bool {
    let (Ok(origin), Ok(allowed)) = (origin.to_str(), allowed.to_str()) else {
        return false;
    };
    let Some((scheme, domain)) = allowed.split_once('*') else {
        return origin == allowed;
    };
    let name = origin.strip_prefix(scheme);
    name.and_then(|rest| rest.strip_suffix(domain))
        .is_some_and(|name| {
            let is_of_names = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
            !name.is_empty() && name.bytes().all(is_of_names)
        })
}

fn is_of_this_machine(origin: &HeaderValue) -> bool {
    let origin = origin.to_str().ok();
    let authority = origin.and_then(|origin| origin.split_once("://"));
    authority.is_some_and(|(_, authority)| is_loopback(authority))
}

/// Whether a host, with or without a port, is a loopback address or a name that browsers never look
/// up.
pub(crate) fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host().to_ascii_lowercase();
    match name.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => name == "localhost" || name.ends_with(".localhost"),
    }
}
