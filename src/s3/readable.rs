//! Makes the headers of the store's answers readable.
//!
//! Anyone who has a URL can send headers with it that are not signed, and HTTP allows bytes in them that are
//! not UTF-8. The SDK refuses an answer with such a header as a whole, so nobody could find out what the
//! object is.

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;

/// The headers, besides metadata, whose values a [`StoredObject`](super::StoredObject) has.
const TEXTS: [&str; 4] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-type",
];

/// In the headers that matter, replaces what is not UTF-8 by U+FFFD, and removes all others that are not UTF-8.
#[derive(Debug)]
pub(super) struct ReadableHeaders;

impl Intercept for ReadableHeaders {
    fn name(&self) -> &'static str {
        "ReadableHeaders"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.response_mut().headers_mut();
        let unreadable: Vec<(String, String)> = headers
            .iter_bytes()
            .filter(|(_, value)| str::from_utf8(value).is_err())
            .map(|(name, value)| {
                let text = String::from_utf8_lossy(value);
                (name.to_owned(), text.into_owned())
            })
            .collect();
        for (name, text) in unreadable {
            headers.remove(&name);
            if TEXTS.contains(&&*name) || name.starts_with("x-amz-meta-") {
                headers.try_insert(name, text)?;
            }
        }
        Ok(())
    }
}
