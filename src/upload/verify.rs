//! Checks whether an upload has arrived and is what its policy allows: with a HEAD request, and under a
//! policy with `sniff` also with a GET of its first bytes. Both are repeated if the object was replaced
//! between them.
//!
//! The store is not asked about a key that the policy cannot have granted to the caller, and the
//! answer is that of a missing object. So nobody learns which objects others have.

mod differences;

use std::time::{Duration, Instant, SystemTime};

use futures_util::future::try_join_all;
use tokio::time::sleep;

use self::differences::differences;
use super::policy::Terms;
use super::sniff::HEAD_BYTES;
use super::{
    Caller, ContentType, Crc64NvmeChecksum, Error, Field, Refusal, Result, Sha256Checksum,
    UploadService,
};
use crate::s3::{FirstBytes, StoredObject};

/// The longest time to wait for uploads that are not there yet.
pub const MAX_WAIT: Duration = Duration::from_secs(20);
/// The most keys to wait for at once: each of them costs a HEAD request every few seconds.
pub const MAX_WAIT_KEYS: usize = 10;
/// How often an object is verified at most, if it is replaced in the meantime.
pub(super) const MAX_ROUNDS: usize = 5;

/// What the caller knows about an upload.
#[derive(Clone, Debug)]
pub struct Expected {
    pub key: String,
    /// In bytes.
    pub size: Option<u64>,
    pub checksum_sha256: Option<Sha256Checksum>,
    pub checksum_crc64nvme: Option<Crc64NvmeChecksum>,
}

impl Expected {
    /// An upload of which nothing but its key is known.
    pub fn for_key(key: &str) -> Self {
        Self {
            key: key.to_owned(),
            size: None,
            checksum_sha256: None,
            checksum_crc64nvme: None,
        }
    }
}

/// An upload that exists and is what its policy allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploaded {
    pub key: String,
    /// The object's type, which has a value even if the store reports none.
    pub content_type: ContentType,
    pub object: StoredObject,
    /// The name of the policy.
    pub policy: String,
    /// The signed statement of all this, if receipts are configured.
    pub receipt: Option<String>,
}

/// The result of verifying one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verification {
    Uploaded(Box<Uploaded>),
    /// There is no object yet, or the policy cannot have granted this key to the caller.
    NotUploaded,
    /// The object differs from what the policy allows or from what the caller expects, in all of
    /// these.
    Mismatch(Vec<Refusal>),
    /// Its first bytes contradict its type.
    ContentMismatch(Refusal),
    /// The object was replaced again and again while it was verified or committed.
    Replaced,
}

impl UploadService {
    /// Verifies the `expected` uploads under a policy, in their order. Repeats the requests for
    /// missing ones until `wait` is over.
    ///
    /// # Errors
    ///
    /// The caller may not use the policy, or the store fails or is too slow for any of them.
    pub async fn verify(
        &self,
        caller: &Caller,
        policy: Option<&str>,
        expected: &[Expected],
        wait: Duration,
    ) -> Result<Vec<Verification>> {
        let terms = &self.policies.load().terms(policy, caller)?;
        self.verify_under(terms, caller, expected, wait).await
    }

    pub(super) async fn verify_under(
        &self,
        terms: &Terms,
        caller: &Caller,
        expected: &[Expected],
        wait: Duration,
    ) -> Result<Vec<Verification>> {
        let _list = self.store_calls.list(caller, expected.len()).await?;
        let verify = |expected| self.verify_one(terms, caller, expected);
        each(terms, caller, expected, wait, verify).await
    }

    pub(super) async fn verify_one(
        &self,
        terms: &Terms,
        caller: &Caller,
        expected: &Expected,
    ) -> Result<Verification> {
        let _turn = self.store_calls.turn(caller).await?;
        for _ in 0..MAX_ROUNDS {
            let Some(object) = self.head(terms, &expected.key).await? else {
                return Ok(Verification::NotUploaded);
            };
            let verification = self.judge(terms, caller, expected, object).await?;
            if verification != Verification::Replaced {
                return Ok(verification);
            }
        }
        Ok(Verification::Replaced)
    }

    pub(super) async fn head(&self, terms: &Terms, key: &str) -> Result<Option<StoredObject>> {
        // Boxed, so that the hundreds of keys that wait for a permit take little memory.
        let head = Box::pin(self.bucket(terms).head(key));
        self.measured("HeadObject", head).await
    }

    /// Compares an object with what its policy allows and with what is expected of it. The result is
    /// [`Verification::Replaced`] if another object is in its place by now.
    pub(super) async fn judge(
        &self,
        terms: &Terms,
        caller: &Caller,
        expected: &Expected,
        object: StoredObject,
    ) -> Result<Verification> {
        let key = &expected.key;
        let content_type = ContentType::parse(object.content_type());
        let refusals = differences(terms, expected, &object, &content_type);
        let (true, Ok(content_type)) = (refusals.is_empty(), content_type) else {
            return Ok(Verification::Mismatch(refusals));
        };
        if terms.sniff {
            // An empty file has no range.
            let head = if object.size == 0 {
                FirstBytes::Read(Vec::new())
            } else {
                let etag = &object.etag;
                let bucket = self.bucket(terms);
                let head = Box::pin(bucket.first_bytes(key, etag, HEAD_BYTES));
                self.measured("GetObject", head).await?
            };
            let head = match head {
                FirstBytes::Read(head) => head,
                FirstBytes::Gone => return Ok(Verification::NotUploaded),
                FirstBytes::Replaced => return Ok(Verification::Replaced),
            };
            if let Err(invalid) = content_type.check(&head) {
                let refusal = Refusal::new(Field::ContentType, invalid);
                return Ok(Verification::ContentMismatch(refusal));
            }
        }
        let mut upload = Uploaded {
            key: key.clone(),
            content_type,
            object,
            policy: terms.name.to_string(),
            receipt: None,
        };
        if let Some(receipts) = &self.receipts {
            let bucket = self.bucket(terms).name();
            // A key without `{caller}` does not prove who uploaded, because everyone who knows it can
            // verify it. So the receipt names nobody.
            let caller = terms.key.has_caller().then_some(caller);
            upload.receipt = receipts.sign(&upload, bucket, caller, SystemTime::now());
        }
        Ok(Verification::Uploaded(upload.into()))
    }
}

/// Calls `one` for each of the `expected` uploads, in their order, and repeats it for missing ones
/// until `wait` is over. Keys that the policy cannot have granted to the caller count as missing.
pub(super) async fn each<'a, F>(
    terms: &Terms,
    caller: &Caller,
    expected: &'a [Expected],
    wait: Duration,
    one: impl Fn(&'a Expected) -> F,
) -> Result<Vec<Verification>>
where
    F: Future<Output = Result<Verification>>,
{
    let begin = Instant::now();
    let mut found = vec![Verification::NotUploaded; expected.len()];
    let mut missing: Vec<usize> = (0..expected.len())
        .filter(|&i| terms.key.could_have_made(caller, &expected[i].key))
        .collect();
    for round in 0.. {
        let all = missing.iter().map(|&i| one(&expected[i]));
        let verified = match try_join_all(all).await {
            // The results of the last round are still a valid answer.
            Err(Error::TooMuchAtOnce) if round > 0 => break,
            verified => verified?,
        };
        for (&i, verification) in missing.iter().zip(verified) {
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
}

/// The pause after the first HEAD request, the second, and so on: 250 ms, then twice as long each
/// time, up to four seconds.
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
