//! Reads JSON objects strictly, field by field, and notes every fault with its pointer.
//!
//! The syntax of a body is checked while it is split into members, whose values stay text. Only the
//! objects and lists that a request defines are split further, so a value that nobody asks for costs
//! no memory, however large or deeply nested it is.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::problem::{FieldErrors, Problem, catalogue, push_segment};
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
        match self.0.as_bytes().first() {
            Some(b'{') => {
                let mut deserializer = serde_json::Deserializer::from_str(self.0);
                let members = deserializer.deserialize_map(Members);
                members.map_err(|_| Invalid::new("invalid", "is not an object"))
            }
            _ => Err(self.is_not("an object")),
        }
    }

    /// The first elements, one more than `max` at most.
    fn elements(self, max: usize) -> Result<Vec<Self>, Invalid> {
        match self.0.as_bytes().first() {
            Some(b'[') => {
                let mut deserializer = serde_json::Deserializer::from_str(self.0);
                let elements = deserializer.deserialize_seq(Elements { max });
                elements.map_err(|_| Invalid::new("invalid", "is not an array"))
            }
            _ => Err(self.is_not("an array")),
        }
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
        let expected = || format!("a whole number from 0 to {}", i64::MAX);
        if !matches!(self.0.as_bytes().first(), Some(b'-' | b'0'..=b'9')) {
            return Err(self.is_not(&expected()));
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
            .ok_or_else(|| Invalid::new("out-of-range", format!("must be {}", expected())))
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

/// Where a reader is in a body, and what is wrong with the body so far.
#[derive(Debug)]
pub(super) struct Reader<'e> {
    /// The pointer to the value that is being read.
    pointer: String,
    errors: &'e mut FieldErrors,
}

impl<'e> Reader<'e> {
    pub(super) fn new(errors: &'e mut FieldErrors) -> Self {
        let pointer = String::new();
        Self { pointer, errors }
    }

    /// What `read` makes of an object; the default value of what is not one.
    pub(super) fn object<T: Default>(
        &mut self,
        object: ObjectMembers<'_>,
        read: impl FnOnce(&mut Fields<'_, '_, 'e>) -> T,
    ) -> T {
        let Ok(members) = object.map_err(|invalid| self.note(invalid)) else {
            return T::default();
        };
        let mut fields = Fields {
            reader: self,
            members,
            names: Vec::with_capacity(8),
        };
        read(&mut fields)
    }

    /// What `read` makes of `json`, unless it is invalid.
    pub(super) fn value<'a, T>(
        &mut self,
        json: Json<'a>,
        read: impl FnOnce(Json<'a>) -> Result<T, Invalid>,
    ) -> Option<T> {
        read(json).map_err(|invalid| self.note(invalid)).ok()
    }

    /// Notes that the current value is invalid.
    fn note(&mut self, invalid: Invalid) {
        if self.errors.len() < MAX_SHAPE_ERRORS {
            self.errors.push(self.pointer.clone(), invalid);
        }
    }

    fn within<T>(&mut self, name: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let parent = self.pointer.len();
        push_segment(&mut self.pointer, name);
        let value = read(self);
        self.pointer.truncate(parent);
        value
    }
}

/// The members of an object that have not been read yet.
#[derive(Debug)]
pub(super) struct Fields<'r, 'a, 'e> {
    reader: &'r mut Reader<'e>,
    members: Vec<Member<'a>>,
    /// The names of the fields that the object may have.
    names: Vec<&'static str>,
}

impl<'a, 'e> Fields<'_, 'a, 'e> {
    /// The value of a field, as `read` reads it. [`validator`] refuses a missing one.
    pub(super) fn required<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(Json<'a>) -> Result<T, Invalid>,
    ) -> Option<T> {
        let json = self.take(name)?;
        self.reader.within(name, |reader| reader.value(json, read))
    }

    /// Like [`required`](Self::required), but `null` counts as absent.
    pub(super) fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(Json<'a>) -> Result<T, Invalid>,
    ) -> Option<T> {
        self.ignore_null(name);
        self.required(name, read)
    }

    /// What `read` makes of each element of a list. A list with more than `max` elements is kept up
    /// to one element more, which shows that it is too long, and none of it is read.
    pub(super) fn list<T: Default>(
        &mut self,
        name: &'static str,
        max: usize,
        read: impl Fn(&mut Reader<'e>, Json<'a>) -> T,
    ) -> Option<Vec<T>> {
        let elements = self.required(name, |json| json.elements(max))?;
        if elements.len() > max {
            return Some(elements.iter().map(|_| T::default()).collect());
        }
        let elements = elements.into_iter().enumerate();
        Some(self.reader.within(name, |reader| {
            elements
                .map(|(index, json)| reader.within(&index.to_string(), |reader| read(reader, json)))
                .collect()
        }))
    }

    /// An object with any names, whose values `read` reads.
    pub(super) fn map<T>(
        &mut self,
        name: &'static str,
        read: impl Fn(Json<'a>) -> Result<T, Invalid>,
    ) -> Option<BTreeMap<String, T>> {
        let members = self.optional(name, Json::members)?;
        let mut map = BTreeMap::new();
        self.reader.within(name, |reader| {
            for (name, json) in members {
                let value = reader.within(&name, |reader| {
                    if map.contains_key(&*name) {
                        reader.note(duplicate());
                    }
                    reader.value(json, &read)
                });
                if let Some(value) = value {
                    map.insert(name.into_owned(), value);
                }
            }
        });
        Some(map)
    }

    /// Refuses all members that have not been read.
    pub(super) fn refuse_others(&mut self) {
        if self.members.is_empty() {
            return;
        }
        let names: Vec<String> = self.names.iter().map(|name| format!("`{name}`")).collect();
        let names = names.join(", ");
        for (name, _) in std::mem::take(&mut self.members) {
            let detail = format!("is not a field of this request, which has {names}");
            let invalid = Invalid::new("unknown-field", detail);
            self.reader.within(&name, |reader| reader.note(invalid));
        }
    }

    fn take(&mut self, name: &'static str) -> Option<Json<'a>> {
        self.names.push(name);
        let index = self.members.iter().position(|(other, _)| other == name)?;
        let (_, json) = self.members.swap_remove(index);
        let others = self.members.len();
        self.members.retain(|(other, _)| other != name);
        if self.members.len() < others {
            self.reader.within(name, |reader| reader.note(duplicate()));
            return None;
        }
        Some(json)
    }

    /// Makes `null` count as absent for this field.
    pub(super) fn ignore_null(&mut self, name: &str) {
        let mut of_name = self.members.iter().filter(|(other, _)| other == name);
        if let (Some((_, json)), None) = (of_name.next(), of_name.next())
            && json.is_null()
        {
            self.members.retain(|(other, _)| other != name);
        }
    }
}

fn duplicate() -> Invalid {
    Invalid::new("duplicate-field", "must not be given more than once")
}
