//! Did an upload arrive, and is it what its policy allows? One look at the store answers it.
//!
//! Only of keys that the policy could have granted to the caller anything is said; the store is not even
//! asked about others. So nobody learns which objects others have.

use std::time::{Duration, Instant, SystemTime};

use futures_util::future::try_join_all;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::policy::{DEFAULT_POLICY, Policy, check_size};
use super::sniff::HEAD_BYTES;
use super::{
    Caller, ContentType, Error, Field, Invalid, Metadata, Refusal, Sha256Checksum, UploadService,
};
use crate::s3::{self, StoreError, StoredObject};

/// The longest time to wait for uploads that are not there yet.
pub const MAX_WAIT: Duration = Duration::from_secs(20);

/// What a store tells of an object without a type, as in [RFC 9110 §8.3](https://www.rfc-editor.org/rfc/rfc9110#section-8.3).
const UNTYPED: &str = "application/octet-stream";

/// What the caller says of an upload.
#[derive(Clone, Debug)]
pub struct Expected {
    pub key: String,
    /// In bytes.
    pub size: Option<u64>,
    pub checksum_sha256: Option<Sha256Checksum>,
}

/// An upload that is there and what its policy allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploaded {
    pub key: String,
    /// In bytes.
    pub size: u64,
    pub content_type: String,
    pub etag: String,
    pub last_modified: SystemTime,
    /// Of the whole file, if the store keeps one.
    pub checksum_sha256: Option<String>,
    pub metadata: Metadata,
    /// The name of the policy.
    pub policy: String,
}

/// What there is to say of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verification {
    Uploaded(Uploaded),
    /// There is nothing, or not yet; or it is no key that the policy could have granted to the caller.
    NotUploaded,
    /// It is there, but differs from what the policy allows or from what the caller says: all that does.
    Mismatch(Vec<Refusal>),
    /// Its first bytes are not what its type says.
    ContentMismatch(Refusal),
}

/// Lets so many looks go on at once, of all requests: each holds a connection to the store.
#[derive(Debug)]
pub(super) struct Looks(Semaphore);

impl Default for Looks {
    fn default() -> Self {
        Self(Semaphore::new(64))
    }
}

impl UploadService {
    /// Looks for `expected` uploads under a policy, in their order, and once more every few moments for
    /// those that are not there, up to `wait`.
    ///
    /// # Errors
    ///
    /// If the policy is not to be used, or the store fails or is too slow, for even one of them.
    pub async fn verify(
        &self,
        caller: &Caller,
        policy: Option<&str>,
        expected: &[Expected],
        wait: Duration,
        now: SystemTime,
    ) -> Result<Vec<Verification>, Error> {
        let name = policy.unwrap_or(DEFAULT_POLICY);
        let policy = self.settings.policies.get(policy, caller)?;
        let begin = Instant::now();
        let looks = async {
            let mut found = vec![Verification::NotUploaded; expected.len()];
            let mut missing: Vec<usize> = (0..expected.len())
                .filter(|&i| policy.key.could_have_made(caller, &expected[i].key))
                .collect();
            for round in 0.. {
                let now = now + begin.elapsed();
                let looks = missing
                    .iter()
                    .map(|&i| self.look(name, policy, &expected[i], now));
                for (&i, verification) in missing.iter().zip(try_join_all(looks).await?) {
                    found[i] = verification;
                }
                missing.retain(|&i| found[i] == Verification::NotUploaded);
                let left = wait.saturating_sub(begin.elapsed());
                if missing.is_empty() || left.is_zero() {
                    break;
                }
                sleep(pause(round).min(left)).await;
            }
            Ok(found)
        };
        // In a queue of many, before a slow store, each single look would be in time.
        let limit = wait + s3::CALL_TIMEOUT;
        timeout(limit, looks).await.unwrap_or_else(|_| {
            let cause = format!("not all looks ended within {limit:?}");
            Err(Error::Store(StoreError::TimedOut(cause)))
        })
    }

    async fn look(
        &self,
        policy_name: &str,
        policy: &Policy,
        expected: &Expected,
        now: SystemTime,
    ) -> Result<Verification, Error> {
        // It fails only when it was closed, which nobody does.
        let _turn = self.looks.0.acquire().await.ok();
        let key = &expected.key;
        let begin = Instant::now();
        let answer = self.bucket.head(key, now).await;
        let Some(object) = self.measured("HeadObject", begin, answer)? else {
            return Ok(Verification::NotUploaded);
        };
        let content_type = object.content_type.as_deref().unwrap_or(UNTYPED);
        let content_type = ContentType::parse(content_type);
        let refusals = differences(policy, expected, &object, &content_type);
        let (true, Ok(content_type)) = (refusals.is_empty(), content_type) else {
            return Ok(Verification::Mismatch(refusals));
        };
        if policy.sniff {
            // Of an empty file there is no range.
            let head = if object.size == 0 {
                Some(Vec::new())
            } else {
                let (etag, begin) = (&object.etag, Instant::now());
                let answer = self.bucket.first_bytes(key, etag, HEAD_BYTES, now).await;
                self.measured("GetObject", begin, answer)?
            };
            let Some(head) = head else {
                return Ok(Verification::NotUploaded);
            };
            if let Err(invalid) = content_type.check(&head) {
                let refusal = Refusal::new(Field::ContentType, invalid);
                return Ok(Verification::ContentMismatch(refusal));
            }
        }
        Ok(Verification::Uploaded(Uploaded {
            key: key.clone(),
            size: object.size,
            content_type: content_type.as_str().to_owned(),
            etag: object.etag,
            last_modified: object.last_modified,
            checksum_sha256: object.checksum_sha256,
            metadata: object.metadata,
            policy: policy_name.to_owned(),
        }))
    }
}

/// All that speaks against an object.
fn differences(
    policy: &Policy,
    expected: &Expected,
    object: &StoredObject,
    content_type: &Result<ContentType, Invalid>,
) -> Vec<Refusal> {
    let content_type = match content_type {
        Ok(content_type) => policy.check_type(content_type),
        Err(invalid) => Err(invalid.clone()),
    };
    let size = check_size(object.size, policy.max_size).and_then(|()| match expected.size {
        Some(size) if size != object.size => {
            let detail = format!("must be {size} bytes; it is {}", object.size);
            Err(Invalid::new("size-differs", detail))
        }
        _ => Ok(()),
    });
    let checksum = match (&expected.checksum_sha256, &object.checksum_sha256) {
        (Some(expected), Some(stored)) if expected.as_base64() != stored => Err(Invalid::new(
            "checksum-differs",
            "is not that of the stored file",
        )),
        (Some(_), None) => Err(Invalid::new(
            "checksum-unknown",
            "cannot be compared: the store keeps no SHA-256 of the whole file",
        )),
        _ => Ok(()),
    };
    [
        (Field::ContentType, content_type),
        (Field::Size, size),
        (Field::ChecksumSha256, checksum),
    ]
    .into_iter()
    .filter_map(|(field, result)| Some(Refusal::new(field, result.err()?)))
    .collect()
}

/// How long to wait after the first look, the second, …: a quarter of a second, twice as long each time,
/// four seconds at most.
fn pause(round: u32) -> Duration {
    Duration::from_millis(250) * 2_u32.pow(round.min(4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_four_seconds() {
        let pauses = [0, 1, 2, 3, 4, 5, u32::MAX].map(|round| pause(round).as_millis());
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 4000, 4000]);
    }
}
