//! Errors of calls to the store.

use std::fmt::{self, Write};

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::error_chain::causes;

/// Why a call to the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such upload, or there is none any more.
    #[error("no such upload: {0}")]
    NoSuchUpload(StoreCause),
    /// The parts do not make an object.
    #[error("the parts are refused: {0}")]
    InvalidParts(StoreCause),
    /// An object of this key exists, and it must not be overwritten.
    #[error("the object exists: {0}")]
    ObjectExists(StoreCause),
    /// The store, or a proxy before it, asked for fewer requests. It did nothing, unless the cause
    /// [`may_be_of_proxy`](StoreCause::may_be_of_proxy).
    #[error("the store is busy: {0}")]
    Busy(StoreCause),
    /// The store could not be reached, or the connection broke.
    #[error("the store is not available: {0}")]
    Unavailable(StoreCause),
    #[error("the store did not answer in time: {0}")]
    TimedOut(StoreCause),
    /// The store answered with any other error: a refusal, or a fault of its own.
    #[error("the store answered with an error: {0}")]
    Failed(StoreCause),
}

/// What is known about an error of the store.
///
/// Its [`Display`](fmt::Display), which is logged, has the store's code but not its message: AWS
/// puts keys and role ARNs into messages, and other stores whole requests with their signatures.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StoreCause {
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// The store's code, such as `AccessDenied`.
    pub code: Option<String>,
    /// The store's own words. Never log them.
    pub message: Option<String>,
    /// Our own description, which may be logged.
    detail: String,
}

impl From<String> for StoreCause {
    fn from(detail: String) -> Self {
        Self {
            detail,
            ..Self::default()
        }
    }
}

impl From<&str> for StoreCause {
    fn from(detail: &str) -> Self {
        detail.to_owned().into()
    }
}

impl StoreCause {
    pub(super) fn from_sdk<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let SdkError::ServiceError(context) = error else {
            return causes(error).into();
        };
        let (error, status) = (context.err(), context.raw().status().as_u16());
        let code = error.code().map(str::to_owned);
        let name = code.as_deref().filter(|code| is_name(code));
        let mut detail = format!("{status} {}", name.unwrap_or("without a code"));
        let region = context.raw().headers().get("x-amz-bucket-region");
        if let (301 | 307 | 400, Some(region)) = (status, region.filter(|it| is_region(it))) {
            write!(detail, "; the bucket is in {region}").ok(); // writing to a String cannot fail
        }
        Self {
            detail,
            status: Some(status),
            message: error.message().map(str::to_owned),
            code,
        }
    }

    /// Whether the answer has no code, as that of a proxy in between, so that the store may have done
    /// what it was asked for.
    pub(super) fn may_be_of_proxy(&self) -> bool {
        self.status == Some(503) && self.code.as_ref().is_none_or(String::is_empty)
    }

    #[must_use]
    pub(super) fn explained(mut self, detail: &str) -> Self {
        self.detail = format!("{}; {detail}", self.detail);
        self
    }
}

impl fmt::Display for StoreCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

/// Omits the message, because errors are often logged with `{:?}`.
impl fmt::Debug for StoreCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl<E> From<SdkError<E, HttpResponse>> for StoreError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    fn from(error: SdkError<E, HttpResponse>) -> Self {
        let cause = StoreCause::from_sdk(&error);
        let kind = match &error {
            SdkError::TimeoutError(_) => Self::TimedOut,
            SdkError::DispatchFailure(failure) if failure.is_timeout() => Self::TimedOut,
            SdkError::DispatchFailure(_) | SdkError::ResponseError(_) => Self::Unavailable,
            _ => match cause.code.as_deref().unwrap_or_default() {
                // Ceph answers `NoSuchKey` to calls of a multipart upload that is gone.
                "NoSuchUpload" | "NoSuchKey" => Self::NoSuchUpload,
                "InvalidPart" | "InvalidPartOrder" | "EntityTooSmall" | "EntityTooLarge"
                | "MalformedXML" => Self::InvalidParts,
                "PreconditionFailed" => Self::ObjectExists,
                // Another call writes the object at this moment.
                "ConditionalRequestConflict"
                | "SlowDown"
                | "ServiceUnavailable"
                | "RequestLimitExceeded"
                | "Throttling"
                | "TooManyRequests" => Self::Busy,
                // Proxies in between have no code, nor have answers to HEAD. Other stores have codes of their
                // own.
                _ if matches!(cause.status, Some(429 | 503)) => Self::Busy,
                _ => Self::Failed,
            },
        };
        kind(cause)
    }
}

pub(super) fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|answer| answer.status().as_u16())
}

/// `None` if the store says that the object does not exist. It says so with a code: a 404 without one can
/// be that of a proxy in between. If the call was denied, the log says which permissions it `needs`.
pub(super) fn absent<T, E>(
    error: SdkError<E, HttpResponse>,
    needs: &str,
) -> Result<Option<T>, StoreError>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match (status(&error), error.code()) {
        (Some(404), Some("NoSuchKey" | "NoSuchVersion")) => Ok(None),
        // An answer to HEAD has no code, so it can also be about the signature or the clock.
        (Some(403), None | Some("" | "AccessDenied" | "AllAccessDisabled")) => {
            let cause = StoreCause::from_sdk(&error);
            let why = format!("the credentials may lack {needs}");
            Err(StoreError::Failed(cause.explained(&why)))
        }
        _ => Err(error.into()),
    }
}

impl StoreError {
    pub fn cause(&self) -> &StoreCause {
        match self {
            Self::NoSuchUpload(cause)
            | Self::InvalidParts(cause)
            | Self::ObjectExists(cause)
            | Self::Busy(cause)
            | Self::Unavailable(cause)
            | Self::TimedOut(cause)
            | Self::Failed(cause) => cause,
        }
    }

    /// Its name in metrics.
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

/// Whether it can be the code of an error, and not a text in its place.
fn is_name(code: &str) -> bool {
    (1..=64).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric())
}

fn is_region(text: &str) -> bool {
    let is_of_region = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(is_of_region)
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::error::ErrorMetadata;
    use aws_sdk_s3::operation::list_parts::ListPartsError;
    use aws_sdk_s3::primitives::SdkBody;

    use super::super::head::NEEDS;
    use super::*;

    fn error(status: u16, code: &str, message: &str) -> StoreError {
        let answer = HttpResponse::new(status.try_into().unwrap(), SdkBody::empty());
        let metadata = ErrorMetadata::builder().code(code).message(message);
        SdkError::service_error(ListPartsError::generic(metadata.build()), answer).into()
    }

    #[test]
    fn what_is_logged_of_an_answer_is_its_code_and_never_its_message() {
        let message = "User: arn:aws:sts::123456789012:assumed-role/r/s is not authorized to perform: s3:PutObject on resource: \"arn:aws:s3:::b/uploads/divorce-papers.pdf\"";
        let refused = error(403, "AccessDenied", message);
        assert_eq!(
            refused.to_string(),
            "the store answered with an error: 403 AccessDenied"
        );
        assert!(!format!("{refused:?}").contains("arn"), "{refused:?}");
        let odd = error(400, "uploads/divorce-papers.pdf", "");
        assert!(!odd.to_string().contains("divorce"), "{odd}");
    }

    #[test]
    fn an_answer_of_the_wrong_region_names_that_of_the_bucket() {
        let described = |status: u16, region: &'static str| {
            let mut answer = HttpResponse::new(status.try_into().unwrap(), SdkBody::empty());
            answer.headers_mut().insert("x-amz-bucket-region", region);
            let error = SdkError::service_error(ListPartsError::unhandled("no body"), answer);
            StoreError::from(error).cause().to_string()
        };
        for status in [301, 307, 400] {
            let expected = format!("{status} without a code; the bucket is in eu-west-1");
            assert_eq!(described(status, "eu-west-1"), expected);
        }
        for (status, region) in [(403, "eu-west-1"), (301, "uploads/a.txt")] {
            assert_eq!(
                described(status, region),
                format!("{status} without a code")
            );
        }
    }

    #[test]
    fn permissions_are_named_only_where_they_may_be_missing() {
        for (code, names) in [
            (Some("AccessDenied"), true),
            (Some(""), true),
            (None, true),
            (Some("SignatureDoesNotMatch"), false),
            (Some("RequestTimeTooSkewed"), false),
            (Some("InvalidAccessKeyId"), false),
        ] {
            let answer = HttpResponse::new(403.try_into().unwrap(), SdkBody::empty());
            let metadata = code.map(|code| ErrorMetadata::builder().code(code));
            let metadata = metadata.unwrap_or_default().build();
            let error = SdkError::service_error(ListPartsError::generic(metadata), answer);
            let error = absent::<(), _>(error, NEEDS).unwrap_err();
            let text = error.to_string();
            let needed = "may lack s3:GetObject, and s3:ListBucket";
            assert_eq!(text.contains(needed), names, "{text}");
            assert!(text.contains(code.unwrap_or_default()), "{text}");
        }
    }
}
