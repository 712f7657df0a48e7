//! What of the work of a service is counted and measured.

use std::sync::Arc;
use std::time::Instant;

use super::policy::DEFAULT_POLICY;
use super::{Error, File, Request, UploadService};
use crate::s3;

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
            let policy = self.label_of(of_one_policy[0].policy.as_deref());
            let files = u64::try_from(of_one_policy.len()).unwrap_or(u64::MAX);
            self.metrics.grants(policy, request.kind(), outcome, files);
        }
        result
    }

    /// The label of the policy that a request selects. Clients can invent names, so that all
    /// policies that are not configured share one.
    pub(super) fn label_of(&self, policy: Option<&str>) -> Arc<str> {
        let name = policy.unwrap_or(DEFAULT_POLICY);
        let known = self
            .settings
            .policies
            .names()
            .find(|known| ***known == *name);
        known.map_or_else(|| "<unknown>".into(), Arc::clone)
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
