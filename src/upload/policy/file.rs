//! Policies in TOML: read, and refused where they could not be kept.

use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

use super::{ANY, ActiveContent, Policies, Policy};
use crate::s3;
use crate::upload::Invalid;
use crate::upload::content_type::ContentTypeRange;
use crate::upload::key::KeyTemplate;
use crate::upload::metadata::{self, Metadata};
use crate::upload::service::REPLACED_IN_FORMS;

const DEFAULT_KEY: &str = "uploads/{uuid}/{filename}";

/// Why a policy can't be kept: where in the file, and the reason.
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

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyToml {
    key: Option<String>,
    content_types: Option<Vec<String>>,
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
    metadata: Metadata,
    #[serde(default)]
    allowed_metadata: Vec<String>,
}

impl Policies {
    /// Reads `[policies.NAME]` tables. `expires_in` is for those that do not say how long their
    /// grants live.
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
            policies.insert(name.into(), policy);
        }
        Ok(Self(policies))
    }
}

impl Policy {
    /// What a table without any field means.
    pub(super) fn unbounded(expires_in: Duration) -> Self {
        Self::parse(toml::Table::new(), expires_in)
            .unwrap_or_else(|(field, reason)| unreachable!("{field} {reason}"))
    }

    /// # Errors
    ///
    /// Names the field and the reason.
    fn parse(table: toml::Table, expires_in: Duration) -> Result<Self, (String, String)> {
        let policy: PolicyToml = serde_path_to_error::deserialize(table)
            .map_err(|error| (error.path().to_string(), error.inner().message().to_owned()))?;
        let at = |field: &str| {
            let field = field.to_owned();
            move |reason: String| (field, reason)
        };
        let fail = |field: &str, reason: &str| Err((field.to_owned(), reason.to_owned()));

        let key =
            KeyTemplate::parse(policy.key.as_deref().unwrap_or(DEFAULT_KEY)).map_err(at("key"))?;
        if !key.is_unique() && policy.overwrite.is_none() {
            return fail(
                "key",
                "has no {uuid}, so uploads may overwrite each other: say `overwrite = true` or `overwrite = false`",
            );
        }

        let content_types = policy.content_types.unwrap_or_else(|| vec!["*/*".into()]);
        if content_types.is_empty() {
            return fail(
                "content_types",
                "must not be empty: nothing could be uploaded",
            );
        }
        let content_types = content_types
            .iter()
            .enumerate()
            .map(|(index, text)| {
                ContentTypeRange::parse(text).map_err(at(&format!("content_types[{index}]")))
            })
            .collect::<Result<_, _>>()?;

        let max_size = policy
            .max_size
            .map(|text| parse_size(&text))
            .transpose()
            .map_err(at("max_size"))?
            .unwrap_or(s3::MAX_OBJECT_BYTES);
        let is_bounded = max_size < s3::MAX_PUT_BYTES;
        if is_bounded && policy.require_size == Some(false) {
            return fail(
                "require_size",
                "must not be false with a max_size: a PUT can be bound to one size or to none",
            );
        }

        let expires_in = policy
            .expires_in
            .map(|text| parse_life(&text))
            .transpose()
            .map_err(at("expires_in"))?
            .unwrap_or(expires_in);

        if let Some(value) = &policy.cache_control {
            metadata::check_value(value)
                .and_then(|()| check_ascii(value))
                .and_then(|()| check_reserved(value))
                .map_err(|invalid| at("cache_control")(invalid.detail.into_owned()))?;
        }
        let server_side_encryption = policy
            .server_side_encryption
            .map(|text| {
                known(
                    s3::ServerSideEncryption::try_parse(&text),
                    &text,
                    s3::ServerSideEncryption::values(),
                )
            })
            .transpose()
            .map_err(at("server_side_encryption"))?;
        if let Some(id) = &policy.kms_key_id {
            let uses_kms = server_side_encryption
                .as_ref()
                .is_some_and(|sse| sse.as_str().starts_with("aws:kms"));
            if !uses_kms {
                return fail("kms_key_id", "needs `server_side_encryption = \"aws:kms\"`");
            }
            metadata::check_value(id)
                .and_then(|()| check_ascii(id))
                .and_then(|()| check_reserved(id))
                .map_err(|invalid| at("kms_key_id")(invalid.detail.into_owned()))?;
        }
        check_tags(&policy.tagging).map_err(at("tagging"))?;
        check_metadata(&policy.metadata, &policy.allowed_metadata)?;

        Ok(Self {
            key,
            content_types,
            max_size,
            require_size: policy.require_size.unwrap_or(is_bounded),
            require_checksum: policy.require_checksum,
            overwrite: policy.overwrite.unwrap_or(true),
            multipart: policy.multipart.unwrap_or(true),
            active_content: policy.active_content,
            sniff: policy.sniff,
            expires_in,
            cache_control: policy.cache_control,
            storage_class: policy
                .storage_class
                .map(|text| {
                    known(
                        s3::StorageClass::try_parse(&text),
                        &text,
                        s3::StorageClass::values(),
                    )
                })
                .transpose()
                .map_err(at("storage_class"))?,
            server_side_encryption,
            kms_key_id: policy.kms_key_id,
            acl: policy
                .acl
                .map(|text| {
                    known(
                        s3::ObjectCannedAcl::try_parse(&text),
                        &text,
                        s3::ObjectCannedAcl::values(),
                    )
                })
                .transpose()
                .map_err(at("acl"))?,
            tagging: policy.tagging.into_iter().collect(),
            metadata: policy.metadata,
            allowed_metadata: policy.allowed_metadata,
        })
    }
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
            "must be at most 10,000 parts of 5 GiB, which is what S3 takes; it is `{text}`"
        ));
    }
    Ok(size.as_u64())
}

fn parse_life(text: &str) -> Result<Duration, String> {
    let life = humantime::parse_duration(text)
        .map_err(|_| format!("must be a duration such as `10m`; it is `{text}`"))?;
    if life.subsec_nanos() != 0 || life.is_zero() || life > s3::MAX_EXPIRES_IN {
        return Err(format!(
            "must be whole seconds from 1 second to 7 days; it is `{text}`"
        ));
    }
    Ok(life)
}

fn known<T, E>(value: Result<T, E>, text: &str, all: &[&str]) -> Result<T, String> {
    value.map_err(|_| format!("must be one of {}; it is `{text}`", all.join(", ")))
}

fn check_ascii(value: &str) -> Result<(), Invalid> {
    if value.is_ascii() && !s3::has_two_spaces(value) {
        return Ok(());
    }
    let detail = "must be ASCII, without several spaces in a row";
    Err(Invalid::new("not-ascii", detail))
}

/// Refuses what no form could keep.
fn check_reserved(value: &str) -> Result<(), Invalid> {
    if !value.contains(REPLACED_IN_FORMS) {
        return Ok(());
    }
    let detail =
        format!("must not contain `{REPLACED_IN_FORMS}`, which has a meaning of its own in a form");
    Err(Invalid::new("reserved", detail))
}

/// [S3's rules for tags](https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html).
fn check_tags(tags: &BTreeMap<String, String>) -> Result<(), String> {
    let is_text = |text: &str| {
        text.chars()
            .all(|c| c.is_alphanumeric() || " +-=._:/@".contains(c))
    };
    if tags.len() > 10 {
        return Err(format!("must have at most 10 tags; it has {}", tags.len()));
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

fn check_metadata(own: &Metadata, allowed: &[String]) -> Result<(), (String, String)> {
    for (name, value) in own {
        metadata::check_name(name)
            .and_then(|()| metadata::check_value(value))
            .and_then(|()| check_reserved(value))
            .map_err(|invalid| (format!("metadata.{name}"), invalid.detail.into_owned()))?;
    }
    metadata::check_size(own)
        .map_err(|invalid| ("metadata".to_owned(), invalid.detail.into_owned()))?;
    for name in allowed {
        let place = || "allowed_metadata".to_owned();
        if name == ANY {
            continue;
        }
        metadata::check_name(name).map_err(|_| {
            (place(), format!("has `{name}`, which is not a name: 1 to 128 lower-case letters, digits, `-`, `_` and `.`"))
        })?;
        if own.contains_key(name) {
            return Err((
                place(),
                format!("has `{name}`, which the policy itself sets"),
            ));
        }
    }
    Ok(())
}

/// Names and values may have control characters in them, and so may what is said of them.
fn one_line(text: &str) -> String {
    let pieces = text.split(char::is_control).map(str::trim);
    let pieces: Vec<&str> = pieces.filter(|piece| !piece.is_empty()).collect();
    pieces.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN_MINUTES: Duration = Duration::from_mins(10);

    fn policy(fields: &str) -> Result<Policies, String> {
        let text = format!("[policies.default]\n{fields}");
        Policies::parse(&text, TEN_MINUTES).map_err(|error| error.to_string())
    }

    #[test]
    fn the_example_file_is_read() {
        let text = include_str!("../../../policies.example.toml");
        let policies = Policies::parse(text, TEN_MINUTES).unwrap();
        assert!(policies.contains("default"));
        assert!(policies.0.len() > 2);
    }

    #[test]
    fn the_example_file_shows_every_field() {
        let text = include_str!("../../../policies.example.toml");
        let error = policy("nothing = 1").unwrap_err();
        let (_, fields) = error.split_once("expected one of ").unwrap();
        for field in fields.split(", ").map(|field| field.trim_matches('`')) {
            let shows = text.lines().any(|line| {
                let line = line.trim_start_matches(['#', ' ']);
                line.strip_prefix(field)
                    .is_some_and(|rest| rest.trim_start().starts_with('='))
            });
            assert!(shows, "{field}");
        }
    }

    #[test]
    fn what_cannot_be_kept_is_refused_with_policy_field_and_reason() {
        for (fields, place, reason) in [
            ("key = 'a/{filename}'", "key", "overwrite"),
            ("key = '{uuid}/{nope}'", "key", "{nope}"),
            ("key = 7", "key", "string"),
            ("content_types = []", "content_types", "empty"),
            (
                "content_types = ['image/png', 'image']",
                "content_types[1]",
                "media type",
            ),
            (
                "content_types = ['text/plain; charset=utf-8']",
                "content_types[0]",
                "parameters",
            ),
            ("max_size = '49 TiB'", "max_size", "5 GiB"),
            ("max_size = '0'", "max_size", "0"),
            ("max_size = 'big'", "max_size", "big"),
            ("max_size = '-5 MiB'", "max_size", "-5 MiB"),
            ("max_size = 5", "max_size", "string"),
            (
                "max_size = '5 MiB'\nrequire_size = false",
                "require_size",
                "max_size",
            ),
            ("expires_in = '8d'", "expires_in", "7 days"),
            ("expires_in = '0s'", "expires_in", "7 days"),
            ("expires_in = '1500ms'", "expires_in", "whole seconds"),
            ("expires_in = '10'", "expires_in", "duration"),
            ("active_content = 'maybe'", "active_content", "attachment"),
            ("storage_class = 'COLD'", "storage_class", "STANDARD"),
            (
                "server_side_encryption = 'rot13'",
                "server_side_encryption",
                "AES256",
            ),
            ("kms_key_id = 'x'", "kms_key_id", "aws:kms"),
            (
                "server_side_encryption = 'AES256'\nkms_key_id = 'x'",
                "kms_key_id",
                "aws:kms",
            ),
            ("acl = 'everyone'", "acl", "public-read"),
            (
                "cache_control = \"a\\nb\"",
                "cache_control",
                "control character",
            ),
            ("cache_control = 'é'", "cache_control", "ASCII"),
            ("cache_control = '${filename}'", "cache_control", "form"),
            (
                "server_side_encryption = 'aws:kms'\nkms_key_id = 'a${filename}'",
                "kms_key_id",
                "form",
            ),
            ("metadata = { a = 'x${filename}' }", "metadata.a", "form"),
            ("tagging = { 'a&b' = 'c' }", "tagging", "a&b"),
            ("tagging = { 'aws:x' = 'c' }", "tagging", "aws:x"),
            ("metadata = { 'A' = 'b' }", "metadata.A", "lower-case"),
            ("metadata = { a = '' }", "metadata.a", "empty"),
            ("allowed_metadata = ['A']", "allowed_metadata", "`A`"),
            (
                "metadata = { a = 'b' }\nallowed_metadata = ['a']",
                "allowed_metadata",
                "itself",
            ),
            ("overwite = true", "overwite", "unknown field"),
        ] {
            let error = policy(fields).expect_err(fields);
            let place = format!("policies.default.{place} ");
            assert!(error.starts_with(&place), "{fields}: {error}");
            assert!(error.contains(reason), "{fields}: {error}");
            assert!(!error.contains('\n'), "{fields}: {error}");
        }
        let tags = |count| {
            let tags: Vec<String> = (0..count).map(|n| format!("t{n} = 'x'")).collect();
            policy(&format!("tagging = {{ {} }}", tags.join(", ")))
        };
        assert!(tags(10).is_ok());
        let error = tags(11).unwrap_err();
        assert!(error.contains("10 tags"), "{error}");
    }

    #[test]
    fn a_policy_can_allow_what_s3_takes_in_parts() {
        let largest = "max_size = '53687091200000 B'";
        let policies = policy(largest).unwrap();
        let default = policies
            .get(None, &crate::upload::Caller::anonymous())
            .unwrap();
        assert_eq!(default.max_size, 53_687_091_200_000);
        policy("max_size = '53687091200001 B'").unwrap_err();
    }

    #[test]
    fn whatever_the_names_a_refusal_is_one_line() {
        for text in [
            "[policies.\"a\\nb\"]\nkey = '{'",
            "[policies.a]\n\"x\\ry\" = 1",
            "[policies.a]\nmetadata = { \"x\\u0085y\" = '1' }",
            "[policies.a]\nacl = \"\\u001b[2J\"",
        ] {
            let error = Policies::parse(text, TEN_MINUTES).unwrap_err().to_string();
            assert!(error.starts_with("policies.a"), "{error:?}");
            assert!(!error.contains(char::is_control), "{error:?}");
        }
    }

    #[test]
    fn a_file_that_is_not_toml_is_refused_with_its_line() {
        for (text, line) in [
            ("[policies.a]\nkey = ", "line 2"),
            ("x = 1", "line 1"),
            ("", "line 1"),
        ] {
            let error = Policies::parse(text, TEN_MINUTES).unwrap_err().to_string();
            assert!(error.starts_with(line) && !error.contains('\n'), "{error}");
        }
        let error = Policies::parse("[policies]", TEN_MINUTES).unwrap_err();
        assert!(error.to_string().contains("at least one"), "{error}");
    }
}
