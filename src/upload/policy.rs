//! Policies: what an operator lets clients upload, checked against a request. Pure.
//!
//! The store enforces a policy, through the signature; so a policy that the store could not enforce
//! is refused when it is read.

mod buckets;
mod file;
mod overlap;
mod sample;
mod terms;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

pub use self::sample::Sample;
pub(super) use self::terms::Terms;
use super::content_type::ContentTypeRange;
use super::key::KeyTemplate;
use super::metadata::Metadata;
use super::{ContentType, Disposition, File, Invalid};
use crate::s3;

/// The policy of requests that name none.
pub(super) const DEFAULT_POLICY: &str = "default";

/// Allows all metadata.
const ANY: &str = "*";

/// What may be uploaded, under which key, and with which properties: a table of the file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a field of the file")]
pub(super) struct Policy {
    /// The bucket, if it is not the default one.
    #[serde(default, deserialize_with = "file::bucket")]
    pub(super) bucket: Option<String>,
    #[serde(default = "file::default_key", deserialize_with = "file::key")]
    pub(super) key: KeyTemplate,
    #[serde(default = "file::any_type")]
    content_types: Vec<ContentTypeRange>,
    #[serde(default = "file::largest", deserialize_with = "file::size")]
    max_size: u64,
    #[serde(default)]
    require_size: bool,
    #[serde(default)]
    require_checksum: bool,
    #[serde(default = "file::yes")]
    pub(super) overwrite: bool,
    #[serde(default = "file::yes")]
    multipart: bool,
    #[serde(default)]
    active_content: ActiveContent,
    /// Whether verifying reads the first bytes of the file.
    #[serde(default)]
    pub(super) sniff: bool,
    #[serde(default, deserialize_with = "file::lifetime")]
    pub(super) expires_in: Duration,
    #[serde(default, deserialize_with = "file::header")]
    pub(super) cache_control: Option<String>,
    #[serde(default, deserialize_with = "file::storage_class")]
    pub(super) storage_class: Option<s3::StorageClass>,
    #[serde(default, deserialize_with = "file::encryption")]
    pub(super) server_side_encryption: Option<s3::ServerSideEncryption>,
    #[serde(default, deserialize_with = "file::header")]
    pub(super) kms_key_id: Option<String>,
    #[serde(default, deserialize_with = "file::acl")]
    pub(super) acl: Option<s3::ObjectCannedAcl>,
    #[serde(default, deserialize_with = "file::tags")]
    pub(super) tagging: Vec<(String, String)>,
    /// Whether an upload does not count until it is committed.
    #[serde(default)]
    pub(super) pending: bool,
    /// Whether callers may download uploads.
    #[serde(default)]
    pub(super) download: bool,
    #[serde(default, deserialize_with = "file::lifetime")]
    pub(super) download_expires_in: Duration,
    /// Whether callers may delete uploads.
    #[serde(default)]
    pub(super) delete: bool,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    allowed_metadata: Vec<String>,
}

/// What to do with types that may contain scripts which a browser runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ActiveContent {
    /// The store serves it as a download.
    #[default]
    Attachment,
    Reject,
    Allow,
}

/// All policies, by name.
#[derive(Clone, Debug)]
pub struct Policies(BTreeMap<Arc<str>, Arc<Policy>>);

impl Policies {
    /// The policy of a service without a policies file: any type, any size that S3 accepts, any
    /// metadata, and active content as downloads.
    pub fn built_in(expires_in: Duration) -> Self {
        let policy = Policy {
            allowed_metadata: vec![ANY.to_owned()],
            ..Policy::unbounded(expires_in)
        };
        Self(BTreeMap::from([(DEFAULT_POLICY.into(), policy.into())]))
    }

    /// The shared copy of `name`, if there is such a policy.
    pub(super) fn name(&self, name: &str) -> Option<&Arc<str>> {
        self.0.get_key_value(name).map(|(name, _)| name)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.0.keys().map(ToString::to_string).collect()
    }

    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The policies whose earlier uploads may be unknown under the policies `new`, and why.
    pub(super) fn moved_in(&self, new: &Self) -> Vec<(String, &'static str)> {
        let moved = self.0.iter().filter_map(|(name, policy)| {
            let why = match new.0.get(name) {
                None => "was removed",
                Some(new) if new.bucket != policy.bucket => "has another `bucket`",
                Some(new) if new.key != policy.key => "has another `key`",
                Some(_) => return None,
            };
            Some((name.to_string(), why))
        });
        moved.collect()
    }

    /// A policy that needs callers to authenticate, if there is one, and why.
    pub fn needing_callers(&self) -> Option<(&str, &'static str)> {
        self.0.iter().find_map(|(name, policy)| {
            let why = if policy.key.has_caller() {
                "key uses {caller}"
            } else if policy.download {
                "download is true"
            } else if policy.delete {
                "delete is true"
            } else {
                return None;
            };
            Some((&**name, why))
        })
    }

    /// A policy whose keys have a variable, if there is one: it needs callers with tickets.
    pub fn with_vars(&self) -> Option<&str> {
        let mut policies = self.0.iter();
        let (name, _) = policies.find(|(_, policy)| policy.key.vars().next().is_some())?;
        Some(name)
    }

    /// The longest lifetime of any grant.
    pub fn longest_lifetime(&self) -> Duration {
        let policies = self.0.values();
        let lifetimes = policies.map(|policy| policy.expires_in.max(policy.download_expires_in));
        lifetimes.max().unwrap_or_default()
    }
}

impl Policy {
    /// Whether files may be uploaded in parts, which no checksum can be bound to.
    pub(super) fn allows_parts(&self) -> bool {
        self.multipart && !self.require_checksum
    }

    fn check_type(&self, content_type: &ContentType) -> Result<(), Invalid> {
        check_ranges(&self.content_types, content_type)?;
        if self.active_content == ActiveContent::Reject && content_type.is_active() {
            let detail = "must be a type that is known to run no scripts";
            return Err(Invalid::new("active-content", detail));
        }
        Ok(())
    }

    /// The value of `Content-Disposition` that `file` is stored with.
    pub(super) fn content_disposition(&self, file: &File) -> Option<String> {
        self.is_attachment(&file.content_type)
            .then(|| Disposition::Attachment.header(Some(&file.filename)))
    }

    /// Whether files of this type are stored as downloads.
    pub(super) fn is_attachment(&self, content_type: &ContentType) -> bool {
        self.active_content == ActiveContent::Attachment && content_type.is_active()
    }
}

fn check_ranges(ranges: &[ContentTypeRange], content_type: &ContentType) -> Result<(), Invalid> {
    /// The others are only counted, which keeps answers short.
    const LISTED: usize = 50;
    if ranges.iter().any(|range| range.contains(content_type)) {
        return Ok(());
    }
    let listed = ranges.iter().take(LISTED);
    let listed: Vec<String> = listed.map(ToString::to_string).collect();
    let mut detail = format!("must be one of {}", listed.join(", "));
    if let Some(others @ 1..) = ranges.len().checked_sub(LISTED) {
        detail = format!("{detail}, or of {others} others");
    }
    Err(Invalid::new("type-not-allowed", detail))
}

pub(super) fn check_size(size: u64, max: u64) -> Result<(), Invalid> {
    if size <= max {
        return Ok(());
    }
    let detail = format!("must be at most {max} bytes; it is {size}");
    Err(Invalid::new("file-too-large", detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upload::{Caller, Error, Filename, UploadKind};

    const TEN_MINUTES: Duration = Duration::from_mins(10);

    fn policy(fields: &str) -> Result<Terms, String> {
        let text = format!("[policies.default]\n{fields}");
        let policies = Policies::parse(&text, TEN_MINUTES)?;
        Ok(policies.terms(None, &Caller::anonymous()).unwrap())
    }

    fn file(filename: &str, content_type: &str) -> File {
        File::new(
            Filename::parse(filename).unwrap(),
            ContentType::parse(content_type).unwrap(),
        )
    }

    fn codes(policy: &Terms, file: &File) -> Vec<&'static str> {
        let refusals = policy.check(file, UploadKind::Put);
        refusals.into_iter().map(|r| r.invalid.code).collect()
    }

    #[test]
    fn requests_that_name_no_policy_get_the_default_one() {
        let policies = Policies::parse("[policies.a]\nmax_size = '1 MiB'", TEN_MINUTES).unwrap();
        let caller = Caller::anonymous();
        let code = |name| match policies.terms(name, &caller).unwrap_err() {
            Error::Refused(refusals) => refusals[0].invalid.code,
            error => panic!("{error}"),
        };
        assert_eq!(code(None), "policy-required");
        assert_eq!(code(Some("default")), "unknown-policy");
        assert!(policies.terms(Some("a"), &caller).is_ok());
    }

    #[test]
    fn without_a_file_everything_is_allowed_and_active_content_is_a_download() {
        let policies = Policies::built_in(TEN_MINUTES);
        let policy = policies.terms(None, &Caller::anonymous()).unwrap();
        let html = file("a.html", "text/html");
        assert_eq!(codes(&policy, &html), [""; 0]);
        let disposition = policy.content_disposition(&html);
        assert_eq!(
            disposition.as_deref(),
            Some("attachment; filename*=UTF-8''a.html")
        );
        let png = file("a.png", "image/png");
        assert_eq!(policy.content_disposition(&png), None);
        assert_eq!(policy.expires_in, TEN_MINUTES);
    }

    #[test]
    fn the_metadata_of_policy_and_client_has_one_limit_together() {
        let own = "x".repeat(1000);
        let policy = policy(&format!(
            "metadata.own = '{own}'\nallowed_metadata = ['note']"
        ));
        let policy = policy.unwrap();
        let mut file = file("a", "a/b");
        for (length, expected) in [(1000, &[][..]), (1100, &["metadata-too-large"])] {
            file.metadata = [("note".to_owned(), "y".repeat(length))].into();
            assert_eq!(codes(&policy, &file), expected, "{length}");
        }
    }
}
