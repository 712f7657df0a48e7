//! Presigned requests, made by the SDK's presigner.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_s3::error::DisplayErrorContext;
use aws_sdk_s3::presigning::PresigningConfig;

use super::{Bucket, Error};

/// The longest life of a signature, [by the protocol](https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html).
pub const MAX_EXPIRES_IN: Duration = Duration::from_hours(7 * 24);

/// A PUT of one object. Every field is part of the signature.
#[derive(Clone, Copy, Debug)]
pub struct Put<'a> {
    pub key: &'a str,
    pub content_type: &'a str,
}

/// A request that anyone may send as it is until it ends.
///
/// The URL is a secret for as long as it lives, so [`Debug`](fmt::Debug) leaves it out.
#[derive(Clone, PartialEq, Eq)]
pub struct PresignedRequest {
    pub method: String,
    pub url: String,
    /// The signed headers that the client has to set, by their lower-case names.
    pub headers: Vec<(String, String)>,
    /// The first moment at which the store refuses the request, in whole seconds.
    pub expires_at: SystemTime,
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
pub struct PresignError(String);

impl PresignError {
    fn new(error: impl std::error::Error) -> Self {
        Self(DisplayErrorContext(error).to_string())
    }
}

impl Bucket {
    /// Presigns `put` for `expires_in` from `now`, or for as long as the credentials live.
    pub async fn presign_put(
        &self,
        put: &Put<'_>,
        expires_in: Duration,
        now: SystemTime,
    ) -> Result<PresignedRequest, Error> {
        // Signatures know whole seconds alone: `now` is rounded down as the presigner does it, so
        // that the end we report is the end that the store sees.
        let now = UNIX_EPOCH
            + Duration::from_secs(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
        let mut expires_at = now + expires_in;
        if let Some(end) = self.credentials.get(now).await?.expiry() {
            expires_at = expires_at.min(end);
        }
        let config = PresigningConfig::builder()
            .start_time(now)
            .expires_in(expires_in)
            .build()
            .map_err(PresignError::new)?;
        let presigned = self
            .client
            .put_object()
            .bucket(&self.name)
            .key(put.key)
            .content_type(put.content_type)
            .presigned(config)
            .await
            .map_err(PresignError::new)?;
        Ok(PresignedRequest {
            method: presigned.method().to_owned(),
            url: presigned.uri().to_owned(),
            headers: presigned
                .headers()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            expires_at,
        })
    }
}
