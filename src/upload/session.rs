//! Sessions of multipart uploads: a token that the client keeps, so that any replica can serve any
//! call.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Caller;

/// The lifetime of a session: long enough for a large file on a slow line, and for a pause over a
/// weekend.
const LIFETIME: Duration = Duration::from_hours(7 * 24);

/// Why there is no upload of a token.
pub(super) const NOT_SEALED: &str = "the token was not made with this UPLOAD_SESSION_SECRET";
pub(super) const EXPIRED: &str = "the upload was begun more than 7 days ago";

/// The properties of one upload that must not change. The client can read them, but cannot change
/// them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Session {
    /// The store's id of the upload.
    pub(super) upload_id: String,
    pub(super) key: String,
    /// The bucket, if it is not the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) bucket: Option<String>,
    /// Missing in sessions of version 0.1.0 whose request named none.
    pub(super) policy: Option<String>,
    /// The size that the client announced, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) size: Option<u64>,
    /// The segment of the caller who began the upload.
    pub(super) caller: String,
    /// The digest of the ticket that the upload was begun with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ticket: Option<String>,
    /// The limit of that ticket, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) max_size: Option<u64>,
    /// Seconds since 1970.
    exp: u64,
    /// Sets these tokens apart from others that might be signed with the same secret.
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Multipart,
}

impl Session {
    pub(super) fn new(
        upload_id: String,
        (bucket, key): (Option<String>, String),
        policy: String,
        size: Option<u64>,
        caller: &Caller,
        now: SystemTime,
    ) -> Self {
        let ticket = caller.ticket();
        Self {
            upload_id,
            bucket,
            key,
            policy: Some(policy),
            size,
            caller: caller.segment().to_owned(),
            ticket: ticket.map(|ticket| ticket.digest()),
            max_size: ticket.and_then(|ticket| ticket.max_size),
            exp: seconds(now + LIFETIME),
            kind: Kind::Multipart,
        }
    }

    pub(super) fn has_expired(&self, now: SystemTime) -> bool {
        seconds(now) >= self.exp
    }

    /// Whether the caller may continue the upload. A caller with a ticket needs the same ticket as
    /// at the beginning.
    pub(super) fn belongs_to(&self, caller: &Caller) -> bool {
        let has_same_ticket = match caller.ticket() {
            Some(ticket) => self.ticket == Some(ticket.digest()),
            None => true,
        };
        self.caller == caller.segment() && has_same_ticket
    }
}

/// Seals sessions into tokens and opens them again.
///
/// Tokens are JWTs, signed with HMAC-SHA-256 and not encrypted: their holder can read them. All replicas
/// need the same secret.
// jsonwebtoken's keys do not show in debug texts.
#[derive(Clone, Debug)]
pub struct SessionKey {
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl SessionKey {
    /// The shortest secret, in bytes: as long as a digest of SHA-256.
    pub const MIN_BYTES: usize = 32;

    pub fn new(secret: &[u8]) -> Self {
        Self {
            encoding: EncodingKey::from_secret(secret),
            decoding: DecodingKey::from_secret(secret),
        }
    }

    /// A random key: its sessions are valid until this process exits.
    pub fn random() -> Self {
        // Three times 122 bits from a generator for cryptography.
        let ids = [(); 3].map(|()| Uuid::new_v4().into_bytes());
        Self::new(ids.as_flattened())
    }

    pub(super) fn seal<T: Serialize>(&self, claims: &T) -> String {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &self.encoding)
            .expect("claims are texts and numbers, and HMAC signs anything")
    }

    /// The claims of a token that we sealed, even if it has expired: the caller compares its own
    /// `now`.
    pub(super) fn open<T: DeserializeOwned>(&self, token: &str) -> Option<T> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.validate_exp = false;
        validation.required_spec_claims.clear();
        let token = jsonwebtoken::decode::<T>(token, &self.decoding, &validation);
        Some(token.ok()?.claims)
    }
}

pub(super) fn seconds(moment: SystemTime) -> u64 {
    moment
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The claims of someone else's token.
    #[derive(Serialize)]
    struct Other {
        sub: &'static str,
        exp: u64,
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    fn session() -> Session {
        Session::new(
            "id".into(),
            (None, "uploads/한.txt".into()),
            "default".into(),
            None,
            &Caller::named("alice", None),
            now(),
        )
    }

    #[test]
    fn a_token_without_a_signature_or_of_another_kind_opens_nothing() {
        let key = SessionKey::new(&[7; 32]);
        let token = key.seal(&session());
        let payload = token.split('.').nth(1).unwrap();
        let unsigned = format!("eyJhbGciOiJub25lIn0.{payload}.");
        assert_eq!(key.open::<Session>(&unsigned), None);
        let other = Other {
            sub: "x",
            exp: u64::MAX,
        };
        let header = Header::new(Algorithm::HS256);
        let other = jsonwebtoken::encode(&header, &other, &key.encoding).unwrap();
        assert_eq!(key.open::<Session>(&other), None);
    }
}
