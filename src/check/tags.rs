//! Whether the tag of pending uploads arrives with each way of uploading, and can be replaced.

use std::collections::BTreeMap;
use std::time::SystemTime;

use aws_sdk_s3::types::{Tag, Tagging};
use reqwest::header;

use super::marker::{Unable, grant};
use super::problem::Problem;
use super::removal::Marker;
use super::{Check, Line};
use crate::upload::{File, PENDING_TAG, Sample};

const CHECK: &str = "tags";

/// A way of uploading.
#[derive(Clone, Copy)]
pub(super) enum Way {
    Put,
    Form,
    Parts,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Put => "PUT",
            Self::Form => "form",
            Self::Parts => "parts",
        }
    }

    /// The fix if tags do not arrive in this way.
    fn without(self) -> &'static str {
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
        for sample in self
            .samples
            .iter()
            .filter(|sample| sample.pending_prefix.is_some())
        {
            lines.push(self.tags_under(sample).await.for_policy(&sample.policy));
        }
        lines
    }

    async fn tags_under(&self, sample: &Sample) -> Line {
        let (mut kept, mut lost) = (Vec::new(), Vec::new());
        for way in self.ways(sample) {
            match self.keeps_tag(way, sample).await {
                Ok(true) => kept.push(way),
                Ok(false) => lost.push(way),
                Err(Unable::Refused(problem)) if problem.is_not_implemented() => {
                    return Line::failed(CHECK, format!("the store has no tags: {problem}"))
                        .fix(Way::Put.without());
                }
                Err(Unable::Refused(problem)) => {
                    return problem.failed(
                        CHECK,
                        "s3:PutObject, s3:PutObjectTagging and s3:GetObjectTagging (with versions also s3:PutObjectVersionTagging and s3:GetObjectVersionTagging)",
                    );
                }
                Err(unable) => return unable.line(CHECK, sample),
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
            "the store loses the tag {name}={value} of these uploads, which no lifecycle rule can expire then: {}; it keeps that of: {kept}",
            names(&lost),
        );
        let fix = if lost.len() > 1 { Way::Put } else { *way };
        Line::failed(CHECK, detail).fix(fix.without())
    }

    /// The ways in which files may be uploaded under the policy.
    pub(super) fn ways(&self, sample: &Sample) -> impl Iterator<Item = Way> {
        let config = &self.config;
        let ways = [
            (Way::Put, !config.forms_only),
            (Way::Form, config.supports_post && sample.fits_form),
            (Way::Parts, !config.forms_only && sample.fits_multipart),
        ];
        ways.into_iter()
            .filter_map(|(way, is_open)| is_open.then_some(way))
    }

    /// Uploads a marker, reads its tag, replaces it as a commit does, and removes the marker.
    async fn keeps_tag(&self, way: Way, sample: &Sample) -> Result<bool, Unable> {
        let marker = match way {
            Way::Put => {
                let grant = grant(&self.uploads, &sample.caller, &sample.file).await?;
                let key = grant.key.as_str();
                self.ensure_may_store(key, sample).await?;
                self.send_marker(key, self.put_request(&grant, sample))
                    .await?
                    .0
            }
            Way::Form => {
                let (key, request) = self.form_request(sample).await?;
                self.ensure_may_store(&key, sample).await?;
                self.send_marker(&key, request).await?.0
            }
            Way::Parts => self.completed_marker(sample, &sample.file).await?,
        };
        let is_kept = self.read_and_replace(&marker).await;
        self.discard(&marker).await?;
        Ok(is_kept?)
    }

    /// Completes an upload in one part.
    pub(super) async fn completed_marker(
        &self,
        sample: &Sample,
        file: &File,
    ) -> Result<Marker, Unable> {
        let grant = grant(&self.uploads, &sample.caller, file).await?;
        let key = grant.key.as_str();
        self.ensure_parts_removable(key).await?;
        // Checked before the upload begins: Garage drops the unfinished uploads of a key that is
        // deleted.
        self.ensure_may_store(key, sample).await?;
        let (upload, part) = self.create_multipart(sample, file).await?;
        let key = upload.key().to_owned();
        let answer = self.send(part).await?;
        let etag = answer.headers().get(header::ETAG);
        let etag = etag.and_then(|etag| etag.to_str().ok()).unwrap_or_default();
        let parts = BTreeMap::from([(1, etag.to_owned())]);
        let object = Marker::Object { key, version: None };
        // It is remembered first, because it may be stored even if no answer arrives.
        self.markers().push(object.clone());
        if let Marker::Upload { key, token } = &upload {
            let now = SystemTime::now();
            let complete =
                self.uploads
                    .complete_multipart(&sample.caller, &token.0, key, &parts, false, now);
            complete.await.map_err(Problem::from)?;
        }
        self.markers().retain(|kept| *kept != upload);
        Ok(object)
    }

    /// Whether the object has the tag; and whether a commit could replace it.
    async fn read_and_replace(&self, marker: &Marker) -> Result<bool, Problem> {
        let Marker::Object { key, version } = marker else {
            return Ok(false);
        };
        let (name, value) = PENDING_TAG;
        let read = self.client.get_object_tagging().bucket(self.bucket());
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
        let write = self.client.put_object_tagging().bucket(self.bucket());
        let write = write.key(key).set_version_id(version.clone());
        write.set_tagging(tagging.build().ok()).send().await?;
        Ok(is_kept)
    }
}
