//! The invalid fields of a request, which form a problem of bounded length.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::catalogue::{self, Kind};
use super::{FieldError, Problem};
use crate::upload::{Field, Invalid, Refusal};

/// A problem document is at most 64 KiB long, whatever the request was. The listed fields take at
/// most this much of it, in JSON. The rest is for the detail, which Uppy's form of a problem
/// repeats.
const MAX_LIST_BYTES: usize = 32 * 1024;
pub(super) const MAX_DETAIL_BYTES: usize = 2000;
/// Longer details are not repeated for every field that they apply to.
const MAX_REPEATED_BYTES: usize = 100;
/// A name that the client chose is cut at this length.
const MAX_NAME_BYTES: usize = 100;
/// Invalid fields after these are only counted.
const MAX_ERRORS: usize = 4000;

/// The invalid fields of a request by their pointers, with one error each: the first that was
/// found.
#[derive(Debug, Default)]
pub(crate) struct FieldErrors {
    errors: BTreeMap<String, Invalid>,
    /// The number of further invalid fields.
    unlisted: usize,
}

impl FieldErrors {
    /// `pointer` makes the JSON pointer to a field of a file in the request.
    pub(super) fn from_refusals(
        refusals: &[Refusal],
        pointer: impl Fn(usize, &Field) -> String,
    ) -> Self {
        let mut errors = FieldErrors::default();
        for refusal in refusals {
            let pointer = pointer(refusal.file, &refusal.field);
            errors.push(pointer, refusal.invalid.clone());
        }
        errors
    }

    pub(crate) fn push(&mut self, pointer: String, invalid: Invalid) {
        if self.covers(&pointer) {
            return;
        }
        if self.errors.len() < MAX_ERRORS {
            self.errors.insert(pointer, invalid);
        } else {
            self.push_unlisted();
        }
    }

    /// Counts an invalid field that is not listed.
    pub(crate) fn push_unlisted(&mut self) {
        self.unlisted += 1;
    }

    /// Returns the value, or adds an error and returns `None`.
    pub(crate) fn check<T>(
        &mut self,
        pointer: impl FnOnce() -> String,
        result: Result<T, Invalid>,
    ) -> Option<T> {
        result.map_err(|invalid| self.push(pointer(), invalid)).ok()
    }

    /// What `parse` makes of the member `name` of the object at `at`, if it is there.
    pub(crate) fn parse<T, Parsed>(
        &mut self,
        at: &str,
        name: &str,
        value: Option<T>,
        parse: impl FnOnce(T) -> Result<Parsed, Invalid>,
    ) -> Option<Parsed> {
        self.check(|| format!("{at}/{name}"), parse(value?))
    }

    pub(crate) fn len(&self) -> usize {
        self.errors.len() + self.unlisted
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    pub(crate) fn into_problem(self) -> Problem {
        self.into_problem_of(&catalogue::INVALID_REQUEST)
    }

    pub(super) fn into_problem_of(self, kind: &Kind) -> Problem {
        /// More do not fit into a sentence.
        const IN_DETAIL: usize = 5;
        let count = self.len();
        let mut listed = Vec::new();
        let mut bytes = 0;
        for error in self.into_list() {
            bytes += serde_json::to_string(&error).map_or(0, |json| json.len() + 1);
            if bytes > MAX_LIST_BYTES {
                break;
            }
            listed.push(error);
        }
        let sentences = listed.iter().take(IN_DETAIL);
        let mut sentences: Vec<String> = sentences
            .map(|error| match error.pointer.strip_prefix('/') {
                Some(name) => format!("{name} {}", error.detail),
                None => format!("the body {}", error.detail),
            })
            .collect();
        if count > sentences.len() {
            sentences.push(format!("and {} more", count - sentences.len()));
        }
        let mut problem = Problem::with_detail(kind, &sentences.join("; "));
        problem.errors = listed;
        problem
    }

    /// The errors in the order of their pointers, without repeating long details.
    fn into_list(self) -> impl Iterator<Item = FieldError> {
        let mut said: BTreeMap<Cow<'static, str>, String> = BTreeMap::new();
        let mut errors: Vec<_> = self.errors.into_iter().collect();
        errors.sort_by(|(a, _), (b, _)| order(a).cmp(order(b)));
        errors.into_iter().map(move |(pointer, invalid)| {
            let Invalid { code, detail } = invalid;
            let detail = if detail.len() <= MAX_REPEATED_BYTES {
                detail
            } else if let Some(first) = said.get(&detail) {
                in_short(&detail, first).into()
            } else {
                let whole = cut(&detail, MAX_DETAIL_BYTES).into_owned();
                said.insert(detail, pointer.clone());
                whole.into()
            };
            FieldError {
                pointer,
                code,
                detail,
            }
        })
    }

    /// Whether the field, or one that it is a part of, is known to be invalid.
    fn covers(&self, pointer: &str) -> bool {
        self.errors.contains_key(pointer)
            || pointer
                .match_indices('/')
                .any(|(end, _)| self.errors.contains_key(&pointer[..end]))
    }
}

/// Orders pointers by their segments: places in lists as numbers, and names as texts.
fn order(pointer: &str) -> impl Iterator<Item = (usize, &str)> {
    pointer.split('/').map(|segment| {
        let is_place = segment.bytes().all(|byte| byte.is_ascii_digit());
        (if is_place { segment.len() } else { 0 }, segment)
    })
}

/// The short form of a long detail that the field `first` has, too.
fn in_short(detail: &str, first: &str) -> String {
    let sentence = detail.split("; ").next().unwrap_or_default();
    let sentence = sentence.split(", which ").next().unwrap_or_default();
    if sentence.len() <= MAX_REPEATED_BYTES {
        format!("{sentence}; see {first}")
    } else {
        format!("is invalid for the same reason as {first}")
    }
}

/// Appends a member's name as [RFC 6901 §3](https://www.rfc-editor.org/rfc/rfc6901#section-3) says.
pub(crate) fn push_segment(pointer: &mut String, name: &str) {
    let name = cut(name, MAX_NAME_BYTES);
    pointer.push('/');
    if name.contains(['~', '/']) {
        pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
    } else {
        pointer.push_str(&name);
    }
}

/// The text, or its beginning and an ellipsis.
pub(super) fn cut(text: &str, max_bytes: usize) -> Cow<'_, str> {
    if text.len() <= max_bytes {
        return Cow::Borrowed(text);
    }
    let beginning = &text[..text.floor_char_boundary(max_bytes)];
    Cow::Owned(format!("{beginning}…"))
}
