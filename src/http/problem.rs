//! The one shape of every error answer: a problem document as in
//! [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457).

pub(crate) mod catalogue;
mod fields;
mod from_upload;

use std::borrow::Cow;
use std::fmt::Display;
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::ext::ReasonPhrase;
use serde::Serialize;
use utoipa::ToSchema;

use self::catalogue::Kind;
pub(crate) use self::fields::{FieldErrors, push_segment};
use self::fields::{MAX_DETAIL_BYTES, cut};
use self::from_upload::member;
use super::auth::Refused;
use super::xml::Document;
use crate::upload::{Invalid, Refusal};

/// The default `Retry-After`, in seconds, of answers with 429 and 503.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// What went wrong. Programs read `status` and `code`, people read `detail`.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Problem {
    /// Always `about:blank`: the status says what kind of problem it is, `code` says which.
    #[serde(rename = "type")]
    #[schema(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The status of the response.
    pub(super) status: u16,
    /// What went wrong with this request, in a sentence.
    pub(super) detail: String,
    /// What went wrong, for programs. It does not change between versions.
    pub(super) code: &'static str,
    /// Every field that is wrong; absent when the problem is not with a field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub(super) errors: Vec<FieldError>,
    /// The id of this request in the log, also in the `x-request-id` header.
    request_id: String,
    /// For third-party clients, which read this member; on `/s3/…` and `/better-upload` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = ClientError, required = false)]
    error: Option<ClientError>,
    /// The same as `detail`, for Uppy, which shows it to its user; on `/s3/…` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    message: Option<String>,
    /// Why the request failed, for the log alone: [`super::middleware`] writes it there.
    #[serde(skip)]
    #[schema(ignore)]
    pub(super) cause: Option<String>,
    /// Why the request was refused, where clients must not learn that; for the log alone, too.
    #[serde(skip)]
    #[schema(ignore)]
    refused: Option<Refused>,
}

/// What went wrong, as third-party clients read it: a text, the same as `detail`, for Uppy; an object for better-upload.
//
// The variants have no texts of their own: openapi-generator forgets a reference that has a description beside it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum ClientError {
    Text(String),
    Typed(TypedError),
}

/// What better-upload gives to its application.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = BetterUploadError)]
struct TypedError {
    /// One of better-upload's types: `invalid_request`, `too_many_files`, `file_too_large`, `invalid_file_type`,
    /// `rejected` or `unknown`.
    #[serde(rename = "type")]
    #[schema(example = "invalid_file_type")]
    kind: &'static str,
    /// The same as `detail`.
    message: String,
}

/// One field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct FieldError {
    /// Where the field is, as a JSON pointer ([RFC 6901](https://www.rfc-editor.org/rfc/rfc6901)).
    #[schema(example = "/filename")]
    pub(crate) pointer: String,
    /// What is wrong with it, for programs.
    #[schema(example = "empty")]
    pub(crate) code: &'static str,
    /// What is wrong with it, in words.
    #[schema(example = "must not be empty")]
    pub(crate) detail: Cow<'static, str>,
}

impl Problem {
    pub(crate) fn new(kind: &Kind) -> Self {
        Self::with_detail(kind, kind.text)
    }

    /// With a more specific detail than the kind's own.
    pub(crate) fn with_detail(kind: &Kind, detail: &str) -> Self {
        Self {
            kind: "about:blank",
            title: kind.status.canonical_reason().unwrap_or("Error"),
            status: kind.status.as_u16(),
            detail: cut(detail, MAX_DETAIL_BYTES).into_owned(),
            code: kind.code,
            errors: Vec::new(),
            request_id: String::new(),
            error: None,
            message: None,
            cause: None,
            refused: None,
        }
    }

    /// For one invalid field or parameter.
    pub(crate) fn for_field(pointer: &str, invalid: Invalid) -> Self {
        let mut errors = FieldErrors::default();
        errors.push(pointer.to_owned(), invalid);
        errors.into_problem()
    }

    /// For an object that differs from what was granted.
    pub(crate) fn for_differences(kind: &Kind, refusals: &[Refusal]) -> Self {
        FieldErrors::from_refusals(refusals, |_, field| member(field)).into_problem_of(kind)
    }

    /// For a fault of presignd. The cause goes to the log, and only there.
    pub(crate) fn internal(cause: impl Display) -> Self {
        let mut problem = Self::new(&catalogue::INTERNAL);
        problem.cause = Some(cause.to_string());
        problem
    }

    /// The answer, once the id of the request is known.
    pub(crate) fn render(mut self, request_id: &str, dialect: Option<Dialect>) -> Response {
        let status = self.status();
        request_id.clone_into(&mut self.request_id);
        let mut reason = None;
        match dialect {
            Some(Dialect::Xml) => {
                let error = Document::error(&pascal_case(self.code), &self.detail, request_id);
                return (status, error).into_response();
            }
            Some(Dialect::Uppy) => {
                reason = reason_phrase(&self.detail);
                self.error = Some(ClientError::Text(self.detail.clone()));
                self.message = Some(self.detail.clone());
            }
            Some(Dialect::BetterUpload) => {
                self.error = Some(ClientError::Typed(TypedError {
                    kind: self.better_upload_type(),
                    message: self.detail.clone(),
                }));
            }
            None => {}
        }
        let mut response = (status, Json(self)).into_response();
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(reason) = reason {
            response.extensions_mut().insert(reason);
        }
        response
    }

    /// The type that better-upload has for the problem, or for the first of its fields.
    fn better_upload_type(&self) -> &'static str {
        let code = self.errors.first().map_or(self.code, |error| error.code);
        match (code, self.status) {
            ("too-many-files", _) => "too_many_files",
            ("file-too-large", _) => "file_too_large",
            ("type-not-allowed" | "active-content" | "type-required", _) => "invalid_file_type",
            (_, 401 | 403 | 422 | 429) => "rejected",
            (_, 400..500) => "invalid_request",
            _ => "unknown",
        }
    }

    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// How the problems of a route are written for third-party clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// With the members `error` and `message`, and a reason phrase.
    Uppy,
    /// With the member `error`, which has a type.
    BetterUpload,
    /// As S3 writes its errors.
    Xml,
}

/// The detail as the reason phrase of HTTP/1.1, which is all that Uppy 6 shows of an answer. It is
/// shortened, and characters beyond ASCII are replaced.
fn reason_phrase(detail: &str) -> Option<ReasonPhrase> {
    const MAX_CHARS: usize = 200;
    let chars = detail.chars().take(MAX_CHARS);
    let is_plain = |c: &char| c.is_ascii_graphic() || *c == ' ';
    let reason: String = chars.map(|c| if is_plain(&c) { c } else { '?' }).collect();
    ReasonPhrase::try_from(reason).ok()
}

/// `no-such-upload` as S3 would write it: `NoSuchUpload`.
fn pascal_case(code: &str) -> String {
    let words = code.split('-').filter_map(|word| {
        let (first, rest) = word.split_at_checked(1)?;
        Some(first.to_ascii_uppercase() + rest)
    });
    words.collect()
}

/// The answer has no body yet. [`super::middleware`] renders it, because it knows the id of the
/// request.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = status.into_response();
        if let Some(refused) = self.refused {
            response.extensions_mut().insert(refused);
        }
        response.extensions_mut().insert(self);
        if let StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS = status {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

/// An answer that says when to try again.
pub(super) fn retry_later(kind: &Kind, wait: Duration) -> Response {
    let mut response = Problem::new(kind).into_response();
    // Rounded up: a retry must not come too early.
    let seconds = u64::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u64::MAX);
    let seconds = HeaderValue::from(seconds.max(1));
    response.headers_mut().insert(header::RETRY_AFTER, seconds);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_never_told_to_come_back_too_early() {
        for (millis, seconds) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (9999, "10")] {
            let answer = retry_later(&catalogue::RATE_LIMITED, Duration::from_millis(millis));
            assert_eq!(answer.headers()[header::RETRY_AFTER], seconds, "{millis}");
        }
    }
}
