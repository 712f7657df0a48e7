//! A cache of verified tokens, so that a known token costs only a hash and a lookup.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::TokenHash;
use super::jwt::JwtKey;
use crate::upload::Caller;

/// The most memory that all cached tokens may use, in bytes.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// The memory of a token besides its caller's names and ticket: its cache entry and allocations.
const BYTES_OF_TOKEN: usize = 180;
/// The cache also remembers the hashes of as many dropped tokens as this says, which use memory, too.
const ESTIMATED_TOKENS: usize = 4096;

/// What a valid token says.
#[derive(Clone, Debug)]
pub(super) struct Verified {
    pub(super) caller: Caller,
    /// The key that has signed it.
    pub(super) key: Arc<JwtKey>,
    /// In seconds since 1970.
    pub(super) expires_at: u32,
    /// The time from which the token may be used in a path, in the same unit; `None` if never.
    pub(super) in_path_from: Option<u32>,
}

impl Verified {
    /// Whether the token may be used in a path at `now`.
    pub(super) fn fits_path(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.in_path_from
            .is_some_and(|from| now.as_secs() >= from.into())
    }
}

/// A bounded cache. Only verified tokens are added, so invalid ones cannot fill it.
pub(super) struct VerifiedTokens(Cache<Key, Verified, ByMemory>);

/// Half of a token's SHA-256, which is enough to identify it.
type Key = [u8; 16];

#[derive(Clone)]
struct ByMemory;

impl Weighter<Key, Verified> for ByMemory {
    fn weight(&self, _: &Key, token: &Verified) -> u64 {
        let bytes = BYTES_OF_TOKEN + token.caller.weight();
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

impl VerifiedTokens {
    pub(super) fn new() -> Self {
        Self(Cache::with_weighter(ESTIMATED_TOKENS, MAX_BYTES, ByMemory))
    }

    /// The token of this hash, unless it has expired at `now`.
    pub(super) fn get(&self, hash: &TokenHash, now: SystemTime) -> Option<Verified> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let verified = self.0.get(&key(hash))?;
        (now.as_secs() < verified.expires_at.into()).then_some(verified)
    }

    pub(super) fn insert(&self, hash: &TokenHash, verified: Verified) {
        self.0.insert(key(hash), verified);
    }

    pub(super) fn remove(&self, hash: &TokenHash) {
        self.0.remove(&key(hash));
    }
}

fn key(hash: &TokenHash) -> Key {
    let mut key = Key::default();
    key.copy_from_slice(&hash[..size_of::<Key>()]);
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::auth::hash;

    fn verified(name: &str, expires_at: u32) -> Verified {
        let secret = [7; 32];
        Verified {
            caller: Caller::named(name, None),
            key: Arc::new(JwtKey::from_secret(&secret).unwrap()),
            expires_at,
            in_path_from: None,
        }
    }

    #[test]
    fn a_flood_of_tokens_does_not_grow_the_cache_beyond_its_limit() {
        let tokens = VerifiedTokens::new();
        let token = verified("a caller of a usual length", 100);
        for n in 0..300_000 {
            tokens.insert(&hash(&n.to_string()), token.clone());
        }
        assert!(tokens.0.weight() <= MAX_BYTES);
        assert!(tokens.0.len() > 50_000, "{}", tokens.0.len());
    }
}
