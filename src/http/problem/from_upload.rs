//! Which problem each error of the domain is. The match is exhaustive, so an error without a problem
//! does not compile.

use axum::response::{IntoResponse, Response};

use super::Problem;
use super::catalogue;
use super::fields::{FieldErrors, push_segment};
use crate::error_chain::causes;
use crate::http::auth::Refused;
use crate::s3::StoreError;
use crate::upload::{self, Field, Refusal};

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

#[expect(clippy::needless_pass_by_value, reason = "they are given to `map_err`")]
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
            Error::MissingVar(name) => {
                let detail = format!("the policy needs a ticket with the variable `{name}`");
                Self::with_detail(&catalogue::VAR_REQUIRED, &detail)
            }
            Error::NoForm(why) => {
                let detail = format!("{why}; ask for a presigned PUT at /upload/presigned-url");
                Self::with_detail(&catalogue::POST_NOT_SUPPORTED, &detail)
            }
            Error::FormsOnly => Self::new(&catalogue::FORMS_ONLY),
            Error::NoCredentials(_) => Self::new(&catalogue::CREDENTIALS_UNAVAILABLE),
            Error::NoSuchUpload(why) => {
                let problem = Self::new(&catalogue::NO_SUCH_UPLOAD);
                let refused = Some(Refused(why));
                Self { refused, ..problem }
            }
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
            Error::Signing(_) => Self::new(&catalogue::INTERNAL),
        };
        let is_fault = problem.status().is_server_error();
        let cause = is_fault.then(|| causes(error));
        Self { cause, ..problem }
    }
}

/// The first reason gives the problem its code.
fn refused(refusals: &[Refusal], pointer: impl Fn(usize, &Field) -> String) -> Problem {
    let code = refusals.first().map_or("", |refusal| refusal.invalid.code);
    let kind = catalogue::ALL.iter().find(|kind| kind.code == code);
    debug_assert!(kind.is_some(), "`{code}` is not in the catalogue");
    let kind = kind.unwrap_or(&catalogue::INVALID_REQUEST);
    FieldErrors::from_refusals(refusals, pointer).into_problem_of(kind)
}

/// The JSON pointer to a field within the description of a file.
pub(super) fn member(field: &Field) -> String {
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
