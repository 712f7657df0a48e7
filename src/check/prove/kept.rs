//! Whether objects have what was signed: a store may accept a header or a field and drop it.

use std::time::SystemTime;

use super::{Kind, NO_SAMPLE, Upload, unclear};
use crate::check::marker::Unable;
use crate::check::problem::Problem;
use crate::check::{Check, Line};
use crate::s3::ServerSideEncryption;
use crate::upload::{ContentType, File, Sample};

const BY_PUT: &str = "kept";
const BY_FORM: &str = "kept-of-forms";
const BY_PARTS: &str = "kept-of-parts";

/// Types that browsers execute, which most policies sign a disposition for.
const ACTIVE: [&str; 2] = ["text/html", "image/svg+xml"];

/// Properties that are compared, with what it means where they are dropped.
const CONSEQUENCES: [(&str, &str); 8] = [
    ("content-type", "is stored as another type"),
    (
        "content-disposition",
        "is shown instead of saved by browsers, which run the scripts in it",
    ),
    ("cache-control", "is cached for another time"),
    ("x-amz-server-side-encryption", "is not encrypted"),
    ("x-amz-storage-class", "is in another storage class"),
    (
        "tagging",
        "has other tags, which lifecycle rules and pending = true rely on",
    ),
    ("acl", "has another ACL"),
    ("x-amz-meta-", "lacks metadata"),
];

impl Check {
    /// A line for each policy and, for forms, one.
    pub(super) async fn kept(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        if !self.config.forms_only {
            for sample in self.samples.iter().filter(|sample| sample.has_unique_key) {
                lines.push(self.kept_of(BY_PUT, Kind::Put, sample).await);
            }
            if lines.is_empty() {
                lines.push(Line::skipped(BY_PUT, NO_SAMPLE));
            }
        }
        if self.config.supports_post
            && let Some(sample) = self.form_sample()
        {
            lines.push(self.kept_of(BY_FORM, Kind::Form, sample).await);
        }
        lines
    }

    async fn kept_of(&self, check: &'static str, kind: Kind, sample: &Sample) -> Line {
        let dropped = async {
            let upload = self.active(kind, sample).await?;
            self.ensure_removable(&upload.key).await?;
            let request = self.request(&upload);
            let (marker, _) = self.send_marker(&upload.key, request).await?;
            let dropped = self.dropped(&upload.key, &upload).await;
            self.discard(&marker).await?;
            Ok(dropped?)
        };
        kept_line(check, sample, dropped.await)
    }

    /// The line of an object that was made of parts.
    pub(super) async fn kept_of_parts(&self, key: &str, sample: &Sample, file: &File) -> Line {
        let dropped = async {
            // A PUT of the same file is signed with the same properties.
            let put = self.granted(Kind::Put, sample, file, SystemTime::now());
            Ok(self.dropped(key, &put.await?).await?)
        };
        kept_line(BY_PARTS, sample, dropped.await)
    }

    /// An upload of active content, if the policy allows that.
    async fn active(&self, kind: Kind, sample: &Sample) -> Result<Upload, Problem> {
        let now = SystemTime::now();
        for content_type in ACTIVE.map(ContentType::parse) {
            let Ok(content_type) = content_type else {
                continue;
            };
            let file = File {
                content_type,
                ..sample.file.clone()
            };
            if let Ok(upload) = self.granted(kind, sample, &file, now).await {
                return Ok(upload);
            }
        }
        self.granted(kind, sample, &sample.file, now).await
    }

    /// What the object does not have, though it was sent.
    async fn dropped(&self, key: &str, sent: &Upload) -> Result<Vec<String>, Problem> {
        let head = self.client.head_object().bucket(self.bucket()).key(key);
        let head = head.send().await?;
        let get = self.client.get_object().bucket(self.bucket()).key(key);
        let get = get.send().await?;
        let mut dropped = Vec::new();
        for (name, value) in sent.headers.iter().chain(&sent.fields) {
            let is = |stored: Option<&str>| stored == Some(value.as_str());
            let name = match name.as_str() {
                "x-amz-tagging" => "tagging",
                "x-amz-acl" => "acl",
                name => name,
            };
            let (by_head, by_get) = match name {
                "content-type" => (is(head.content_type()), is(get.content_type())),
                "content-disposition" => (
                    is(head.content_disposition()),
                    is(get.content_disposition()),
                ),
                "cache-control" => (is(head.cache_control()), is(get.cache_control())),
                "x-amz-server-side-encryption" => {
                    let stored = head.server_side_encryption();
                    (is(stored.map(ServerSideEncryption::as_str)), true)
                }
                // S3 does not name the usual class.
                "x-amz-storage-class" => {
                    let stored = head.storage_class();
                    let stored = stored.map_or("STANDARD", |stored| stored.as_str());
                    (is(Some(stored)), true)
                }
                "tagging" => (self.has_tags(key).await?, true),
                "acl" if value.starts_with("public-") => (self.is_public(key).await, true),
                name => match name.strip_prefix("x-amz-meta-") {
                    // Stores and the SDK encode other values than ASCII in several ways.
                    Some(name) => {
                        let stored = head.metadata().and_then(|all| all.get(name));
                        let is_same = |stored: &String| !value.is_ascii() || stored == value;
                        (stored.is_some_and(is_same), true)
                    }
                    None => continue,
                },
            };
            let consequence = CONSEQUENCES
                .iter()
                .find(|(known, _)| name.starts_with(known))
                .map_or("", |(_, consequence)| *consequence);
            if !by_head {
                dropped.push(format!("{name}: the upload {consequence}"));
            } else if !by_get {
                dropped.push(format!(
                    "{name}, which HEAD shows and GET does not: the upload {consequence}"
                ));
            }
        }
        Ok(dropped)
    }

    async fn has_tags(&self, key: &str) -> Result<bool, Problem> {
        let tags = self.client.get_object_tagging().bucket(self.bucket());
        match tags.key(key).send().await.map_err(Problem::from) {
            Ok(tags) => Ok(!tags.tag_set().is_empty()),
            // Ceph answers nothing for tags that it cannot read.
            Err(Problem::Unreadable) => Ok(false),
            Err(problem) if problem.is_not_implemented() => Ok(false),
            Err(problem) => Err(problem),
        }
    }
}

fn kept_line(check: &'static str, sample: &Sample, dropped: Result<Vec<String>, Unable>) -> Line {
    let line = match dropped {
        Ok(dropped) if dropped.is_empty() => Line::ok(check, "the object has all that was signed"),
        Ok(dropped) => {
            let detail = format!("the store drops {}", dropped.join("; "));
            Line::failed(check, detail).fix(
                "remove what needs it from the policy (active_content = \"reject\" for the disposition), or use another way to upload or another store",
            )
        }
        Err(Unable::Refused(problem)) => unclear(check, &problem),
        Err(unable) => return unable.line(check, sample),
    };
    line.for_policy(&sample.policy)
}
