//! The one shape of every error answer: a problem document as in
//! [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457), and which status each error gets.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

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
    /// The id that our log has for this request, also in the `x-request-id` header.
    request_id: String,
    /// The same as `detail`, for Uppy; on `/s3/…` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    error: Option<String>,
    /// The same as `detail`, for Uppy, which shows it to its user; on `/s3/…` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    message: Option<String>,
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
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            code,
            errors: Vec::new(),
            request_id: String::new(),
            error: None,
            message: None,
        }
    }

    pub(crate) fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "no-such-route",
            "there is nothing here; /docs describes what there is",
        )
    }

    /// For one field, or one parameter, that is wrong.
    pub(crate) fn of_field(pointer: &str, invalid: Invalid) -> Self {
        let mut errors = FieldErrors::default();
        errors.push(pointer.to_owned(), invalid);
        errors.into_problem()
    }

    /// For an upload that is there, but not what it should be.
    pub(crate) fn differs(code: &'static str, refusals: &[Refusal]) -> Self {
        FieldErrors::from_refusals(refusals, |_, field| member(field))
            .into_problem_of(StatusCode::CONFLICT, code)
    }

    /// For a body that cannot be read.
    pub(crate) fn bad_body(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// For what is our fault: the cause goes to the log, and only there.
    pub(crate) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "something went wrong on our side; the log has the details under this request id",
        )
    }

    /// The answer, once the id of the request is known, and whether it is Uppy's.
    pub(crate) fn render(mut self, request_id: &str, for_uppy: bool) -> Response {
        let status = self.status();
        request_id.clone_into(&mut self.request_id);
        if for_uppy {
            self.error = Some(self.detail.clone());
            self.message = Some(self.detail.clone());
        }
        let mut response = (status, Json(self)).into_response();
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        response
    }

    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// Marks the answers of Uppy's routes, whose problems have `error` and `message` for Uppy to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ForUppy;

/// Leaves the body to [`super::middleware`], which knows the id of the request.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<upload::Error> for Failure {
    fn from(error: upload::Error) -> Self {
        Self::new(error, |_, field| member(field))
    }
}

impl Failure {
    /// For a request with a list of `files`.
    pub(crate) fn of_list(error: upload::Error) -> Self {
        Self::new(error, |file, field| {
            format!("/files/{file}{}", member(field))
        })
    }

    /// For a request of Uppy's, which has another word for the content type.
    pub(crate) fn of_uppy(error: upload::Error) -> Self {
        Self::new(error, |_, field| match field {
            Field::ContentType => "/type".to_owned(),
            field => member(field),
        })
    }

    /// `pointer` says where in the request a field of each file is.
    fn new(error: upload::Error, pointer: impl Fn(usize, &Field) -> String) -> Self {
        let problem = match &error {
            upload::Error::Refused(refusals) => refused(refusals, pointer),
            upload::Error::PolicyNotAllowed { file } => {
                let mut errors = FieldErrors::default();
                let detail = "is not one that you may upload under";
                let invalid = Invalid::new("policy-not-allowed", detail);
                errors.push(pointer(*file, &Field::Policy), invalid);
                errors.into_problem_of(StatusCode::FORBIDDEN, "policy-not-allowed")
            }
            upload::Error::PostNotSupported => no_form("this store takes no presigned POST"),
            upload::Error::FormsOnly => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "forms-only",
                "this service grants forms only; ask for one at /upload/presigned-post",
            ),
            upload::Error::PostCannotKeepPolicy => {
                no_form("the policy forbids to overwrite, which a form cannot")
            }
            upload::Error::PostTooLarge => no_form(
                "the form would be larger than the store takes, with all its metadata and tags",
            ),
            upload::Error::NoCredentials(_) => Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "credentials-unavailable",
                "there are no credentials to sign with at the moment; try again later",
            ),
            upload::Error::NoSuchUpload | upload::Error::Store(StoreError::NoSuchUpload(_)) => {
                Problem::new(
                    StatusCode::NOT_FOUND,
                    "no-such-upload",
                    "there is no such upload of this key, or not any more",
                )
            }
            upload::Error::Store(StoreError::InvalidParts(_)) => Problem::new(
                StatusCode::BAD_REQUEST,
                "invalid-parts",
                "the parts are not those that the store has, or too small",
            ),
            upload::Error::Store(StoreError::ObjectExists(_)) => Problem::new(
                StatusCode::CONFLICT,
                "object-exists",
                "there is an object of this key already, and the policy forbids to overwrite it",
            ),
            upload::Error::Store(StoreError::Busy(_) | StoreError::Unavailable(_)) => Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "storage-unavailable",
                "the store cannot be reached at the moment; try again later",
            ),
            upload::Error::Store(StoreError::TimedOut(_)) => Problem::new(
                StatusCode::GATEWAY_TIMEOUT,
                "storage-timeout",
                "the store did not answer in time; try again later",
            ),
            upload::Error::Store(StoreError::Failed(_)) => Problem::new(
                StatusCode::BAD_GATEWAY,
                "storage-error",
                "the store answered with an error; the log has it under this request id",
            ),
            upload::Error::Signing(_) | upload::Error::Sealing(_) => Problem::internal(),
        };
        Self {
            problem,
            cause: Some(error),
        }
    }
}

/// A form cannot do it, but a PUT can.
fn no_form(why: &str) -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "post-not-supported",
        format!("{why}; ask for a presigned PUT at /upload/presigned-url"),
    )
}

/// The first reason gives the problem its code.
fn refused(refusals: &[Refusal], pointer: impl Fn(usize, &Field) -> String) -> Problem {
    let code = refusals.first().map_or("refused", |r| r.invalid.code);
    FieldErrors::from_refusals(refusals, pointer)
        .into_problem_of(StatusCode::UNPROCESSABLE_ENTITY, code)
}

/// Why a request failed, for the log alone: [`super::middleware`] writes it there.
#[derive(Clone, Debug)]
pub(crate) struct Cause(pub(crate) String);

/// An error on its way out: the client gets the problem, the log gets the cause.
#[derive(Debug)]
pub(crate) struct Failure {
    problem: Problem,
    cause: Option<upload::Error>,
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self {
            problem,
            cause: None,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = self.problem.status();
        let mut response = self.problem.into_response();
        if let Some(cause) = self.cause.filter(|_| status.is_server_error()) {
            response.extensions_mut().insert(Cause(causes(&cause)));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

/// A problem document is at most 64 KiB long, whatever the request was. The fields that are listed
/// take this much of it, in JSON, and the sentence for people as often as Uppy needs it the rest.
const MAX_LIST_BYTES: usize = 32 * 1024;
const MAX_DETAIL_BYTES: usize = 2000;
/// Longer details are not repeated for every field that they are true for.
const MAX_REPEATED_BYTES: usize = 100;
/// A name that the client chose is cut at this length.
const MAX_NAME_BYTES: usize = 100;
/// Invalid fields after these are only counted.
const MAX_ERRORS: usize = 4000;

/// The invalid fields of a request by their pointers, with one error each: the first that was found.
#[derive(Debug, Default)]
pub(crate) struct FieldErrors {
    errors: BTreeMap<String, Invalid>,
    /// How many more there are.
    uncounted: usize,
}

impl FieldErrors {
    /// `pointer` says where in the request a field of each file is.
    fn from_refusals(refusals: &[Refusal], pointer: impl Fn(usize, &Field) -> String) -> Self {
        let mut errors = FieldErrors::default();
        for refusal in refusals {
            let pointer = pointer(refusal.file, &refusal.field);
            errors.push(pointer, refusal.invalid.clone());
        }
        errors
    }

    pub(crate) fn push(&mut self, pointer: String, invalid: Invalid) {
        if self.covers(&pointer) {
            return;
        }
        if self.errors.len() < MAX_ERRORS {
            self.errors.insert(pointer, invalid);
        } else {
            self.uncounted += 1;
        }
    }

    /// The value, or nothing and one more error.
    pub(crate) fn check<T>(
        &mut self,
        pointer: impl FnOnce() -> String,
        result: Result<T, Invalid>,
    ) -> Option<T> {
        result.map_err(|invalid| self.push(pointer(), invalid)).ok()
    }

    pub(crate) fn len(&self) -> usize {
        self.errors.len() + self.uncounted
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    pub(crate) fn into_problem(self) -> Problem {
        self.into_problem_of(StatusCode::BAD_REQUEST, "invalid-request")
    }

    fn into_problem_of(self, status: StatusCode, code: &'static str) -> Problem {
        /// More do not fit into a sentence.
        const IN_DETAIL: usize = 5;
        let count = self.len();
        let mut listed = Vec::new();
        let mut bytes = 0;
        for error in self.into_list() {
            bytes += serde_json::to_string(&error).map_or(0, |json| json.len() + 1);
            if bytes > MAX_LIST_BYTES {
                break;
            }
            listed.push(error);
        }
        let sentences = listed.iter().take(IN_DETAIL);
        let mut sentences: Vec<String> = sentences
            .map(|error| match error.pointer.strip_prefix('/') {
                Some(name) => format!("{name} {}", error.detail),
                None => format!("the body {}", error.detail),
            })
            .collect();
        if count > sentences.len() {
            sentences.push(format!("and {} more", count - sentences.len()));
        }
        let detail = cut(&sentences.join("; "), MAX_DETAIL_BYTES).into_owned();
        let mut problem = Problem::new(status, code, detail);
        problem.errors = listed;
        problem
    }

    /// The errors in the order of their pointers, without repeating long details.
    fn into_list(self) -> impl Iterator<Item = FieldError> {
        let mut said: BTreeMap<Cow<'static, str>, String> = BTreeMap::new();
        self.errors.into_iter().map(move |(pointer, invalid)| {
            let Invalid { code, detail } = invalid;
            let detail = if detail.len() <= MAX_REPEATED_BYTES {
                detail
            } else if let Some(first) = said.get(&detail) {
                format!("is invalid for the same reason as {first}").into()
            } else {
                let whole = cut(&detail, MAX_DETAIL_BYTES).into_owned();
                said.insert(detail, pointer.clone());
                whole.into()
            };
            FieldError {
                pointer,
                code,
                detail,
            }
        })
    }

    /// Whether the field, or one that it is a part of, is known to be invalid.
    fn covers(&self, pointer: &str) -> bool {
        self.errors.contains_key(pointer)
            || pointer
                .match_indices('/')
                .any(|(end, _)| self.errors.contains_key(&pointer[..end]))
    }
}

/// Where in the description of a file its field is.
fn member(field: &Field) -> String {
    let name = match field {
        Field::Filename => "/filename",
        Field::ContentType => "/contentType",
        Field::Size => "/size",
        Field::ChecksumSha256 => "/checksumSha256",
        Field::Policy => "/policy",
        Field::Metadata | Field::MetadataOf(_) => "/metadata",
    };
    let mut pointer = name.to_owned();
    if let Field::MetadataOf(name) = field {
        push_segment(&mut pointer, name);
    }
    pointer
}

/// Appends a member's name as [RFC 6901 §3](https://www.rfc-editor.org/rfc/rfc6901#section-3) says.
pub(crate) fn push_segment(pointer: &mut String, name: &str) {
    let name = cut(name, MAX_NAME_BYTES);
    pointer.push('/');
    pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
}

/// The text, or its beginning and an ellipsis.
fn cut(text: &str, max_bytes: usize) -> Cow<'_, str> {
    if text.len() <= max_bytes {
        return Cow::Borrowed(text);
    }
    let beginning = &text[..text.floor_char_boundary(max_bytes)];
    Cow::Owned(format!("{beginning}…"))
}
