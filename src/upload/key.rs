//! Object keys and the templates that they are made from. Pure: no clock, no randomness.

mod known;
mod overlap;
mod owner;

use std::fmt::Write;

use time::Date;
use uuid::Uuid;

use super::caller::Caller;
use super::filename::{Filename, check_text};
use super::ticket::{Ticket, VAR_NAMES, is_var_name};

/// The full name of an object in its bucket.
///
/// Made by a [`KeyTemplate`] alone, which ensures that it is 1 to 1,024 bytes long
/// ([S3's limit](https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html)) and has no
/// empty, `.` or `..` segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectKey(String);

impl ObjectKey {
    const MAX_BYTES: usize = 1024;

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

/// How keys are made: text with placeholders, such as `uploads/{uuid}/{filename}`.
///
/// | placeholder | stands for |
/// |---|---|
/// | `{uuid}` | a random id, different for each grant |
/// | `{filename}` | the file's name |
/// | `.{ext}` | the name's extension in lower case, after its dot; nothing if it has none |
/// | `{ext}` | the same, without the dot |
/// | `{caller}` | who asks: [`Caller::segment`] |
/// | `{vars.NAME}` | a value of the caller's ticket, escaped like `{caller}` |
/// | `{yyyy}`, `{mm}`, `{dd}` | the day of the grant in UTC |
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyTemplate(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Uuid,
    Filename,
    Extension,
    DotExtension,
    Caller,
    Var(String),
    Year,
    Month,
    Day,
}

impl KeyTemplate {
    /// # Errors
    ///
    /// Says what is wrong with the template, in words that follow on its name.
    pub(super) fn parse(template: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = template;
        while let Some(at) = rest.find(['{', '}']) {
            let (text, from_brace) = rest.split_at(at);
            let (text, dot) = match text.strip_suffix('.') {
                Some(text) if from_brace.starts_with("{ext}") => (text, true),
                _ => (text, false),
            };
            push_text(&mut parts, text);
            let (name, after) = from_brace
                .strip_prefix('{')
                .and_then(|inner| inner.split_once('}'))
                .ok_or("has a brace without its partner")?;
            parts.push(match name {
                "uuid" => Part::Uuid,
                "filename" => Part::Filename,
                "ext" if dot => Part::DotExtension,
                "ext" => Part::Extension,
                "yyyy" => Part::Year,
                "mm" => Part::Month,
                "dd" => Part::Day,
                "caller" => Part::Caller,
                _ => match name.strip_prefix("vars.") {
                    Some(var) if is_var_name(var) => Part::Var(var.to_owned()),
                    Some(_) => return Err(format!("has {{{name}}}; {VAR_NAMES}")),
                    None => {
                        return Err(format!(
                            "has the unknown placeholder {{{name}}}; there are {{uuid}}, {{filename}}, {{ext}}, {{caller}}, {{vars.NAME}}, {{yyyy}}, {{mm}} and {{dd}}"
                        ));
                    }
                },
            });
            rest = after;
        }
        push_text(&mut parts, rest);
        let template = Self(parts);
        template.check()?;
        Ok(template)
    }

    /// Whether two grants never get the same key.
    pub(super) fn is_unique(&self) -> bool {
        self.0.contains(&Part::Uuid)
    }

    /// What all keys begin with.
    pub(super) fn prefix(&self) -> &str {
        match self.0.first() {
            Some(Part::Text(text)) => text,
            _ => "",
        }
    }

    /// Whether keys contain the caller.
    pub(super) fn has_caller(&self) -> bool {
        self.0.contains(&Part::Caller)
    }

    /// The names of the variables that keys have.
    pub(super) fn vars(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Var(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// A variable of the keys that the caller lacks.
    pub(super) fn missing_var(&self, caller: &Caller) -> Option<&str> {
        self.vars().find(|name| caller.var(name).is_none())
    }

    /// An anonymous caller with all variables.
    pub(super) fn sample_caller(&self) -> Caller {
        match self.vars().next() {
            None => Caller::anonymous(),
            Some(_) => self.with_vars(Caller::anonymous(), "presignd-sample"),
        }
    }

    fn with_vars(&self, caller: Caller, value: &str) -> Caller {
        let vars = self.vars().map(|name| (name, value));
        caller.with_ticket(Ticket::from_vars(vars))
    }

    /// Whether the key of a file of this name could be nothing but spaces, which the SDK treats as
    /// missing.
    pub(super) fn is_blank(&self, filename: &Filename) -> bool {
        let name = filename.as_str();
        name.trim().is_empty()
            && is_blank(&self.fill(&self.extreme_caller(1), name, None, Uuid::nil(), Date::MAX))
    }

    /// A caller whose own segments have this length.
    fn extreme_caller(&self, length: usize) -> Caller {
        let value = "c".repeat(length);
        self.with_vars(Caller::named(&value, None), &value)
    }

    pub(super) fn key(
        &self,
        caller: &Caller,
        filename: &Filename,
        id: Uuid,
        day: Date,
    ) -> ObjectKey {
        // It is computed only if the template uses it.
        let extension = self.has_extension().then(|| filename.extension()).flatten();
        let name = filename.as_str();
        ObjectKey(self.fill(caller, name, extension.as_deref(), id, day))
    }

    fn has_extension(&self) -> bool {
        let mut parts = self.0.iter();
        parts.any(|part| matches!(part, Part::Extension | Part::DotExtension))
    }

    fn fill(
        &self,
        caller: &Caller,
        filename: &str,
        extension: Option<&str>,
        id: Uuid,
        day: Date,
    ) -> String {
        let mut key = String::with_capacity(128);
        for part in &self.0 {
            match part {
                Part::Text(text) => key.push_str(text),
                Part::Uuid => {
                    key.push_str(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
                }
                Part::Filename => key.push_str(filename),
                Part::Extension => key.push_str(extension.unwrap_or_default()),
                Part::DotExtension => {
                    if let Some(extension) = extension {
                        key.push('.');
                        key.push_str(extension);
                    }
                }
                Part::Caller => key.push_str(caller.segment()),
                Part::Var(name) => key.push_str(caller.var(name).unwrap_or_default()),
                Part::Year => push_number(&mut key, 4, day.year().unsigned_abs()),
                Part::Month => push_number(&mut key, 2, u8::from(day.month()).into()),
                Part::Day => push_number(&mut key, 2, day.day().into()),
            }
        }
        key
    }

    /// A `{caller}` or `{vars.…}` that shares its segment with something else, so that two values could
    /// make the same key: the file `png` of `bob.` would be the file `.png` of `bob`.
    fn value_beside_other_text(&self) -> Option<String> {
        let ends = |part: Option<&Part>| match part {
            None => true,
            Some(Part::Text(text)) => text.starts_with('/'),
            Some(_) => false,
        };
        let begins = |part: Option<&Part>| match part {
            None => true,
            Some(Part::Text(text)) => text.ends_with('/'),
            Some(_) => false,
        };
        self.0.iter().enumerate().find_map(|(at, part)| {
            let name = match part {
                Part::Caller => "caller".to_owned(),
                Part::Var(name) => format!("vars.{name}"),
                _ => return None,
            };
            let before = at.checked_sub(1).and_then(|at| self.0.get(at));
            let is_alone = begins(before) && ends(self.0.get(at + 1));
            (!is_alone).then_some(name)
        })
    }

    /// Refuses a template that could make an invalid key. It tries the extreme cases: the longest
    /// name, and one without an extension.
    fn check(&self) -> Result<(), String> {
        if self.prefix().starts_with('/') {
            return Err("begins with `/`, so its first segment is empty; leave the `/` out".into());
        }
        for part in &self.0 {
            let Part::Text(text) = part else { continue };
            for segment in text.split('/') {
                check_text(segment).map_err(|invalid| invalid.detail.into_owned())?;
            }
        }
        if let Some(name) = self.value_beside_other_text() {
            return Err(format!(
                "has {{{name}}} beside something else; only as a segment of its own, as in `avatars/{{{name}}}/avatar.{{ext}}`, can no other value lead to the same key"
            ));
        }
        let longest = self.fill(
            &self.extreme_caller(Caller::MAX_SEGMENT_BYTES),
            &"n".repeat(Filename::MAX_BYTES),
            Some(&"e".repeat(Filename::MAX_EXTENSION_BYTES)),
            Uuid::nil(),
            Date::MAX,
        );
        if longest.len() > ObjectKey::MAX_BYTES {
            return Err(format!(
                "makes keys of up to {} bytes; S3 accepts {}",
                longest.len(),
                ObjectKey::MAX_BYTES
            ));
        }
        let shortest = self.fill(&self.extreme_caller(1), "n", None, Uuid::nil(), Date::MAX);
        if shortest
            .split('/')
            .any(|segment| matches!(segment, "" | "." | ".."))
        {
            return Err("can make a key with an empty, `.` or `..` segment".into());
        }
        if is_blank(&shortest) {
            return Err("can make a key of nothing but spaces".into());
        }
        Ok(())
    }
}

fn is_blank(key: &str) -> bool {
    key.trim().is_empty()
}

fn push_number(key: &mut String, digits: usize, number: u32) {
    write!(key, "{number:0digits$}").ok(); // infallible
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    if !text.is_empty() {
        parts.push(Part::Text(text.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use time::macros::date;

    use super::*;

    #[track_caller]
    fn key(template: &str, filename: &str) -> String {
        let filename = Filename::parse(filename).unwrap();
        let template = KeyTemplate::parse(template).unwrap();
        let caller = Caller::named("alice/7", None);
        let key = template.key(&caller, &filename, Uuid::nil(), date!(2026 - 03 - 09));
        key.as_str().to_owned()
    }

    #[test]
    fn placeholders_are_filled_in() {
        assert_eq!(
            key("uploads/{uuid}/{filename}", "a b.txt"),
            "uploads/00000000-0000-0000-0000-000000000000/a b.txt"
        );
        assert_eq!(key("{yyyy}/{mm}/{dd}/{filename}", "a"), "2026/03/09/a");
        assert_eq!(key("x-{filename}.{ext}", "a.PNG"), "x-a.PNG.png");
        assert_eq!(key("fixed", "a.png"), "fixed");
        assert_eq!(key("a/{caller}/{filename}", "a"), "a/alice=2F7/a");
    }

    #[test]
    fn a_name_without_an_extension_leaves_no_dot_behind() {
        assert_eq!(key("a/{mm}.{ext}", "photo"), "a/03");
        assert_eq!(key("a/{mm}{ext}", "photo"), "a/03");
        assert_eq!(key("a/{filename}{ext}", "..."), "a/...");
        assert_eq!(key("a/{filename}.{ext}", "a."), "a/a.");
    }

    #[test]
    fn what_a_filename_holds_is_not_taken_for_a_placeholder() {
        assert_eq!(key("a/{filename}", "{uuid}"), "a/{uuid}");
    }

    #[test]
    fn invalid_templates_are_refused() {
        for (template, why) in [
            ("", "empty"),
            ("/a/{uuid}", "begins with `/`"),
            ("a/{uuid}/", "empty"),
            ("a//{uuid}", "empty"),
            ("a/../{uuid}", "segment"),
            ("a/{ext}", "empty"),
            ("a/.{ext}/b", "empty"),
            (" ", "nothing but spaces"),
            ("\u{3000}{ext}", "nothing but spaces"),
            ("a/{uuid", "brace"),
            ("a/uuid}", "brace"),
            ("a/{id}", "{id}"),
            ("a/{}", "{}"),
            ("avatars/{caller}.{ext}", "segment of its own"),
            ("u/{caller}-{filename}", "segment of its own"),
            ("u/{caller}{filename}", "segment of its own"),
            ("u/{uuid}{caller}/x", "segment of its own"),
            ("u-{caller}/{filename}", "segment of its own"),
            ("t/{vars.tenant}-{uuid}", "segment of its own"),
            ("{caller}{vars.tenant}/{uuid}", "segment of its own"),
            ("{vars.a}{vars.b}/{uuid}", "segment of its own"),
            ("{vars.}/{uuid}", "1 to 64"),
            ("{vars.a.b}/{uuid}", "1 to 64"),
            ("{vars}/{uuid}", "{vars}"),
            (
                "{vars.a}/{vars.b}/{vars.c}/{vars.d}/{vars.e}/{vars.f}/{filename}",
                "1029",
            ),
            ("a\\b/{uuid}", "must not contain"),
            ("a\n/{uuid}", "U+000A"),
            ("{filename}{filename}{filename}{filename}{filename}", "1275"),
        ] {
            let error = KeyTemplate::parse(template).unwrap_err();
            assert!(error.contains(why), "{template}: {error}");
        }
    }
}
