//! What may be uploaded, and where to: turns a checked request into a [`Grant`]. Knows S3 only
//! through [`crate::s3`], and nothing of HTTP servers.

mod content_type;
mod key;

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

pub use self::content_type::ContentType;
pub use self::key::{Filename, ObjectKey};
use crate::s3;

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
    /// How long a presigned URL lives: whole seconds, at most 7 days.
    pub expires_in: Duration,
}

/// One file that a client asks to upload.
#[derive(Clone, Debug)]
pub struct File {
    pub filename: Filename,
    pub content_type: ContentType,
}

/// Leave to upload one file: who holds the URL may use it until it ends.
///
/// Its [`Debug`](std::fmt::Debug) output leaves the URL out.
#[derive(Debug)]
pub struct Grant {
    pub key: ObjectKey,
    pub request: s3::PresignedRequest,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There are no credentials to sign with at the moment.
    #[error("no credentials to sign with")]
    NoCredentials(#[source] s3::CredentialsError),
    /// The presigner refused what it should have taken: a defect, or an unusable endpoint.
    #[error("signing failed")]
    Signing(#[source] s3::PresignError),
}

/// Hands out grants for one bucket.
#[derive(Debug)]
pub struct UploadService {
    bucket: s3::Bucket,
    settings: Settings,
}

impl UploadService {
    pub fn new(bucket: s3::Bucket, settings: Settings) -> Self {
        Self { bucket, settings }
    }

    /// A grant to PUT `file` once or more until it ends, under a key that `id` makes unique.
    pub async fn presign_put(
        &self,
        file: &File,
        id: Uuid,
        now: SystemTime,
    ) -> Result<Grant, Error> {
        let key = ObjectKey::new(id, &file.filename);
        let put = s3::Put {
            key: key.as_str(),
            content_type: file.content_type.as_str(),
        };
        let request = self
            .bucket
            .presign_put(&put, self.settings.expires_in, now)
            .await?;
        Ok(Grant { key, request })
    }
}

impl From<s3::Error> for Error {
    fn from(error: s3::Error) -> Self {
        match error {
            s3::Error::Credentials(error) => Self::NoCredentials(error),
            s3::Error::Presign(error) => Self::Signing(error),
        }
    }
}
