//! Who calls, and how often. [`Authenticated`] is the only way for a handler to a [`Caller`], and
//! nothing can be granted without a caller.

mod api_keys;
mod jwks;
mod jwt;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;

pub use self::api_keys::{ApiKeys, new_api_key};
pub use self::jwks::Jwks;
pub use self::jwt::{Jwt, JwtKey, JwtKeyError, Keys};
use super::client_ip::{client_ip, network};
use super::middleware::CallerSlot;
use super::problem::Problem;
use super::problem::catalogue::{self, Kind};
use super::rate_limit::RateLimit;
use super::shares::{Share, Shares};
use super::{AppState, Settings};
use crate::upload::Caller;

pub(super) const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Longer tokens belong to nobody, and are not worth reading.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// When a client should try again while the issuer's keys are unavailable.
const ISSUER_RETRY_AFTER: Duration = Duration::from_secs(10);
/// How many requests of one caller may wait for something at the same time.
const WAITING_PER_CALLER: usize = 64;

/// How callers authenticate.
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

/// The secret that authenticates a caller.
#[derive(Clone, Copy)]
struct Token<'a>(&'a str);

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Why a request has no caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Denied {
    /// The token is missing or invalid. The client does not learn which.
    Unauthorized,
    /// The issuer's keys are unavailable, so the token cannot be verified.
    IssuerUnavailable,
}

/// Who shares a limit: a caller with a name, or all callers without one in a network.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum CallerKey {
    Name(Arc<str>),
    Network(IpAddr),
}

/// Authenticates callers and holds them to their limits.
pub(super) struct Gate {
    auth: Auth,
    rate_limit: Option<RateLimit>,
    trusted_proxies: Vec<IpNet>,
    waiting: Shares,
}

impl Gate {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            auth: settings.auth.clone(),
            rate_limit: settings.rate.map(RateLimit::new),
            trusted_proxies: settings.trusted_proxies.clone(),
            waiting: Shares::new(WAITING_PER_CALLER, usize::MAX),
        }
    }

    fn count(&self, key: Option<&CallerKey>, requests: NonZeroU32) -> Result<(), Response> {
        let (Some(limit), Some(key)) = (&self.rate_limit, key) else {
            return Ok(());
        };
        limit
            .count(key, requests)
            .map_err(|wait| retry_later(&catalogue::RATE_LIMITED, wait))
    }
}

/// The caller of a request that may call, and whose rate limit has room for it.
///
/// This extractor does both, so that no handler can forget the limit. Requests that fail to
/// authenticate count for the address that they come from.
pub(super) struct Authenticated {
    caller: Caller,
    /// `None` if neither a name nor an address is known.
    key: Option<CallerKey>,
    gate: Arc<Gate>,
}

impl Authenticated {
    /// Counts a request as `requests` more than the one that it is.
    ///
    /// # Errors
    ///
    /// The answer when there were too many.
    pub(super) fn count_more(&self, requests: usize) -> Result<(), Response> {
        let requests = u32::try_from(requests).unwrap_or(u32::MAX);
        match NonZeroU32::new(requests) {
            Some(requests) => self.gate.count(self.key.as_ref(), requests),
            None => Ok(()),
        }
    }

    /// Has to be held while a request waits for something that may come later. It bounds how many
    /// connections one caller can keep busy.
    ///
    /// # Errors
    ///
    /// The answer when too many requests of this caller wait already.
    pub(super) fn wait(&self) -> Result<Option<Share>, Response> {
        let Some(key) = &self.key else {
            return Ok(None);
        };
        let share = self.gate.waiting.try_take(key, 1);
        share
            .map(Some)
            .ok_or_else(|| retry_later(&catalogue::TOO_MANY_WAITING, Duration::from_secs(1)))
    }
}

impl Deref for Authenticated {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

impl FromRequestParts<AppState> for Authenticated {
    type Rejection = Response;

    async fn from_request_parts(
        parts: &mut Parts,
        AppState { gate, .. }: &AppState,
    ) -> Result<Self, Response> {
        let caller = gate.auth.caller(&parts.headers).await;
        let key = match &caller {
            Ok(caller) if !caller.is_anonymous() => Some(CallerKey::Name(caller.segment().into())),
            _ => {
                let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
                peer.map(|ConnectInfo(peer)| {
                    let client = client_ip(peer.ip(), &parts.headers, &gate.trusted_proxies);
                    CallerKey::Network(network(client))
                })
            }
        };
        gate.count(key.as_ref(), NonZeroU32::MIN)?;
        let caller = caller.map_err(|denied| match denied {
            Denied::Unauthorized => unauthorized(),
            Denied::IssuerUnavailable => {
                retry_later(&catalogue::ISSUER_UNAVAILABLE, ISSUER_RETRY_AFTER)
            }
        })?;
        if let (Some(slot), Some(key)) = (parts.extensions.get::<CallerSlot>(), key.clone()) {
            slot.fill(key);
        }
        Ok(Self {
            caller,
            key,
            gate: Arc::clone(gate),
        })
    }
}

impl Auth {
    async fn caller(&self, headers: &HeaderMap) -> Result<Caller, Denied> {
        match self {
            Self::None => Ok(Caller::anonymous()),
            Self::ApiKeys(keys) => {
                let token = match headers.contains_key(&API_KEY) {
                    // Two keys may differ, so neither counts.
                    true if headers.contains_key(header::AUTHORIZATION) => None,
                    true => only(headers, &API_KEY).map(Token),
                    false => bearer(headers),
                };
                let token = token.ok_or(Denied::Unauthorized)?;
                keys.caller(token).ok_or(Denied::Unauthorized)
            }
            Self::Jwt(jwt) => {
                let token = bearer(headers).ok_or(Denied::Unauthorized)?;
                jwt.caller(token).await
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

/// The value of a header that must not be repeated.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    value
        .to_str()
        .ok()
        .filter(|value| value.len() <= MAX_TOKEN_BYTES)
}

fn unauthorized() -> Response {
    let problem = Problem::new(&catalogue::UNAUTHORIZED);
    let mut response = problem.into_response();
    let challenge = HeaderValue::from_static("Bearer realm=\"presignd\"");
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, challenge);
    response
}

pub(super) fn retry_later(kind: &Kind, wait: Duration) -> Response {
    let mut response = Problem::new(kind).into_response();
    // Rounded up: a retry must not come too early.
    let seconds = u64::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u64::MAX);
    let seconds = HeaderValue::from(seconds.max(1));
    response.headers_mut().insert(header::RETRY_AFTER, seconds);
    response
}
