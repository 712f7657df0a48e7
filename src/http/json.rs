//! JSON, read strictly and written.
//!
//! A body that is right is read once, straight into its type. Only a body that is wrong is read again,
//! to say all that is wrong with it.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::value::MapAccessDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use serde_path_to_error::{Path, Segment};
use validator::{Validate, ValidationErrors};

use super::problem::{FieldErrors, Problem, push_segment};
use crate::upload::Invalid;

/// More wrong fields than this are not listed: nobody reads them, and each costs a pass.
const MAX_ERRORS: usize = 50;

/// Reads an object. One with faults gives what is readable of it, and the faults in `errors`.
pub(super) fn read<T: DeserializeOwned>(
    body: &[u8],
    errors: &mut FieldErrors,
) -> Result<T, Problem> {
    match serde_json::from_slice::<Object<T>>(body) {
        Ok(Object(value)) => Ok(value),
        Err(_) => read_faulty(body, errors),
    }
}

/// What is written by hand, as it is most of what the service ever writes: serde would look at each byte of a
/// URL for itself.
pub(super) trait WriteJson: Serialize {
    /// Appends what [`serde_json`] would.
    fn write_json(&self, out: &mut String);
}

/// The answer 201, with what was made.
pub(super) struct Created<T>(pub(super) T);

impl<T: WriteJson> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        // Enough for one file.
        let mut body = String::with_capacity(1024);
        self.0.write_json(&mut body);
        let mut response = Response::new(body.into());
        *response.status_mut() = StatusCode::CREATED;
        // And for those that all answers get.
        *response.headers_mut() = HeaderMap::with_capacity(12);
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }
}

/// What can be read of a body that serde refused. Takes out one faulty field after the other until
/// the rest is readable.
fn read_faulty<T: DeserializeOwned>(body: &[u8], errors: &mut FieldErrors) -> Result<T, Problem> {
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
        "map" | "a map" => "an object",
        "sequence" | "a sequence" => "an array",
        "integer" | "floating point" => "a number",
        "string" => "a string",
        "boolean" => "a boolean",
        other => other,
    }
}

fn not_json(body: &[u8], error: &serde_json::Error) -> Problem {
    let place = format!("at line {} column {}", error.line(), error.column());
    if body.iter().all(u8::is_ascii_whitespace) {
        Problem::bad_body(
            "invalid-json",
            "the body is empty; it must be a JSON object",
        )
    } else if error.to_string().starts_with("recursion limit exceeded") {
        Problem::bad_body(
            "json-too-deep",
            format!("the JSON is nested too deeply {place}"),
        )
    } else {
        // serde_json's message tells what it expected and where; it does not repeat the input.
        Problem::bad_body("invalid-json", format!("the body is not JSON: {error}"))
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

/// For `#[serde(deserialize_with)]` on an `Option`: a field that is there must have a value.
pub(super) fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// Like [`present`], for a whole number, however it is written: to JSON Schema `6.0` is the integer 6.
pub(super) fn present_whole<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    Whole::deserialize(deserializer).map(|Whole(number)| Some(number))
}

/// A whole number that is 0 or more, and no more than the document's `int64`.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Whole(pub(super) u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from 0 to {}", i64::MAX)
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Whole, E> {
                if i64::try_from(number).is_ok() {
                    Ok(Whole(number))
                } else {
                    Err(E::invalid_type(Unexpected::Unsigned(number), &self))
                }
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Whole, E> {
                /// Beyond, not every whole number has a float of its own.
                const MAX: f64 = 9_007_199_254_740_992.0;
                // Written and read: there is no conversion that cannot lose something.
                let whole = (0.0..=MAX)
                    .contains(&number)
                    .then(|| number.abs().to_string());
                whole
                    .and_then(|text| text.parse().ok())
                    .map(Whole)
                    .ok_or_else(|| E::invalid_type(Unexpected::Float(number), &self))
            }
        }

        deserializer.deserialize_u64(Number)
    }
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
