//! An object that exists: its properties, and its first bytes.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::SystemTime;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::{self, ResponseChecksumValidation};
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::head_object::{HeadObjectError, HeadObjectOutput};
use aws_sdk_s3::primitives::ByteStreamError;
use aws_sdk_s3::types::{ChecksumMode, ChecksumType};
use tokio::time::timeout;

use super::clock::date;
use super::error::{absent, status};
use super::object::{ServerSideEncryption, StorageClass, header_text};
use super::{Bucket, CALL_TIMEOUT, Error, StoreError};

/// The most bytes that are kept of a text. None that presignd grants is longer, and some stores accept
/// hundreds of kilobytes that nobody signed.
pub(crate) const MAX_TEXT_BYTES: usize = 2048;
/// The permissions for these calls.
pub(super) const NEEDS: &str = "s3:GetObject, and s3:ListBucket to learn what does not exist";

/// An object that the store has. A text has U+FFFD in the place of what is not UTF-8, and at its end if it
/// was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// In bytes.
    pub size: u64,
    pub content_type: Option<String>,
    /// As the store writes it, with its quotes.
    pub etag: String,
    /// In buckets that keep versions.
    pub version_id: Option<String>,
    pub last_modified: SystemTime,
    /// SHA-256 of the whole object, in base64. An upload in parts has at most
    /// [one of its parts' checksums](https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html#large-object-checksums).
    pub checksum_sha256: Option<String>,
    /// CRC-64/NVME of the whole object, in base64. S3 computes it for each upload that has no other
    /// checksum.
    pub checksum_crc64nvme: Option<String>,
    /// Names, without `x-amz-meta-`, and values.
    pub metadata: BTreeMap<String, String>,
    pub content_disposition: Option<String>,
    pub content_encoding: Option<String>,
    pub cache_control: Option<String>,
    pub server_side_encryption: Option<ServerSideEncryption>,
    /// Stores may report none for the standard class.
    pub storage_class: Option<StorageClass>,
    /// Whether the other members are those of the object. Otherwise its headers are too many or too long
    /// to be read, and nothing is known of it.
    pub is_readable: bool,
}

/// The result of reading the first bytes of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstBytes {
    Read(Vec<u8>),
    Gone,
    /// Another object is in its place.
    Replaced,
}

impl StoredObject {
    /// Its media type; `application/octet-stream` if it has none, as stores report it and
    /// [RFC 9110 §8.3](https://www.rfc-editor.org/rfc/rfc9110#section-8.3) says.
    pub fn content_type(&self) -> &str {
        let content_type = self.content_type.as_deref();
        content_type.unwrap_or("application/octet-stream")
    }

    /// One whose headers cannot be read.
    pub(super) fn unreadable() -> Self {
        Self {
            size: 0,
            content_type: None,
            etag: String::new(),
            version_id: None,
            last_modified: SystemTime::UNIX_EPOCH,
            checksum_sha256: None,
            checksum_crc64nvme: None,
            metadata: BTreeMap::new(),
            content_disposition: None,
            content_encoding: None,
            cache_control: None,
            server_side_encryption: None,
            storage_class: None,
            is_readable: false,
        }
    }
}

impl Bucket {
    /// The object of this key, if there is one. The answer to a HEAD request has no body, and so no code:
    /// any 404 counts, even that of a missing bucket or of a proxy. An object whose headers cannot be
    /// read has `is_readable: false`.
    pub async fn head(&self, key: &str) -> Result<Option<StoredObject>, Error> {
        let client = self.client().await?;
        let request = client
            .head_object()
            .bucket(&self.name)
            .key(key)
            .checksum_mode(ChecksumMode::Enabled);
        match request.send().await {
            Ok(answer) => Ok(Some(stored(answer)?)),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) if is_too_large(&error) => Ok(Some(StoredObject::unreadable())),
            Err(error) => Ok(absent(error, NEEDS)?),
        }
    }

    /// Makes sure that the store itself says that there is no object of this key. It is asked with GET, because
    /// its answer to that has a code, which a proxy's answer lacks. Returns the time at the store, if the
    /// answer has it.
    ///
    /// # Errors
    ///
    /// There is an object, or the store does not say that there is none.
    pub async fn confirm_missing(&self, key: &str) -> Result<Option<SystemTime>, Error> {
        let client = self.client().await?;
        let request = client
            .get_object()
            .bucket(&self.name)
            .key(key)
            .range("bytes=0-0");
        let Err(error) = request.send().await else {
            let cause = "it answers HEAD with 404, and GET with an object";
            return Err(StoreError::Failed(cause.into()).into());
        };
        let date = error.raw_response().and_then(date);
        absent::<(), _>(error, NEEDS)?;
        Ok(date.and_then(|date| date.try_into().ok()))
    }

    /// The first `count` bytes of the object with this entity tag.
    pub async fn first_bytes(
        &self,
        key: &str,
        etag: &str,
        count: usize,
    ) -> Result<FirstBytes, Error> {
        // The SDK must not check the checksum: it is that of the whole object.
        let partial = config::Builder::new()
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        let client = self.client().await?;
        let request = client
            .get_object()
            .bucket(&self.name)
            .key(key)
            .if_match(etag)
            .range(format!("bytes=0-{}", count.saturating_sub(1)))
            .customize()
            .config_override(partial);
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) if status(&error) == Some(412) => return Ok(FirstBytes::Replaced),
            Err(error) => {
                let gone = absent(error, NEEDS)?;
                return Ok(gone.unwrap_or(FirstBytes::Gone));
            }
        };
        // A proxy in between may ignore the condition and answer 200.
        if answer.e_tag.as_deref() != Some(etag) {
            let cause = "the answer has another entity tag than the request";
            return Err(StoreError::Failed(cause.into()).into());
        }
        let mut body = answer.body;
        let mut bytes = Vec::new();
        let read = async {
            // Some stores send everything, whatever the range.
            while bytes.len() < count
                && let Some(chunk) = body.try_next().await?
            {
                bytes.extend_from_slice(&chunk);
            }
            Ok::<_, ByteStreamError>(())
        };
        match timeout(CALL_TIMEOUT, read).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(StoreError::Unavailable(error.to_string().into()).into()),
            Err(_elapsed) => {
                let cause = format!("the first bytes did not arrive in {CALL_TIMEOUT:?}");
                return Err(StoreError::TimedOut(cause.into()).into());
            }
        }
        bytes.truncate(count);
        Ok(FirstBytes::Read(bytes))
    }
}

/// Whether the answer has more headers than the HTTP client accepts: 100, or 400 KB.
fn is_too_large(error: &SdkError<HeadObjectError, HttpResponse>) -> bool {
    std::iter::successors(error.source(), |error| (*error).source())
        .filter_map(|error| error.downcast_ref::<hyper::Error>())
        .any(hyper::Error::is_parse_too_large)
}

fn stored(answer: HeadObjectOutput) -> Result<StoredObject, StoreError> {
    let lacks = |what: &str| StoreError::Failed(format!("it gave no {what} of an object").into());
    // Stores that do not report the type of a checksum append the number of parts: `…-3`.
    let is_composite = answer.checksum_type == Some(ChecksumType::Composite);
    let is_of_whole = |checksum: &String| !is_composite && !checksum.contains('-');
    let modified = answer.last_modified.ok_or_else(|| lacks("last-modified"))?;
    Ok(StoredObject {
        size: answer
            .content_length
            .and_then(|length| length.try_into().ok())
            .ok_or_else(|| lacks("length"))?,
        content_type: answer.content_type.map(cut),
        etag: answer.e_tag.ok_or_else(|| lacks("etag"))?,
        version_id: answer.version_id,
        last_modified: modified
            .try_into()
            .map_err(|_| lacks("usable last-modified"))?,
        checksum_sha256: answer.checksum_sha256.filter(is_of_whole),
        checksum_crc64nvme: answer.checksum_crc64_nvme.filter(is_of_whole),
        metadata: answer
            .metadata
            .unwrap_or_default()
            .into_iter()
            .map(|(name, value)| (name, cut(header_text(&value))))
            .collect(),
        content_disposition: answer.content_disposition.map(cut),
        content_encoding: answer.content_encoding.map(cut),
        cache_control: answer.cache_control.map(cut),
        server_side_encryption: answer.server_side_encryption,
        storage_class: answer.storage_class,
        is_readable: true,
    })
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_TEXT_BYTES {
        text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
        text.push(char::REPLACEMENT_CHARACTER);
        text.shrink_to_fit();
    }
    text
}
