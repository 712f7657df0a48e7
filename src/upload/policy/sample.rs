//! Small files that the policies accept, for `presignd check` to upload. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine};
use sha2::{Digest, Sha256};

use super::{ANY, Policies, Policy, Terms};
use crate::upload::{Caller, ContentType, File, Filename, Metadata, Sha256Checksum, UploadKind};

/// A small file that a policy accepts, as most clients would send it.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is independent of the others"
)]
pub struct Sample {
    pub policy: String,
    /// The bucket, if it is not the default one.
    pub bucket: Option<String>,
    /// An anonymous caller, with a ticket if the policy needs one.
    pub caller: Caller,
    /// It has only what the policy requires, and all metadata that the policy allows.
    pub file: File,
    pub body: &'static [u8],
    /// Correct even if the policy does not require one.
    pub checksum_sha256: Sha256Checksum,
    /// Whether its key is one that no other object can have.
    pub has_unique_key: bool,
    /// Whether the policy has the store refuse a second object of the same key.
    pub is_write_once: bool,
    /// What the keys of the policy begin with, if its uploads have to be committed.
    pub pending_prefix: Option<String>,
    pub fits_form: bool,
    pub fits_multipart: bool,
    /// Whether the policy lets callers download and delete uploads.
    pub may_download: bool,
    pub may_delete: bool,
    /// What the policy tags its uploads with.
    pub tags: BTreeSet<(String, String)>,
}

impl Sample {
    /// The name of its metadata where a policy allows all names.
    pub const ANY_METADATA: &str = "presignd-check";
}

impl Policies {
    /// One for each policy that accepts any file at all.
    pub fn samples(&self) -> Vec<Sample> {
        self.0
            .iter()
            .filter_map(|(name, policy)| sample(name, policy))
            .collect()
    }
}

fn sample(name: &Arc<str>, policy: &Arc<Policy>) -> Option<Sample> {
    const BODY: &[u8] = b"A marker of `presignd check`. It may be removed.\n";
    let policy = Terms::new(name, policy, None);
    let length = usize::try_from(policy.max_size()).map_or(BODY.len(), |max| max.min(BODY.len()));
    let body = &BODY[..length];
    let checksum = Sha256Checksum::parse(BASE64_STANDARD.encode(Sha256::digest(body))).ok()?;
    let types = policy.content_types.iter().map(ToString::to_string);
    let metadata: Metadata = policy
        .allowed_metadata
        .iter()
        .map(|name| {
            if name == ANY {
                Sample::ANY_METADATA
            } else {
                name
            }
        })
        .filter(|name| policy.allows_metadata(name))
        .map(|name| (name.to_owned(), "1".to_owned()))
        .collect();
    let file = types
        .filter_map(|range| {
            let content_type = match range.strip_suffix("/*") {
                None => range,
                Some("*" | "text") => "text/plain".to_owned(),
                Some("application") => "application/octet-stream".to_owned(),
                Some(kind) => format!("{kind}/x-presignd-check"),
            };
            let filename = Filename::parse("presignd-check.txt").ok()?;
            Some(File {
                size: Some(body.len() as u64),
                checksum_sha256: policy.require_checksum.then(|| checksum.clone()),
                policy: Some(name.to_string()),
                metadata: metadata.clone(),
                ..File::new(filename, ContentType::parse(&content_type).ok()?)
            })
        })
        .find(|file| policy.check(file, UploadKind::Put).is_empty())?;
    Some(Sample {
        policy: name.to_string(),
        bucket: policy.bucket.clone(),
        caller: policy.key.sample_caller(),
        body,
        checksum_sha256: checksum,
        has_unique_key: policy.key.is_unique(),
        is_write_once: !policy.overwrite,
        pending_prefix: policy.pending.then(|| policy.key.prefix().to_owned()),
        fits_form: policy.overwrite && policy.check(&file, UploadKind::Post).is_empty(),
        fits_multipart: policy.check(&file, UploadKind::Multipart).is_empty(),
        may_download: policy.download,
        may_delete: policy.delete,
        tags: policy.tagging.iter().cloned().collect(),
        file,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn samples(toml: &str) -> Vec<Sample> {
        Policies::parse(toml, Duration::from_mins(10))
            .unwrap()
            .samples()
    }

    #[test]
    fn each_policy_accepts_its_sample() {
        let all = samples(include_str!("../../../policies.example.toml"));
        let names: Vec<&str> = all.iter().map(|sample| sample.policy.as_str()).collect();
        assert_eq!(names, ["avatar", "default", "document"]);
        let [avatar, default, document] = &all[..] else {
            panic!("{all:?}");
        };
        assert_eq!(default.file.content_type.as_str(), "text/plain");
        assert_eq!(avatar.file.content_type.as_str(), "image/png");
        assert!(avatar.file.metadata.contains_key("album"));
        assert!(default.fits_form && default.fits_multipart);
        assert!(document.file.checksum_sha256.is_some());
        assert!(!document.fits_form && !document.fits_multipart);
    }

    #[test]
    fn what_makes_a_policy_special_makes_its_sample_special() {
        let toml = "
            [policies.fixed]
            key = 'logo.png'
            overwrite = true
            content_types = ['image/*']
            max_size = '3 B'
            [policies.nothing]
            content_types = ['text/html']
            active_content = 'reject'
            [policies.second]
            content_types = ['text/html', 'audio/*']
            active_content = 'reject'
            allowed_metadata = ['*']
        ";
        let all = samples(toml);
        let [fixed, second] = &all[..] else {
            panic!("{all:?}");
        };
        assert!(!fixed.has_unique_key);
        assert_eq!(fixed.body.len(), 3);
        assert_eq!(second.file.content_type.as_str(), "audio/x-presignd-check");
        assert!(second.file.metadata.contains_key(Sample::ANY_METADATA));
    }
}
