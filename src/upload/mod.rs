//! What may be uploaded, and where to: checks a request against its policy and turns it into a
//! grant. Knows S3 only through [`crate::s3`], and nothing of HTTP servers.

mod caller;
mod checksum;
mod content_type;
mod counting;
mod filename;
mod key;
mod metadata;
mod multipart;
mod policy;
mod session;
mod sniff;
mod verify;

use std::borrow::Cow;
use std::time::{Duration, Instant, SystemTime};

use time::OffsetDateTime;
use uuid::Uuid;

pub use self::caller::Caller;
pub use self::checksum::Sha256Checksum;
pub use self::content_type::ContentType;
pub use self::filename::Filename;
pub use self::key::ObjectKey;
pub use self::metadata::{Metadata, check_metadata};
pub use self::multipart::{CompletedUpload, MultipartUpload};
use self::policy::Policy;
pub use self::policy::{Policies, PolicyError, Sample};
pub use self::session::{SealError, SessionKey};
pub use self::verify::{Expected, MAX_WAIT, Uploaded, Verification};
use crate::s3;
use crate::telemetry::Metrics;

/// Why a value was refused: `code` for programs, `detail` for people.
///
/// `detail` completes a sentence that begins with the name of the value: "must not be empty".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    pub code: &'static str,
    pub detail: Cow<'static, str>,
}

impl Invalid {
    pub fn new(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            detail: detail.into(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub policies: Policies,
    /// Whether the store takes presigned POST. R2 and B2 do not.
    pub supports_post: bool,
    /// Seals the sessions of multipart uploads.
    pub session_key: SessionKey,
}

/// The ways to upload, which differ in what they can bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    /// Binds one size or none.
    Put,
    /// Binds a range of sizes.
    Post,
    /// Binds no size; it is checked when the upload is completed.
    Multipart,
}

/// One file that a client asks to upload.
#[derive(Clone, Debug)]
pub struct File {
    pub filename: Filename,
    pub content_type: ContentType,
    /// In bytes.
    pub size: Option<u64>,
    pub checksum_sha256: Option<Sha256Checksum>,
    /// The name of the policy; the default one if there is none.
    pub policy: Option<String>,
    /// What the client wants to be kept with the object.
    pub metadata: Metadata,
}

/// A part of a [`File`] that a policy can refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    Filename,
    ContentType,
    Size,
    ChecksumSha256,
    Policy,
    Metadata,
    /// The metadata of this name.
    MetadataOf(String),
}

/// What a policy has against a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which file it is, of those that were asked for together.
    pub file: usize,
    pub field: Field,
    pub invalid: Invalid,
}

impl Refusal {
    fn new(field: Field, invalid: Invalid) -> Self {
        Self {
            file: 0,
            field,
            invalid,
        }
    }
}

/// Leave to upload one file with one PUT.
#[derive(Debug)]
pub struct Grant {
    pub key: ObjectKey,
    pub request: s3::PresignedRequest,
}

/// Leave to upload one file with a form.
#[derive(Debug)]
pub struct PostGrant {
    pub key: ObjectKey,
    /// In bytes.
    pub max_size: u64,
    pub form: s3::PresignedPost,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A policy refuses; all its reasons.
    #[error("refused by the policy")]
    Refused(Vec<Refusal>),
    /// The caller may not use the policy of this file, of those that were asked for together. Does not
    /// tell whether there is such a policy.
    #[error("the caller may not use the policy")]
    PolicyNotAllowed { file: usize },
    /// The store takes no forms.
    #[error("the store takes no presigned POST")]
    PostNotSupported,
    /// The policy forbids to overwrite, which a form cannot.
    #[error("a form cannot keep the policy")]
    PostCannotKeepPolicy,
    /// The fields of the form would be more than S3 takes: metadata, tags and a session token add up.
    #[error("the form is too large")]
    PostTooLarge,
    /// There is no multipart upload of this token and key. Does not tell whether there ever was.
    #[error("no such upload")]
    NoSuchUpload,
    /// There are no credentials to sign with at the moment.
    #[error("no credentials to sign with")]
    NoCredentials(#[source] s3::CredentialsError),
    /// The presigner refused what it should have taken: a defect, or an unusable endpoint.
    #[error("signing failed")]
    Signing(#[source] s3::PresignError),
    #[error(transparent)]
    Sealing(#[from] SealError),
    /// The store did not do its part.
    #[error(transparent)]
    Store(s3::StoreError),
}

/// Hands out grants for one bucket.
#[derive(Debug)]
pub struct UploadService {
    bucket: s3::Bucket,
    settings: Settings,
    metrics: Metrics,
    looks: verify::Looks,
}

impl UploadService {
    /// What it grants and asks the store is counted in `metrics`.
    pub fn new(bucket: s3::Bucket, settings: Settings, metrics: Metrics) -> Self {
        Self {
            bucket,
            settings,
            metrics,
            looks: verify::Looks::default(),
        }
    }

    /// Whether uploads can be granted at the moment: there are credentials, and the store answers.
    pub async fn probe(&self, now: SystemTime) -> Result<(), Error> {
        let begin = Instant::now();
        let answer = self.bucket.probe(now).await;
        self.measured("HeadBucket", begin, answer)
    }

    /// How long the credentials at hand live on: [`s3::CredentialsCache::life`].
    pub fn credentials_life(&self, now: SystemTime) -> Option<Duration> {
        self.bucket.credentials_life(now)
    }

    /// A grant to PUT `file`, once or more until it ends, under a key that `id` makes unique.
    pub async fn presign_put(
        &self,
        caller: &Caller,
        file: &File,
        id: Uuid,
        now: SystemTime,
    ) -> Result<Grant, Error> {
        let grant = match self.checked(caller, file, Request::Put) {
            Ok(policy) => self.sign_put(caller, policy, file, id, now).await,
            Err(error) => Err(error),
        };
        self.counted(Request::Put, std::slice::from_ref(file), grant)
    }

    /// A grant for each of `files`, in their order, or for none of them.
    pub async fn presign_puts(
        &self,
        caller: &Caller,
        files: &[File],
        new_id: impl FnMut() -> Uuid,
        now: SystemTime,
    ) -> Result<Vec<Grant>, Error> {
        let grants = self.sign_puts(caller, files, new_id, now).await;
        self.counted(Request::Put, files, grants)
    }

    async fn sign_puts(
        &self,
        caller: &Caller,
        files: &[File],
        mut new_id: impl FnMut() -> Uuid,
        now: SystemTime,
    ) -> Result<Vec<Grant>, Error> {
        let mut policies = Vec::with_capacity(files.len());
        let mut refused = Vec::new();
        for (index, file) in files.iter().enumerate() {
            match self.checked(caller, file, Request::Put) {
                Ok(policy) => policies.push(policy),
                Err(Error::Refused(refusals)) => {
                    refused.extend(refusals.into_iter().map(|refusal| Refusal {
                        file: index,
                        ..refusal
                    }));
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
        let mut grants = Vec::with_capacity(files.len());
        for (file, policy) in files.iter().zip(policies) {
            grants.push(self.sign_put(caller, policy, file, new_id(), now).await?);
            // Signing never waits, so that a long list would keep others from being served.
            tokio::task::consume_budget().await;
        }
        Ok(grants)
    }

    /// A grant to upload `file` with a form.
    pub async fn presign_post(
        &self,
        caller: &Caller,
        file: &File,
        id: Uuid,
        now: SystemTime,
    ) -> Result<PostGrant, Error> {
        let grant = self.sign_post(caller, file, id, now).await;
        self.counted(Request::Post, std::slice::from_ref(file), grant)
    }

    async fn sign_post(
        &self,
        caller: &Caller,
        file: &File,
        id: Uuid,
        now: SystemTime,
    ) -> Result<PostGrant, Error> {
        if !self.settings.supports_post {
            return Err(Error::PostNotSupported);
        }
        let policy = self.checked(caller, file, Request::Post)?;
        if !policy.overwrite {
            return Err(Error::PostCannotKeepPolicy);
        }
        let key = policy.key.key(caller, &file.filename, id, day(now));
        let refusals = replaced_in_forms(file, &key);
        if !refusals.is_empty() {
            return Err(Error::Refused(refusals));
        }
        let properties = Properties::new(policy, file);
        let post = s3::Post {
            object: properties.object(policy, file, &key),
            size: match file.size {
                Some(size) => size..=size,
                None => 0..=policy.max_size.min(s3::MAX_PUT_BYTES),
            },
        };
        let form = self
            .bucket
            .presign_post(&post, policy.expires_in, now)
            .await?;
        let max_size = *post.size.end();
        Ok(PostGrant {
            key,
            max_size,
            form,
        })
    }

    /// Whether the policy of this name lets clients set the metadata of this name.
    pub fn allows_metadata(&self, caller: &Caller, policy: Option<&str>, name: &str) -> bool {
        let policy = self.settings.policies.get(policy, caller);
        policy.is_ok_and(|policy| policy.allows_metadata(name))
    }

    fn checked(&self, caller: &Caller, file: &File, request: Request) -> Result<&Policy, Error> {
        let policies = &self.settings.policies;
        let policy = policies.get(file.policy.as_deref(), caller)?;
        let refusals = policy.check(file, request);
        if refusals.is_empty() {
            Ok(policy)
        } else {
            Err(Error::Refused(refusals))
        }
    }

    async fn sign_put(
        &self,
        caller: &Caller,
        policy: &Policy,
        file: &File,
        id: Uuid,
        now: SystemTime,
    ) -> Result<Grant, Error> {
        let key = policy.key.key(caller, &file.filename, id, day(now));
        let properties = Properties::new(policy, file);
        let put = properties.put(policy, file, &key);
        let request = self
            .bucket
            .presign_put(&put, policy.expires_in, now)
            .await?;
        Ok(Grant { key, request })
    }
}

/// What of an object's properties has to be made for each file.
struct Properties {
    content_disposition: Option<String>,
    metadata: Vec<(String, String)>,
}

impl Properties {
    fn new(policy: &Policy, file: &File) -> Self {
        Self {
            content_disposition: policy.content_disposition(file),
            metadata: policy.metadata_with(&file.metadata),
        }
    }

    fn put<'a>(&'a self, policy: &'a Policy, file: &'a File, key: &'a ObjectKey) -> s3::Put<'a> {
        s3::Put {
            object: self.object(policy, file, key),
            size: file.size,
            if_none_match: !policy.overwrite,
        }
    }

    fn object<'a>(
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
            checksum_sha256: file.checksum_sha256.as_ref().map(Sha256Checksum::as_base64),
        }
    }
}

/// S3 puts the name of the file that is sent in its place,
/// [in any field of a form](https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTForms.html).
const REPLACED_IN_FORMS: &str = "${filename}";

/// What of `file` a form cannot carry. A template may make of a name what the name itself is not.
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

fn day(now: SystemTime) -> time::Date {
    OffsetDateTime::from(now).date()
}

impl From<s3::Error> for Error {
    fn from(error: s3::Error) -> Self {
        match error {
            s3::Error::Credentials(error) => Self::NoCredentials(error),
            s3::Error::Presign(error) => Self::Signing(error),
            s3::Error::Store(s3::StoreError::NoSuchUpload(_)) => Self::NoSuchUpload,
            s3::Error::Store(error) => Self::Store(error),
            s3::Error::FormTooLarge(_) => Self::PostTooLarge,
        }
    }
}
