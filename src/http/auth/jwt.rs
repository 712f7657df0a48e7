//! JSON Web Tokens ([RFC 7519](https://www.rfc-editor.org/rfc/rfc7519)) of an issuer that the
//! operator trusts.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::jwks::Jwks;
use super::refused::of_token;
use super::token_cache::Verified;
use super::{Denied, TokenHash};
use crate::upload::{Caller, Ticket};

/// The claim that narrows what the caller may upload.
pub(crate) const TICKET_CLAIM: &str = "upload";
/// The longest lifetime of a token in a path, where others may see it.
pub(super) const MAX_LIFETIME_IN_PATH: Duration = Duration::from_hours(24);
/// How far the issuer's clock may be from ours, in seconds.
const LEEWAY: u64 = 30;
/// The shortest shared secret, in bytes: as long as a digest of SHA-256.
const MIN_SECRET_BYTES: usize = 32;
/// The shortest modulus of an RSA key, in bytes.
const MIN_RSA_BYTES: usize = 256;
/// Why a text is not a key.
const NOT_PUBLIC_KEY: &str = "must be a public key in PEM: RSA, EC (P-256, P-384) or Ed25519";
/// The curves' object identifiers in DER
/// ([RFC 5480 §2.1.1.1](https://www.rfc-editor.org/rfc/rfc5480#section-2.1.1.1)).
const P256_OID: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
const P384_OID: &[u8] = b"\x06\x05\x2b\x81\x04\x00\x22";

const HMAC: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];
const ED: &[Algorithm] = &[Algorithm::EdDSA];

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
    /// One that can be replaced.
    One(Arc<ArcSwap<JwtKey>>),
    /// Those that the issuer publishes.
    Set(Jwks),
}

/// A key that verifies tokens, and the algorithms that it permits.
pub struct JwtKey {
    key: DecodingKey,
    algorithms: Vec<Algorithm>,
    /// Its id among an issuer's published keys.
    pub(super) id: Option<String>,
    /// Distinguishes the key from all others.
    pub(super) fingerprint: TokenHash,
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

impl JwtKey {
    /// A key from a secret that is shared with the issuer.
    pub fn from_secret(secret: &[u8]) -> Result<Self, &'static str> {
        if secret.len() < MIN_SECRET_BYTES {
            return Err("must have at least 32 bytes");
        }
        Ok(Self::new(DecodingKey::from_secret(secret), HMAC, secret))
    }

    /// A key from a public key in PEM. Keys that could not verify any token are refused.
    pub fn from_pem(pem: &[u8]) -> Result<Self, &'static str> {
        let text = str::from_utf8(pem).map_err(|_| NOT_PUBLIC_KEY)?;
        if text.contains("PRIVATE KEY") {
            return Err("is a private key; it must be the public key that belongs to it");
        }
        let der = der(text).ok_or(NOT_PUBLIC_KEY)?;
        if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
            // The encoding of a key is a little longer than its modulus.
            return match der.len() {
                MIN_RSA_BYTES.. => Ok(Self::new(key, RSA, &der)),
                _ => Err("is an RSA key that is too short; it must have at least 2048 bits"),
            };
        }
        if let Ok(key) = DecodingKey::from_ec_pem(pem) {
            let has = |oid: &[u8]| der.windows(oid.len()).any(|part| part == oid);
            return match (has(P256_OID), has(P384_OID)) {
                (true, _) => Ok(Self::new(key, &[Algorithm::ES256], &der)),
                (_, true) => Ok(Self::new(key, &[Algorithm::ES384], &der)),
                _ => Err(NOT_PUBLIC_KEY),
            };
        }
        DecodingKey::from_ed_pem(pem)
            .map(|key| Self::new(key, ED, &der))
            .map_err(|_| NOT_PUBLIC_KEY)
    }

    /// A key from a published one, if that verifies signatures. A shared secret is refused, because
    /// it was published.
    pub(super) fn from_jwk(jwk: &Jwk) -> Option<Self> {
        let family = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => RSA,
            AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
                EllipticCurve::P256 => &[Algorithm::ES256],
                EllipticCurve::P384 => &[Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => ED,
            _ => return None,
        };
        let uses = &jwk.common.public_key_use;
        if uses
            .as_ref()
            .is_some_and(|uses| *uses != PublicKeyUse::Signature)
        {
            return None;
        }
        // RFC 7517 §4.3 has a second way to state a key's use.
        let operations = &jwk.common.key_operations;
        if operations
            .as_ref()
            .is_some_and(|operations| !operations.contains(&KeyOperations::Verify))
        {
            return None;
        }
        if let AlgorithmParameters::RSA(rsa) = &jwk.algorithm
            && BASE64_URL_SAFE_NO_PAD.decode(&rsa.n).ok()?.len() < MIN_RSA_BYTES
        {
            return None;
        }
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let algorithms = match jwk.common.key_algorithm {
            None => family.to_vec(),
            Some(named) => {
                let named: Algorithm = named.to_string().parse().ok()?;
                vec![*family.iter().find(|algorithm| **algorithm == named)?]
            }
        };
        Some(Self {
            id: jwk.common.key_id.clone(),
            ..Self::new(key, &algorithms, &serde_json::to_vec(jwk).ok()?)
        })
    }

    fn new(key: DecodingKey, algorithms: &[Algorithm], encoded: &[u8]) -> Self {
        Self {
            key,
            algorithms: algorithms.to_vec(),
            id: None,
            fingerprint: Sha256::digest(encoded).into(),
        }
    }
}

impl From<Arc<JwtKey>> for Keys {
    fn from(key: Arc<JwtKey>) -> Self {
        Self::One(Arc::new(ArcSwap::new(key)))
    }
}

impl Keys {
    /// Replaces the only key for all requests from now on.
    pub(crate) fn replace(&self, other: &Self) {
        if let (Self::One(current), Self::One(new)) = (self, other) {
            current.store(new.load_full());
        }
    }
}

impl Jwt {
    /// Fetches the issuer's keys in the background, so that the first token need not wait for them.
    pub fn prepare(&self) {
        if let Keys::Set(keys) = &self.keys {
            let keys = keys.clone();
            tokio::spawn(async move { keys.prepare().await });
        }
    }

    /// Whether tokens that the key has signed are still accepted.
    pub(super) async fn accepts(&self, key: &JwtKey) -> Result<bool, Denied> {
        match &self.keys {
            Keys::One(current) => Ok(current.load().fingerprint == key.fingerprint),
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
        let key = match &self.keys {
            Keys::One(key) => key.load_full(),
            Keys::Set(keys) => {
                let key = keys.key(header.kid.as_deref()).await?;
                key.ok_or(Denied::Unauthorized("the issuer has no key of this `kid`"))?
            }
        };
        let claims = self.claims(token, &key)?;
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

/// The bytes of the first object in PEM.
fn der(pem: &str) -> Option<Vec<u8>> {
    let (_, rest) = pem.split_once("-----BEGIN ")?;
    let (_, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once("-----END ")?;
    BASE64_STANDARD
        .decode(body.split_whitespace().collect::<String>())
        .ok()
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

/// Without the fingerprint, which is a digest of the secret.
impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JwtKey").field(&self.algorithms).finish()
    }
}
