//! The one shape of every error answer: a problem document as in
//! [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457), and which status each error gets.

use std::borrow::Cow;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::upload::{self, Invalid};

/// Seconds until a client should ask again when there are no credentials.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// What went wrong. Programs read `status` and `code`, people read `detail`.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(example = json!({
    "type": "about:blank",
    "title": "Bad Request",
    "status": 400,
    "detail": "filename must not be empty",
    "code": "invalid-request",
    "errors": [{"pointer": "/filename", "code": "empty", "detail": "must not be empty"}],
    "requestId": "7f3c1f0e-3c58-4f0e-9a53-2d0f7f0f3b0a"
}))]
pub(crate) struct Problem {
    /// Always `about:blank`: the status says what kind of problem it is, `code` says which.
    #[serde(rename = "type")]
    #[schema(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The status of the response.
    status: u16,
    /// What went wrong with this request, in a sentence.
    detail: String,
    /// What went wrong, for programs. It does not change between versions.
    code: &'static str,
    /// Every field that is wrong; absent when the problem is not with a field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<FieldError>,
    /// The id that our log has for this request, also in the `x-request-id` header.
    request_id: String,
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
        }
    }

    pub(crate) fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "no-such-route",
            "there is nothing here; /docs describes what there is",
        )
    }

    /// For what is our fault: the cause goes to the log, and only there.
    pub(crate) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "something went wrong on our side; the log has the details under this request id",
        )
    }

    /// The answer, once the id of the request is known.
    pub(crate) fn render(mut self, request_id: &str) -> Response {
        let status = self.status();
        request_id.clone_into(&mut self.request_id);
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

/// Leaves the body to [`super::observe`], which knows the id of the request.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<upload::Error> for Failure {
    fn from(error: upload::Error) -> Self {
        let problem = match &error {
            upload::Error::NoCredentials(_) => Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "credentials-unavailable",
                "there are no credentials to sign with at the moment; try again later",
            ),
            upload::Error::Signing(_) => Problem::internal(),
        };
        Self {
            problem,
            cause: error,
        }
    }
}

/// An error of the domain on its way out: the client gets the problem, the log gets the cause.
#[derive(Debug)]
pub(crate) struct Failure {
    problem: Problem,
    cause: upload::Error,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = self.problem.status();
        if status.is_server_error() {
            let mut causes = self.cause.to_string();
            let mut source = std::error::Error::source(&self.cause);
            while let Some(error) = source {
                causes.push_str(": ");
                causes.push_str(&error.to_string());
                source = error.source();
            }
            tracing::error!(error = causes, "request failed");
        }
        let mut response = self.problem.into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

/// The fields that are wrong in a request: one error for each, the first that was found.
#[derive(Debug, Default)]
pub(crate) struct FieldErrors(Vec<FieldError>);

impl FieldErrors {
    pub(crate) fn push(&mut self, pointer: String, invalid: Invalid) {
        if !self.covers(&pointer) {
            self.0.push(FieldError {
                pointer,
                code: invalid.code,
                detail: invalid.detail,
            });
        }
    }

    /// The value, or nothing and one more error.
    pub(crate) fn check<T>(&mut self, pointer: &str, result: Result<T, Invalid>) -> Option<T> {
        result
            .map_err(|invalid| self.push(pointer.to_owned(), invalid))
            .ok()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn into_problem(mut self) -> Problem {
        self.0.sort_by(|a, b| a.pointer.cmp(&b.pointer));
        let mut detail = String::new();
        for error in &self.0 {
            if !detail.is_empty() {
                detail.push_str("; ");
            }
            let name = error.pointer.trim_start_matches('/');
            detail.push_str(if name.is_empty() { "the body" } else { name });
            detail.push(' ');
            detail.push_str(&error.detail);
        }
        let mut problem = Problem::new(StatusCode::BAD_REQUEST, "invalid-request", detail);
        problem.errors = self.0;
        problem
    }

    /// Whether the field, or one that it is a part of, is known to be wrong.
    fn covers(&self, pointer: &str) -> bool {
        self.0.iter().any(|error| {
            pointer
                .strip_prefix(&error.pointer)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}
