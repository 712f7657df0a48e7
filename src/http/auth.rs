//! Authenticates callers and limits how often they call. Handlers get their [`Caller`] from
//! [`Authenticated`], and nothing can be granted without a caller.

mod api_keys;
mod authenticated;
mod credential;
mod jwks;
mod jwt;
mod refused;
mod token_cache;

use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;
use sha2::{Digest, Sha256};

pub use self::api_keys::{ApiKeys, new_api_key};
pub(super) use self::authenticated::Authenticated;
use self::credential::Credential;
pub(super) use self::credential::bearer;
pub use self::jwks::Jwks;
pub(crate) use self::jwt::TICKET_CLAIM;
pub use self::jwt::{Jwt, JwtKey, Keys};
pub(crate) use self::refused::Refused;
use self::token_cache::{Verified, VerifiedTokens};
use super::Settings;
use super::head::only;
use super::problem::catalogue;
use super::problem::{Problem, retry_later};
use super::rate_limit::RateLimit;
use crate::turns::{Amounts, CallerKey, Turns};
use crate::upload::Caller;

pub(super) const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
pub(super) const ON_BEHALF_OF: HeaderName = HeaderName::from_static("x-on-behalf-of");
/// The prefix of any route's path when a ticket authenticates the request.
pub(super) const TICKET_PATH: &str = "/t/{ticket}";
/// The prefix of a route's path for clients that cannot name a policy in any other way.
pub(super) const POLICY_PATH: &str = "/p/{policy}";
/// When a client should try again while the issuer's keys are unavailable.
const ISSUER_RETRY_AFTER: Duration = Duration::from_secs(10);
/// How many requests may wait for uploads at the same time.
const WAITING: Amounts = Amounts {
    caller: 64,
    users: 1024,
    all: u32::MAX, // the number of connections bounds it
};

/// How callers authenticate: in one of these ways. Without any, anyone may call.
#[derive(Clone, Debug, Default)]
pub struct Auth {
    /// Keys that the operator has handed out.
    pub api_keys: Option<ApiKeys>,
    /// Tokens of an issuer that the operator trusts.
    pub jwt: Option<Jwt>,
}

/// The SHA-256 of an API key or a token.
type TokenHash = [u8; 32];

fn hash(token: &str) -> TokenHash {
    Sha256::digest(token).into()
}

/// The owner of a request's credentials.
#[derive(Clone, Debug)]
struct Sender {
    caller: Caller,
    /// Whether the sender may call on behalf of another caller.
    may_call_on_behalf: bool,
}

/// Why a request has no caller.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Denied {
    /// The credentials are missing or invalid, for this reason. The client does not learn it.
    Unauthorized(&'static str),
    /// The token is valid, but its ticket is not, for this reason, which the client may see.
    InvalidTicket(String),
    /// Too many invalid tokens came from the same address; for this long, new tokens are refused
    /// without being verified.
    TooManyFailures(Duration),
    /// The issuer's keys are unavailable, so the token cannot be verified.
    IssuerUnavailable,
}

const NO_SUCH_KEY: Denied = Denied::Unauthorized("there is no such API key");

/// Authenticates callers and enforces their limits.
pub(super) struct Gate {
    auth: Auth,
    verified: VerifiedTokens,
    rate_limit: Option<RateLimit>,
    trusted_proxies: Vec<IpNet>,
    waiting: Turns,
}

impl Gate {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            auth: settings.auth.clone(),
            verified: VerifiedTokens::new(),
            rate_limit: settings.rate.map(RateLimit::new),
            trusted_proxies: settings.trusted_proxies.clone(),
            waiting: Turns::new(WAITING),
        }
    }

    /// Adds `more` to a request that already counts as `counted` requests. Returns the new total.
    fn count(
        &self,
        key: Option<&CallerKey>,
        counted: u32,
        more: NonZeroU32,
    ) -> Result<u32, Response> {
        let (Some(limit), Some(key)) = (&self.rate_limit, key) else {
            return Ok(counted);
        };
        limit
            .count(key, counted, more)
            .map_err(|wait| retry_later(&catalogue::RATE_LIMITED, wait))
    }

    /// `network` is where the request comes from.
    async fn sender(
        &self,
        credential: Credential<'_>,
        network: impl Fn() -> Option<CallerKey>,
    ) -> Result<Sender, Denied> {
        let api_key = |hash: &TokenHash| self.auth.api_keys.as_ref()?.get(hash);
        let (token, is_in_path) = match credential {
            Credential::None => return Ok(Sender::from(Caller::anonymous())),
            Credential::ApiKey(key) => return api_key(&hash(key)).ok_or(NO_SUCH_KEY),
            Credential::Bearer(token) => (token, false),
            Credential::Ticket(token) => (token, true),
        };
        let hash = hash(token);
        if !is_in_path && let Some(sender) = api_key(&hash) {
            return Ok(sender);
        }
        let jwt = self.auth.jwt.as_ref().ok_or(NO_SUCH_KEY)?;
        let verified = self.cached_or_verify(jwt, token, &hash, network).await?;
        if is_in_path && !verified.fits_path(SystemTime::now()) {
            return Err(Denied::InvalidTicket(format!(
                "a token in the path must have the claim `{TICKET_CLAIM}`, and live at most 24 hours from its `iat`"
            )));
        }
        let keys = self.auth.api_keys.as_ref();
        if keys.is_some_and(|keys| keys.has_name_of(&verified.caller)) {
            // Such a token could access the uploads of the API key's holder.
            tracing::warn!(
                caller = verified.caller.segment(),
                "a token was refused because its `sub` is the name of an API key; rename the key"
            );
            return Err(Denied::Unauthorized("`sub` is the name of an API key"));
        }
        Ok(Sender::from(verified.caller))
    }

    async fn cached_or_verify(
        &self,
        jwt: &Jwt,
        token: &str,
        hash: &TokenHash,
        network: impl Fn() -> Option<CallerKey>,
    ) -> Result<Verified, Denied> {
        let now = SystemTime::now();
        if let Some(verified) = self.verified.get(hash, now) {
            if jwt.accepts(&verified.key).await? {
                return Ok(verified);
            }
            self.verified.remove(hash);
        }
        // Verifying costs more than refusing, so a network with too many invalid tokens has to
        // wait.
        if let (Some(limit), Some(network)) = (&self.rate_limit, network()) {
            limit
                .would_count(&network)
                .map_err(Denied::TooManyFailures)?;
        }
        let verified = jwt.verify(token).await?;
        self.verified.insert(hash, verified.clone());
        Ok(verified)
    }
}

impl Auth {
    pub(crate) fn is_required(&self) -> bool {
        self.api_keys.is_some() || self.jwt.is_some()
    }

    /// The answer to a request without valid credentials, which names the ways to authenticate.
    fn challenge(&self, problem: Problem) -> Response {
        let mut response = problem.into_response();
        // An API key is accepted as a bearer token, too, so its own scheme only matters beside
        // tokens.
        let challenge = match (&self.api_keys, &self.jwt) {
            (Some(_), Some(_)) => "Bearer realm=\"presignd\", ApiKey realm=\"presignd\"",
            _ => "Bearer realm=\"presignd\"",
        };
        let challenge = HeaderValue::from_static(challenge);
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, challenge);
        response
    }
}

impl Sender {
    /// The caller whom the header [`ON_BEHALF_OF`] names.
    fn on_behalf_of(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        if !self.may_call_on_behalf {
            return Err(Problem::new(&catalogue::ON_BEHALF_NOT_ALLOWED));
        }
        let name = only(headers, &ON_BEHALF_OF);
        let name = name.and_then(|name| str::from_utf8(name.as_bytes()).ok());
        match name {
            Some(name) if !name.is_empty() => Ok(self.caller.renamed(name)),
            _ => {
                let detail = "`x-on-behalf-of` must be one name in UTF-8, and not empty";
                Err(Problem::with_detail(&catalogue::INVALID_REQUEST, detail))
            }
        }
    }
}

/// A sender that may call only for itself.
impl From<Caller> for Sender {
    fn from(caller: Caller) -> Self {
        Self {
            caller,
            may_call_on_behalf: false,
        }
    }
}
