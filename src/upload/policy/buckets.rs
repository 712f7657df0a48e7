//! The buckets that policies name.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Policies;
use crate::s3;

impl Policies {
    /// The buckets that policies name; `None` is the default one.
    pub fn buckets(&self) -> BTreeSet<Option<&str>> {
        let policies = self.0.values();
        policies.map(|policy| policy.bucket.as_deref()).collect()
    }

    /// Policies that name this bucket become the same as those that name none.
    #[must_use]
    pub fn with_default_bucket(mut self, name: &str) -> Self {
        for policy in self.0.values_mut() {
            if policy.bucket.as_deref() == Some(name) {
                Arc::make_mut(policy).bucket = None;
            }
        }
        self
    }

    /// # Errors
    ///
    /// A policy names a bucket that is not one of `buckets`.
    pub(in crate::upload) fn check_buckets(&self, buckets: &s3::Buckets) -> Result<(), String> {
        for (name, policy) in &self.0 {
            if let Some(bucket) = &policy.bucket
                && buckets.get(Some(bucket)).is_none()
            {
                return Err(format!(
                    "policies.{name}.bucket is {bucket}, which no policy named at the start; restart the service"
                ));
            }
        }
        Ok(())
    }
}
