//! Keys that verify tokens: a shared secret, public keys in PEM, and those that an issuer publishes.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use sha2::{Digest, Sha256};

use crate::http::auth::TokenHash;

/// The shortest shared secret, in bytes: as long as a digest of SHA-256.
const MIN_SECRET_BYTES: usize = 32;
/// The shortest modulus of an RSA key, in bytes.
const MIN_RSA_BYTES: usize = 256;
/// The curves' object identifiers in DER
/// ([RFC 5480 §2.1.1.1](https://www.rfc-editor.org/rfc/rfc5480#section-2.1.1.1)).
const P256_OID: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
const P384_OID: &[u8] = b"\x06\x05\x2b\x81\x04\x00\x22";

/// Why a text is not a key.
const NOT_PUBLIC_KEY: &str =
    "must have nothing but public keys in PEM: RSA, EC (P-256, P-384) or Ed25519";

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";

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

/// A key that verifies tokens, and the algorithms that it permits.
pub struct JwtKey {
    pub(super) key: DecodingKey,
    pub(super) algorithms: Vec<Algorithm>,
    /// Its id among an issuer's published keys.
    pub(in crate::http::auth) id: Option<String>,
    /// Distinguishes the key from all others.
    pub(in crate::http::auth) fingerprint: TokenHash,
}

impl JwtKey {
    /// A key from a secret that is shared with the issuer.
    pub fn from_secret(secret: &[u8]) -> Result<Self, &'static str> {
        if secret.len() < MIN_SECRET_BYTES {
            return Err("must have at least 32 bytes");
        }
        Ok(Self::new(DecodingKey::from_secret(secret), HMAC, secret))
    }

    /// Keys from one or more public keys in PEM.
    pub fn all_from_pem(pem: &[u8]) -> Result<Vec<Arc<Self>>, &'static str> {
        let text = str::from_utf8(pem).map_err(|_| NOT_PUBLIC_KEY)?;
        let blocks = text.split(BEGIN).skip(1);
        let blocks: Vec<String> = blocks.map(|rest| format!("{BEGIN}{rest}")).collect();
        // A block whose first line is damaged would be ignored.
        if blocks.is_empty() || blocks.len() != text.matches(END).count() {
            return Err(NOT_PUBLIC_KEY);
        }
        // The tokens of an authority in a chain of certificates are not those of the issuer.
        if blocks.len() > 1 && text.contains("CERTIFICATE") {
            return Err(
                "has several certificates, or one beside a key; `openssl x509 -pubkey -noout` prints the public key of one",
            );
        }
        let keys = blocks.iter().map(|block| Self::from_pem(block.as_bytes()));
        keys.map(|key| key.map(Arc::new)).collect()
    }

    /// A key from a public key in PEM. Keys that could not verify any token are refused.
    pub fn from_pem(pem: &[u8]) -> Result<Self, &'static str> {
        let text = str::from_utf8(pem).map_err(|_| NOT_PUBLIC_KEY)?;
        if text.contains("PRIVATE KEY") {
            return Err("is a private key; it must be the public key that belongs to it");
        }
        let der = der(text).ok_or(NOT_PUBLIC_KEY)?;
        if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
            return if key.try_get_as_bytes().is_ok_and(has_long_modulus) {
                Ok(Self::new(key, RSA, &der))
            } else {
                Err("is an RSA key that is too short; it must have at least 2048 bits")
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
    pub(in crate::http::auth) fn from_jwk(jwk: &Jwk) -> Option<Self> {
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
        let of_signatures = [None, Some(PublicKeyUse::Signature)];
        // RFC 7517 §4.3 has a second way to state a key's use.
        let operations = jwk.common.key_operations.as_ref();
        if !of_signatures.contains(&jwk.common.public_key_use)
            || operations.is_some_and(|all| !all.contains(&KeyOperations::Verify))
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

/// Whether an [RSA key in DER](https://www.rfc-editor.org/rfc/rfc8017#appendix-A.1.1) has a modulus of
/// at least 2048 bits.
fn has_long_modulus(der: &[u8]) -> bool {
    // A sequence whose first member is an integer, both with two bytes of length. Integers have a
    // sign, so that such a modulus begins with a zero.
    matches!(der, [0x30, 0x82, _, _, 0x02, 0x82, high, low, ..]
        if usize::from(u16::from_be_bytes([*high, *low])) > MIN_RSA_BYTES)
}

/// The bytes of the first object in PEM.
fn der(pem: &str) -> Option<Vec<u8>> {
    let (_, rest) = pem.split_once(BEGIN)?;
    let (_, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once(END)?;
    BASE64_STANDARD
        .decode(body.split_whitespace().collect::<String>())
        .ok()
}

// Without the fingerprint, which is a digest of the secret.
debug_name!(JwtKey);
