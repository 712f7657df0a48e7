//! Reads the fields of objects, and notes every fault with its pointer.

use std::collections::BTreeMap;

use super::{Json, MAX_SHAPE_ERRORS, Member, ObjectMembers};
use crate::http::problem::{FieldErrors, push_segment};
use crate::upload::Invalid;

/// Where a reader is in a body, and what is wrong with the body so far.
#[derive(Debug)]
pub(in crate::http) struct Reader<'e> {
    /// The pointer to the value that is being read.
    pointer: String,
    errors: &'e mut FieldErrors,
}

impl<'e> Reader<'e> {
    pub(in crate::http) fn new(errors: &'e mut FieldErrors) -> Self {
        let pointer = String::with_capacity(32);
        Self { pointer, errors }
    }

    /// What `read` makes of an object; the default value of what is not one.
    pub(in crate::http) fn object<T: Default>(
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
    pub(in crate::http) fn value<'a, T>(
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
        } else {
            self.errors.push_unlisted();
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
pub(in crate::http) struct Fields<'r, 'a, 'e> {
    reader: &'r mut Reader<'e>,
    members: Vec<Member<'a>>,
    /// The names of the fields that the object may have.
    names: Vec<&'static str>,
}

impl<'a, 'e> Fields<'_, 'a, 'e> {
    /// The value of a field, as `read` reads it; `None` if it is missing, which [`validator`] refuses where it must.
    pub(in crate::http) fn field<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(Json<'a>) -> Result<T, Invalid>,
    ) -> Option<T> {
        let json = self.take(name)?;
        self.reader.within(name, |reader| reader.value(json, read))
    }

    /// Like [`field`](Self::field), but `null` counts as absent.
    pub(in crate::http) fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(Json<'a>) -> Result<T, Invalid>,
    ) -> Option<T> {
        self.ignore_null(name);
        self.field(name, read)
    }

    /// The texts of a list, of which `null` counts as absent, as [`list`](Self::list) reads them.
    pub(in crate::http) fn texts(&mut self, name: &'static str, max: usize) -> Option<Vec<String>> {
        self.ignore_null(name);
        let texts = self.list(name, max, |reader, json| reader.value(json, Json::text))?;
        Some(texts.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// What `read` makes of each element of a list. A list with more than `max` elements is kept up
    /// to one element more, which shows that it is too long, and none of it is read.
    pub(in crate::http) fn list<T: Default>(
        &mut self,
        name: &'static str,
        max: usize,
        read: impl Fn(&mut Reader<'e>, Json<'a>) -> T,
    ) -> Option<Vec<T>> {
        let elements = self.field(name, |json| json.elements(max))?;
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
    pub(in crate::http) fn map<T>(
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

    /// Refuses fields of other requests, which would have no effect in this one.
    pub(in crate::http) fn refuse(&mut self, names: &[&str], why: impl Fn(&str) -> Invalid) {
        for name in names {
            let is_given = |(other, json): &Member<'_>| other == name && !json.is_null();
            if self.members.iter().any(is_given) {
                self.reader.within(name, |reader| reader.note(why(name)));
            }
        }
    }

    /// Refuses all members that have not been read.
    pub(in crate::http) fn refuse_others(&mut self) {
        if self.members.is_empty() {
            return;
        }
        let plain = |name: &str| name.replace(['_', '-'], "").to_lowercase();
        let names: Vec<String> = self.names.iter().map(|name| plain(name)).collect();
        let all: Vec<String> = self.names.iter().map(|name| format!("`{name}`")).collect();
        let all = all.join(", ");
        for (name, _) in std::mem::take(&mut self.members) {
            let near = plain(&name);
            let near = names.iter().position(|name| *name == near);
            let detail = match near {
                Some(index) => {
                    let known = self.names[index];
                    format!("is not a field of this request; did you mean `{known}`?")
                }
                None => format!("is not a field of this request, which has {all}"),
            };
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
    fn ignore_null(&mut self, name: &str) {
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
