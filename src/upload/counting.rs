//! What of the work of a service is counted and measured.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::policy::DEFAULT_POLICY;
use super::{Error, File, Policies, Request, UploadService};
use crate::s3;
use crate::telemetry::{Metrics, PolicyMetrics};

/// What is counted of the grants of each policy.
#[derive(Debug)]
pub(super) struct Grants {
    by_policy: BTreeMap<Arc<str>, PolicyMetrics>,
    /// For all policies that there are not: clients can make up names.
    unknown: PolicyMetrics,
}

impl Grants {
    pub(super) fn new(policies: &Policies, metrics: &Metrics) -> Self {
        let names = policies.names().cloned();
        Self {
            by_policy: names
                .map(|name| (Arc::clone(&name), metrics.of_policy(name)))
                .collect(),
            unknown: metrics.of_policy("<unknown>"),
        }
    }

    /// Those of the policy that a request means which names this one.
    pub(super) fn of(&self, policy: Option<&str>) -> &PolicyMetrics {
        let named = self.by_policy.get(policy.unwrap_or(DEFAULT_POLICY));
        named.unwrap_or(&self.unknown)
    }
}

impl UploadService {
    /// Counts what came of asking for grants for `files`.
    pub(super) fn counted<T>(
        &self,
        request: Request,
        files: &[File],
        result: Result<T, Error>,
    ) -> Result<T, Error> {
        let outcome = match &result {
            Ok(_) => "granted",
            Err(error) if error.is_refusal() => "refused",
            Err(_) => "failed",
        };
        for of_one_policy in files.chunk_by(|a, b| a.policy == b.policy) {
            let policy = self.grants.of(of_one_policy[0].policy.as_deref());
            let files = u64::try_from(of_one_policy.len()).unwrap_or(u64::MAX);
            policy.grants(request.kind(), outcome, files);
        }
        result
    }

    /// Measures a call to the store that was made at `begin`.
    pub(super) fn measured<T>(
        &self,
        operation: &'static str,
        begin: Instant,
        result: Result<T, s3::Error>,
    ) -> Result<T, Error> {
        let outcome = match &result {
            Ok(_) => Some("ok"),
            Err(s3::Error::Store(error)) => Some(error.kind()),
            // The store was not asked.
            Err(_) => None,
        };
        if let Some(outcome) = outcome {
            let took = begin.elapsed();
            self.metrics.storage_call(operation, outcome, took);
        }
        Ok(result?)
    }
}

impl Request {
    /// As metrics name it.
    fn kind(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Post => "post",
            Self::Multipart => "multipart",
        }
    }
}

impl Error {
    /// Whether it was the client who asked for what cannot be had, and nothing failed.
    fn is_refusal(&self) -> bool {
        match self {
            Self::Refused(_)
            | Self::PolicyNotAllowed { .. }
            | Self::PostNotSupported
            | Self::PostCannotKeepPolicy
            | Self::PostTooLarge
            | Self::NoSuchUpload => true,
            Self::NoCredentials(_) | Self::Signing(_) | Self::Sealing(_) | Self::Store(_) => false,
        }
    }
}
