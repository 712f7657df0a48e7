//! Whether objects have the properties that were signed: a store may accept a header or a field and
//! drop it.

use std::time::SystemTime;

use super::{Kind, NO_SAMPLE, Upload};
use crate::check::marker::Unable;
use crate::check::problem::Problem;
use crate::check::tags::Way;
use crate::check::{Check, Line};
use crate::s3::ServerSideEncryption;
use crate::upload::{ContentType, File, Sample};

/// Types that browsers execute, which most policies sign a disposition for.
const ACTIVE: [&str; 2] = ["text/html", "image/svg+xml"];

/// Properties that are compared, and what it means if the store drops them.
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
    /// A line for each policy and each way of uploading.
    pub(super) async fn kept(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        for sample in self.samples.iter().filter(|sample| sample.has_unique_key) {
            for way in self.ways(sample) {
                lines.push(self.kept_by(way, sample).await);
            }
        }
        if lines.is_empty() {
            lines.push(Line::skipped("kept", NO_SAMPLE));
        }
        lines
    }

    async fn kept_by(&self, way: Way, sample: &Sample) -> Line {
        let (check, kind) = match way {
            Way::Put => ("kept", Kind::Put),
            Way::Form => ("kept-of-forms", Kind::Form),
            // A PUT of the same file is signed with the same properties.
            Way::Parts => ("kept-of-parts", Kind::Put),
        };
        let dropped = async {
            let (file, upload) = self.active(kind, sample).await?;
            let marker = if let Way::Parts = way {
                self.completed_marker(sample, &file).await?
            } else {
                self.ensure_removable(&upload.key).await?;
                let request = self.request(&upload);
                self.send_marker(&upload.key, request).await?.0
            };
            let dropped = self.dropped(marker.key(), &upload).await;
            self.discard(&marker).await?;
            Ok(dropped?)
        };
        let line = match dropped.await {
            Ok(dropped) if dropped.is_empty() => {
                Line::ok(check, "the object has all that was signed")
            }
            Ok(dropped) => {
                let detail = format!("the store drops {}", dropped.join("; "));
                Line::failed(check, detail).fix(
                    "remove what needs it from the policy (active_content = \"reject\" for the disposition), or use another way to upload or another store",
                )
            }
            Err(Unable::Refused(problem)) => problem.unclear(check),
            Err(unable) => unable.line(check, sample),
        };
        line.for_policy(&sample.policy)
    }

    /// An upload of active content, if the policy allows that.
    async fn active(&self, kind: Kind, sample: &Sample) -> Result<(File, Upload), Problem> {
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
                return Ok((file, upload));
            }
        }
        let upload = self.granted(kind, sample, &sample.file, now).await?;
        Ok((sample.file.clone(), upload))
    }

    /// What was sent but is not in the object.
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
                // S3 does not name the standard class.
                "x-amz-storage-class" => {
                    let stored = head.storage_class();
                    let stored = stored.map_or("STANDARD", |stored| stored.as_str());
                    (is(Some(stored)), true)
                }
                "tagging" => (self.has_tags(key).await?, true),
                "acl" if value.starts_with("public-") => (self.is_public(key).await?, true),
                name => match name.strip_prefix("x-amz-meta-") {
                    // Stores and the SDK encode values beyond ASCII in several ways.
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
