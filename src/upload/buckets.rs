//! The buckets of the service: each policy has one, and all of them must exist.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;

use super::policy::{Policies, Policy};
use super::{Error, Result, UploadService};
use crate::s3::{self, ProbeAnswer};

impl UploadService {
    /// Replaces the policies for all requests from now on. Returns those whose earlier uploads may not
    /// be found any more, and why.
    ///
    /// # Errors
    ///
    /// One of them names a bucket that the service does not know. Then the policies stay as they
    /// are.
    pub fn replace_policies(
        &self,
        policies: Policies,
    ) -> Result<Vec<(String, &'static str)>, String> {
        policies.check_buckets(&self.buckets)?;
        let replaced = self.policies.swap(Arc::new(policies));
        Ok(replaced.moved_in(&self.policies.load()))
    }

    /// The bucket that the keys of this policy are in.
    pub(super) fn bucket(&self, policy: &Policy) -> &s3::Bucket {
        self.buckets
            .get(policy.bucket.as_deref())
            .expect("the buckets of all policies are known")
    }

    /// The buckets of policies to which no uploads can be granted, and why: there are no credentials,
    /// or the store does not answer for the bucket.
    pub async fn probe(&self) -> Vec<(String, Error)> {
        let policies = self.policies.load_full();
        let buckets = policies.buckets();
        let buckets = buckets.iter().filter_map(|name| self.buckets.get(*name));
        let probes = buckets.map(|bucket| async move {
            let result_of = |answer: &ProbeAnswer| match answer {
                ProbeAnswer::Found => "ok",
                ProbeAnswer::Denied => "denied",
            };
            let probe = self.measured_as("HeadBucket", bucket.probe(&self.clock), result_of);
            let error = probe.await.err()?;
            Some((bucket.name().to_owned(), error))
        });
        let problems = join_all(probes).await.into_iter().flatten().collect();
        self.metrics.set_clock_ahead(self.clock.seconds_ahead());
        problems
    }

    /// The remaining lifetime of the cached credentials: [`s3::CredentialsCache::remaining_lifetime`].
    pub fn credentials_lifetime(&self, now: SystemTime) -> Option<Duration> {
        // All buckets have the same credentials.
        self.buckets.default_bucket().credentials_lifetime(now)
    }
}
