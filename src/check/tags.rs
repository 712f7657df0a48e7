//! Whether the tag of pending uploads arrives with each way of uploading, and can be replaced.

use std::collections::BTreeSet;

use aws_sdk_s3::types::{Tag, Tagging};

use super::marker::{MarkerError, Result, Way};
use super::problem::Problem;
use super::removal::Marker;
use super::{Check, Line};
use crate::upload::{PENDING_TAG, Sample};

const CHECK: &str = "tags";

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Put => "PUT",
            Self::Form => "form",
            Self::Parts => "parts",
        }
    }

    /// The fix if tags do not arrive in this way.
    fn fix_for_lost_tags(self) -> &'static str {
        match self {
            Self::Put => "remove `pending` from the policy",
            Self::Form => "set S3_SUPPORTS_POST_POLICY=false, or remove `pending` from the policy",
            Self::Parts => "set `multipart = false` in the policy, or remove `pending` from it",
        }
    }
}

impl Check {
    /// A line for each policy whose uploads are pending at first.
    pub(super) async fn tags(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        let samples = self.samples.iter();
        for sample in samples.filter(|sample| sample.pending_prefix.is_some()) {
            lines.push(self.tags_under(sample).await.for_policy(&sample.policy));
        }
        lines
    }

    async fn tags_under(&self, sample: &Sample) -> Line {
        let (mut kept, mut lost) = (Vec::new(), Vec::new());
        let mut refused = String::new();
        for way in self.ways(sample) {
            match self.keeps_tag(way, sample).await {
                Ok(true) => kept.push(way),
                Ok(false) => lost.push(way),
                // A permission that is missing would be missing for a PUT, too.
                Err(MarkerError::Refused(problem)) if problem.is_refusal() && !kept.is_empty() => {
                    refused = format!(" ({problem})");
                    lost.push(way);
                }
                Err(MarkerError::Refused(problem)) if problem.is_not_implemented() => {
                    return Line::failed(CHECK, format!("the store has no tags: {problem}"))
                        .fix(Way::Put.fix_for_lost_tags());
                }
                Err(MarkerError::Refused(problem)) => {
                    return problem.failed(
                        CHECK,
                        "s3:PutObject, s3:PutObjectTagging and s3:GetObjectTagging (with versions also s3:PutObjectVersionTagging and s3:GetObjectVersionTagging)",
                    );
                }
                Err(error) => return error.line(CHECK, sample),
            }
        }
        let names = |ways: &[Way]| {
            let names: Vec<&str> = ways.iter().map(|way| way.name()).collect();
            names.join(", ")
        };
        let kept = match names(&kept) {
            kept if kept.is_empty() => "none".to_owned(),
            kept => kept,
        };
        let Some(way) = lost.first() else {
            return Line::ok(CHECK, format!("kept, and replaced by a commit: {kept}"));
        };
        let (name, value) = PENDING_TAG;
        let detail = format!(
            "the store loses or refuses the tag {name}={value} of these uploads, so no lifecycle rule can expire them: {}{refused}; it keeps that of: {kept}",
            names(&lost),
        );
        let fix = if lost.len() > 1 { Way::Put } else { *way };
        Line::failed(CHECK, detail).fix(fix.fix_for_lost_tags())
    }

    /// Uploads a marker, reads its tag, replaces it as a commit does, and removes the marker.
    async fn keeps_tag(&self, way: Way, sample: &Sample) -> Result<bool> {
        let marker = if way == Way::Parts {
            self.completed_marker(sample, &sample.file).await?
        } else {
            let upload = self.granted(way, sample, &sample.file).await?;
            self.send_marker(sample, &upload).await?.0
        };
        let is_kept = self.read_and_replace(&marker).await;
        self.discard(&marker).await?;
        Ok(is_kept?)
    }

    /// Whether the object has the tag; and whether a commit could replace it.
    async fn read_and_replace(&self, marker: &Marker) -> Result<bool, Problem> {
        let Marker { key, version, .. } = marker;
        let (name, value) = PENDING_TAG;
        let read = self.client.get_object_tagging().bucket(&self.bucket);
        let read = read.key(key).set_version_id(version.clone()).send().await;
        let is_kept = match read.map_err(Problem::from) {
            Ok(output) => {
                let mut tags = output.tag_set.iter();
                tags.any(|tag| (tag.key(), tag.value()) == PENDING_TAG)
            }
            // This is the answer of some versions of Ceph for tags that they have lost.
            Err(Problem::Unreadable) => false,
            Err(problem) => return Err(problem),
        };
        let tag = Tag::builder().key(name).value(format!("not-{value}"));
        let tagging = Tagging::builder().set_tag_set(tag.build().ok().map(|tag| vec![tag]));
        let write = self.client.put_object_tagging().bucket(&self.bucket);
        let write = write.key(key).set_version_id(version.clone());
        write.set_tagging(tagging.build().ok()).send().await?;
        Ok(is_kept)
    }

    pub(super) async fn tags_of(&self, key: &str) -> Result<BTreeSet<(String, String)>, Problem> {
        let tags = self.client.get_object_tagging().bucket(&self.bucket);
        match tags.key(key).send().await.map_err(Problem::from) {
            Ok(output) => {
                let tags = output.tag_set.into_iter();
                Ok(tags.map(|tag| (tag.key, tag.value)).collect())
            }
            // Ceph answers nothing for tags that it cannot read.
            Err(Problem::Unreadable) => Ok(BTreeSet::new()),
            Err(problem) if problem.is_not_implemented() => Ok(BTreeSet::new()),
            Err(problem) => Err(problem),
        }
    }
}
