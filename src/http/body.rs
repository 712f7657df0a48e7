//! From the body of a request to a valid value, or to a problem that names every invalid field.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::{Semaphore, SemaphorePermit};
use validator::{Validate, ValidationErrors, ValidationErrorsKind};

use super::context::{RequestContext, Turn};
use super::json::{Fields, Json, MAX_SHAPE_ERRORS, Reader};
use super::problem::{FieldErrors, Problem, catalogue, push_segment};
use crate::upload::Invalid;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// How many bytes of long bodies the service holds at once, which is enough for a few hundred lists
/// of a usual length. More wait, so that no flood of them takes more memory.
const LONG_BODIES_BYTES: usize = 64 * 1024 * 1024;
static LONG_BODIES: Semaphore = Semaphore::const_new(LONG_BODIES_BYTES);
/// So much of each body needs no room: the number of connections bounds it.
pub(super) const SHORT_BODY_BYTES: usize = 64 * 1024;

/// The body of a request before its meaning is checked.
///
/// Even required fields are `Option`s, so that a body with several faults can still be read;
/// [`validator`] refuses those that are missing.
pub(crate) trait Dto: Default + Validate {
    /// What the handler gets.
    type Value;

    /// The longest body, in bytes.
    const MAX_BYTES: usize = 64 * 1024;

    /// How many units of memory, of 2 MiB each, a request with a body of this length needs at most while
    /// it is worked on. Requests that need little have no need to wait for others.
    fn work(_body_bytes: usize) -> u32 {
        0
    }

    fn read(fields: &mut Fields<'_, '_, '_>) -> Self;

    /// The valid value; otherwise `None`, and the reasons are in `errors`.
    fn into_value(self, errors: &mut FieldErrors) -> Option<Self::Value>;
}

/// Extracts a valid value from a JSON body, and the memory that is reserved for the request. It has to
/// be held until there is an answer.
#[derive(Debug)]
pub(crate) struct Valid<T: Dto>(pub(crate) T::Value, pub(crate) Reserved);

/// Memory for a body, and for the work on it.
#[derive(Debug, Default)]
pub(crate) struct Reserved {
    in_all: Option<SemaphorePermit<'static>>,
    of_caller: Turn,
    turn: Turn,
}

impl<S: Send + Sync, T: Dto> FromRequest<S> for Valid<T> {
    type Rejection = Response;

    async fn from_request(request: Request, _: &S) -> Result<Self, Response> {
        let caller = request.extensions().get::<RequestContext>().cloned();
        let (body, mut reserved) = Self::body(request, caller.as_ref()).await?;
        if let Some(caller) = caller {
            reserved.turn = caller.turn(T::work(body.len())).await?;
        }
        let value = valid::<T>(&body).map_err(Problem::into_response)?;
        Ok(Self(value, reserved))
    }
}

impl<T: Dto> Valid<T> {
    async fn body(
        request: Request,
        caller: Option<&RequestContext>,
    ) -> Result<(Vec<u8>, Reserved), Response> {
        let length = check_head(request.headers(), T::MAX_BYTES).map_err(Problem::into_response)?;
        let body = read_body(request.into_body(), T::MAX_BYTES, length, caller);
        within_time(body).await
    }
}

/// The body of a request of any content type, of at most `max` bytes, and the memory that is reserved for it.
///
/// # Errors
///
/// The answer when the body is too long or does not arrive.
pub(super) async fn bytes(request: Request, max: usize) -> Result<(Vec<u8>, Reserved), Response> {
    let caller = request.extensions().get::<RequestContext>().cloned();
    let length = check_length(request.headers(), max).map_err(Problem::into_response)?;
    let body = read_body(request.into_body(), max, length, caller.as_ref());
    within_time(body).await
}

async fn within_time<T>(body: impl Future<Output = Result<T, Response>>) -> Result<T, Response> {
    tokio::time::timeout(BODY_TIMEOUT, body)
        .await
        .map_err(|_| Problem::new(&catalogue::BODY_TIMEOUT).into_response())?
}

/// The whole body. Memory for a long one is reserved while its bytes arrive, so that a client that
/// only announces one takes nothing from others.
async fn read_body(
    body: Body,
    max: usize,
    length: Option<usize>,
    caller: Option<&RequestContext>,
) -> Result<(Vec<u8>, Reserved), Response> {
    let mut body = Limited::new(body, max);
    let mut bytes = Vec::new();
    let mut reserved = Reserved::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            let problem = if error.is::<LengthLimitError>() {
                payload_too_large(max)
            } else {
                Problem::new(&catalogue::INCOMPLETE_BODY)
            };
            problem.into_response()
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let so_far = bytes.len() + data.len();
        if so_far > SHORT_BODY_BYTES {
            let more = so_far - bytes.len().max(SHORT_BODY_BYTES);
            if let (Some(caller), None) = (caller, &reserved.of_caller) {
                // For all of it at once: bodies that wait for each other would never arrive.
                let length = length.unwrap_or(max);
                reserved.of_caller = caller.room_for_body(length).await?;
                bytes.reserve_exact(length.saturating_sub(bytes.len()));
            }
            let more = u32::try_from(more).unwrap_or(u32::MAX);
            let more = LONG_BODIES.acquire_many(more).await;
            // It fails only once the semaphore is closed, which nobody does.
            match (&mut reserved.in_all, more) {
                (Some(room), Ok(more)) => room.merge(more),
                (room, more) => *room = more.ok(),
            }
        }
        bytes.extend_from_slice(&data);
    }
    Ok((bytes, reserved))
}

/// The length of the body, if it is known. Refuses a body that cannot be read by its head alone,
/// before a client that waits for `100 Continue` sends it.
fn check_head(headers: &HeaderMap, max: usize) -> Result<Option<usize>, Problem> {
    require_json(headers)?;
    check_length(headers, max)
}

fn check_length(headers: &HeaderMap, max: usize) -> Result<Option<usize>, Problem> {
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > max) {
        return Err(payload_too_large(max));
    }
    Ok(length)
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
    Err(Problem::new(&catalogue::UNSUPPORTED_MEDIA_TYPE))
}

fn is_json_type(value: &HeaderValue) -> bool {
    let essence = value.to_str().ok().and_then(|text| text.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

fn payload_too_large(limit: usize) -> Problem {
    let detail = format!("the body must not be longer than {limit} bytes");
    Problem::with_detail(&catalogue::BODY_TOO_LARGE, &detail)
}

fn valid<T: Dto>(body: &[u8]) -> Result<T::Value, Problem> {
    let json = Json::parse(body)?;
    let mut errors = FieldErrors::default();
    let dto = Reader::new(&mut errors).object(json, T::read);
    if errors.len() >= MAX_SHAPE_ERRORS {
        return Err(errors.into_problem());
    }
    valid_value(dto, errors)
}

/// The value of a body that was read, whose faults so far are in `errors`.
pub(super) fn valid_value<T: Dto>(dto: T, mut errors: FieldErrors) -> Result<T::Value, Problem> {
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
