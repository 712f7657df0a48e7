//! Receipts: signed statements about verified uploads, which a back end checks offline with the
//! keys that presignd publishes. Knows what a receipt says and who signed it, and knows no routes.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

use super::{Caller, Metadata, Uploaded};

/// The media type of receipts, which sets them apart from all other tokens.
const TYPE: &str = "upload-receipt+jwt";
const END_OF_KEY: &str = "-----END PRIVATE KEY-----";

/// Signs receipts with the first of its keys and publishes all of them, so that a key can be
/// replaced while receipts that it signed are still checked.
#[derive(Clone)]
pub struct Receipts {
    header: Header,
    private: EncodingKey,
    public: JwkSet,
}

/// What a receipt says of an upload.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Claims<'a> {
    /// Seconds since 1970.
    iat: u64,
    bucket: &'a str,
    key: &'a str,
    /// In bytes.
    size: u64,
    content_type: &'a str,
    etag: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checksum_sha256: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checksum_crc64nvme: Option<&'a str>,
    policy: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<&'a str>,
    metadata: &'a Metadata,
}

impl Receipts {
    /// Reads one or more Ed25519 private keys in PKCS#8 PEM, as `openssl genpkey -algorithm
    /// ed25519` makes them.
    ///
    /// # Errors
    ///
    /// The rule that the text breaks. It does not repeat the text, which is secret.
    pub fn parse(pem: &str) -> Result<Self, &'static str> {
        const RULE: &str = "must hold Ed25519 private keys in PKCS#8 PEM; `openssl genpkey -algorithm ed25519` makes one";
        let mut keys = Vec::new();
        for text in pem.split_inclusive(END_OF_KEY) {
            if text.trim().is_empty() {
                continue;
            }
            let key = EncodingKey::from_ed_pem(text.as_bytes()).map_err(|_| RULE)?;
            let public = public(&key).map_err(|_| RULE)?;
            keys.push((key, public));
        }
        let public = keys.iter().map(|(_, public)| public.clone()).collect();
        let (private, first) = keys.into_iter().next().ok_or(RULE)?;
        let header = Header {
            typ: Some(TYPE.to_owned()),
            kid: first.common.key_id,
            ..Header::new(Algorithm::EdDSA)
        };
        Ok(Self {
            header,
            private,
            public: JwkSet { keys: public },
        })
    }

    /// The public keys that check receipts.
    pub fn public_keys(&self) -> &JwkSet {
        &self.public
    }

    /// The receipt of an upload in `bucket`, whose key names `caller`.
    pub(super) fn sign(
        &self,
        upload: &Uploaded,
        bucket: &str,
        caller: Option<&Caller>,
        now: SystemTime,
    ) -> Option<String> {
        let iat = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let object = &upload.object;
        let claims = Claims {
            iat: iat.as_secs(),
            bucket,
            key: &upload.key,
            size: object.size,
            content_type: upload.content_type.as_str(),
            etag: &object.etag,
            version_id: object.version_id.as_deref(),
            checksum_sha256: object.checksum_sha256.as_deref(),
            checksum_crc64nvme: object.checksum_crc64nvme.as_deref(),
            policy: &upload.policy,
            caller: caller.filter(|it| !it.is_anonymous()).map(Caller::segment),
            metadata: &object.metadata,
        };
        // A key that was read at the start signs any claims.
        jsonwebtoken::encode(&self.header, &claims, &self.private).ok()
    }
}

/// The public half of a key, named by its [thumbprint](https://www.rfc-editor.org/rfc/rfc7638).
fn public(key: &EncodingKey) -> jsonwebtoken::errors::Result<Jwk> {
    let mut public = Jwk::from_encoding_key(key, Algorithm::EdDSA)?;
    public.common.key_id = Some(public.thumbprint(ThumbprintHash::SHA256)?);
    public.common.public_key_use = Some(PublicKeyUse::Signature);
    Ok(public)
}

// Omits the private keys.
debug_name!(Receipts);

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of [RFC 8037, appendix A](https://www.rfc-editor.org/rfc/rfc8037#appendix-A).
    const PEM: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";

    #[test]
    fn the_name_of_a_key_is_its_thumbprint() {
        let receipts = Receipts::parse(PEM).unwrap();
        let name = receipts.public_keys().keys[0].common.key_id.as_deref();
        assert_eq!(name, Some("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"));
    }

    #[test]
    fn a_text_without_an_ed25519_key_is_refused_and_not_repeated() {
        let cut = PEM.replace("rn9g", "");
        let public = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
        let with_rest = format!("{PEM}more");
        for text in ["", "\n", "secret", public, &cut, &with_rest] {
            let error = Receipts::parse(text).unwrap_err();
            assert!(error.starts_with("must hold Ed25519 private keys"));
        }
    }

    #[test]
    fn private_keys_do_not_show_in_debug_texts() {
        let debug = format!("{:?}", Receipts::parse(PEM).unwrap());
        assert!(!debug.contains("nWGxne"), "{debug}");
        assert!(!debug.contains("EncodingKey"), "{debug}");
    }
}
