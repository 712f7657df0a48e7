//! JSON Web Tokens ([RFC 7519](https://www.rfc-editor.org/rfc/rfc7519)) of an issuer that the operator
//! trusts.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::jwks::{Jwks, NoKeys};
use super::{Denied, Token};
use crate::upload::Caller;

/// How far the issuer's clock may be from ours, in seconds.
const LEEWAY: u64 = 30;
/// The shortest shared secret, in bytes: as long as what HMAC-SHA-256 makes of it.
const MIN_SECRET_BYTES: usize = 32;

const HMAC: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];
const EC: &[Algorithm] = &[Algorithm::ES256, Algorithm::ES384];
const ED: &[Algorithm] = &[Algorithm::EdDSA];

/// Which tokens let in whom.
///
/// A token must be signed with one of the keys, by an algorithm of that key's kind whatever the token
/// says, and have `iss`, `aud`, `sub` and `exp`; `nbf` counts if it is there. `sub` is the caller.
#[derive(Clone)]
pub struct Jwt {
    pub keys: Keys,
    pub issuer: String,
    pub audience: String,
    /// The claim that lists the policies that a caller may use; all of them, if none is named.
    pub policies_claim: Option<String>,
}

#[derive(Clone)]
pub enum Keys {
    One(Arc<JwtKey>),
    /// Those that the issuer publishes.
    Set(Jwks),
}

/// A key that verifies tokens, and the algorithms that it may do so by.
pub struct JwtKey {
    key: DecodingKey,
    algorithms: Vec<Algorithm>,
}

#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum JwtKeyError {
    #[error("must have at least {MIN_SECRET_BYTES} bytes")]
    TooShort,
    #[error("must be a public key in PEM: RSA, EC (P-256, P-384) or Ed25519")]
    NotPublicKey,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl JwtKey {
    /// Of a secret that is shared with the issuer.
    pub fn of_secret(secret: &[u8]) -> Result<Self, JwtKeyError> {
        if secret.len() < MIN_SECRET_BYTES {
            return Err(JwtKeyError::TooShort);
        }
        Ok(Self::new(DecodingKey::from_secret(secret), HMAC))
    }

    /// Of a public key in PEM.
    pub fn of_pem(pem: &[u8]) -> Result<Self, JwtKeyError> {
        DecodingKey::from_rsa_pem(pem)
            .map(|key| Self::new(key, RSA))
            .or_else(|_| DecodingKey::from_ec_pem(pem).map(|key| Self::new(key, EC)))
            .or_else(|_| DecodingKey::from_ed_pem(pem).map(|key| Self::new(key, ED)))
            .map_err(|_| JwtKeyError::NotPublicKey)
    }

    /// Of a published key, if it is one that verifies signatures. A shared secret is not: it was published.
    pub(super) fn of_jwk(jwk: &Jwk) -> Option<Self> {
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
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let algorithms = match jwk.common.key_algorithm {
            None => family.to_vec(),
            Some(named) => {
                let named: Algorithm = named.to_string().parse().ok()?;
                vec![*family.iter().find(|algorithm| **algorithm == named)?]
            }
        };
        Some(Self { key, algorithms })
    }

    fn new(key: DecodingKey, algorithms: &[Algorithm]) -> Self {
        Self {
            key,
            algorithms: algorithms.to_vec(),
        }
    }
}

impl Jwt {
    /// Has the issuer's keys fetched, so that the first token need not wait for them.
    pub fn prepare(&self) {
        if let Keys::Set(keys) = &self.keys {
            let keys = keys.clone();
            tokio::spawn(async move { keys.prepare().await });
        }
    }

    pub(super) async fn caller(&self, Token(token): Token<'_>) -> Result<Caller, Denied> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| Denied::Unauthorized)?;
        if header.crit.is_some() {
            // Extensions that must be understood, and are not.
            return Err(Denied::Unauthorized);
        }
        let key = match &self.keys {
            Keys::One(key) => Arc::clone(key),
            Keys::Set(keys) => keys
                .key(header.kid.as_deref())
                .await
                .map_err(|NoKeys| Denied::IssuerUnavailable)?
                .ok_or(Denied::Unauthorized)?,
        };
        let claims = self.verified(token, &key).ok_or(Denied::Unauthorized)?;
        let policies = self
            .policies_claim
            .as_ref()
            .map(|claim| Arc::new(names(claims.others.get(claim))));
        Ok(Caller::named(&claims.sub, policies))
    }

    fn verified(&self, token: &str, key: &JwtKey) -> Option<Claims> {
        let mut validation = Validation::new(*key.algorithms.first()?);
        validation.algorithms.clone_from(&key.algorithms);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY;
        let token = jsonwebtoken::decode::<Claims>(token, &key.key, &validation).ok()?;
        Some(token.claims).filter(|claims| !claims.sub.is_empty())
    }
}

/// A list of texts, or one text with spaces between the names, as `scope` is written.
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

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt")
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JwtKey").field(&self.algorithms).finish()
    }
}
