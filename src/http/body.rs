//! From the bytes of a request to a value that is valid, or to a problem that names every field that is
//! not.

use std::task::Poll;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use mediatype::MediaType;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};
use validator::{Validate, ValidationErrors, ValidationErrorsKind};

use super::json;
use super::problem::{FieldErrors, Problem, push_segment};
use crate::upload::Invalid;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// How many bytes of long bodies may be on their way at once, in all: what a few hundred of the usual
/// lists take. Others wait, so that no flood of them takes more memory.
const LONG_BODIES_BYTES: usize = 64 * 1024 * 1024;
static LONG_BODIES: Semaphore = Semaphore::const_new(LONG_BODIES_BYTES);
/// Shorter bodies are bounded by the number of connections.
const SHORT_BODY_BYTES: usize = 64 * 1024;

/// Waits until there is room for a body of so many bytes. It is free again when what this gives is dropped.
async fn room_for(length: usize) -> Option<SemaphorePermit<'static>> {
    let bytes = u32::try_from(length.min(LONG_BODIES_BYTES)).ok()?;
    if length <= SHORT_BODY_BYTES {
        return None;
    }
    LONG_BODIES.acquire_many(bytes).await.ok()
}

/// The body of a request, before its meaning is checked.
///
/// Fields are `Option`s even where they are required, so that a body with several faults can still
/// be read; [`validator`] refuses the missing ones.
pub(crate) trait Dto: DeserializeOwned + Validate {
    /// What the handler gets.
    type Value;

    /// The longest body, in bytes.
    const MAX_BYTES: usize = 64 * 1024;

    /// The valid value; otherwise `None`, and the reasons are in `errors`.
    fn into_value(self, errors: &mut FieldErrors) -> Option<Self::Value>;
}

/// Extracts a valid value from a JSON body.
#[derive(Debug)]
pub(crate) struct Valid<T: Dto>(pub(crate) T::Value);

impl<S: Send + Sync, T: Dto> FromRequest<S> for Valid<T> {
    type Rejection = Problem;

    fn from_request(request: Request, _: &S) -> impl Future<Output = Result<Self, Problem>> + Send {
        // Here, so that no head of a request is a part of the future.
        let length = checked_length::<T>(request.headers()).map_err(Box::new);
        let body = request.into_body();
        async move {
            let longest = length.map_err(|problem| *problem)?;
            let body = read_body(body, longest, T::MAX_BYTES).await?;
            read::<T>(&body).map(Self)
        }
    }
}

/// The whole body, which may be as long as `longest`.
async fn read_body(body: Body, longest: usize, max: usize) -> Result<Bytes, Problem> {
    let mut body = Limited::new(body, max).collect();
    // Most are short and there already. They need no room and no timer.
    let at_once = if longest <= SHORT_BODY_BYTES {
        futures_util::poll!(&mut body)
    } else {
        Poll::Pending
    };
    let body = match at_once {
        Poll::Ready(body) => Ok(body),
        Poll::Pending => {
            let body = async {
                let _room = room_for(longest).await;
                body.await
            };
            Box::pin(tokio::time::timeout(BODY_TIMEOUT, body)).await
        }
    };
    let body = body.map_err(|_| body_timed_out())?.map_err(|error| {
        if error.is::<LengthLimitError>() {
            payload_too_large(max)
        } else {
            Problem::bad_body("incomplete-body", "the body ended early")
        }
    })?;
    Ok(body.to_bytes())
}

/// The most bytes that the body of a request with this head may turn out to have.
fn checked_length<T: Dto>(headers: &HeaderMap) -> Result<usize, Problem> {
    require_json(headers)?;
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    match length {
        // Before a client that waits for `100 Continue` is asked to go on.
        Some(length) if length > T::MAX_BYTES => Err(payload_too_large(T::MAX_BYTES)),
        length => Ok(length.unwrap_or(T::MAX_BYTES)),
    }
}

fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let mut content_types = headers.get_all(header::CONTENT_TYPE).iter();
    let is_json = content_types
        .next()
        .filter(|_| {
            content_types.next().is_none() && !headers.contains_key(header::CONTENT_ENCODING)
        })
        .is_some_and(is_json_type);
    if is_json {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported-media-type",
        "the request must have the header `content-type: application/json`, and no `content-encoding`",
    ))
}

fn is_json_type(value: &HeaderValue) -> bool {
    let json = mediatype::media_type!(APPLICATION / JSON);
    // As nearly all have it, or else with other capitals or parameters.
    value == "application/json"
        || value
            .to_str()
            .is_ok_and(|text| MediaType::parse(text).is_ok_and(|it| it.essence() == json))
}

fn body_timed_out() -> Problem {
    Problem::new(
        StatusCode::REQUEST_TIMEOUT,
        "body-timeout",
        format!("the body did not arrive within {BODY_TIMEOUT:?}"),
    )
}

fn payload_too_large(limit: usize) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body-too-large",
        format!("the body must not be longer than {limit} bytes"),
    )
}

fn read<T: Dto>(body: &[u8]) -> Result<T::Value, Problem> {
    let mut errors = FieldErrors::default();
    let dto: T = json::read(body, &mut errors)?;
    if let Err(invalid) = dto.validate() {
        collect("", &invalid, &mut errors);
    }
    match dto.into_value(&mut errors) {
        Some(value) if errors.is_empty() => Ok(value),
        _ => Err(errors.into_problem()),
    }
}

/// Adds what `validator` found, under the names that the fields have in JSON.
fn collect(parent: &str, invalid: &ValidationErrors, errors: &mut FieldErrors) {
    for (field, kind) in invalid.errors() {
        let mut pointer = parent.to_owned();
        push_segment(&mut pointer, &camel_case(field));
        match kind {
            ValidationErrorsKind::Field(faults) => {
                for fault in faults {
                    let detail = fault.message.clone().unwrap_or_else(|| "is invalid".into());
                    let code = match fault.code.as_ref() {
                        "required" => "required",
                        "length" => "length",
                        _ => "invalid",
                    };
                    errors.push(pointer.clone(), Invalid::new(code, detail));
                }
            }
            ValidationErrorsKind::Struct(inner) => collect(&pointer, inner, errors),
            ValidationErrorsKind::List(elements) => {
                for (index, inner) in elements {
                    collect(&format!("{pointer}/{index}"), inner, errors);
                }
            }
        }
    }
}

fn camel_case(field: &str) -> String {
    let mut words = field.split('_');
    let mut name = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut chars = word.chars();
        name.extend(chars.next().map(|c| c.to_ascii_uppercase()));
        name.push_str(chars.as_str());
    }
    name
}
