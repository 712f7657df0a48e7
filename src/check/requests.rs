//! Requests to the store: their number, which the report states, and a digest that some stores demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use aws_sdk_s3::config::http::HttpRequest;
use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use base64::prelude::{BASE64_STANDARD, Engine};
use md5::{Digest, Md5};

use super::Check;

/// Counts the requests of one of the SDK's clients that were answered. One that is only presigned is never transmitted.
#[derive(Debug)]
pub(super) struct Counter(pub(super) Arc<AtomicU32>);

impl Intercept for Counter {
    fn name(&self) -> &'static str {
        "Counter"
    }

    fn read_after_transmit(
        &self,
        _: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Adds `Content-MD5`, which some stores demand of rules. S3 accepts it beside the checksum that the SDK
/// sends.
pub(super) fn add_md5(request: &mut HttpRequest) {
    if let Some(body) = request.body().bytes() {
        let md5 = BASE64_STANDARD.encode(Md5::digest(body));
        request.headers_mut().insert("content-md5", md5);
    }
}

impl Check {
    /// Counts a request that another client sends.
    pub(super) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }
}
