//! Reads policies from TOML, and refuses those that the store could not enforce.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytesize::ByteSize;
use serde::de::{Deserialize, Deserializer, Error as _};

use super::{ANY, Policies, Policy};
use crate::s3;
use crate::upload::commit;
use crate::upload::content_type::ContentTypeRange;
use crate::upload::grants::check_form;
use crate::upload::key::KeyTemplate;
use crate::upload::metadata::{self, Metadata, check_fixed};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct PoliciesToml {
    policies: BTreeMap<String, toml::Table>,
}

pub(super) fn default_key() -> KeyTemplate {
    let template = KeyTemplate::parse("uploads/{uuid}/{filename}");
    template.unwrap_or_else(|reason| unreachable!("{reason}"))
}

pub(super) fn any_type() -> Vec<ContentTypeRange> {
    ContentTypeRange::parse("*/*").into_iter().collect()
}

pub(super) fn largest() -> u64 {
    s3::MAX_OBJECT_BYTES
}

pub(super) fn yes() -> bool {
    true
}

/// Defines functions that read fields from text, by rules whose errors say what to write.
macro_rules! readers {
    ($($name:ident: $Value:ty = $parse:expr;)*) => {$(
        pub(super) fn $name<'de, D: Deserializer<'de>>(field: D) -> Result<$Value, D::Error> {
            let text = String::deserialize(field)?;
            $parse(&text).map_err(D::Error::custom)
        }
    )*};
}

readers! {
    bucket: Option<String> = parse_bucket;
    key: KeyTemplate = KeyTemplate::parse;
    size: u64 = parse_size;
    lifetime: Duration = parse_lifetime;
    header: Option<String> = parse_header;
    storage_class: Option<s3::StorageClass> = |text| one_of(s3::StorageClass::values(), text);
    encryption: Option<s3::ServerSideEncryption> = |text| one_of(s3::ServerSideEncryption::values(), text);
    acl: Option<s3::ObjectCannedAcl> = |text| one_of(s3::ObjectCannedAcl::values(), text);
}

pub(super) fn tags<'de, D: Deserializer<'de>>(field: D) -> Result<Vec<(String, String)>, D::Error> {
    let tags = BTreeMap::<String, String>::deserialize(field)?;
    Ok(tags.into_iter().collect())
}

impl Policies {
    /// Reads `[policies.NAME]` tables. Grants of a policy without a lifetime of its own expire
    /// after `expires_in`.
    ///
    /// # Errors
    ///
    /// Where in the file a policy cannot be enforced, and why.
    pub fn parse(text: &str, expires_in: Duration) -> Result<Self, String> {
        let file: PoliciesToml = toml::from_str(text).map_err(|error| {
            let before = &text[..error.span().map_or(0, |span| span.start.min(text.len()))];
            let line = before.matches('\n').count() + 1;
            format!("line {line}: {}", one_line(error.message()))
        })?;
        if file.policies.is_empty() {
            return Err("policies must have at least one policy".into());
        }
        let mut policies = BTreeMap::new();
        for (name, table) in file.policies {
            let policy = Policy::parse(table, expires_in).map_err(|(field, reason)| {
                let place = format!("policies.{name}.{field}");
                one_line(&format!("{} {reason}", place.trim_end_matches(['.', '?'])))
            })?;
            policies.insert(name.into(), policy.into());
        }
        Ok(Self(policies))
    }

    /// The first policy that forbids overwriting, which a form cannot enforce.
    pub fn write_once(&self) -> Option<&str> {
        let (name, _) = self.0.iter().find(|(_, policy)| !policy.overwrite)?;
        Some(name)
    }
}

/// The field of a policy that is wrong, and why.
type Fault = (String, String);

impl Policy {
    /// The policy of a table without any field.
    pub(super) fn unbounded(expires_in: Duration) -> Self {
        Self::parse(toml::Table::new(), expires_in)
            .unwrap_or_else(|(field, reason)| unreachable!("{field} {reason}"))
    }

    fn parse(table: toml::Table, expires_in: Duration) -> Result<Self, Fault> {
        let names: BTreeSet<String> = table.keys().cloned().collect();
        let has = |field: &str| names.contains(field);
        let mut policy: Self = serde_path_to_error::deserialize(table).map_err(|error| {
            let field = error.path().to_string();
            let reason = what_to_write(&field, error.inner().message());
            (field, reason)
        })?;
        if !has("expires_in") {
            policy.expires_in = expires_in;
        }
        if !has("download_expires_in") {
            policy.download_expires_in = policy.expires_in;
        }
        let is_bounded = policy.max_size < s3::MAX_PUT_BYTES;
        if !has("require_size") {
            policy.require_size = is_bounded;
        }
        let encryption = policy.server_side_encryption.as_ref();
        let uses_kms = encryption.is_some_and(|it| it.as_str().starts_with("aws:kms"));
        let rules = [
            (
                policy.key.is_unique() || has("overwrite"),
                "key",
                "has no {uuid}, so uploads may overwrite each other: say `overwrite = true` or `overwrite = false`",
            ),
            (
                !policy.content_types.is_empty(),
                "content_types",
                "must not be empty: nothing could be uploaded",
            ),
            (
                !is_bounded || policy.require_size,
                "require_size",
                "must not be false with a max_size: a PUT can be bound to one size or to none",
            ),
            (
                policy.download || !has("download_expires_in"),
                "download_expires_in",
                "needs `download = true`",
            ),
            (
                uses_kms || !has("kms_key_id"),
                "kms_key_id",
                "needs `server_side_encryption = \"aws:kms\"`",
            ),
        ];
        if let Some((_, field, reason)) = rules.into_iter().find(|(is_kept, ..)| !is_kept) {
            return Err((field.to_owned(), reason.to_owned()));
        }
        check_tags(&policy.tagging, policy.pending)
            .map_err(|reason| ("tagging".to_owned(), reason))?;
        if policy.pending {
            let (name, value) = commit::PENDING_TAG;
            policy.tagging.push((name.to_owned(), value.to_owned()));
            policy.tagging.sort_unstable();
        }
        check_metadata(&policy.metadata, &policy.allowed_metadata)?;
        Ok(policy)
    }
}

/// What to write for a value that could not be read, in place of the words of the library.
fn what_to_write(field: &str, message: &str) -> String {
    let wrong_type = message.strip_prefix("invalid type: ");
    let Some((_, expected)) = wrong_type.and_then(|it| it.rsplit_once("expected ")) else {
        return message.to_owned();
    };
    let must = match (field, expected) {
        ("max_size", _) => "text with a unit, such as \"5 MiB\"",
        ("expires_in" | "download_expires_in", _) => "text with a unit, such as \"10m\"",
        ("content_types", _) => "a list, such as [\"image/*\"]",
        (_, "a sequence") => "a list, such as [\"a\", \"b\"]",
        (_, "a string") => "text in quotes",
        (_, "a boolean") => "true or false, without quotes",
        (_, "a map") => "a table, such as { name = \"value\" }",
        _ => return message.to_owned(),
    };
    format!("must be {must}")
}

fn parse_bucket(text: &str) -> Result<Option<String>, String> {
    if s3::is_bucket_name(text) {
        return Ok(Some(text.to_owned()));
    }
    Err(format!("must be {}; it is `{text}`", s3::BUCKET_NAME))
}

fn parse_size(text: &str) -> Result<u64, String> {
    let size: ByteSize = text
        .parse()
        .map_err(|_| format!("must be a size such as `5 MiB`; it is `{text}`"))?;
    if size.as_u64() == 0 {
        return Err("must not be 0: nothing could be uploaded".into());
    }
    if size.as_u64() > s3::MAX_OBJECT_BYTES {
        return Err(format!(
            "must be at most 10,000 parts of 5 GiB, which is the most that S3 accepts; it is `{text}`"
        ));
    }
    Ok(size.as_u64())
}

fn parse_lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = humantime::parse_duration(text)
        .map_err(|_| format!("must be a duration such as `10m`; it is `{text}`"))?;
    if lifetime.subsec_nanos() != 0 || lifetime.is_zero() || lifetime > s3::MAX_EXPIRES_IN {
        return Err(format!(
            "must be whole seconds from 1 second to 7 days; it is `{text}`"
        ));
    }
    Ok(lifetime)
}

fn one_of<T: for<'a> From<&'a str>>(all: &[&str], text: &str) -> Result<Option<T>, String> {
    if all.contains(&text) {
        return Ok(Some(T::from(text)));
    }
    Err(format!("must be one of {}; it is `{text}`", all.join(", ")))
}

/// Refuses a value that signing would change, or that neither a header nor a form can carry.
fn parse_header(value: &str) -> Result<Option<String>, String> {
    metadata::check_value(value).map_err(|invalid| invalid.detail.into_owned())?;
    if !value.is_ascii() || s3::has_two_spaces(value) {
        return Err("must be ASCII, without several spaces in a row".to_owned());
    }
    let max = s3::MAX_TEXT_BYTES;
    if value.len() > max {
        return Err(format!("must not be longer than {max} bytes"));
    }
    check_form(value).map_err(|invalid| invalid.detail.into_owned())?;
    Ok(Some(value.to_owned()))
}

/// Refuses tags that break
/// [S3's rules](https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html).
fn check_tags(tags: &[(String, String)], is_pending: bool) -> Result<(), String> {
    const MAX_TAGS: usize = 10;
    let is_text = |text: &str| {
        text.chars()
            .all(|c| c.is_alphanumeric() || " +-=._:/@".contains(c))
    };
    if tags.iter().any(|(name, _)| name == commit::TAG) {
        return Err(format!(
            "has `{}`, a name that is reserved for uploads of policies with `pending = true`",
            commit::TAG
        ));
    }
    let own = MAX_TAGS - usize::from(is_pending);
    if tags.len() > own {
        let which = if is_pending {
            " besides that of `pending`"
        } else {
            ""
        };
        return Err(format!(
            "must have at most {own} tags{which}; it has {}",
            tags.len()
        ));
    }
    for (name, value) in tags {
        let is_tag = (1..=128).contains(&name.chars().count())
            && value.chars().count() <= 256
            && !name.starts_with("aws:")
            && is_text(name)
            && is_text(value);
        if !is_tag {
            return Err(format!(
                "has `{name}`, which is not a tag: names have 1 to 128 characters, values up to 256, and both are letters, digits, spaces and `+-=._:/@`"
            ));
        }
    }
    Ok(())
}

fn check_metadata(own: &Metadata, allowed: &[String]) -> Result<(), Fault> {
    check_fixed(own)?;
    for name in allowed.iter().filter(|name| *name != ANY) {
        let reason = match metadata::check_name(name) {
            Err(invalid) => format!("but metadata {}", invalid.detail),
            Ok(()) if own.contains_key(name) => "which the policy itself sets".to_owned(),
            Ok(()) => continue,
        };
        return Err((
            "allowed_metadata".to_owned(),
            format!("has `{name}`, {reason}"),
        ));
    }
    Ok(())
}

/// A message may repeat names and values, which may contain control characters.
fn one_line(text: &str) -> String {
    let pieces = text.split(char::is_control).map(str::trim);
    let pieces: Vec<&str> = pieces.filter(|piece| !piece.is_empty()).collect();
    pieces.join(" ")
}

#[cfg(test)]
mod tests;
