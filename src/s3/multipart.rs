//! Multipart uploads: the calls that only the owner of the credentials can make, and the URLs for
//! the parts, which anyone may have.
//!
//! Every call ends in bounded time. Calls that only read, or that may be made twice, are tried
//! again. Creating and completing an upload are tried again only when the store says that it did
//! nothing: a lost answer does not mean that nothing happened.

use std::time::{Duration, SystemTime};

use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{self};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};

use super::object::{Object, with_properties};
use super::{Bucket, Error};
use crate::error_chain::causes;

/// The most parts that [S3 takes](https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html).
pub const MAX_PARTS: u16 = 10_000;

/// S3 may work for minutes on completing an upload of many parts.
const COMPLETE_TIMEOUT: Duration = Duration::from_mins(2);

/// A part that the store has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPart {
    /// 1 to 10,000.
    pub number: u16,
    pub etag: String,
    pub size: u64,
}

/// Why the store did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such upload, or not any more.
    #[error("no such upload: {0}")]
    NoSuchUpload(String),
    /// The parts don't make an object.
    #[error("the parts are refused: {0}")]
    InvalidParts(String),
    /// There is an object of this key already, and it may not be overwritten.
    #[error("the object exists: {0}")]
    ObjectExists(String),
    /// It has no time for us, and has done nothing.
    #[error("the store is busy: {0}")]
    Busy(String),
    /// It could not be reached, or broke off.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    #[error("the store did not answer in time: {0}")]
    TimedOut(String),
    /// It answered with any other error: a refusal, or a fault of its own.
    #[error("the store answered with an error: {0}")]
    Failed(String),
}

impl<E, R> From<SdkError<E, R>> for StoreError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug + 'static,
{
    fn from(error: SdkError<E, R>) -> Self {
        let code = error
            .as_service_error()
            .and_then(|e| e.code().map(str::to_owned));
        let cause = causes(&error);
        match (&error, code.as_deref()) {
            (SdkError::TimeoutError(_), _) => Self::TimedOut(cause),
            (SdkError::DispatchFailure(failure), _) if failure.is_timeout() => {
                Self::TimedOut(cause)
            }
            (SdkError::DispatchFailure(_) | SdkError::ResponseError(_), _) => {
                Self::Unavailable(cause)
            }
            (_, Some("NoSuchUpload")) => Self::NoSuchUpload(cause),
            (
                _,
                Some(
                    "InvalidPart" | "InvalidPartOrder" | "EntityTooSmall" | "EntityTooLarge"
                    | "MalformedXML",
                ),
            ) => Self::InvalidParts(cause),
            (_, Some("PreconditionFailed" | "ConditionalRequestConflict")) => {
                Self::ObjectExists(cause)
            }
            (
                _,
                Some("SlowDown" | "ServiceUnavailable" | "RequestLimitExceeded" | "Throttling"),
            ) => Self::Busy(cause),
            _ => Self::Failed(cause),
        }
    }
}

impl StoreError {
    /// As metrics name it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoSuchUpload(_) => "no_such_upload",
            Self::InvalidParts(_) => "invalid_parts",
            Self::ObjectExists(_) => "object_exists",
            Self::Busy(_) => "busy",
            Self::Unavailable(_) => "unavailable",
            Self::TimedOut(_) => "timed_out",
            Self::Failed(_) => "failed",
        }
    }
}

impl Bucket {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Begins an upload and gives its id.
    pub async fn create_multipart(
        &self,
        object: &Object<'_>,
        now: SystemTime,
    ) -> Result<String, Error> {
        self.credentials.get(now).await?;
        let request =
            with_properties!(self.client.create_multipart_upload(), object).bucket(&self.name);
        let once = config::Builder::new().retry_config(RetryConfig::disabled());
        let answer = again_while_busy(|| {
            let call = request.clone().customize().config_override(once.clone());
            async { call.send().await.map_err(StoreError::from) }
        })
        .await?;
        answer
            .upload_id
            .ok_or_else(|| StoreError::Failed("it gave no upload id".into()).into())
    }

    /// All parts that the store has, in their order.
    pub async fn list_parts(
        &self,
        key: &str,
        upload_id: &str,
        now: SystemTime,
    ) -> Result<Vec<StoredPart>, Error> {
        self.credentials.get(now).await?;
        let mut pages = self
            .client
            .list_parts()
            .bucket(&self.name)
            .key(key)
            .upload_id(upload_id)
            .into_paginator()
            .send();
        let mut parts = Vec::new();
        while let Some(page) = pages.next().await {
            for part in page.map_err(StoreError::from)?.parts.unwrap_or_default() {
                parts.push(StoredPart {
                    number: part
                        .part_number
                        .and_then(|n| n.try_into().ok())
                        .unwrap_or_default(),
                    etag: part.e_tag.unwrap_or_default(),
                    size: part
                        .size
                        .and_then(|n| n.try_into().ok())
                        .unwrap_or_default(),
                });
            }
        }
        parts.sort_by_key(|part| part.number);
        Ok(parts)
    }

    /// Makes the object of `parts`, which are in their order.
    pub async fn complete_multipart(
        &self,
        key: &str,
        upload_id: &str,
        parts: &[StoredPart],
        if_none_match: bool,
        now: SystemTime,
    ) -> Result<(), Error> {
        self.credentials.get(now).await?;
        let parts = parts.iter().map(|part| {
            CompletedPart::builder()
                .part_number(part.number.into())
                .e_tag(&part.etag)
                .build()
        });
        let upload = CompletedMultipartUpload::builder().set_parts(Some(parts.collect()));
        let once_and_patiently = config::Builder::new()
            .retry_config(RetryConfig::disabled())
            .timeout_config(
                TimeoutConfig::builder()
                    .operation_attempt_timeout(COMPLETE_TIMEOUT)
                    .operation_timeout(COMPLETE_TIMEOUT)
                    .build(),
            );
        let request = self
            .client
            .complete_multipart_upload()
            .bucket(&self.name)
            .key(key)
            .upload_id(upload_id)
            .multipart_upload(upload.build())
            .set_if_none_match(if_none_match.then(|| "*".to_owned()));
        again_while_busy(|| {
            let call = request
                .clone()
                .customize()
                .config_override(once_and_patiently.clone());
            async { call.send().await.map_err(StoreError::from) }
        })
        .await?;
        Ok(())
    }

    /// Ends an upload and frees its parts. One that is gone already is no error.
    pub async fn abort_multipart(
        &self,
        key: &str,
        upload_id: &str,
        now: SystemTime,
    ) -> Result<(), Error> {
        self.credentials.get(now).await?;
        let request = self
            .client
            .abort_multipart_upload()
            .bucket(&self.name)
            .key(key)
            .upload_id(upload_id);
        match request.send().await.map_err(StoreError::from) {
            Ok(_) | Err(StoreError::NoSuchUpload(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Makes a call up to three times, as long as the store answers that it has no time.
async fn again_while_busy<T, F: Future<Output = Result<T, StoreError>>>(
    call: impl Fn() -> F,
) -> Result<T, StoreError> {
    for pause in [200, 800].map(Duration::from_millis) {
        match call().await {
            Err(StoreError::Busy(_)) => tokio::time::sleep(pause).await,
            answer => return answer,
        }
    }
    call().await
}
