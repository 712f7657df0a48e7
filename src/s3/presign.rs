//! Presigned requests, made by the SDK's presigner.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_sdk_s3::config;
use aws_sdk_s3::presigning::{self, PresigningConfig};

use super::object::{Object, with_properties};
use super::{Bucket, Error};
use crate::telemetry::causes;

/// The longest life of a signature, [by the protocol](https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html).
pub const MAX_EXPIRES_IN: Duration = Duration::from_hours(7 * 24);

/// A PUT of one object. Every field is part of the signature.
#[derive(Clone, Debug, Default)]
pub struct Put<'a> {
    pub object: Object<'a>,
    /// The length of the body, to the byte.
    pub size: Option<u64>,
    /// Only if there is no object of this key yet.
    pub if_none_match: bool,
}

/// A request that anyone may send as it is until it ends.
///
/// The URL is a secret for as long as it lives, so [`Debug`](fmt::Debug) leaves it out.
#[derive(Clone, PartialEq, Eq)]
pub struct PresignedRequest {
    pub method: String,
    pub url: String,
    /// The signed headers that the client has to set, by their lower-case names. `host` and
    /// `content-length` are not among them: every HTTP client sets those itself, and browsers let
    /// nobody else do it.
    pub headers: Vec<(String, String)>,
    /// The first moment at which the store refuses the request, in whole seconds.
    pub expires_at: SystemTime,
}

impl PresignedRequest {
    pub(super) fn new(presigned: &presigning::PresignedRequest, expires_at: SystemTime) -> Self {
        Self {
            method: presigned.method().to_owned(),
            url: presigned.uri().to_owned(),
            headers: presigned
                .headers()
                .filter(|(name, _)| *name != "content-length")
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            expires_at,
        }
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
pub struct PresignError(String);

impl PresignError {
    pub(super) fn new(error: impl std::error::Error) -> Self {
        Self(causes(&error))
    }

    pub(super) fn unusable(what: &str) -> Self {
        Self(format!("the presigner's URL is not usable: {what}"))
    }
}

/// Signatures know whole seconds alone: rounded down as the presigner does it, so that the end that
/// we report is the end that the store sees.
pub(super) fn whole_seconds(moment: SystemTime) -> SystemTime {
    let since_epoch = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since_epoch.as_secs())
}

/// When what is signed at `now` ends: with its own life or with the credentials.
pub(super) fn end_of_grant(
    credentials: &Credentials,
    expires_in: Duration,
    now: SystemTime,
) -> SystemTime {
    let end = now + expires_in;
    let of_credentials = credentials.expiry().map(whole_seconds);
    of_credentials.map_or(end, |of_credentials| end.min(of_credentials))
}

impl Bucket {
    /// Presigns `put` for `expires_in` from `now`, or for as long as the credentials live.
    pub async fn presign_put(
        &self,
        put: &Put<'_>,
        expires_in: Duration,
        now: SystemTime,
    ) -> Result<PresignedRequest, Error> {
        let (signer, config, expires_at) = self.signer(expires_in, now).await?;
        let Put {
            object,
            size,
            if_none_match,
        } = put;
        let request = with_properties!(self.client.put_object(), object)
            .bucket(&self.name)
            .set_content_length(size.map(|size| i64::try_from(size).unwrap_or(i64::MAX)))
            .set_if_none_match(if_none_match.then(|| "*".to_owned()))
            .set_checksum_sha256(object.checksum_sha256.map(str::to_owned));
        let presigned = request
            .customize()
            .config_override(signer)
            .presigned(config)
            .await
            .map_err(PresignError::new)?;
        Ok(PresignedRequest::new(&presigned, expires_at))
    }

    /// What the presigner is told: the credentials and the times to sign with; and when the signature ends.
    pub(super) async fn signer(
        &self,
        expires_in: Duration,
        now: SystemTime,
    ) -> Result<(config::Builder, PresigningConfig, SystemTime), Error> {
        let now = whole_seconds(now);
        let credentials = self.credentials.get(now).await?;
        let expires_at = end_of_grant(&credentials, expires_in, now);
        let signer = config::Builder::new().credentials_provider(credentials);
        let config = PresigningConfig::builder()
            .start_time(now)
            .expires_in(expires_in)
            .build()
            .map_err(PresignError::new)?;
        Ok((signer, config, expires_at))
    }
}
