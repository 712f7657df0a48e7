//! Multipart uploads: the calls that only the owner of the credentials can make.
//!
//! Every call ends in bounded time. Calls that only read, or that may be made twice, are retried.
//! Creating and completing an upload are retried only when the store says that it did nothing: a
//! lost answer does not mean that nothing happened.

use std::time::Duration;

use aws_sdk_s3::config;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, Part};

use super::object::{Object, with_properties};
use super::{Bucket, Error, StoreError};

/// The most parts that
/// [S3 accepts](https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html).
pub const MAX_PARTS: u16 = 10_000;
/// The fewest bytes that it accepts in a part, except for the last one.
pub const MIN_PART_BYTES: u64 = 5 * 1024 * 1024;

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

impl Bucket {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Begins an upload and returns its id.
    pub async fn create_multipart(&self, object: &Object<'_>) -> Result<String, Error> {
        let request = with_properties!(self.client().await?.create_multipart_upload(), object)
            .bucket(&self.name);
        let once = config::Builder::new().retry_config(RetryConfig::disabled());
        let create = || {
            let call = request.clone().customize().config_override(once.clone());
            call.send()
        };
        again_while_busy(create)
            .await?
            .upload_id
            .ok_or_else(|| StoreError::Failed("it gave no upload id".into()).into())
    }

    /// All parts that the store has, in their order.
    pub async fn list_parts(&self, key: &str, upload_id: &str) -> Result<Vec<StoredPart>, Error> {
        let client = self.client().await?;
        let mut pages = client
            .list_parts()
            .bucket(&self.name)
            .key(key)
            .upload_id(upload_id)
            .into_paginator()
            .send();
        let mut parts = Vec::new();
        while let Some(page) = pages.next().await {
            for part in page.map_err(StoreError::from)?.parts.unwrap_or_default() {
                let part = stored_part(part);
                parts.push(part.ok_or_else(|| {
                    let cause = "it listed a part without its number, size or entity tag";
                    StoreError::Failed(cause.into())
                })?);
            }
        }
        parts.sort_by_key(|part| part.number);
        Ok(parts)
    }

    /// Makes the object of `parts`, which have to be in their order.
    pub async fn complete_multipart(
        &self,
        key: &str,
        upload_id: &str,
        parts: &[StoredPart],
        if_none_match: bool,
    ) -> Result<(), Error> {
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
        let client = self.client().await?;
        let request = client
            .complete_multipart_upload()
            .bucket(&self.name)
            .key(key)
            .upload_id(upload_id)
            .multipart_upload(upload.build())
            .set_if_none_match(if_none_match.then(|| "*".to_owned()));
        let complete = || {
            let call = request.clone().customize();
            call.config_override(once_and_patiently.clone()).send()
        };
        again_while_busy(complete).await?;
        Ok(())
    }

    /// Aborts an upload, which frees its parts. It is no error if the upload is gone already.
    pub async fn abort_multipart(&self, key: &str, upload_id: &str) -> Result<(), Error> {
        let client = self.client().await?;
        let request = client
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

/// `None` if anything is missing. A part whose size is not known must not count as an empty one, as the
/// sizes are what an upload is limited by.
fn stored_part(part: Part) -> Option<StoredPart> {
    Some(StoredPart {
        number: part.part_number?.try_into().ok()?,
        etag: part.e_tag?,
        size: part.size?.try_into().ok()?,
    })
}

/// Makes a call up to three times while the store answers that it is busy. A 503 without a code can be
/// that of a proxy which has passed the call on.
async fn again_while_busy<T, E, F>(call: impl Fn() -> F) -> Result<T, StoreError>
where
    E: Into<StoreError>,
    F: Future<Output = Result<T, E>>,
{
    for pause in [200, 800].map(Duration::from_millis) {
        match call().await.map_err(E::into) {
            Err(StoreError::Busy(cause)) if !cause.may_be_of_proxy() => {
                tokio::time::sleep(pause).await;
            }
            answer => return answer,
        }
    }
    call().await.map_err(E::into)
}
