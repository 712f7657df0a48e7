//! JSON Web Tokens ([RFC 7519](https://www.rfc-editor.org/rfc/rfc7519)) of an issuer that the
//! operator trusts.

mod key;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};

pub use self::key::JwtKey;
use super::Denied;
use super::jwks::Jwks;
use super::refused::{NOT_SIGNED, of_token};
use super::token_cache::Verified;
use crate::telemetry::Metrics;
use crate::upload::{Caller, Ticket};

/// The claim that narrows what the caller may upload.
pub(crate) const TICKET_CLAIM: &str = "upload";
/// The longest lifetime of a token in a path, where others may see it.
pub(super) const MAX_LIFETIME_IN_PATH: Duration = Duration::from_hours(24);
/// How far the issuer's clock may be from ours, in seconds.
const LEEWAY: u64 = 30;

/// Which tokens are accepted, and which callers they represent.
///
/// A token must be signed with one of the keys, by an algorithm of that key's kind whatever the
/// token says, and have `iss`, `aud`, `sub` and `exp`; `nbf` is optional. `sub` is the caller. The
/// claim [`TICKET_CLAIM`] is a [`Ticket`].
#[derive(Clone, Debug)]
pub struct Jwt {
    pub keys: Keys,
    pub issuer: String,
    pub audience: String,
    /// The claim that lists the policies that a caller may use; `None` allows all of them.
    pub policies_claim: Option<String>,
}

/// Clones share their keys.
#[derive(Clone, Debug)]
pub enum Keys {
    /// Those of the operator, which can be replaced.
    Listed(Arc<ArcSwap<Vec<Arc<JwtKey>>>>),
    /// Those that the issuer publishes.
    Set(Jwks),
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Claims {
    /// A time in whole seconds since 1970.
    fn time(&self, name: &str) -> Option<Duration> {
        let time = self.others.get(name)?.as_f64()?;
        Duration::try_from_secs_f64(time.floor()).ok()
    }

    /// When the token was issued, in seconds since 1970 minus the leeway; `None` if its lifetime is
    /// longer than a day.
    fn short_lived_from(&self) -> Option<u32> {
        let issued_at = self.time("iat")?;
        let lifetime = self.time("exp")?.saturating_sub(issued_at);
        let from = u32::try_from(issued_at.as_secs().saturating_sub(LEEWAY)).ok()?;
        (lifetime <= MAX_LIFETIME_IN_PATH).then_some(from)
    }
}

impl From<Vec<Arc<JwtKey>>> for Keys {
    fn from(keys: Vec<Arc<JwtKey>>) -> Self {
        Self::Listed(Arc::new(ArcSwap::from_pointee(keys)))
    }
}

impl Keys {
    /// Replaces the operator's keys for all requests from now on.
    pub(crate) fn replace(&self, other: &Self) {
        if let (Self::Listed(current), Self::Listed(new)) = (self, other) {
            current.store(new.load_full());
        }
    }
}

impl Jwt {
    /// Fetches the issuer's keys in the background, so that the first token need not wait for them.
    /// All fetches are counted in `metrics`.
    pub fn prepare(&self, metrics: &Metrics) {
        if let Keys::Set(keys) = &self.keys {
            keys.count_in(metrics.clone());
            let keys = keys.clone();
            tokio::spawn(async move { keys.prepare().await });
        }
    }

    /// Whether tokens that the key has signed are still accepted.
    pub(super) async fn accepts(&self, key: &JwtKey) -> Result<bool, Denied> {
        match &self.keys {
            Keys::Listed(current) => {
                let current = current.load();
                Ok(current.iter().any(|it| it.fingerprint == key.fingerprint))
            }
            Keys::Set(keys) => keys.has(key).await,
        }
    }

    pub(super) async fn verify(&self, token: &str) -> Result<Verified, Denied> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| {
            Denied::Unauthorized("it is neither an API key nor a JWT with a known `alg`")
        })?;
        if has_critical_extensions(token) {
            return Err(Denied::Unauthorized("the token has `crit`"));
        }
        let keys = match &self.keys {
            Keys::Listed(keys) => keys.load_full(),
            Keys::Set(keys) => {
                let key = keys.key(header.kid.as_deref()).await?;
                let key = key.ok_or(Denied::Unauthorized(match header.kid {
                    Some(_) => "the issuer has no key of this `kid`",
                    None => "the token has no `kid`, and the issuer has several keys",
                }))?;
                Arc::new(vec![key])
            }
        };
        let (claims, key) = self.signed_by_one_of(&keys, token, header.alg)?;
        let policies = self
            .policies_claim
            .as_ref()
            .map(|claim| Arc::new(names(claims.others.get(claim))));
        let caller = Caller::named(&claims.sub, policies);
        let ticket = claims.others.get(TICKET_CLAIM).map(Ticket::parse);
        let ticket = ticket.transpose().map_err(|why| {
            Denied::InvalidTicket(format!("the token's claim `{TICKET_CLAIM}` {why}"))
        })?;
        Ok(Verified {
            in_path_from: ticket.as_ref().and_then(|_| claims.short_lived_from()),
            caller: match ticket {
                Some(ticket) => caller.with_ticket(ticket),
                None => caller,
            },
            expires_at: claims.time("exp").map_or(0, |expiry| {
                u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX)
            }),
            key,
        })
    }

    /// What a token says, and the key that has signed it.
    fn signed_by_one_of(
        &self,
        keys: &[Arc<JwtKey>],
        token: &str,
        algorithm: Algorithm,
    ) -> Result<(Claims, Arc<JwtKey>), Denied> {
        let mut refused = Denied::Unauthorized("no key is for this `alg`");
        for key in keys
            .iter()
            .filter(|key| key.algorithms.contains(&algorithm))
        {
            match self.claims(token, key) {
                Err(denied) if denied == NOT_SIGNED => refused = denied,
                claims => return claims.map(|claims| (claims, Arc::clone(key))),
            }
        }
        Err(refused)
    }

    fn claims(&self, token: &str, key: &JwtKey) -> Result<Claims, Denied> {
        let mut validation = Validation {
            algorithms: key.algorithms.clone(),
            ..Validation::default()
        };
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY;
        let token = jsonwebtoken::decode::<Claims>(token, &key.key, &validation)
            .map_err(|error| of_token(&error))?;
        // The library would accept a list of issuers that contains ours.
        if !token.claims.others.get("iss").is_some_and(Value::is_string) {
            return Err(Denied::Unauthorized("`iss` is a list"));
        }
        if token.claims.sub.is_empty() {
            return Err(Denied::Unauthorized("`sub` is empty"));
        }
        Ok(token.claims)
    }
}

/// Whether the header names critical extensions, none of which is supported. A `crit` that is not a
/// list is invalid anyway
/// ([RFC 7515 §4.1.11](https://www.rfc-editor.org/rfc/rfc7515#section-4.1.11)).
fn has_critical_extensions(token: &str) -> bool {
    let header = token.split('.').next().unwrap_or_default();
    let header = BASE64_URL_SAFE_NO_PAD.decode(header).unwrap_or_default();
    serde_json::from_slice::<Map<String, Value>>(&header)
        .map_or(true, |header| header.contains_key("crit"))
}

/// The names in a list, or in one text that separates them by spaces, as `scope` does.
fn names(claim: Option<&Value>) -> BTreeSet<String> {
    match claim {
        Some(Value::String(text)) => text.split_whitespace().map(str::to_owned).collect(),
        Some(Value::Array(list)) => {
            let texts = list.iter().filter_map(Value::as_str);
            texts.map(str::to_owned).collect()
        }
        _ => BTreeSet::new(),
    }
}
