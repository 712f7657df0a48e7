//! Reads JSON objects strictly, field by field, and notes every fault with its pointer.
//!
//! The syntax of a body is checked while it is split into members, whose values stay text. Only the
//! objects and lists that a request defines are split further, so a value that nobody asks for costs
//! no memory, however large or deeply nested it is.

mod fields;

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

pub(super) use self::fields::{Fields, Reader};
use super::problem::{Problem, catalogue};
use crate::upload::Invalid;

/// No request nests deeper than this, so that a reader of JSON may recurse.
const MAX_DEPTH: usize = 128;
/// More members of one object are ignored. All but a few are unknown or too much metadata, which
/// refuses the request anyway.
const MAX_MEMBERS: usize = 10_000;
/// More faults of shape are not listed: nobody reads them.
pub(super) const MAX_SHAPE_ERRORS: usize = 50;

/// The text of a JSON value whose syntax has been checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Json<'a>(&'a str);

/// The members of an object, or why a value is not one.
pub(super) type ObjectMembers<'a> = Result<Vec<Member<'a>>, Invalid>;

/// The members of the object that a body is. The syntax of their values is checked, too.
///
/// # Errors
///
/// If the body is not JSON, or nested too deeply.
pub(super) fn parse(body: &[u8]) -> Result<ObjectMembers<'_>, Problem> {
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    // A JSON text begins with two ASCII characters.
    if let [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, _, ..] | [_, 0, ..] = body {
        return Err(not_json("the body is UTF-16 or UTF-32; send it as UTF-8"));
    }
    let Ok(text) = std::str::from_utf8(body) else {
        return Err(not_json("the body is not UTF-8"));
    };
    let first = text.trim_ascii_start().chars().next();
    if first.is_none() {
        return Err(not_json("the body is empty; it must be a JSON object"));
    }
    if is_too_deep(text) {
        let detail = format!("the JSON is nested more than {MAX_DEPTH} levels deep");
        return Err(Problem::with_detail(&catalogue::JSON_TOO_DEEP, &detail));
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let object = if first == Some('{') {
        deserializer.deserialize_map(Members).map(Ok)
    } else {
        let value = <&RawValue>::deserialize(&mut deserializer);
        value.map(|value| Json(value.get()).members())
    };
    let object = object.and_then(|object| deserializer.end().map(|()| object));
    object.map_err(|fault| {
        let (line, column) = (fault.line(), fault.column());
        let detail = format!("the body is not JSON: see line {line}, column {column}");
        not_json(&detail)
    })
}

impl<'a> Json<'a> {
    pub(super) fn members(self) -> ObjectMembers<'a> {
        if !self.0.starts_with('{') {
            return Err(self.is_not("an object"));
        }
        let mut deserializer = serde_json::Deserializer::from_str(self.0);
        let members = deserializer.deserialize_map(Members);
        members.map_err(|_| Invalid::new("invalid", "is not an object"))
    }

    /// The first elements, one more than `max` at most.
    fn elements(self, max: usize) -> Result<Vec<Self>, Invalid> {
        if !self.0.starts_with('[') {
            return Err(self.is_not("an array"));
        }
        let mut deserializer = serde_json::Deserializer::from_str(self.0);
        let elements = deserializer.deserialize_seq(Elements { max });
        elements.map_err(|_| Invalid::new("invalid", "is not an array"))
    }

    fn unescaped(self) -> Result<Cow<'a, str>, Invalid> {
        let Some(text) = self.0.strip_prefix('"').and_then(|t| t.strip_suffix('"')) else {
            return Err(self.is_not("a string"));
        };
        if !text.contains('\\') {
            return Ok(Cow::Borrowed(text));
        }
        // The syntax is right, so nothing else can be wrong with an escape.
        serde_json::from_str(self.0).map(Cow::Owned).map_err(|_| {
            let detail = "contains half of a surrogate pair, which is no character";
            Invalid::new("lone-surrogate", detail)
        })
    }

    pub(super) fn text(self) -> Result<String, Invalid> {
        self.unescaped().map(Cow::into_owned)
    }

    /// A whole number, however it is written: to JSON Schema, `6.0` is the integer 6.
    pub(super) fn whole_number(self) -> Result<u64, Invalid> {
        /// Above this, not every whole number has a float of its own.
        const MAX_FLOAT: f64 = 9_007_199_254_740_992.0;
        if !matches!(self.0.as_bytes().first(), Some(b'-' | b'0'..=b'9')) {
            return Err(self.is_not("a whole number"));
        }
        let from_float = || {
            let number: f64 = self.0.parse().ok()?;
            let number = (0.0..=MAX_FLOAT).contains(&number).then_some(number)?;
            // A float is written and read again, as every cast could lose something.
            number.abs().to_string().parse().ok()
        };
        let number: Option<u64> = self.0.parse().ok().or_else(from_float);
        // The OpenAPI document says `int64`.
        number
            .filter(|number| i64::try_from(*number).is_ok())
            .ok_or_else(|| {
                let detail = format!("must be a whole number from 0 to {}", i64::MAX);
                Invalid::new("out-of-range", detail)
            })
    }

    pub(super) fn boolean(self) -> Result<bool, Invalid> {
        self.0.parse().map_err(|_| self.is_not("true or false"))
    }

    /// Any value, for protocols that define none.
    pub(super) fn value(self) -> Result<Value, Invalid> {
        serde_json::from_str(self.0)
            .map_err(|_| Invalid::new("invalid", "contains a text or a number that is not valid"))
    }

    fn is_null(self) -> bool {
        self.0 == "null"
    }

    fn is_not(self, expected: &str) -> Invalid {
        let found = match self.0.as_bytes().first() {
            Some(b'{') => "an object",
            Some(b'[') => "an array",
            Some(b'"') => "a string",
            Some(b't' | b'f') => "a boolean",
            Some(b'n') => "null",
            _ => "a number",
        };
        Invalid::new("wrong-type", format!("must be {expected}, not {found}"))
    }
}

fn not_json(detail: &str) -> Problem {
    Problem::with_detail(&catalogue::INVALID_JSON, detail)
}

fn is_too_deep(text: &str) -> bool {
    if text.len() <= MAX_DEPTH {
        return false;
    }
    let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return true;
        }
    }
    false
}

pub(super) type Member<'a> = (Cow<'a, str>, Json<'a>);

/// Keeps all members of an object, also those of the same name.
struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<Member<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::with_capacity(8);
        while members.len() < MAX_MEMBERS {
            let Some((name, value)) = object.next_entry::<&RawValue, &RawValue>()? else {
                return Ok(members);
            };
            let name = Json(name.get()).unescaped();
            // A name that is no text cannot be that of a field.
            let name = name.unwrap_or(Cow::Borrowed("\u{fffd}"));
            members.push((name, Json(value.get())));
        }
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(members)
    }
}

struct Elements {
    max: usize,
}

impl<'de> Visitor<'de> for Elements {
    type Value = Vec<Json<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while elements.len() <= self.max {
            let Some(element) = array.next_element::<&RawValue>()? else {
                return Ok(elements);
            };
            elements.push(Json(element.get()));
        }
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(elements)
    }
}
