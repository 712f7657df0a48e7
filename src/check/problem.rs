//! Why a request to the store failed, and how to fix it.

use std::fmt;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use reqwest::{Url, header};

use crate::error_chain::causes;
use crate::xml::text_of;
use crate::{s3, upload};

pub(super) use fix::{connection_fix, proxy_remark};

mod fix;

/// The header in which S3 names the region of a bucket.
pub(super) const BUCKET_REGION: &str = "x-amz-bucket-region";

/// The failure of a request.
#[derive(Clone, Debug)]
pub(super) enum Problem {
    /// There was no answer, for this reason.
    NoAnswer(String),
    TimedOut,
    Refused(Refused),
    /// The request succeeded, but S3 would not give this answer.
    Unreadable,
    /// The request was not sent, for this reason.
    NotSent(String),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Refused {
    /// Unknown if the service's own code read the answer.
    pub(super) status: Option<u16>,
    pub(super) code: String,
    pub(super) message: String,
    /// The region of the bucket, if the answer names it.
    pub(super) region: Option<String>,
    /// Where a redirect leads, without the path and the query, which may hold a secret.
    pub(super) redirects_to: Option<String>,
    /// Whether the answer has a body.
    pub(super) has_body: bool,
}

impl Refused {
    fn new(
        status: u16,
        code: String,
        message: String,
        region_header: Option<&str>,
        location: Option<&str>,
        body: &str,
    ) -> Self {
        // Garage has the same code for these faults as for missing permissions; only its message
        // differs.
        let code = match code.as_str() {
            "AccessDenied" if message.contains("No such key") => "InvalidAccessKeyId".to_owned(),
            "AccessDenied" if message.contains("Invalid signature") => {
                "SignatureDoesNotMatch".to_owned()
            }
            _ => code,
        };
        let region = region_header.map(str::to_owned);
        let region = region.or_else(|| text_of(body, "Region"));
        Self {
            status: Some(status),
            code,
            message,
            region: region.filter(|region| !region.is_empty()),
            redirects_to: location.and_then(origin),
            has_body: !body.is_empty(),
        }
    }
}

impl<E> From<SdkError<E, HttpResponse>> for Problem
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    fn from(error: SdkError<E, HttpResponse>) -> Self {
        match &error {
            SdkError::TimeoutError(_) => Self::TimedOut,
            SdkError::DispatchFailure(failure) if failure.is_timeout() => Self::TimedOut,
            SdkError::DispatchFailure(failure) => Self::NoAnswer(
                failure
                    .as_connector_error()
                    .map_or_else(String::new, |e| causes(e)),
            ),
            SdkError::ServiceError(_) | SdkError::ResponseError(_)
                if error
                    .raw_response()
                    .is_some_and(|raw| raw.status().is_success()) =>
            {
                Self::Unreadable
            }
            SdkError::ServiceError(context) => {
                let (error, raw) = (context.err(), context.raw());
                let body = String::from_utf8_lossy(raw.body().bytes().unwrap_or_default());
                Self::Refused(Refused::new(
                    raw.status().as_u16(),
                    error.code().unwrap_or_default().to_owned(),
                    error.message().unwrap_or_default().to_owned(),
                    raw.headers().get(BUCKET_REGION),
                    raw.headers().get(header::LOCATION.as_str()),
                    &body,
                ))
            }
            SdkError::ResponseError(context) => Self::Refused(Refused {
                status: Some(context.raw().status().as_u16()),
                message: "the answer is not one of S3".to_owned(),
                redirects_to: {
                    let headers = context.raw().headers();
                    headers.get(header::LOCATION.as_str()).and_then(origin)
                },
                has_body: true,
                ..Refused::default()
            }),
            _ => Self::NotSent(causes(&error)),
        }
    }
}

impl From<reqwest::Error> for Problem {
    fn from(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::TimedOut;
        }
        // The URL may be a presigned one.
        Self::NoAnswer(causes(&error.without_url()))
    }
}

/// The service's own code has failed.
impl From<upload::Error> for Problem {
    fn from(error: upload::Error) -> Self {
        match &error {
            upload::Error::Store(s3::StoreError::TimedOut(_)) => Self::TimedOut,
            upload::Error::Store(s3::StoreError::Unavailable(why)) => {
                Self::NoAnswer(why.to_string())
            }
            upload::Error::Store(error) => {
                let cause = error.cause();
                Self::Refused(Refused {
                    status: cause.status,
                    code: cause.code.clone().unwrap_or_default(),
                    message: match &cause.message {
                        Some(message) => message.clone(),
                        // The store's answer was a success, but not what it has to be.
                        None if cause.status.is_none() => cause.to_string(),
                        None => String::new(),
                    },
                    ..Refused::default()
                })
            }
            upload::Error::NoSuchUpload(_) => Self::Refused(Refused {
                code: "NoSuchUpload".to_owned(),
                ..Refused::default()
            }),
            _ => Self::NotSent(causes(&error)),
        }
    }
}

impl Problem {
    /// The problem that an unsuccessful answer states.
    pub(super) async fn from_response(mut response: reqwest::Response) -> Self {
        const LONGEST: usize = 64 * 1024;
        let mut body = Vec::new();
        while body.len() < LONGEST
            && let Ok(Some(chunk)) = response.chunk().await
        {
            body.extend_from_slice(&chunk);
        }
        let body = String::from_utf8_lossy(&body);
        let header = |name: &str| response.headers().get(name)?.to_str().ok();
        // Other elements are ignored, because they may repeat what was signed.
        Self::Refused(Refused::new(
            response.status().as_u16(),
            text_of(&body, "Code").unwrap_or_default(),
            text_of(&body, "Message").unwrap_or_default(),
            header(BUCKET_REGION),
            header(header::LOCATION.as_str()),
            &body,
        ))
    }

    fn refused(&self) -> Option<&Refused> {
        match self {
            Self::Refused(refused) => Some(refused),
            _ => None,
        }
    }

    pub(super) fn status(&self) -> Option<u16> {
        self.refused()?.status
    }

    pub(super) fn region(&self) -> Option<&str> {
        self.refused()?.region.as_deref()
    }

    pub(super) fn is(&self, codes: &[&str]) -> bool {
        let code = self.refused().map(|refused| refused.code.as_str());
        code.is_some_and(|code| codes.contains(&code))
    }

    /// Whether the store refused the request. One that is only busy or broken may have done what was
    /// asked.
    pub(super) fn is_refusal(&self) -> bool {
        let status = self.status();
        status.is_some_and(|status| status == 501 || (400..500).contains(&status) && status != 429)
    }

    pub(super) fn is_not_implemented(&self) -> bool {
        self.is(&["NotImplemented"]) || matches!(self.status(), Some(501 | 405))
    }

    /// Whether the store may have refused the request because of what the policy asks for.
    pub(super) fn may_be_unsupported(&self) -> bool {
        // SeaweedFS answers 500 where it has no keys to encrypt with.
        self.is_refusal() || self.status() == Some(500)
    }

    /// Whether this is a 404 without one of S3's codes, which a proxy in between may have answered.
    pub(super) fn is_404_without_code(&self) -> bool {
        // The SDK's code for an answer without a body is `NotFound`.
        self.status() == Some(404) && self.is(&["", "NotFound"])
    }

    pub(super) fn is_unreadable(&self) -> bool {
        matches!(self, Self::Unreadable)
    }

    /// Whether this is a 403 with a body that has none of S3's codes, such as the page of a proxy.
    pub(super) fn is_403_of_proxy(&self) -> bool {
        let refused = self.refused();
        refused.is_some_and(|it| it.status == Some(403) && it.code.is_empty() && it.has_body)
    }

    /// Whether the store says that the bucket has no rules of the kind that was asked for.
    pub(super) fn means_no_rules(&self) -> bool {
        let Some(refused) = self.refused() else {
            return false;
        };
        if self.is_404_without_code() {
            // Garage answers so, and a proxy has a page.
            return !refused.has_body;
        }
        let code = refused.code.as_str();
        refused.status == Some(404) && code.starts_with("NoSuch") && code != "NoSuchBucket"
    }

    /// Whether permissions are missing, as far as that is known: answers to HEAD requests have no
    /// code.
    pub(super) fn is_denied(&self) -> bool {
        self.is(&["AccessDenied", "AllAccessDisabled"])
            || (self.status() == Some(403) && self.is(&[""]))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer(why) => write!(f, "no answer: {why}"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::NotSent(why) => f.write_str(why),
            Self::Unreadable => f.write_str("the store's answer cannot be read"),
            Self::Refused(refused) => {
                f.write_str("the store answered")?;
                if let Some(status) = refused.status {
                    write!(f, " {status}")?;
                }
                if !refused.code.is_empty() {
                    write!(f, " {}", refused.code)?;
                } else if refused.has_body {
                    f.write_str(" without S3's code")?;
                }
                match refused.message.as_str() {
                    "" => Ok(()),
                    message if repeats_signature(message) => {
                        f.write_str("; its message repeats the signed request, and is not shown")
                    }
                    message => write!(f, ": {message}"),
                }
            }
        }
    }
}

/// The scheme, host and port of a URL.
pub(super) fn origin(url: &str) -> Option<String> {
    let origin = Url::parse(url).ok()?.origin();
    origin.is_tuple().then(|| origin.ascii_serialization())
}

/// Whether a store's message has the signature or the token of the request, as some stores' have.
fn repeats_signature(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    let of_url_or_json = ["signature=", "signature\"", "token=", "token\""];
    of_url_or_json.iter().any(|name| message.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_in_an_answer_of_success_is_named() {
        let error = s3::StoreError::Failed("it gave no upload id".into());
        let says = Problem::from(upload::Error::Store(error)).to_string();
        assert!(says.contains("it gave no upload id"), "{says}");
    }

    #[tokio::test]
    async fn the_url_of_a_failed_request_is_not_repeated() {
        let url = "http://127.0.0.1:1/k?X-Amz-Signature=secret";
        let error = reqwest::get(url).await.unwrap_err();
        assert!(error.to_string().contains("secret"));
        let says = Problem::from(error).to_string();
        assert!(
            !says.contains("secret") && says.contains("refused"),
            "{says}"
        );
    }
}
