//! From the bytes of a request to a value that is valid, or to a problem that names every field
//! that is not.
//!
//! A body that is right is read once, straight into its DTO. Only a body that is wrong is read
//! again, to say all that is wrong with it.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use mediatype::MediaType;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use serde_path_to_error::{Path, Segment};
use validator::{Validate, ValidationErrors, ValidationErrorsKind};

use super::error::{FieldErrors, Problem, push_segment};
use crate::upload::Invalid;

/// More wrong fields than this are not listed: nobody reads them, and each costs a pass.
const MAX_ERRORS: usize = 50;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);

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

    async fn from_request(mut request: Request, state: &S) -> Result<Self, Problem> {
        require_json(request.headers())?;
        let length = request.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if length.is_some_and(|length| length > T::MAX_BYTES) {
            // Before a client that waits for `100 Continue` is asked to go on.
            return Err(payload_too_large(T::MAX_BYTES));
        }
        DefaultBodyLimit::max(T::MAX_BYTES).apply(&mut request);
        let body = tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, state))
            .await
            .map_err(|_| body_timed_out())?
            .map_err(|rejection| {
                if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                    payload_too_large(T::MAX_BYTES)
                } else {
                    bad_body("incomplete-body", "the body ended early")
                }
            })?;
        read::<T>(&body).map(Self)
    }
}

/// For `#[serde(deserialize_with)]` on an `Option`: a field that is there must have a value.
pub(super) fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// Like [`present`], for a list. Of one that is too long, only so much is kept that it can be seen to be:
/// what is to be refused need not be held.
pub(super) fn present_list<'de, D, T, const MAX: usize>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct List<T, const MAX: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a sequence")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while list.len() <= MAX {
                match elements.next_element()? {
                    Some(element) => list.push(element),
                    None => return Ok(list),
                }
            }
            while elements.next_element::<IgnoredAny>()?.is_some() {}
            Ok(list)
        }
    }

    deserializer
        .deserialize_seq(List::<T, MAX>(PhantomData))
        .map(Some)
}

/// Like [`present`], for an object of strings in which no name comes twice.
pub(super) fn present_map<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BTreeMap<String, String>>, D::Error> {
    struct Strings;

    impl<'de> Visitor<'de> for Strings {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
            let mut strings = BTreeMap::new();
            while let Some((name, value)) = members.next_entry()? {
                if strings.insert(name, value).is_some() {
                    return Err(serde::de::Error::custom("duplicate name"));
                }
            }
            Ok(strings)
        }
    }

    deserializer.deserialize_map(Strings).map(Some)
}

fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let mut content_types = headers.get_all(header::CONTENT_TYPE).iter();
    let is_json = content_types
        .next()
        .filter(|_| {
            content_types.next().is_none() && !headers.contains_key(header::CONTENT_ENCODING)
        })
        .and_then(|value| value.to_str().ok())
        .and_then(|value| MediaType::parse(value).ok())
        .is_some_and(|media_type| {
            media_type.essence() == mediatype::media_type!(APPLICATION / JSON)
        });
    if is_json {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported-media-type",
        "the request must have the header `content-type: application/json`, and no `content-encoding`",
    ))
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

fn bad_body(code: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, code, detail)
}

fn read<T: Dto>(body: &[u8]) -> Result<T::Value, Problem> {
    let mut errors = FieldErrors::default();
    let dto = match serde_json::from_slice::<Object<T>>(body) {
        Ok(Object(dto)) => dto,
        Err(_) => read_faulty(body, &mut errors)?,
    };
    if let Err(invalid) = dto.validate() {
        collect("", &invalid, &mut errors);
    }
    match dto.into_value(&mut errors) {
        Some(value) if errors.is_empty() => Ok(value),
        _ => Err(errors.into_problem()),
    }
}

/// What can be read of a body that serde refused. Takes out one faulty field after the other until
/// the rest is readable.
fn read_faulty<T: Dto>(body: &[u8], errors: &mut FieldErrors) -> Result<T, Problem> {
    let mut walk = Walk::default();
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let mut json = Node(&mut walk)
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| not_json(body, &error))?;
    for pointer in walk.duplicates {
        errors.push(
            pointer,
            Invalid::new("duplicate-field", "must not be given more than once"),
        );
    }
    while errors.len() < MAX_ERRORS {
        let error = match serde_path_to_error::deserialize::<_, Object<T>>(&json) {
            Ok(Object(dto)) => return Ok(dto),
            Err(error) => error,
        };
        let mut pointer = pointer(error.path());
        let fault = error.inner().to_string();
        let invalid = if let Some((_, expected)) = fault
            .strip_prefix("unknown field `")
            .and_then(|rest| rest.rsplit_once("`, expected "))
        {
            let names = expected.trim_start_matches("one of ");
            Invalid::new(
                "unknown-field",
                format!("is not a field of this request, which takes {names}"),
            )
        } else if let Some((found, expected)) = fault
            .strip_prefix("invalid type: ")
            .and_then(|rest| rest.rsplit_once(", expected "))
        {
            let found = found.split(" `").next().unwrap_or(found);
            let found = found.split(" \"").next().unwrap_or(found);
            let (expected, found) = (json_name(expected), json_name(found));
            if found == "a number" && expected.starts_with("a whole number") {
                Invalid::new("out-of-range", format!("must be {expected}"))
            } else {
                Invalid::new("wrong-type", format!("must be {expected}, not {found}"))
            }
        } else if let Some((name, _)) = fault
            .strip_prefix("missing field `")
            .and_then(|rest| rest.split_once('`'))
        {
            push_segment(&mut pointer, name);
            Invalid::new("required", "is required")
        } else if let Some(("invalid value", found)) = fault.split_once(": ")
            && let Some((_, expected)) = found.rsplit_once(", expected ")
        {
            Invalid::new("out-of-range", format!("must be {}", json_name(expected)))
        } else {
            Invalid::new("invalid", fault)
        };
        errors.push(pointer, invalid);
        if !take_out(&mut json, error.path()) {
            break;
        }
    }
    Err(std::mem::take(errors).into_problem())
}

/// serde's word for a type, in JSON's words.
fn json_name(found: &str) -> &str {
    match found {
        "map" => "an object",
        "sequence" | "a sequence" => "an array",
        "integer" | "floating point" => "a number",
        "string" => "a string",
        "boolean" => "a boolean",
        "u16" | "u64" => "a whole number, 0 or more",
        other => other,
    }
}

fn not_json(body: &[u8], error: &serde_json::Error) -> Problem {
    let place = format!("at line {} column {}", error.line(), error.column());
    if body.iter().all(u8::is_ascii_whitespace) {
        bad_body(
            "invalid-json",
            "the body is empty; it must be a JSON object",
        )
    } else if error.to_string().starts_with("recursion limit exceeded") {
        bad_body(
            "json-too-deep",
            format!("the JSON is nested too deeply {place}"),
        )
    } else {
        // serde_json's message tells what it expected and where; it does not repeat the input.
        bad_body("invalid-json", format!("the body is not JSON: {error}"))
    }
}

fn pointer(path: &Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => push_segment(&mut pointer, &index.to_string()),
            Segment::Map { key } => push_segment(&mut pointer, key),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

/// Takes the innermost member of an object on `path` out of `json`; an element of an array becomes
/// an empty object, so that those after it keep their places.
fn take_out(json: &mut Value, path: &Path) -> bool {
    let segments: Vec<&Segment> = path.iter().collect();
    let Some((last, parents)) = segments.split_last() else {
        return false;
    };
    let mut at = json;
    for segment in parents {
        let next = match segment {
            Segment::Seq { index } => at.get_mut(*index),
            Segment::Map { key } => at.get_mut(key),
            Segment::Enum { .. } | Segment::Unknown => None,
        };
        let Some(next) = next else { return false };
        at = next;
    }
    match last {
        Segment::Map { key } => at
            .as_object_mut()
            .is_some_and(|members| members.remove(key).is_some()),
        Segment::Seq { index } => at.get_mut(*index).is_some_and(|element| {
            let was_object = element.is_object();
            *element = Value::Object(Map::new());
            !was_object
        }),
        Segment::Enum { .. } | Segment::Unknown => false,
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

/// A `T` from a JSON object alone: serde would take an array of its fields, too.
#[derive(Debug, Serialize)]
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members)).map(Object)
            }
        }

        deserializer.deserialize_map(Members(PhantomData))
    }
}

impl<T: Validate> Validate for Object<T> {
    fn validate(&self) -> Result<(), ValidationErrors> {
        self.0.validate()
    }
}

/// Where [`Node`] is, and the pointers of the members that it saw more than once.
#[derive(Default)]
struct Walk {
    /// Of the value that is being read. One for all of them: a copy for each would cost a hostile body's
    /// length for each of its values.
    pointer: String,
    duplicates: Vec<String>,
}

/// Reads any JSON like [`Value`] does, but does not overlook members of the same name.
struct Node<'a>(&'a mut Walk);

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let Self(walk) = self;
        let parent = walk.pointer.len();
        let mut array = Vec::new();
        loop {
            push_segment(&mut walk.pointer, &array.len().to_string());
            let element = elements.next_element_seed(Node(walk))?;
            walk.pointer.truncate(parent);
            match element {
                Some(element) => array.push(element),
                None => return Ok(Value::Array(array)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let Self(walk) = self;
        let parent = walk.pointer.len();
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            push_segment(&mut walk.pointer, &name);
            if object.contains_key(&name) && walk.duplicates.len() < MAX_ERRORS {
                walk.duplicates.push(walk.pointer.clone());
            }
            let value = members.next_value_seed(Node(walk))?;
            walk.pointer.truncate(parent);
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}
