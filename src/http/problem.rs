//! The one shape of every error answer: a problem document as in
//! [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457), and which status each error gets.

pub(crate) mod catalogue;
mod fields;

use std::borrow::Cow;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::ext::ReasonPhrase;
use serde::Serialize;
use utoipa::ToSchema;

use self::catalogue::Kind;
pub(crate) use self::fields::{FieldErrors, push_segment};
use self::fields::{MAX_DETAIL_BYTES, cut};
use super::xml::Document;
use crate::error_chain::causes;
use crate::s3::StoreError;
use crate::upload::{self, Field, Invalid, Refusal};

/// Seconds until a client should ask again when there are no credentials.
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
    /// What a client that others wrote reads; on `/s3/…` and `/better-upload` alone.
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
}

/// What went wrong, as a client that others wrote reads it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum ClientError {
    /// The same as `detail`, for Uppy.
    Text(String),
    /// For better-upload.
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
    pub(crate) fn internal() -> Self {
        Self::new(&catalogue::INTERNAL)
    }

    /// The answer, once the id of the request is known.
    pub(crate) fn render(mut self, request_id: &str, dialect: Option<Dialect>) -> Response {
        let status = self.status();
        request_id.clone_into(&mut self.request_id);
        if dialect == Some(Dialect::Xml) {
            let error = Document::error(&pascal_case(self.code), &self.detail, request_id);
            return (status, error).into_response();
        }
        let mut reason = None;
        if dialect == Some(Dialect::Uppy) {
            reason = reason_phrase(&self.detail);
            self.error = Some(ClientError::Text(self.detail.clone()));
            self.message = Some(self.detail.clone());
        }
        if dialect == Some(Dialect::BetterUpload) {
            self.error = Some(ClientError::Typed(TypedError {
                kind: self.better_upload_type(),
                message: self.detail.clone(),
            }));
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
        response.extensions_mut().insert(self);
        if let StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS = status {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

impl IntoResponse for upload::Error {
    fn into_response(self) -> Response {
        Problem::from(self).into_response()
    }
}

impl From<upload::Error> for Problem {
    fn from(error: upload::Error) -> Self {
        Self::from_error(&error, |_, field| member(field))
    }
}

impl Problem {
    /// For a request with a list of `files`.
    pub(crate) fn from_list(error: upload::Error) -> Self {
        Self::from_error(&error, |file, field| {
            format!("/files/{file}{}", member(field))
        })
    }

    /// For a request of Uppy, which has another name for the content type.
    pub(crate) fn from_uppy(error: upload::Error) -> Self {
        Self::from_error(&error, |_, field| match field {
            Field::ContentType => "/type".to_owned(),
            field => member(field),
        })
    }

    /// For a request with a list of part numbers.
    pub(crate) fn from_part_numbers(error: upload::Error) -> Self {
        Self::from_error(&error, |_, field| match field {
            Field::PartNumber => "/partNumbers".to_owned(),
            field => member(field),
        })
    }

    /// For a request of better-upload, which has other names, and metadata for all of its files.
    /// `place` is where a file of the error is in the request.
    pub(crate) fn from_better_upload(error: upload::Error, place: impl Fn(usize) -> usize) -> Self {
        Self::from_error(&error, |file, field| {
            let file = place(file);
            match field {
                Field::Policy => "/route".to_owned(),
                Field::Metadata | Field::MetadataOf(_) => member(field),
                Field::Filename => format!("/files/{file}/name"),
                Field::ContentType => format!("/files/{file}/type"),
                field => format!("/files/{file}{}", member(field)),
            }
        })
    }

    /// `pointer` makes the JSON pointer to a field of a file in the request.
    fn from_error(error: &upload::Error, pointer: impl Fn(usize, &Field) -> String) -> Self {
        use upload::Error;
        let problem = match error {
            Error::Refused(refusals) => refused(refusals, pointer),
            Error::PolicyNotAllowed { file } => {
                let mut errors = FieldErrors::default();
                let detail = "is not one that you may upload under";
                let invalid = Invalid::new("policy-not-allowed", detail);
                errors.push(pointer(*file, &Field::Policy), invalid);
                errors.into_problem_of(&catalogue::POLICY_NOT_ALLOWED)
            }
            Error::MissingVar(name) => {
                let detail = format!("the policy needs a ticket with the variable `{name}`");
                Self::with_detail(&catalogue::VAR_REQUIRED, &detail)
            }
            Error::PostNotSupported => no_form("this store does not support presigned POST"),
            Error::FormsOnly => Self::new(&catalogue::FORMS_ONLY),
            Error::PostCannotKeepPolicy => {
                no_form("the policy forbids overwriting, which a form cannot")
            }
            Error::PostTooLarge => no_form(
                "the form would be larger than the store accepts, with all its metadata and tags",
            ),
            Error::NoCredentials(_) => Self::new(&catalogue::CREDENTIALS_UNAVAILABLE),
            Error::NoSuchUpload => Self::new(&catalogue::NO_SUCH_UPLOAD),
            Error::CallExpired => Self::new(&catalogue::CALL_EXPIRED),
            Error::TooMuchAtOnce => Self::new(&catalogue::TOO_MUCH_AT_ONCE),
            Error::Store(error) => Self::new(match error {
                StoreError::NoSuchUpload(_) => &catalogue::NO_SUCH_UPLOAD,
                StoreError::InvalidParts(_) => &catalogue::INVALID_PARTS,
                StoreError::ObjectExists(_) => &catalogue::OBJECT_EXISTS,
                StoreError::Busy(_) | StoreError::Unavailable(_) => &catalogue::STORAGE_UNAVAILABLE,
                StoreError::TimedOut(_) => &catalogue::STORAGE_TIMEOUT,
                StoreError::Failed(_) => &catalogue::STORAGE_ERROR,
            }),
            Error::Signing(_) | Error::Sealing(_) => Self::internal(),
        };
        let is_fault = problem.status().is_server_error();
        let cause = is_fault.then(|| causes(error));
        Self { cause, ..problem }
    }
}

/// The problem of a request that a PUT can do and a form cannot.
fn no_form(why: &str) -> Problem {
    let detail = format!("{why}; ask for a presigned PUT at /upload/presigned-url");
    Problem::with_detail(&catalogue::POST_NOT_SUPPORTED, &detail)
}

/// The first reason gives the problem its code.
fn refused(refusals: &[Refusal], pointer: impl Fn(usize, &Field) -> String) -> Problem {
    let first = refusals.first().map(|refusal| refusal.invalid.code);
    let mut kind = catalogue::FILE_TOO_LARGE;
    kind.code = first.unwrap_or(kind.code);
    FieldErrors::from_refusals(refusals, pointer).into_problem_of(&kind)
}

/// The JSON pointer to a field within the description of a file.
fn member(field: &Field) -> String {
    let name = match field {
        Field::Filename => "/filename",
        Field::ContentType => "/contentType",
        Field::Size => "/size",
        Field::ChecksumSha256 => "/checksumSha256",
        Field::ChecksumCrc64nvme => "/checksumCrc64nvme",
        Field::ContentMd5 => "/contentMd5",
        Field::Policy => "/policy",
        Field::PartNumber => "/partNumber",
        Field::Metadata | Field::MetadataOf(_) => "/metadata",
        Field::Stored(name) => return format!("/{name}"),
    };
    let mut pointer = name.to_owned();
    if let Field::MetadataOf(name) = field {
        push_segment(&mut pointer, name);
    }
    pointer
}
