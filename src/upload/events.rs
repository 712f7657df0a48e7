//! Finds out which upload a new object of the store is, and whether its policy allows it.

use std::time::SystemTime;

use super::policy::Terms;
use super::verify::MAX_ROUNDS;
use super::{Caller, Expected, Result, UploadService, Verification};
use crate::s3::StoredObject;

/// The result for a key that the store reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Uploads go to other buckets.
    OtherBucket,
    /// No policy can have granted this key.
    UnknownKey,
    /// There is no object under this key: not yet, or not any more.
    Missing,
    /// The object was replaced again and again while it was verified. The store reports the last one, too.
    Replaced,
    Arrived(Box<Arrived>),
}

/// An object under a key that a policy can have granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// The name of the policy.
    pub policy: String,
    /// The caller that the key names.
    pub caller: Option<Caller>,
    pub object: StoredObject,
    /// The result of verifying the object, which exists.
    pub verification: Verification,
}

impl UploadService {
    /// The time by the store's clock, as far as it is known.
    pub fn time_at_store(&self) -> SystemTime {
        self.clock.time_at_store()
    }

    /// The object that has arrived under `key` in `bucket`.
    ///
    /// Several policies may be able to grant the same key. In the order of their names, the first
    /// that allows the object counts, and if none does, the first.
    ///
    /// # Errors
    ///
    /// The store fails.
    pub async fn arrival(&self, bucket: &str, key: &str) -> Result<Arrival> {
        let name = self.other_than_default(bucket);
        if self.buckets.get(name).is_none() {
            return Ok(Arrival::OtherBucket);
        }
        let policies = self.policies.load().for_key(name, key);
        if policies.is_empty() {
            return Ok(Arrival::UnknownKey);
        }
        for _ in 0..MAX_ROUNDS {
            let Some(arrived) = self.judged_by_first(&policies, key).await? else {
                return Ok(Arrival::Missing);
            };
            if arrived.verification != Verification::Replaced {
                return Ok(Arrival::Arrived(Box::new(arrived)));
            }
        }
        Ok(Arrival::Replaced)
    }

    /// Makes sure that the store itself says that there is no object under `key` in `bucket`. Returns the
    /// time at the store, if it is known.
    ///
    /// # Errors
    ///
    /// The store fails, something else answers in its place, or the object is there.
    pub async fn confirm_missing(&self, bucket: &str, key: &str) -> Result<Option<SystemTime>> {
        let Some(bucket) = self.buckets.get(self.other_than_default(bucket)) else {
            return Ok(None);
        };
        self.measured("GetObject", bucket.confirm_missing(key))
            .await
    }

    /// The name of a bucket, unless it is the default one.
    fn other_than_default<'a>(&self, bucket: &'a str) -> Option<&'a str> {
        (bucket != self.buckets.default_bucket().name()).then_some(bucket)
    }

    async fn judged_by_first(
        &self,
        policies: &[(Terms, Caller)],
        key: &str,
    ) -> Result<Option<Arrived>> {
        // All of these policies have the same bucket.
        let Some(object) = self.head(&policies[0].0, key).await? else {
            return Ok(None);
        };
        let expected = Expected::for_key(key);
        let mut first = None;
        for (terms, owner) in policies {
            let verification = self.judge(terms, owner, &expected, object.clone()).await?;
            if verification == Verification::NotUploaded {
                return Ok(None); // It was replaced or removed in between.
            }
            let is_last = matches!(
                verification,
                Verification::Uploaded(_) | Verification::Replaced
            );
            let arrived = Arrived {
                policy: terms.name.to_string(),
                caller: (!owner.is_anonymous()).then(|| owner.clone()),
                object: object.clone(),
                verification,
            };
            if is_last {
                return Ok(Some(arrived));
            }
            first.get_or_insert(arrived);
        }
        Ok(first)
    }
}
