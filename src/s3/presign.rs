//! Presigned requests: what can be signed, and who signs it, our own [`sign`] or the SDK's
//! presigner.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{self, ResponseChecksumValidation};
use aws_sdk_s3::presigning::{self, PresigningConfig};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};

use super::object::{Object, with_properties};
use super::{Bucket, Error, sign};
use crate::error_chain::causes;

/// The longest lifetime of a signature,
/// [by the protocol](https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html).
pub const MAX_EXPIRES_IN: Duration = Duration::from_hours(7 * 24);

/// Characters that a path contains unencoded
/// ([RFC 3986](https://www.rfc-editor.org/rfc/rfc3986#section-2.3)).
pub(crate) const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');
/// Characters that the value of a query parameter contains unencoded.
pub(super) const IN_QUERY: &AsciiSet = &IN_PATH.add(b'/');

/// A PUT of one object. Every field is part of the signature.
#[derive(Clone, Debug, Default)]
pub struct Put<'a> {
    pub object: Object<'a>,
    /// The length of the body, to the byte.
    pub size: Option<u64>,
    /// Store it only if no object has this key yet.
    pub if_none_match: bool,
    /// MD5 of the bytes, in base64.
    pub content_md5: Option<&'a str>,
}

/// A GET of one object. Every field is part of the signature.
#[derive(Clone, Copy, Debug, Default)]
pub struct Get<'a> {
    pub key: &'a str,
    /// In buckets that keep versions; otherwise the URL fetches whatever is stored at the time.
    pub version_id: Option<&'a str>,
    /// The `Content-Disposition` that the store answers instead of the stored one.
    pub content_disposition: &'a str,
    /// The `Content-Type` that the store answers instead of the stored one.
    pub content_type: Option<&'a str>,
}

/// A header that the SDK adds in a function of AWS Lambda. It is not signed, and clients have no
/// use for it.
const LAMBDA_TRACE: &str = "x-amzn-trace-id";

/// A request that can be presigned.
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    Put(&'a Put<'a>),
    Get(&'a Get<'a>),
    /// A PUT of one part.
    Part {
        key: &'a str,
        upload_id: &'a str,
        number: u16,
        /// The length of the body, to the byte.
        size: Option<u64>,
    },
}

impl Request<'_> {
    pub(super) fn key(&self) -> &str {
        match self {
            Self::Put(put) => put.object.key,
            Self::Get(get) => get.key,
            Self::Part { key, .. } => key,
        }
    }

    pub(super) fn content_length(&self) -> Option<i64> {
        let size = match self {
            Self::Put(Put { size, .. }) | Self::Part { size, .. } => *size,
            Self::Get(_) => None,
        };
        size.map(|size| i64::try_from(size).unwrap_or(i64::MAX))
    }
}

/// Credentials, lifetime and start time of a signature.
#[derive(Clone, Debug)]
pub(super) struct Signing {
    pub(super) credentials: Arc<Credentials>,
    pub(super) expires_in: Duration,
    /// The start, in whole seconds.
    pub(super) now: SystemTime,
}

/// A request that anyone may send unchanged until it expires.
///
/// The URL and the fields are secrets until then, so [`Debug`](fmt::Debug) leaves them out.
#[derive(Clone, PartialEq, Eq)]
pub struct PresignedRequest {
    pub method: &'static str,
    pub url: String,
    /// The signed headers that the client has to set, in the order of their lower-case names.
    /// `host` and `content-length` are not among them: every HTTP client sets those itself, and
    /// browsers let no page do it.
    pub headers: Vec<(Cow<'static, str>, String)>,
    /// Every field of a form but the file, which has to come last. The store accepts no other field, and
    /// none of these with another value. Other requests have no fields.
    pub fields: BTreeMap<String, String>,
    /// The first moment at which the store refuses the request, in whole seconds.
    pub expires_at: SystemTime,
}

impl PresignedRequest {
    fn from_sdk(
        presigned: &presigning::PresignedRequest,
        expires_at: SystemTime,
    ) -> Result<Self, PresignError> {
        let method = match presigned.method() {
            "PUT" => "PUT",
            "GET" => "GET",
            _ => return Err(PresignError::unusable("it has another method")),
        };
        let mut headers: Vec<_> = presigned
            .headers()
            .filter(|(name, _)| *name != "content-length" && *name != LAMBDA_TRACE)
            .map(|(name, value)| (name.to_owned().into(), value.to_owned()))
            .collect();
        headers.sort_unstable();
        Ok(Self {
            method,
            url: presigned.uri().to_owned(),
            headers,
            fields: BTreeMap::new(),
            expires_at,
        })
    }
}

impl fmt::Debug for PresignedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresignedRequest")
            .field("method", &self.method)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PresignError(pub(super) String);

impl PresignError {
    pub(super) fn new(error: impl std::error::Error) -> Self {
        Self(causes(&error))
    }

    pub(super) fn no_forms() -> Self {
        let why = "forms can only be signed with SigV4, and this bucket needs another algorithm, as multi-Region access points do";
        Self(format!(
            "{why}; set S3_SUPPORTS_POST_POLICY=false to grant no forms"
        ))
    }

    pub(super) fn unusable(what: &str) -> Self {
        Self(format!("the presigner's URL is not usable: {what}"))
    }
}

/// Signatures contain whole seconds only. The presigner rounds down, too, so the expiry that we
/// report is the one that the store sees.
pub(super) fn whole_seconds(moment: SystemTime) -> SystemTime {
    let since_epoch = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since_epoch.as_secs())
}

impl Signing {
    /// When the signature expires: after its own lifetime or with the credentials, whichever is
    /// first.
    pub(super) fn expires_at(&self) -> SystemTime {
        let end = self.now + self.expires_in;
        let credentials = self.credentials.expiry().map(whole_seconds);
        credentials.map_or(end, |credentials| end.min(credentials))
    }
}

/// The SDK's presigner, for one bucket. It is the authority on signatures, and signs whatever
/// [`sign`] does not cover.
#[derive(Clone, Debug)]
pub(super) struct Presigner {
    pub(super) client: Client,
    pub(super) bucket: String,
}

impl Presigner {
    pub(super) async fn presign(
        &self,
        request: Request<'_>,
        signing: &Signing,
    ) -> Result<PresignedRequest, PresignError> {
        let signer =
            config::Builder::new().credentials_provider(Credentials::clone(&signing.credentials));
        let config = PresigningConfig::builder()
            .start_time(signing.now)
            .expires_in(signing.expires_in)
            .build()
            .map_err(PresignError::new)?;
        let presigned = match request {
            Request::Put(put) => {
                let object = &put.object;
                with_properties!(self.client.put_object(), object)
                    .bucket(&self.bucket)
                    .set_content_length(request.content_length())
                    .set_if_none_match(put.if_none_match.then(|| "*".to_owned()))
                    .set_checksum_sha256(object.checksum_sha256.map(str::to_owned))
                    .set_checksum_crc64_nvme(object.checksum_crc64nvme.map(str::to_owned))
                    .set_content_md5(put.content_md5.map(str::to_owned))
                    .customize()
                    .config_override(signer)
                    .presigned(config)
                    .await
                    .map_err(PresignError::new)
            }
            Request::Get(get) => {
                // Otherwise clients would have to send a header that asks for checksums.
                let signer =
                    signer.response_checksum_validation(ResponseChecksumValidation::WhenRequired);
                self.client
                    .get_object()
                    .bucket(&self.bucket)
                    .key(get.key)
                    .set_version_id(get.version_id.map(str::to_owned))
                    .response_content_disposition(get.content_disposition)
                    .set_response_content_type(get.content_type.map(str::to_owned))
                    .customize()
                    .config_override(signer)
                    .presigned(config)
                    .await
                    .map_err(PresignError::new)
            }
            Request::Part {
                key,
                upload_id,
                number,
                size: _,
            } => self
                .client
                .upload_part()
                .bucket(&self.bucket)
                .key(key)
                .upload_id(upload_id)
                .part_number(number.into())
                .set_content_length(request.content_length())
                .customize()
                .config_override(signer)
                .presigned(config)
                .await
                .map_err(PresignError::new),
        }?;
        PresignedRequest::from_sdk(&presigned, signing.expires_at())
    }
}

impl Bucket {
    /// Presigns `request` for `expires_in` from `now`, or for as long as the credentials are valid.
    pub async fn presign(
        &self,
        request: Request<'_>,
        expires_in: Duration,
        now: SystemTime,
    ) -> Result<PresignedRequest, Error> {
        let signing = Signing {
            credentials: self.credentials.get(now).await?,
            expires_in,
            now: whole_seconds(now),
        };
        if self.target.is_reproduced
            && let Some(scope) = &self.target.scope
        {
            let key = self.signing_key.get(&signing, scope);
            if let Some(presigned) = sign::presign(&self.target, scope, &key, request, &signing) {
                return Ok(presigned);
            }
        }
        // The presigner's future has many kilobytes, which every caller's future would reserve.
        Ok(Box::pin(self.presigner.presign(request, &signing)).await?)
    }
}
