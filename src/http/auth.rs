//! Who calls, and how often. A handler that takes a [`Caller`] is for those alone who may call: there is no other
//! way to one, and nothing can be granted without.

mod api_keys;
mod jwks;
mod jwt;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

pub use self::api_keys::{ApiKeys, new_api_key};
pub use self::jwks::Jwks;
pub use self::jwt::{Jwt, JwtKey, JwtKeyError, Keys};
use super::AppState;
use super::middleware::CallerSlot;
use super::problem::Problem;
use super::rate_limit::RateLimit;
use crate::upload::Caller;

pub(super) const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Longer ones are nobody's: they would cost more to read than they are worth.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Seconds until a client should ask again when the issuer's keys cannot be had.
const ISSUER_RETRY_AFTER: Duration = Duration::from_secs(10);

/// How callers say who they are.
#[derive(Clone, Debug, Default)]
pub enum Auth {
    /// They do not: anyone may call.
    #[default]
    None,
    /// By one of the keys that the operator gave out.
    ApiKeys(ApiKeys),
    /// By a token of an issuer that the operator trusts.
    Jwt(Box<Jwt>),
}

/// What callers send to say who they are. It is a secret.
#[derive(Clone, Copy)]
struct Token<'a>(&'a str);

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Why nobody is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Denied {
    /// There is no token, or it is not a good one. Does not say which.
    Unauthorized,
    /// Nobody can tell: the issuer's keys could not be had yet.
    IssuerUnavailable,
}

/// Who may call, and how often.
pub(super) struct Gate {
    pub(super) auth: Auth,
    pub(super) rate_limit: Option<RateLimit>,
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = Response;

    async fn from_request_parts(
        parts: &mut Parts,
        AppState { gate, .. }: &AppState,
    ) -> Result<Self, Response> {
        let caller = gate.auth.caller(&parts.headers).await;
        if let Some(limit) = &gate.rate_limit {
            let counted = match &caller {
                Ok(caller) if !caller.is_anonymous() => limit.count_caller(caller),
                _ => match parts.extensions.get::<ConnectInfo<SocketAddr>>() {
                    Some(ConnectInfo(peer)) => limit.count_client(*peer, &parts.headers),
                    None => Ok(()),
                },
            };
            if let Err(wait) = counted {
                return Err(retry_later(
                    StatusCode::TOO_MANY_REQUESTS,
                    "rate-limited",
                    "there were too many requests; the `retry-after` header says how many seconds to wait",
                    wait,
                ));
            }
        }
        let caller = caller.map_err(|denied| match denied {
            Denied::Unauthorized => unauthorized(),
            Denied::IssuerUnavailable => retry_later(
                StatusCode::SERVICE_UNAVAILABLE,
                "issuer-unavailable",
                "tokens cannot be checked at the moment; try again later",
                ISSUER_RETRY_AFTER,
            ),
        })?;
        if let Some(slot) = parts.extensions.get::<CallerSlot>() {
            slot.fill(caller.clone());
        }
        Ok(caller)
    }
}

impl Auth {
    async fn caller(&self, headers: &HeaderMap) -> Result<Caller, Denied> {
        match self {
            Self::None => Ok(Caller::anonymous()),
            Self::ApiKeys(keys) => {
                let token = match headers.contains_key(&API_KEY) {
                    // Of two that may differ neither counts.
                    true if headers.contains_key(header::AUTHORIZATION) => None,
                    true => only(headers, &API_KEY).map(Token),
                    false => bearer(headers),
                };
                let token = token.ok_or(Denied::Unauthorized)?;
                keys.caller(token).ok_or(Denied::Unauthorized)
            }
            Self::Jwt(jwt) => {
                let token = bearer(headers).ok_or(Denied::Unauthorized)?;
                // In a box: it may wait for the issuer's keys.
                Box::pin(jwt.caller(token)).await
            }
        }
    }
}

/// The token after `Bearer`, [whatever its case](https://www.rfc-editor.org/rfc/rfc9110#section-11.1).
fn bearer(headers: &HeaderMap) -> Option<Token<'_>> {
    let (scheme, token) = only(headers, &header::AUTHORIZATION)?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| Token(token.trim()))
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    value
        .to_str()
        .ok()
        .filter(|value| value.len() <= MAX_TOKEN_BYTES)
}

fn unauthorized() -> Response {
    let problem = Problem::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "the request must carry valid credentials; /docs says which",
    );
    let mut response = problem.into_response();
    let challenge = HeaderValue::from_static("Bearer realm=\"presignd\"");
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, challenge);
    response
}

fn retry_later(status: StatusCode, code: &'static str, detail: &str, wait: Duration) -> Response {
    let mut response = Problem::new(status, code, detail).into_response();
    // Rounded up: earlier would be too early.
    let seconds = u64::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u64::MAX);
    let seconds = HeaderValue::from(seconds.max(1));
    response.headers_mut().insert(header::RETRY_AFTER, seconds);
    response
}
