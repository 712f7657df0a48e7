//! Why a request to the store failed, and how to fix it.

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::report::Line;
use crate::error_chain::causes;
use crate::{s3, upload};

/// The header in which S3 says where a bucket really is.
pub(super) const BUCKET_REGION: &str = "x-amz-bucket-region";

/// The failure of a request.
#[derive(Clone, Debug)]
pub(super) enum Problem {
    /// There was no answer; why.
    NoAnswer(String),
    TimedOut,
    Refused(Refused),
    /// The request succeeded, but its answer is not what S3 answers.
    Unreadable,
    /// The request was not sent; why.
    NotSent(String),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Refused {
    /// Unknown where the service's own code read the answer.
    pub(super) status: Option<u16>,
    pub(super) code: String,
    pub(super) message: String,
    /// Where the bucket is, as the answer says.
    pub(super) region: Option<String>,
}

impl Refused {
    fn new(status: Option<u16>, code: String, message: String, region: Option<String>) -> Self {
        // Garage has one code for both, and tells them from missing permissions in words.
        let code = match code.as_str() {
            "AccessDenied" if message.contains("No such key") => "InvalidAccessKeyId".to_owned(),
            "AccessDenied" if message.contains("Invalid signature") => {
                "SignatureDoesNotMatch".to_owned()
            }
            _ => code,
        };
        Self {
            status,
            code,
            message,
            region,
        }
    }
}

impl Problem {
    pub(super) fn of_sdk<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        match error {
            SdkError::TimeoutError(_) => Self::TimedOut,
            SdkError::DispatchFailure(failure) if failure.is_timeout() => Self::TimedOut,
            SdkError::DispatchFailure(failure) => Self::NoAnswer(
                failure
                    .as_connector_error()
                    .map_or_else(String::new, |e| causes(e)),
            ),
            SdkError::ServiceError(context) if context.raw().status().is_success() => {
                Self::Unreadable
            }
            SdkError::ServiceError(context) => {
                let raw = context.raw();
                let in_body = || {
                    let body = String::from_utf8_lossy(raw.body().bytes()?);
                    Some(element(&body, "Region")).filter(|region| !region.is_empty())
                };
                Self::Refused(Refused::new(
                    Some(raw.status().as_u16()),
                    context.err().code().unwrap_or_default().to_owned(),
                    context.err().message().unwrap_or_default().to_owned(),
                    raw.headers()
                        .get(BUCKET_REGION)
                        .map(str::to_owned)
                        .or_else(in_body),
                ))
            }
            SdkError::ResponseError(context) if context.raw().status().is_success() => {
                Self::Unreadable
            }
            SdkError::ResponseError(context) => Self::Refused(Refused {
                status: Some(context.raw().status().as_u16()),
                message: "the answer is not one of S3".to_owned(),
                ..Refused::default()
            }),
            _ => Self::NotSent(causes(error)),
        }
    }

    pub(super) fn of_http(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::TimedOut;
        }
        // The URL may be a presigned one.
        Self::NoAnswer(causes(&error.without_url()))
    }

    /// For an answer that is no success.
    pub(super) async fn of_response(mut response: reqwest::Response) -> Self {
        const LONGEST: usize = 64 * 1024;
        let mut body = Vec::new();
        while body.len() < LONGEST
            && let Ok(Some(chunk)) = response.chunk().await
        {
            body.extend_from_slice(&chunk);
        }
        let body = String::from_utf8_lossy(&body);
        let region = response.headers().get(BUCKET_REGION);
        let region = region.and_then(|region| Some(region.to_str().ok()?.to_owned()));
        let in_body = Some(element(&body, "Region")).filter(|region| !region.is_empty());
        // No other elements: they may repeat what was signed.
        Self::Refused(Refused::new(
            Some(response.status().as_u16()),
            element(&body, "Code"),
            element(&body, "Message"),
            region.or(in_body),
        ))
    }

    /// For an error of the service's own code.
    pub(super) fn of_upload(error: &upload::Error) -> Self {
        match error {
            upload::Error::Store(s3::StoreError::TimedOut(_)) => Self::TimedOut,
            upload::Error::Store(s3::StoreError::Unavailable(why)) => {
                Self::NoAnswer(why.to_string())
            }
            upload::Error::Store(error) => {
                let cause = error.cause();
                Self::Refused(Refused {
                    status: cause.status,
                    code: cause.code.clone().unwrap_or_default(),
                    message: cause.message.clone().unwrap_or_default(),
                    region: None,
                })
            }
            upload::Error::NoSuchUpload => Self::Refused(Refused {
                code: "NoSuchUpload".to_owned(),
                ..Refused::default()
            }),
            error => Self::NotSent(causes(error)),
        }
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
        self.refused()
            .is_some_and(|refused| codes.contains(&refused.code.as_str()))
    }

    pub(super) fn is_not_implemented(&self) -> bool {
        self.is(&["NotImplemented"]) || matches!(self.status(), Some(501 | 405))
    }

    /// Whether permissions are missing, as far as that is known: answers to HEAD have no code.
    pub(super) fn is_denied(&self) -> bool {
        let has_no_code = self
            .refused()
            .is_some_and(|refused| refused.code.is_empty());
        self.is(&["AccessDenied", "AllAccessDisabled"])
            || (self.status() == Some(403) && has_no_code)
    }

    pub(super) fn says(&self) -> String {
        match self {
            Self::NoAnswer(why) => format!("no answer: {why}"),
            Self::TimedOut => "no answer in time".to_owned(),
            Self::NotSent(why) => why.clone(),
            Self::Unreadable => "the store's answer cannot be read".to_owned(),
            Self::Refused(refused) => {
                let mut words = "the store answered".to_owned();
                if let Some(status) = refused.status {
                    words = format!("{words} {status}");
                }
                if !refused.code.is_empty() {
                    words = format!("{words} {}", refused.code);
                }
                if !refused.message.is_empty() {
                    words = format!("{words}: {}", refused.message);
                }
                words
            }
        }
    }

    /// What to do; `permission` is what was needed.
    pub(super) fn fix(&self, permission: &str) -> Option<String> {
        let refused = self.refused()?;
        let fix = match refused.code.as_str() {
            "InvalidAccessKeyId" | "InvalidClientTokenId" | "NotSignedUp" => {
                "the store does not know the access key: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to keys of this store"
            }
            "SignatureDoesNotMatch" => {
                "AWS_SECRET_ACCESS_KEY is not that of AWS_ACCESS_KEY_ID, or a proxy before the store changes requests or their Host"
            }
            "ExpiredToken" | "TokenRefreshRequired" => "the credentials have expired: get new ones",
            "InvalidToken" | "InvalidSecurity" => {
                "AWS_SESSION_TOKEN does not belong to the access key: set both again, or neither"
            }
            "RequestTimeTooSkewed" => "set this machine's clock (NTP)",
            "NoSuchBucket" => "create the bucket, or set AWS_S3_BUCKET_NAME to one that exists",
            "AuthorizationHeaderMalformed"
            | "PermanentRedirect"
            | "IllegalLocationConstraintException"
            | "AuthorizationQueryParametersError" => {
                return Some(match &refused.region {
                    Some(region) => format!("set AWS_REGION={region}"),
                    None => "set AWS_REGION to the bucket's region".to_owned(),
                });
            }
            _ if self.is_denied() => {
                return Some(format!("the credentials need {permission}"));
            }
            _ => return None,
        };
        Some(fix.to_owned())
    }

    /// The line of a check that must succeed.
    pub(super) fn failed(&self, check: &'static str, permission: &str) -> Line {
        let line = Line::failed(check, self.says());
        match self.fix(permission) {
            Some(fix) => line.fix(fix),
            None => line,
        }
    }

    /// The line of a check that not all stores answer, and not all credentials may ask for.
    pub(super) fn unknown(&self, check: &'static str, permission: &str) -> Line {
        if self.is_not_implemented() {
            return Line::skipped(check, "the store does not support this");
        }
        if self.is_denied() {
            let detail = format!("the credentials may not ask; they need {permission}");
            return Line::skipped(check, detail);
        }
        if matches!(self, Self::Unreadable) {
            return Line::skipped(check, self.says());
        }
        Line::warning(check, self.says())
    }
}

/// The text of an XML element.
fn element(xml: &str, name: &str) -> String {
    between(xml, &format!("<{name}>"), &format!("</{name}>"))
}

fn between(text: &str, before: &str, after: &str) -> String {
    let found = text
        .split_once(before)
        .and_then(|(_, rest)| rest.split_once(after));
    found.map_or_else(String::new, |(found, _)| found.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_url_that_nobody_answered_is_not_repeated() {
        let url = "http://127.0.0.1:1/k?X-Amz-Signature=secret";
        let error = reqwest::get(url).await.unwrap_err();
        assert!(error.to_string().contains("secret"));
        let says = Problem::of_http(error).says();
        assert!(
            !says.contains("secret") && says.contains("refused"),
            "{says}"
        );
    }
}
