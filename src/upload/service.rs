//! The service: finds the policy of a request, checks it, and has the policy's bucket sign.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use jsonwebtoken::jwk::JwkSet;
use time::OffsetDateTime;
use uuid::Uuid;

use super::checksum::Checksum;
use super::policy::{DEFAULT_POLICY, Policies, Policy, Terms};
use super::verify::HeadLimit;
use super::{
    Caller, Error, Field, File, Grant, Invalid, ObjectKey, PostGrant, Receipts, Refusal,
    SessionKey, Settings, SingleGrant, UploadKind,
};
use crate::s3;
use crate::telemetry::Metrics;

/// Grants uploads to the buckets of its policies, and follows them there.
#[derive(Debug)]
pub struct UploadService {
    /// Among them are the buckets of all policies.
    pub(super) buckets: s3::Buckets,
    pub(super) policies: ArcSwap<Policies>,
    supports_post: bool,
    forms_only: bool,
    pub(super) session_key: SessionKey,
    pub(super) metrics: Metrics,
    pub(super) heads: HeadLimit,
    /// Signs receipts of verified uploads, if there is a key.
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
            policies: ArcSwap::from_pointee(settings.policies),
            supports_post: settings.supports_post,
            forms_only: settings.forms_only,
            session_key: settings.session_key,
            metrics,
            heads: HeadLimit::default(),
            receipts: None,
        }
    }

    /// The same service, which signs a receipt for each upload that it verifies.
    #[must_use]
    pub fn with_receipts(self, receipts: Option<Receipts>) -> Self {
        Self { receipts, ..self }
    }

    /// The public keys that check receipts.
    pub fn receipt_keys(&self) -> Option<&JwkSet> {
        self.receipts.as_ref().map(Receipts::public_keys)
    }

    /// A grant to PUT `file`, once or more until it expires, under a key that `id` makes unique.
    pub async fn presign_put(
        &self,
        caller: &Caller,
        file: &File,
        id: Uuid,
        now: SystemTime,
    ) -> Result<Grant, Error> {
        let grant = async {
            let policy = self.checked(caller, file, UploadKind::Put)?;
            self.sign_put(caller, &policy, file, id, now).await
        }
        .await;
        let files = std::slice::from_ref(file);
        self.counted(caller, UploadKind::Put, files, grant)
    }

    /// A grant for each of `files`, in their order, or for none of them.
    pub async fn presign_puts(
        &self,
        caller: &Caller,
        files: &[File],
        mut new_id: impl FnMut() -> Uuid,
        now: SystemTime,
    ) -> Result<Vec<Grant>, Error> {
        let grants = async {
            let policies = self.all_checked(caller, files, UploadKind::Put)?;
            let mut grants = Vec::with_capacity(files.len());
            for (file, policy) in files.iter().zip(policies) {
                grants.push(self.sign_put(caller, &policy, file, new_id(), now).await?);
                // Signing never waits, so a long list would keep this thread from other requests.
                tokio::task::consume_budget().await;
            }
            Ok(grants)
        }
        .await;
        self.counted(caller, UploadKind::Put, files, grants)
    }

    /// A grant to upload `file` with a form.
    pub async fn presign_post(
        &self,
        caller: &Caller,
        file: &File,
        id: Uuid,
        now: SystemTime,
    ) -> Result<PostGrant, Error> {
        let grant = async {
            if !self.supports_post {
                return Err(Error::PostNotSupported);
            }
            let policy = self.checked(caller, file, UploadKind::Post)?;
            if !policy.overwrite {
                return Err(Error::PostCannotKeepPolicy);
            }
            self.sign_post(caller, &policy, file, id, now).await
        }
        .await;
        let files = std::slice::from_ref(file);
        self.counted(caller, UploadKind::Post, files, grant)
    }

    /// A grant to upload `file` with one request: with a form, which binds a range of sizes, if the store
    /// accepts forms and one can keep the policy; otherwise with a PUT.
    pub async fn presign_single(
        &self,
        caller: &Caller,
        file: &File,
        id: Uuid,
        now: SystemTime,
    ) -> Result<SingleGrant, Error> {
        let terms = self.policies.load().terms(file.policy.as_deref(), caller);
        if self.supports_post && terms.is_ok_and(|terms| terms.overwrite) {
            let form = self.presign_post(caller, file, id, now).await?;
            return Ok(SingleGrant::Form(form));
        }
        let put = self.presign_put(caller, file, id, now).await?;
        Ok(SingleGrant::Put(put))
    }

    /// The names of all policies, in order.
    pub fn policies(&self) -> Vec<String> {
        self.policies.load().names()
    }

    /// Whether the policy of this name lets clients set the metadata of this name.
    pub fn allows_metadata(&self, caller: &Caller, policy: Option<&str>, name: &str) -> bool {
        let policy = self.policies.load().terms(policy, caller);
        policy.is_ok_and(|policy| policy.allows_metadata(name))
    }

    /// The policy of `file`, if it allows the upload.
    pub(super) fn checked(
        &self,
        caller: &Caller,
        file: &File,
        kind: UploadKind,
    ) -> Result<Terms, Error> {
        if kind != UploadKind::Post {
            self.refuse_if_forms_only()?;
        }
        let policy = self.policies.load().terms(file.policy.as_deref(), caller)?;
        let refusals = policy.check(file, kind);
        if refusals.is_empty() {
            Ok(policy)
        } else {
            Err(Error::Refused(refusals))
        }
    }

    /// Refuses whatever is no form where only forms are granted.
    pub(super) fn refuse_if_forms_only(&self) -> Result<(), Error> {
        if self.forms_only {
            return Err(Error::FormsOnly);
        }
        Ok(())
    }

    /// The policy of each file, or all reasons why any of them is refused.
    pub(super) fn all_checked(
        &self,
        caller: &Caller,
        files: &[File],
        kind: UploadKind,
    ) -> Result<Vec<Terms>, Error> {
        let mut policies = Vec::with_capacity(files.len());
        let mut refused = Vec::new();
        for (index, file) in files.iter().enumerate() {
            match self.checked(caller, file, kind) {
                Ok(policy) => policies.push(policy),
                Err(Error::Refused(refusals)) => {
                    let refusals = refusals.into_iter();
                    refused.extend(refusals.map(|it| Refusal { file: index, ..it }));
                }
                Err(Error::PolicyNotAllowed { .. }) => {
                    return Err(Error::PolicyNotAllowed { file: index });
                }
                Err(error) => return Err(error),
            }
        }
        if !refused.is_empty() {
            return Err(Error::Refused(refused));
        }
        Ok(policies)
    }

    async fn sign_put(
        &self,
        caller: &Caller,
        policy: &Terms,
        file: &File,
        id: Uuid,
        now: SystemTime,
    ) -> Result<Grant, Error> {
        let key = policy.key.key(caller, &file.filename, id, day(now));
        let properties = ComputedProperties::new(policy, file);
        let put = s3::Put {
            object: properties.object(policy, file, &key),
            size: file.size,
            if_none_match: !policy.overwrite,
            content_md5: file.content_md5.as_ref().map(Checksum::as_base64),
        };
        let request = self
            .bucket(policy)
            .presign_put(&put, policy.expires_in, now)
            .await?;
        Ok(Grant { key, request })
    }

    async fn sign_post(
        &self,
        caller: &Caller,
        policy: &Terms,
        file: &File,
        id: Uuid,
        now: SystemTime,
    ) -> Result<PostGrant, Error> {
        let key = policy.key.key(caller, &file.filename, id, day(now));
        let refusals = replaced_in_forms(file, &key);
        if !refusals.is_empty() {
            return Err(Error::Refused(refusals));
        }
        let properties = ComputedProperties::new(policy, file);
        let post = s3::Post {
            object: properties.object(policy, file, &key),
            size: match file.size {
                Some(size) => size..=size,
                None => 0..=policy.max_size().min(s3::MAX_PUT_BYTES),
            },
        };
        let form = self
            .bucket(policy)
            .presign_post(&post, policy.expires_in, now)
            .await?;
        let max_size = *post.size.end();
        Ok(PostGrant {
            key,
            max_size,
            form,
        })
    }

    /// Counts a request for grants for `files`.
    pub(super) fn counted<T>(
        &self,
        caller: &Caller,
        kind: UploadKind,
        files: &[File],
        result: Result<T, Error>,
    ) -> Result<T, Error> {
        let outcome = match &result {
            Ok(_) => "granted",
            Err(error) if error.is_refusal() => "refused",
            Err(_) => "failed",
        };
        for same_policy in files.chunk_by(|a, b| a.policy == b.policy) {
            let policy = caller.policy_name(same_policy[0].policy.as_deref());
            self.count(Some(policy), kind.name(), outcome, same_policy.len());
        }
        result
    }

    /// Counts files under the policy that a request names. Clients can invent names, so all policies
    /// that are not configured share one label.
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
    pub(super) async fn measured<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, s3::Error>>,
    ) -> Result<T, Error> {
        let begin = Instant::now();
        let result = call.await;
        let outcome = match &result {
            Ok(_) => Some("ok"),
            Err(s3::Error::Store(error)) => Some(error.kind()),
            // The store was not called.
            Err(_) => None,
        };
        if let Some(outcome) = outcome {
            let took = begin.elapsed();
            self.metrics.storage_call(operation, outcome, took);
        }
        Ok(result?)
    }
}

/// Properties that are computed for each file and must outlive the [`s3::Object`] that borrows them.
pub(super) struct ComputedProperties {
    content_disposition: Option<String>,
    metadata: Vec<(String, String)>,
}

impl ComputedProperties {
    pub(super) fn new(policy: &Terms, file: &File) -> Self {
        Self {
            content_disposition: policy.content_disposition(file),
            metadata: policy.metadata_with(&file.metadata),
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

/// S3 replaces this with the name of the file that is sent,
/// [in any field of a form](https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTForms.html).
pub(super) const REPLACED_IN_FORMS: &str = "${filename}";

/// The parts of `file` that a form cannot carry. A template can produce the variable from a name that
/// does not contain it.
fn replaced_in_forms(file: &File, key: &ObjectKey) -> Vec<Refusal> {
    let texts = [
        (Field::Filename, file.filename.as_str()),
        (Field::Filename, key.as_str()),
        (Field::ContentType, file.content_type.as_str()),
    ];
    let metadata = file.metadata.iter();
    texts
        .into_iter()
        .chain(metadata.map(|(name, value)| (Field::MetadataOf(name.clone()), value.as_str())))
        .filter(|(_, text)| text.contains(REPLACED_IN_FORMS))
        .map(|(field, _)| {
            let detail = "must not contain `${filename}`, which has a meaning of its own in a form";
            Refusal::new(field, Invalid::new("reserved", detail))
        })
        .collect()
}

pub(super) fn day(now: SystemTime) -> time::Date {
    OffsetDateTime::from(now).date()
}
