//! The service: finds the policy of a request, checks it, and has the policy's bucket sign.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use jsonwebtoken::jwk::JwkSet;
use time::OffsetDateTime;
use uuid::Uuid;

use super::checksum::Checksum;
use super::commit::Commits;
use super::metadata::{self, Metadata, check_metadata};
use super::policy::{DEFAULT_POLICY, Policies, Policy, Terms};
use super::store_calls::StoreCalls;
use super::{
    Caller, Error, Field, File, ObjectKey, Receipts, Result, SessionKey, Settings, UploadKind,
};
use crate::s3;
use crate::telemetry::Metrics;

/// Grants uploads to the buckets of its policies, and verifies, completes and deletes them there.
#[derive(Debug)]
pub struct UploadService {
    /// They include the buckets of all policies.
    pub(super) buckets: s3::Buckets,
    pub(super) clock: s3::ClockDifference,
    pub(super) policies: ArcSwap<Policies>,
    pub(super) supports_post: bool,
    pub(super) forms_only: bool,
    pub(super) session_key: SessionKey,
    pub(super) metrics: Metrics,
    pub(super) store_calls: StoreCalls,
    pub(super) commits: Commits,
    pub(super) receipts: Option<Receipts>,
}

impl UploadService {
    /// Grants and calls to the store are counted in `metrics`.
    ///
    /// # Panics
    ///
    /// If a policy names a bucket that is not one of `buckets`.
    pub fn new(buckets: impl Into<s3::Buckets>, settings: Settings, metrics: Metrics) -> Self {
        let buckets = buckets.into();
        if let Err(error) = settings.policies.check_buckets(&buckets) {
            panic!("{error}");
        }
        Self {
            buckets,
            clock: s3::ClockDifference::default(),
            policies: ArcSwap::from_pointee(settings.policies),
            supports_post: settings.supports_post,
            forms_only: settings.forms_only,
            session_key: settings.session_key.unwrap_or_else(SessionKey::random),
            metrics,
            store_calls: StoreCalls::default(),
            commits: Commits::default(),
            receipts: settings.receipts,
        }
    }

    /// The public keys that check receipts.
    pub fn receipt_keys(&self) -> Option<&JwkSet> {
        self.receipts.as_ref().map(Receipts::public_keys)
    }

    /// The names of all policies, in order.
    pub fn policy_names(&self) -> Vec<String> {
        self.policies.load().names()
    }

    /// Metadata as upload clients send it, without what the policy does not let them set: some send it unasked.
    ///
    /// # Errors
    ///
    /// The metadata is larger than the metadata of an object may be.
    pub fn allowed_metadata(
        &self,
        caller: &Caller,
        policy: Option<&str>,
        metadata: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Metadata> {
        let Ok(terms) = self.policies.load().terms(policy, caller) else {
            // The upload is refused because of its policy.
            return Ok(Metadata::new());
        };
        let is_allowed = |name: &str, value: &str| {
            check_metadata(name, value).is_ok() && terms.allows_metadata(name)
        };
        let metadata: Metadata = metadata
            .into_iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .filter(|(name, value)| is_allowed(name, value))
            .collect();
        metadata::check_size(&metadata)
            .map_err(|invalid| Error::refused(Field::Metadata, invalid))?;
        Ok(metadata)
    }

    /// The terms of `file`, if they allow its upload in this way.
    pub(super) fn checked(&self, caller: &Caller, file: &File, kind: UploadKind) -> Result<Terms> {
        let terms = self.policies.load().terms(file.policy.as_deref(), caller)?;
        self.allowed(terms, file, kind)
    }

    /// The same terms, if they allow the upload of `file` in this way.
    pub(super) fn allowed(&self, terms: Terms, file: &File, kind: UploadKind) -> Result<Terms> {
        if kind != UploadKind::Post {
            self.refuse_if_forms_only()?;
        }
        let refusals = terms.check(file, kind);
        if refusals.is_empty() {
            Ok(terms)
        } else {
            Err(Error::Refused(refusals))
        }
    }

    /// Refuses everything but forms if only forms are granted.
    pub(super) fn refuse_if_forms_only(&self) -> Result<()> {
        if self.forms_only {
            return Err(Error::FormsOnly);
        }
        Ok(())
    }

    /// Counts a request for grants of these kinds. A PUT in the place of a form counts as a form.
    pub(super) fn counted<T>(
        &self,
        caller: &Caller,
        files: &[(&File, UploadKind)],
        result: Result<T>,
    ) -> Result<T> {
        let outcome = match &result {
            Ok(_) => "granted",
            Err(error) if error.is_refusal() => "refused",
            Err(_) => "failed",
        };
        for same in files.chunk_by(|(a, kind), (b, other)| a.policy == b.policy && kind == other) {
            let (file, kind) = same[0];
            let policy = caller.policy_name(file.policy.as_deref());
            self.count(Some(policy), kind.name(), outcome, same.len());
        }
        result
    }

    /// Counts files under the policy that a request names. Clients can invent names, so all
    /// policies that are not configured share one label.
    pub(super) fn count(
        &self,
        policy: Option<&str>,
        kind: &'static str,
        outcome: &'static str,
        files: usize,
    ) {
        let name = policy.unwrap_or(DEFAULT_POLICY);
        let known = self.policies.load().name(name).map(Arc::clone);
        let policy = known.unwrap_or_else(|| "<unknown>".into());
        let files = u64::try_from(files).unwrap_or(u64::MAX);
        self.metrics.grants(policy, kind, outcome, files);
    }

    /// Measures a call to the store.
    // This is not an `async fn`, because that would double the size of the future.
    pub(super) fn measured<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, s3::Error>>,
    ) -> impl Future<Output = Result<T>> {
        self.measured_as(operation, call, |_| "ok")
    }

    /// Measures a call to the store whose answers count under different results.
    pub(super) async fn measured_as<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, s3::Error>>,
        result_of: impl FnOnce(&T) -> &'static str,
    ) -> Result<T> {
        let mut measurement = Measurement {
            metrics: &self.metrics,
            operation,
            begin: Instant::now(),
            result: Some("cancelled"),
        };
        let result = call.await;
        measurement.result = match &result {
            Ok(answer) => Some(result_of(answer)),
            Err(s3::Error::Store(error)) => Some(error.kind()),
            // The store was not called.
            Err(_) => None,
        };
        Ok(result?)
    }
}

/// A call to the store, which counts when this is dropped: also if nobody waits for its answer any more,
/// because a client has disconnected.
struct Measurement<'a> {
    metrics: &'a Metrics,
    operation: &'static str,
    begin: Instant,
    result: Option<&'static str>,
}

impl Drop for Measurement<'_> {
    fn drop(&mut self) {
        if let Some(result) = self.result {
            let took = self.begin.elapsed();
            self.metrics.storage_call(self.operation, result, took);
        }
    }
}

/// Properties that are computed for each file and must outlive the [`s3::Object`] that borrows
/// them.
pub(super) struct ComputedProperties {
    content_disposition: Option<String>,
    metadata: Vec<(String, String)>,
}

impl ComputedProperties {
    pub(super) fn new(terms: &Terms, file: &File) -> Self {
        Self {
            content_disposition: terms.content_disposition(file),
            metadata: terms.metadata_with(&file.metadata),
        }
    }

    pub(super) fn object<'a>(
        &'a self,
        policy: &'a Policy,
        file: &'a File,
        key: &'a ObjectKey,
    ) -> s3::Object<'a> {
        s3::Object {
            key: key.as_str(),
            content_type: file.content_type.as_str(),
            content_disposition: self.content_disposition.as_deref(),
            cache_control: policy.cache_control.as_deref(),
            storage_class: policy.storage_class.clone(),
            server_side_encryption: policy.server_side_encryption.clone(),
            kms_key_id: policy.kms_key_id.as_deref(),
            acl: policy.acl.clone(),
            tagging: &policy.tagging,
            metadata: &self.metadata,
            checksum_sha256: file.checksum_sha256.as_ref().map(Checksum::as_base64),
            checksum_crc64nvme: file.checksum_crc64nvme.as_ref().map(Checksum::as_base64),
        }
    }
}

/// A file that a caller asks to upload, at this time. The id stands for `{uuid}` in its key.
#[derive(Clone, Copy, Debug)]
pub struct GrantRequest<'a> {
    pub caller: &'a Caller,
    pub file: &'a File,
    pub id: Uuid,
    pub now: SystemTime,
}

impl<'a> GrantRequest<'a> {
    /// With a new id.
    pub fn new(caller: &'a Caller, file: &'a File, now: SystemTime) -> Self {
        Self {
            caller,
            file,
            id: Uuid::new_v4(),
            now,
        }
    }

    pub(super) fn key(&self, terms: &Terms) -> ObjectKey {
        let day = OffsetDateTime::from(self.now).date();
        terms
            .key
            .key(self.caller, &self.file.filename, self.id, day)
    }
}
