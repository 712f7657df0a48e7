//! The domain: checks a request against its policy and turns it into a grant. Knows S3 only through
//! [`crate::s3`], counts in [`crate::telemetry`], and knows nothing of HTTP servers.

mod buckets;
mod call;
mod caller;
mod checksum;
mod commit;
mod content_type;
mod delete;
mod disposition;
mod download;
mod events;
mod existing;
mod filename;
mod grants;
mod key;
mod metadata;
mod multipart;
mod policy;
mod receipt;
mod service;
mod session;
mod sniff;
mod store_calls;
mod ticket;
mod verify;

use std::borrow::Cow;

pub use self::call::{Begin, Call, Operation, SealedCall};
pub use self::caller::Caller;
pub use self::checksum::{Crc64NvmeChecksum, Md5Checksum, Sha256Checksum};
pub use self::commit::PENDING_TAG;
pub use self::content_type::ContentType;
pub use self::delete::Deleted;
pub use self::disposition::Disposition;
pub use self::download::{Download, Wanted};
pub use self::events::{Arrival, Arrived};
pub use self::filename::Filename;
pub use self::key::ObjectKey;
pub(crate) use self::metadata::name_pattern;
pub use self::metadata::{Metadata, check_metadata};
pub use self::multipart::{CompletedUpload, MultipartUpload, OpenUpload};
pub use self::policy::{Policies, Sample};
pub use self::receipt::Receipts;
pub use self::service::{GrantRequest, UploadService};
pub use self::session::SessionKey;
pub use self::ticket::Ticket;
pub use self::verify::{Expected, MAX_WAIT, MAX_WAIT_KEYS, Uploaded, Verification};
use crate::s3;

/// Most functions of the domain fail with its [`Error`].
type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a value is refused: `code` for programs, `detail` for people.
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
    /// Whether the store accepts presigned POST. R2 and B2 do not.
    pub supports_post: bool,
    /// Whether only forms are granted. Some stores obey headers that were not signed; a form lists all
    /// that it allows.
    pub forms_only: bool,
    /// Seals the sessions of multipart uploads; `None` is a random key.
    pub session_key: Option<SessionKey>,
    /// Signs a receipt for each upload that is verified; `None` signs none.
    pub receipts: Option<Receipts>,
}

/// The ways to upload, which differ in what a signature can bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UploadKind {
    /// One size or none.
    Put,
    /// A range of sizes.
    Post,
    /// No size; it is checked when the upload is completed.
    Multipart,
}

impl UploadKind {
    /// Its name in metrics.
    fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Post => "post",
            Self::Multipart => "multipart",
        }
    }
}

/// One file that a client asks to upload.
#[derive(Clone, Debug)]
pub struct File {
    pub filename: Filename,
    pub content_type: ContentType,
    /// In bytes.
    pub size: Option<u64>,
    pub checksum_sha256: Option<Sha256Checksum>,
    pub checksum_crc64nvme: Option<Crc64NvmeChecksum>,
    /// Only a PUT can be bound to it.
    pub content_md5: Option<Md5Checksum>,
    /// The name of the policy; `None` means the default one.
    pub policy: Option<String>,
    /// Metadata that the client wants to store with the object.
    pub metadata: Metadata,
}

impl File {
    /// A file of which nothing more is known.
    pub fn new(filename: Filename, content_type: ContentType) -> Self {
        Self {
            filename,
            content_type,
            size: None,
            checksum_sha256: None,
            checksum_crc64nvme: None,
            content_md5: None,
            policy: None,
            metadata: Metadata::new(),
        }
    }

    fn has_checksum(&self) -> bool {
        self.checksum_sha256.is_some()
            || self.checksum_crc64nvme.is_some()
            || self.content_md5.is_some()
    }
}

/// A part of a [`File`] that a policy can refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    Filename,
    ContentType,
    Size,
    ChecksumSha256,
    ChecksumCrc64nvme,
    ContentMd5,
    Policy,
    Metadata,
    /// The number of a part.
    PartNumber,
    /// The metadata of this name.
    MetadataOf(String),
    /// A property of a stored object, by its name in JSON.
    Stored(&'static str),
}

/// A reason why a policy refuses a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The index of the file in the list that was requested.
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

/// A presigned request that uploads one file: a PUT or a form.
#[derive(Debug)]
pub struct Grant {
    pub key: ObjectKey,
    pub request: s3::PresignedRequest,
    /// The most bytes that the store accepts with a form.
    pub max_size: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The policy refuses, for all of these reasons.
    #[error("refused by the policy")]
    Refused(Vec<Refusal>),
    /// The policy's keys have this variable, and the caller's ticket does not, or there is none.
    #[error("the caller has no ticket with the variable {0}")]
    MissingVar(String),
    /// A PUT could do it and a form cannot, for this reason.
    #[error("{0}")]
    NoForm(&'static str),
    /// Only forms are granted for this store.
    #[error("only forms are granted")]
    FormsOnly,
    /// There is no multipart upload of this token and key, for this reason. Clients do not see the
    /// reason, as it would reveal whether there ever was one.
    #[error("no such upload: {0}")]
    NoSuchUpload(&'static str),
    /// The token of a sealed call has expired.
    #[error("the call has expired")]
    CallExpired,
    /// The requests before this one keep the store busy.
    #[error("too many requests at the same time")]
    TooMuchAtOnce,
    /// No credentials are available to sign with.
    #[error("no credentials to sign with")]
    NoCredentials(#[source] s3::CredentialsError),
    /// The presigner refused a valid request: a defect, or an unusable endpoint.
    #[error("signing failed")]
    Signing(#[source] s3::PresignError),
    /// The store could not be reached or answered with an error.
    #[error(transparent)]
    Store(s3::StoreError),
}

impl From<s3::Error> for Error {
    fn from(error: s3::Error) -> Self {
        match error {
            s3::Error::Credentials(error) => Self::NoCredentials(error),
            s3::Error::Presign(error) => Self::Signing(error),
            s3::Error::Store(s3::StoreError::NoSuchUpload(_)) => Self::NoSuchUpload(
                "the store does not have it: it was completed, aborted or removed",
            ),
            s3::Error::Store(error) => Self::Store(error),
            s3::Error::FormTooLarge(_) => Self::NoForm(
                "the form would be larger than the store accepts, with all its metadata and tags",
            ),
        }
    }
}

impl Error {
    /// The same error, of the file with this index in a list.
    fn for_file(self, index: usize) -> Self {
        match self {
            Self::Refused(refusals) => {
                let refusals = refusals.into_iter();
                Self::Refused(refusals.map(|it| Refusal { file: index, ..it }).collect())
            }
            error => error,
        }
    }

    fn refused(field: Field, invalid: Invalid) -> Self {
        Self::Refused(vec![Refusal::new(field, invalid)])
    }

    /// Whether the request asked for something that is not allowed, and nothing failed.
    fn is_refusal(&self) -> bool {
        match self {
            Self::Refused(_)
            | Self::MissingVar(_)
            | Self::NoForm(_)
            | Self::FormsOnly
            | Self::NoSuchUpload(_)
            | Self::CallExpired
            | Self::TooMuchAtOnce => true,
            Self::NoCredentials(_) | Self::Signing(_) | Self::Store(_) => false,
        }
    }
}
