//! From the body of a request to a valid value, or to a problem that names every invalid field.

use std::mem;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Duration, Instant, timeout_at};
use validator::{Validate, ValidationErrors, ValidationErrorsKind};

use super::context::RequestContext;
use super::head::only;
use super::json::{self, Fields, MAX_SHAPE_ERRORS, Reader};
use super::memory::{Mapped, Room, Work};
use super::problem::{FieldErrors, Problem, catalogue, push_segment};
use crate::turns::Turn;
use crate::upload::Invalid;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);
/// At least [`BYTES_PER_WINDOW`] of a long body must arrive in each window of this length while others
/// wait for its room.
const WINDOW: Duration = Duration::from_secs(5);
const BYTES_PER_WINDOW: usize = 8 * 1024;
/// The first bytes of a body need no room: the number of connections bounds them.
pub(super) const SHORT_BODY_BYTES: usize = 32 * 1024;

/// The body of a request before its meaning is checked.
///
/// Even required fields are `Option`s, so that a body with several faults can still be read;
/// [`validator`] refuses those that are missing.
pub(crate) trait Dto: Default + Validate {
    /// What the handler gets.
    type Value;

    /// The longest body, in bytes.
    const MAX_BYTES: usize = 64 * 1024;

    /// What a request with a body of this length needs at most while it is worked on.
    fn work(_body_bytes: usize) -> Work {
        Work::Short
    }

    fn read(fields: &mut Fields<'_, '_, '_>) -> Self;

    /// The valid value; otherwise `None`, and the reasons are in `errors`.
    fn into_value(self, errors: &mut FieldErrors) -> Option<Self::Value>;
}

/// Extracts a valid value from a JSON body, and the memory that is reserved for the work on it. It has
/// to be held until there is an answer.
#[derive(Debug)]
pub(crate) struct Valid<T: Dto>(pub(crate) T::Value, pub(crate) Option<Turn>);

impl<S: Send + Sync, T: Dto> FromRequest<S> for Valid<T> {
    type Rejection = Response;

    async fn from_request(request: Request, _: &S) -> Result<Self, Response> {
        let context = RequestContext::of(request.extensions()).clone();
        // A body that cannot be read is refused by its head alone, before a client that waits for
        // `100 Continue` sends it.
        require_json(request.headers()).map_err(Problem::into_response)?;
        let length =
            check_length(request.headers(), T::MAX_BYTES).map_err(Problem::into_response)?;
        let body = request.into_body();
        let received = read_body(body, T::MAX_BYTES, length, &context).await?;
        let turn = context.work(T::work(received.bytes().len())).await?;
        let value = valid::<T>(received.bytes()).map_err(Problem::into_response)?;
        Ok(Self(value, turn))
    }
}

/// A body, and the room that it takes from others if it is long.
#[derive(Default)]
pub(super) struct Received {
    short: Vec<u8>,
    long: Option<Mapped>,
    of_caller: Option<Turn>,
    of_all: Option<OwnedSemaphorePermit>,
    overdraft: Option<OwnedSemaphorePermit>,
    /// How long it has waited for room.
    waited: Duration,
}

/// The body of a request of any content type, which has at most `max` bytes.
///
/// # Errors
///
/// The answer when the body is too long or does not arrive.
pub(super) async fn bytes(request: Request, max: usize) -> Result<Received, Response> {
    let context = RequestContext::of(request.extensions()).clone();
    let length = check_length(request.headers(), max).map_err(Problem::into_response)?;
    read_body(request.into_body(), max, length, &context).await
}

/// The deadlines of a body: for all of it, and for its next bytes.
struct Pace {
    end: Instant,
    window_end: Instant,
    bytes_in_window: usize,
}

impl Pace {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            end: now + BODY_TIMEOUT,
            window_end: now + WINDOW,
            bytes_in_window: 0,
        }
    }

    /// Notes bytes that arrived. The time that they waited for room does not count against the client.
    fn note_received(&mut self, bytes: usize, waited: Duration) {
        self.end += waited;
        self.window_end += waited;
        self.bytes_in_window += bytes;
        if self.bytes_in_window >= BYTES_PER_WINDOW {
            self.begin_window();
        }
    }

    /// Ends a window in which too little has arrived. Returns whether the body is too late.
    fn end_window(&mut self, is_wanted: bool) -> bool {
        self.begin_window();
        is_wanted || Instant::now() >= self.end
    }

    fn begin_window(&mut self) {
        self.window_end = Instant::now() + WINDOW;
        self.bytes_in_window = 0;
    }
}

/// The whole body. Memory for a long one is reserved while its bytes arrive, so that a client that
/// only announces one takes nothing from others.
async fn read_body(
    body: Body,
    max: usize,
    length: Option<usize>,
    context: &RequestContext,
) -> Result<Received, Response> {
    let mut body = Limited::new(body, max);
    let mut received = Received::default();
    let mut pace = Pace::new();
    while !body.is_end_stream() {
        let Ok(frame) = timeout_at(pace.window_end.min(pace.end), body.frame()).await else {
            let is_wanted =
                received.of_caller.is_some() && context.memory().is_wanted(context.caller());
            if pace.end_window(is_wanted) {
                return Err(Problem::new(&catalogue::BODY_TIMEOUT).into_response());
            }
            continue;
        };
        let Some(frame) = frame else {
            break;
        };
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
        let waited = received.waited;
        let is_long = received.bytes().len() + data.len() > SHORT_BODY_BYTES;
        if is_long {
            let length = length.unwrap_or(max);
            received.make_room(context, data.len(), length, max).await?;
        }
        pace.note_received(data.len(), received.waited.saturating_sub(waited));
        received.extend(&data);
    }
    Ok(received)
}

impl Received {
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.long {
            Some(long) => long.as_ref(),
            None => &self.short,
        }
    }

    fn extend(&mut self, bytes: &[u8]) {
        match &mut self.long {
            Some(long) => long.extend(bytes),
            None => self.short.extend_from_slice(bytes),
        }
    }

    /// Waits for room for `more` bytes of a long body, which has about `length` bytes, and `max` at most.
    ///
    /// A long body needs room twice: for its whole length among the bodies of its caller, once; and
    /// for each piece that arrives, beyond the first that are free, among the bodies of all callers.
    /// When there is no such room, a few bodies may have all of it at once, the overdraft, so that one
    /// of those that wait for each other can end.
    async fn make_room(
        &mut self,
        context: &RequestContext,
        more: usize,
        length: usize,
        max: usize,
    ) -> Result<(), Response> {
        let begin = Instant::now();
        if self.of_caller.is_none() {
            let turn = context.memory().body(context.caller(), length).await?;
            let mut long =
                Mapped::new(max).map_err(|why| Problem::internal(why).into_response())?;
            long.extend(&mem::take(&mut self.short));
            self.long = Some(long);
            self.of_caller = Some(turn);
        }
        if self.overdraft.is_some() {
            return Ok(());
        }
        let free = SHORT_BODY_BYTES.saturating_sub(self.bytes().len());
        let more = more.saturating_sub(free);
        let waited = self.waited + begin.elapsed();
        let room = context.memory().arrived(more, waited).await;
        self.waited += begin.elapsed();
        match (room.ok_or_else(|| context.no_room())?, &mut self.of_all) {
            (Room::Part(part), Some(all)) => all.merge(part),
            (Room::Part(part), none) => *none = Some(part),
            (Room::AllOfIt(overdraft), _) => self.overdraft = Some(overdraft),
        }
        Ok(())
    }
}

/// The length of the body, if it is known.
fn check_length(headers: &HeaderMap, max: usize) -> Result<Option<usize>, Problem> {
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > max) {
        return Err(payload_too_large(max));
    }
    Ok(length)
}

fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let content_type = only(headers, &header::CONTENT_TYPE);
    let is_compressed = headers.contains_key(header::CONTENT_ENCODING);
    if content_type.is_some_and(is_json_type) && !is_compressed {
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
    let object = json::parse(body)?;
    let mut errors = FieldErrors::default();
    let dto = Reader::new(&mut errors).object(object, T::read);
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
