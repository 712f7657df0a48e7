//! Reads policies from TOML, and refuses those that the store could not enforce.

use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

use super::{ANY, ActiveContent, Policies, Policy};
use crate::s3;
use crate::upload::commit;
use crate::upload::content_type::ContentTypeRange;
use crate::upload::grants::check_form;
use crate::upload::key::KeyTemplate;
use crate::upload::metadata::{self, Metadata, check_fixed};

/// Why a policy cannot be enforced: where in the file, and the reason.
#[derive(Debug, thiserror::Error)]
#[error("{place} {reason}")]
pub struct PolicyError {
    place: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PoliciesToml {
    policies: BTreeMap<String, toml::Table>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a field of the file")]
struct PolicyToml {
    bucket: Option<String>,
    #[serde(default = "default_key")]
    key: String,
    #[serde(default = "any_type")]
    content_types: Vec<String>,
    max_size: Option<String>,
    require_size: Option<bool>,
    #[serde(default)]
    require_checksum: bool,
    multipart: Option<bool>,
    overwrite: Option<bool>,
    #[serde(default)]
    active_content: ActiveContent,
    #[serde(default)]
    sniff: bool,
    expires_in: Option<String>,
    cache_control: Option<String>,
    storage_class: Option<String>,
    server_side_encryption: Option<String>,
    kms_key_id: Option<String>,
    acl: Option<String>,
    #[serde(default)]
    tagging: BTreeMap<String, String>,
    #[serde(default)]
    pending: bool,
    #[serde(default)]
    download: bool,
    download_expires_in: Option<String>,
    #[serde(default)]
    delete: bool,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    allowed_metadata: Vec<String>,
}

fn default_key() -> String {
    "uploads/{uuid}/{filename}".to_owned()
}

fn any_type() -> Vec<String> {
    vec!["*/*".to_owned()]
}

impl Policies {
    /// Reads `[policies.NAME]` tables. Grants of a policy without a lifetime of its own expire
    /// after `expires_in`.
    pub fn parse(text: &str, expires_in: Duration) -> Result<Self, PolicyError> {
        let file: PoliciesToml = toml::from_str(text).map_err(|error| {
            let before = &text[..error.span().map_or(0, |span| span.start.min(text.len()))];
            PolicyError {
                place: format!("line {}:", before.matches('\n').count() + 1),
                reason: one_line(error.message()),
            }
        })?;
        if file.policies.is_empty() {
            return Err(PolicyError {
                place: "policies".into(),
                reason: "must have at least one policy".into(),
            });
        }
        let mut policies = BTreeMap::new();
        for (name, table) in file.policies {
            let policy = Policy::parse(table, expires_in).map_err(|(field, reason)| {
                let place = format!("policies.{name}.{field}");
                PolicyError {
                    place: one_line(place.trim_end_matches(['.', '?'])),
                    reason: one_line(&reason),
                }
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
        let policy: PolicyToml = serde_path_to_error::deserialize(table).map_err(|error| {
            let field = error.path().to_string();
            let reason = what_to_write(&field, error.inner().message());
            (field, reason)
        })?;

        let bucket = parse_optional("bucket", policy.bucket.as_ref(), parse_bucket)?;
        let key = parse_field("key", &policy.key, KeyTemplate::parse)?;
        let content_types = policy.content_types.iter().enumerate();
        let content_types = content_types.map(|(index, text)| {
            parse_field(
                &format!("content_types[{index}]"),
                text,
                ContentTypeRange::parse,
            )
        });
        let content_types = content_types.collect::<Result<_, _>>()?;

        let max_size = parse_optional("max_size", policy.max_size.as_ref(), parse_size)?;
        let max_size = max_size.unwrap_or(s3::MAX_OBJECT_BYTES);
        let is_bounded = max_size < s3::MAX_PUT_BYTES;
        let lifetime = parse_optional("expires_in", policy.expires_in.as_ref(), parse_lifetime)?;
        let lifetime = lifetime.unwrap_or(expires_in);
        let download = policy.download_expires_in.as_ref();
        let download = parse_optional("download_expires_in", download, parse_lifetime)?;
        let encryption = policy.server_side_encryption.as_ref();
        let server_side_encryption = parse_optional(
            "server_side_encryption",
            encryption,
            one_of(s3::ServerSideEncryption::values()),
        )?;
        let storage_class = policy.storage_class.as_ref();
        let storage_class = parse_optional(
            "storage_class",
            storage_class,
            one_of(s3::StorageClass::values()),
        )?;
        let acl = parse_optional(
            "acl",
            policy.acl.as_ref(),
            one_of(s3::ObjectCannedAcl::values()),
        )?;
        parse_optional("cache_control", policy.cache_control.as_ref(), check_header)?;
        parse_optional("kms_key_id", policy.kms_key_id.as_ref(), check_header)?;
        policy.check_together(key.is_unique(), is_bounded)?;
        let tagging = parse_tags(policy.tagging, policy.pending)
            .map_err(|reason| ("tagging".to_owned(), reason))?;
        check_metadata(&policy.metadata, &policy.allowed_metadata)?;

        Ok(Self {
            bucket,
            key,
            content_types,
            max_size,
            require_size: policy.require_size.unwrap_or(is_bounded),
            require_checksum: policy.require_checksum,
            overwrite: policy.overwrite.unwrap_or(true),
            multipart: policy.multipart.unwrap_or(true),
            active_content: policy.active_content,
            sniff: policy.sniff,
            expires_in: lifetime,
            cache_control: policy.cache_control,
            storage_class,
            server_side_encryption,
            kms_key_id: policy.kms_key_id,
            acl,
            tagging,
            pending: policy.pending,
            delete: policy.delete,
            download: policy.download.then(|| download.unwrap_or(lifetime)),
            metadata: policy.metadata,
            allowed_metadata: policy.allowed_metadata,
        })
    }
}

impl PolicyToml {
    /// Refuses fields that contradict each other.
    fn check_together(&self, is_unique: bool, is_bounded: bool) -> Result<(), Fault> {
        let encryption = self.server_side_encryption.as_ref();
        let uses_kms = encryption.is_some_and(|text| text.starts_with("aws:kms"));
        let rules = [
            (
                is_unique || self.overwrite.is_some(),
                "key",
                "has no {uuid}, so uploads may overwrite each other: say `overwrite = true` or `overwrite = false`",
            ),
            (
                !self.content_types.is_empty(),
                "content_types",
                "must not be empty: nothing could be uploaded",
            ),
            (
                !is_bounded || self.require_size != Some(false),
                "require_size",
                "must not be false with a max_size: a PUT can be bound to one size or to none",
            ),
            (
                self.download || self.download_expires_in.is_none(),
                "download_expires_in",
                "needs `download = true`",
            ),
            (
                uses_kms || self.kms_key_id.is_none(),
                "kms_key_id",
                "needs `server_side_encryption = \"aws:kms\"`",
            ),
        ];
        match rules.into_iter().find(|(is_kept, ..)| !is_kept) {
            Some((_, field, reason)) => Err((field.to_owned(), reason.to_owned())),
            None => Ok(()),
        }
    }
}

/// What to write for a value that could not be read, in place of the words of the library.
fn what_to_write(field: &str, message: &str) -> String {
    let (_, expected) = message.rsplit_once("expected ").unwrap_or_default();
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

fn parse_field<T>(
    field: &str,
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, Fault> {
    parse(text).map_err(|reason| (field.to_owned(), reason))
}

fn parse_optional<T>(
    field: &str,
    text: Option<&String>,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, Fault> {
    text.map(|text| parse_field(field, text, parse)).transpose()
}

fn parse_bucket(text: &str) -> Result<String, String> {
    if s3::is_bucket_name(text) {
        return Ok(text.to_owned());
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

fn one_of<T: for<'a> From<&'a str>>(all: &[&str]) -> impl FnOnce(&str) -> Result<T, String> {
    |text| {
        if all.contains(&text) {
            return Ok(T::from(text));
        }
        Err(format!("must be one of {}; it is `{text}`", all.join(", ")))
    }
}

/// Refuses a value that signing would change, or that neither a header nor a form can carry.
fn check_header(value: &str) -> Result<(), String> {
    metadata::check_value(value).map_err(|invalid| invalid.detail.into_owned())?;
    if !value.is_ascii() || s3::has_two_spaces(value) {
        return Err("must be ASCII, without several spaces in a row".to_owned());
    }
    check_form(value).map_err(|invalid| invalid.detail.into_owned())
}

/// All tags of an upload, by
/// [S3's rules](https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html).
fn parse_tags(
    mut tags: BTreeMap<String, String>,
    is_pending: bool,
) -> Result<Vec<(String, String)>, String> {
    const MAX_TAGS: usize = 10;
    let is_text = |text: &str| {
        text.chars()
            .all(|c| c.is_alphanumeric() || " +-=._:/@".contains(c))
    };
    if tags.contains_key(commit::TAG) {
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
    for (name, value) in &tags {
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
    if is_pending {
        tags.insert(commit::TAG.to_owned(), commit::PENDING.to_owned());
    }
    Ok(tags.into_iter().collect())
}

fn check_metadata(own: &Metadata, allowed: &[String]) -> Result<(), Fault> {
    check_fixed(own)?;
    for name in allowed.iter().filter(|name| *name != ANY) {
        let reason = if metadata::check_name(name).is_err() {
            "which is not a name: 1 to 128 lower-case letters, digits, `-`, `_` and `.`"
        } else if own.contains_key(name) {
            "which the policy itself sets"
        } else {
            continue;
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
