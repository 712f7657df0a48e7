//! Policies: what an operator lets clients upload, read from TOML and checked against a request.
//! Pure.
//!
//! A policy is kept by the store, through the signature; so a policy that the store could not keep
//! is refused when it is read.

use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::content_type::ContentTypeRange;
use super::key::KeyTemplate;
use super::metadata::{self, Metadata};
use super::{Field, File, Filename, Invalid, Refusal, Request};
use crate::s3;

/// The name of the policy for requests that name none.
pub(super) const DEFAULT_POLICY: &str = "default";

/// Allows all metadata.
const ANY: &str = "*";

const DEFAULT_KEY: &str = "uploads/{uuid}/{filename}";

/// What may be uploaded, where to, and with which properties.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub(super) key: KeyTemplate,
    content_types: Vec<ContentTypeRange>,
    pub(super) max_size: u64,
    require_size: bool,
    require_checksum: bool,
    pub(super) overwrite: bool,
    active_content: ActiveContent,
    pub(super) expires_in: Duration,
    pub(super) cache_control: Option<String>,
    pub(super) storage_class: Option<s3::StorageClass>,
    pub(super) server_side_encryption: Option<s3::ServerSideEncryption>,
    pub(super) kms_key_id: Option<String>,
    pub(super) acl: Option<s3::ObjectCannedAcl>,
    pub(super) tagging: Vec<(String, String)>,
    metadata: Metadata,
    allowed_metadata: Vec<String>,
}

/// What to do with types that a browser would run scripts of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ActiveContent {
    /// Have the store serve it as a download.
    #[default]
    Attachment,
    Reject,
    Allow,
}

/// All policies, by name.
#[derive(Clone, Debug)]
pub struct Policies(BTreeMap<String, Policy>);

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
    overwrite: Option<bool>,
    #[serde(default)]
    active_content: ActiveContent,
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
    /// The one policy of a service that was given none: any type, any size that S3 takes, any
    /// metadata, and active content as it is.
    pub fn built_in(expires_in: Duration) -> Self {
        let policy = Policy {
            active_content: ActiveContent::Allow,
            allowed_metadata: vec![ANY.to_owned()],
            ..Policy::unbounded(expires_in)
        };
        Self(BTreeMap::from([(DEFAULT_POLICY.to_owned(), policy)]))
    }

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
                    place: place.trim_end_matches(['.', '?']).to_owned(),
                    reason: one_line(&reason),
                }
            })?;
            policies.insert(name, policy);
        }
        Ok(Self(policies))
    }

    /// The policy that a request asks for.
    pub(super) fn get(&self, name: Option<&str>) -> Result<&Policy, Refusal> {
        self.0.get(name.unwrap_or(DEFAULT_POLICY)).ok_or_else(|| {
            let (code, detail) = match name {
                None => (
                    "policy-required",
                    "must name a policy: there is no default one",
                ),
                Some(_) => ("unknown-policy", "is not the name of a policy"),
            };
            Refusal::new(Field::Policy, Invalid::new(code, detail))
        })
    }

    /// The longest life of any grant.
    pub fn longest_life(&self) -> Duration {
        let lives = self.0.values().map(|policy| policy.expires_in);
        lives.max().unwrap_or_default()
    }
}

impl Policy {
    fn unbounded(expires_in: Duration) -> Self {
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
            active_content: policy.active_content,
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

    /// All that speaks against uploading `file` in this way.
    pub(super) fn check(&self, file: &File, request: Request) -> Vec<Refusal> {
        let max_size = match request {
            Request::Put | Request::Post => self.max_size.min(s3::MAX_PUT_BYTES),
            Request::Multipart => self.max_size,
        };
        let mut refusals = Vec::new();
        let mut refuse = |field, code, detail: String| {
            refusals.push(Refusal::new(field, Invalid::new(code, detail)));
        };
        let is_active = file.content_type.is_active();
        if !self
            .content_types
            .iter()
            .any(|range| range.contains(&file.content_type))
        {
            let allowed: Vec<String> = self.content_types.iter().map(ToString::to_string).collect();
            let detail = format!("must be one of {}", allowed.join(", "));
            refuse(Field::ContentType, "type-not-allowed", detail);
        } else if is_active && self.active_content == ActiveContent::Reject {
            let detail = "must not be a type that can run scripts".into();
            refuse(Field::ContentType, "active-content", detail);
        }
        match file.size {
            Some(size) if size > max_size => {
                let detail = format!("must be at most {max_size} bytes; it is {size}");
                refuse(Field::Size, "file-too-large", detail);
            }
            None if self.require_size && request == Request::Put => {
                refuse(
                    Field::Size,
                    "size-required",
                    "is required by the policy".into(),
                );
            }
            _ => {}
        }
        if self.require_checksum && request == Request::Multipart {
            let detail = "is required by the policy, and no upload in parts can be bound to one";
            refuse(
                Field::ChecksumSha256,
                "multipart-not-supported",
                detail.into(),
            );
        } else if self.require_checksum && file.checksum_sha256.is_none() {
            let detail = "is required by the policy".into();
            refuse(Field::ChecksumSha256, "checksum-required", detail);
        }
        for name in file.metadata.keys() {
            if !self.allows_metadata(name) {
                let detail = "is not metadata that the policy lets clients set".into();
                refuse(
                    Field::MetadataOf(name.clone()),
                    "metadata-not-allowed",
                    detail,
                );
            }
        }
        if let Err(invalid) = metadata::check_size(&self.metadata_with(&file.metadata)) {
            refusals.push(Refusal::new(Field::Metadata, invalid));
        }
        refusals
    }

    pub(super) fn allows_metadata(&self, name: &str) -> bool {
        let is_ours = self.metadata.contains_key(name);
        !is_ours
            && self
                .allowed_metadata
                .iter()
                .any(|allowed| allowed == name || allowed == ANY)
    }

    pub(super) fn metadata_with(&self, of_client: &Metadata) -> Metadata {
        let mut all = self.metadata.clone();
        all.extend(of_client.clone());
        all
    }

    /// The value of `Content-Disposition` that `file` is stored with.
    pub(super) fn content_disposition(&self, file: &File) -> Option<String> {
        let is_attachment =
            self.active_content == ActiveContent::Attachment && file.content_type.is_active();
        is_attachment.then(|| attachment(&file.filename))
    }
}

/// An attachment with its name, as in [RFC 6266](https://www.rfc-editor.org/rfc/rfc6266#section-4.3)
/// and [RFC 8187](https://www.rfc-editor.org/rfc/rfc8187#section-3.2.1).
fn attachment(filename: &Filename) -> String {
    /// All but RFC 8187's `attr-char`.
    const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'!')
        .remove(b'#')
        .remove(b'$')
        .remove(b'&')
        .remove(b'+')
        .remove(b'-')
        .remove(b'.')
        .remove(b'^')
        .remove(b'_')
        .remove(b'`')
        .remove(b'|')
        .remove(b'~');
    let name = utf8_percent_encode(filename.as_str(), ENCODED);
    format!("attachment; filename*=UTF-8''{name}")
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
    if value.is_ascii() && !value.contains("  ") {
        return Ok(());
    }
    let detail = "must be ASCII, without several spaces in a row";
    Err(Invalid::new("not-ascii", detail))
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

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upload::ContentType;

    const TEN_MINUTES: Duration = Duration::from_mins(10);

    fn policy(fields: &str) -> Result<Policy, String> {
        let text = format!("[policies.default]\n{fields}");
        let policies = Policies::parse(&text, TEN_MINUTES).map_err(|error| error.to_string())?;
        Ok(policies.get(None).unwrap().clone())
    }

    fn file(filename: &str, content_type: &str) -> File {
        File {
            filename: Filename::parse(filename).unwrap(),
            content_type: ContentType::parse(content_type).unwrap(),
            size: None,
            checksum_sha256: None,
            policy: None,
            metadata: Metadata::new(),
        }
    }

    fn codes(policy: &Policy, file: &File) -> Vec<&'static str> {
        let refusals = policy.check(file, Request::Put);
        refusals.into_iter().map(|r| r.invalid.code).collect()
    }

    #[test]
    fn the_example_file_is_read() {
        let text = include_str!("../../policies.example.toml");
        let policies = Policies::parse(text, TEN_MINUTES).unwrap();
        assert!(policies.get(None).is_ok());
        assert!(policies.0.len() > 2);
    }

    #[test]
    fn the_example_file_shows_every_field() {
        let text = include_str!("../../policies.example.toml");
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
            ("key = '{caller}/{uuid}'", "key", "authentication"),
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
        let eleven: Vec<String> = (0..11).map(|n| format!("t{n} = 'x'")).collect();
        let error = policy(&format!("tagging = {{ {} }}", eleven.join(", "))).unwrap_err();
        assert!(error.contains("10 tags"), "{error}");
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

    #[test]
    fn requests_that_name_no_policy_get_the_default_one() {
        let policies = Policies::parse("[policies.a]\nmax_size = '1 MiB'", TEN_MINUTES).unwrap();
        let code = |name| policies.get(name).unwrap_err().invalid.code;
        assert_eq!(code(None), "policy-required");
        assert_eq!(code(Some("default")), "unknown-policy");
        assert!(policies.get(Some("a")).is_ok());
    }

    #[test]
    fn without_a_file_everything_is_as_it_was_before_there_were_policies() {
        let policies = Policies::built_in(TEN_MINUTES);
        let policy = policies.get(None).unwrap();
        let html = file("a.html", "text/html");
        assert_eq!(codes(policy, &html), [""; 0]);
        assert_eq!(policy.content_disposition(&html), None);
        assert_eq!(policy.expires_in, TEN_MINUTES);
    }

    #[test]
    fn a_limit_on_the_size_makes_the_size_required() {
        let policy = policy("max_size = '5 MiB'").unwrap();
        let mut file = file("a", "a/b");
        assert_eq!(codes(&policy, &file), ["size-required"]);
        assert!(policy.check(&file, Request::Post).is_empty());
        file.size = Some(5 * 1024 * 1024);
        assert_eq!(codes(&policy, &file), [""; 0]);
        file.size = Some(5 * 1024 * 1024 + 1);
        assert_eq!(codes(&policy, &file), ["file-too-large"]);
    }

    #[test]
    fn all_that_speaks_against_a_file_is_said_at_once() {
        let policy = policy(
            "content_types = ['image/*']\nmax_size = '1 KiB'\nrequire_checksum = true\nallowed_metadata = ['album']",
        );
        let mut file = file("a", "text/plain");
        file.size = Some(1025);
        file.metadata = [("album", "1"), ("owner", "2")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let refusals = policy.unwrap().check(&file, Request::Put);
        let fields: Vec<Field> = refusals.into_iter().map(|refusal| refusal.field).collect();
        let expected = [
            Field::ContentType,
            Field::Size,
            Field::ChecksumSha256,
            Field::MetadataOf("owner".into()),
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn active_content_is_rejected_or_made_an_attachment() {
        let svg = file("a.svg", "image/svg+xml");
        let rejecting = policy("active_content = 'reject'").unwrap();
        assert_eq!(codes(&rejecting, &svg), ["active-content"]);
        let attaching = policy("").unwrap();
        assert_eq!(codes(&attaching, &svg), [""; 0]);
        assert!(attaching.content_disposition(&svg).is_some());
        assert_eq!(
            attaching.content_disposition(&file("a.png", "image/png")),
            None
        );
        let allowing = policy("active_content = 'allow'").unwrap();
        assert_eq!(allowing.content_disposition(&svg), None);
    }

    #[test]
    fn an_attachment_keeps_its_name_whatever_is_in_it() {
        for (name, encoded) in [
            ("a.html", "a.html"),
            ("it's \"x\";y.svg", "it%27s%20%22x%22%3By.svg"),
            ("한글.html", "%ED%95%9C%EA%B8%80.html"),
            ("🎉.svg", "%F0%9F%8E%89.svg"),
            ("100%*(1).xml", "100%25%2A%281%29.xml"),
        ] {
            let expected = format!("attachment; filename*=UTF-8''{encoded}");
            assert_eq!(attachment(&Filename::parse(name).unwrap()), expected);
        }
    }
}
