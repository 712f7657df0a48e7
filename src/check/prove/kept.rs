//! Whether objects have the properties that were signed: a store may accept a header or a field and
//! drop it.

use aws_sdk_s3::types::ChecksumMode;

use crate::check::cors::ACTIVE_TYPES;
use crate::check::marker::{MarkerError, Result, Upload, Way};
use crate::check::problem::Problem;
use crate::check::removal::Marker;
use crate::check::{Check, Line, NO_SAMPLE};
use crate::s3::ServerSideEncryption;
use crate::upload::{ContentType, File, Sample};

impl Check {
    /// A line for each policy and each way of uploading.
    pub(super) async fn kept(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        for sample in self.unique_samples() {
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
        let check = match way {
            Way::Put => "kept",
            Way::Form => "kept-of-forms",
            Way::Parts => "kept-of-parts",
        };
        let line = match self.stored(way, sample).await {
            Ok((marker, upload)) => {
                let dropped = self.dropped(&marker.key, &upload, sample).await;
                let removed = self.discard(&marker).await;
                match removed.and(dropped.map_err(MarkerError::from)) {
                    Ok(dropped) => kept_line(check, &dropped),
                    Err(error) => error.unclear(check, sample),
                }
            }
            // The line of the upload itself says what to do.
            Err(MarkerError::Refused(problem)) if problem.may_be_unsupported() => {
                Line::skipped(check, format!("the upload was refused: {problem}"))
            }
            Err(error) => error.unclear(check, sample),
        };
        line.for_policy(&sample.policy)
    }

    /// A marker that is uploaded in this way, and the request that says what it should be.
    async fn stored(&self, way: Way, sample: &Sample) -> Result<(Marker, Upload)> {
        let (file, upload) = self.active(way, sample).await?;
        let marker = if way == Way::Parts {
            self.completed_marker(sample, &file).await?
        } else {
            self.send_marker(sample, &upload).await?.0
        };
        Ok((marker, upload))
    }

    /// An upload of active content, if the policy allows that.
    async fn active(&self, way: Way, sample: &Sample) -> Result<(File, Upload), Problem> {
        for content_type in ACTIVE_TYPES.map(ContentType::parse).into_iter().flatten() {
            let file = File {
                content_type,
                ..sample.file.clone()
            };
            if let Ok(upload) = self.granted(way, sample, &file).await {
                return Ok((file, upload));
            }
        }
        let upload = self.granted(way, sample, &sample.file).await?;
        Ok((sample.file.clone(), upload))
    }

    /// What was sent but is not in the object.
    async fn dropped(
        &self,
        key: &str,
        sent: &Upload,
        sample: &Sample,
    ) -> Result<Vec<String>, Problem> {
        let head = self.client.head_object().bucket(&self.bucket).key(key);
        let head = head.checksum_mode(ChecksumMode::Enabled).send().await?;
        let get = self.client.get_object().bucket(&self.bucket).key(key);
        let get = get.send().await?;
        let mut dropped = Vec::new();
        for (name, value) in sent.headers.iter().chain(&sent.fields) {
            let is = |stored: Option<&str>| stored == Some(value.as_str());
            let name = match name.as_str() {
                "x-amz-tagging" => "tagging",
                "x-amz-acl" => "acl",
                name => name,
            };
            let (by_head, by_get, consequence) = match name {
                "content-type" => (
                    is(head.content_type()),
                    is(get.content_type()),
                    "is stored as another type",
                ),
                "content-disposition" => (
                    is(head.content_disposition()),
                    is(get.content_disposition()),
                    "is shown instead of saved by browsers, which run the scripts in it",
                ),
                "cache-control" => (
                    is(head.cache_control()),
                    is(get.cache_control()),
                    "is cached for another time",
                ),
                "x-amz-checksum-sha256" => (
                    is(head.checksum_sha256()),
                    true,
                    "cannot be verified by its checksum",
                ),
                "x-amz-server-side-encryption" => {
                    let stored = head.server_side_encryption();
                    let stored = stored.map(ServerSideEncryption::as_str);
                    (is(stored), true, "is not encrypted")
                }
                // S3 does not name the standard class.
                "x-amz-storage-class" => {
                    let stored = head.storage_class();
                    let stored = stored.map_or("STANDARD", |stored| stored.as_str());
                    (is(Some(stored)), true, "is in another storage class")
                }
                "tagging" => (
                    self.tags_of(key).await? == sample.tags,
                    true,
                    "has none or other tags, which lifecycle rules and pending = true rely on",
                ),
                "acl" if value.starts_with("public-") => {
                    (self.is_public(key).await?, true, "has another ACL")
                }
                name => {
                    let Some(name) = name.strip_prefix("x-amz-meta-") else {
                        continue;
                    };
                    // Stores and the SDK encode values beyond ASCII in several ways.
                    let stored = head.metadata().and_then(|all| all.get(name));
                    let is_same = |stored: &String| !value.is_ascii() || stored == value;
                    (stored.is_some_and(is_same), true, "lacks metadata")
                }
            };
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
}

fn kept_line(check: &'static str, dropped: &[String]) -> Line {
    if dropped.is_empty() {
        return Line::ok(
            check,
            "the object has what was signed, as far as the store shows it",
        );
    }
    let detail = format!("the store drops {}", dropped.join("; "));
    Line::failed(check, detail).fix(
        "remove what needs it from the policy (active_content = \"reject\" for the disposition), or use another way to upload or another store",
    )
}
