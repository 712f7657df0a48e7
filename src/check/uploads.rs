//! Whether uploads succeed under each policy, and whether they arrive as they were sent.

use std::collections::BTreeSet;
use std::time::SystemTime;

use reqwest::{Response, header};

use super::marker::{MarkerError, Result, Upload, Way};
use super::problem::Problem;
use super::{Check, FORMS_OFF, FORMS_ONLY, Line, MULTIPART, POST, PUT, Status};
use crate::upload::{Sample, UploadService};

impl Check {
    /// Uploads a marker under each policy, in each way.
    pub(super) async fn uploads(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut heads = Vec::new();
        if self.config.upload.forms_only {
            lines.push(Line::skipped(PUT, FORMS_ONLY));
        }
        for sample in self
            .samples
            .iter()
            .filter(|_| !self.config.upload.forms_only)
        {
            lines.push(match self.put(&self.uploads, sample).await {
                Err(error) => error.line(PUT, sample),
                Ok(head) => {
                    heads.push(head);
                    Line::ok(PUT, "accepted, and removed").for_policy(&sample.policy)
                }
            });
        }
        let forms = self.forms(&mut heads).await;
        lines.extend(head_lines(heads));
        lines.extend(forms);
        lines.extend(self.multipart().await);
        lines.extend(self.delete().await);
        lines
    }

    /// PUTs a sample. Returns the line of the HEAD request that follows.
    pub(super) async fn put(&self, uploads: &UploadService, sample: &Sample) -> Result<Line> {
        let now = SystemTime::now();
        let upload = Upload::granted(uploads, Way::Put, sample, &sample.file, now).await?;
        Ok(self.store(sample, &upload).await?.0)
    }

    /// POSTs a sample of each policy. Their HEAD requests go into `heads`.
    async fn forms(&self, heads: &mut Vec<Line>) -> Vec<Line> {
        if !self.config.upload.supports_post {
            return vec![Line::skipped(POST, FORMS_OFF)];
        }
        let mut lines = Vec::new();
        for sample in self.samples.iter().filter(|sample| sample.fits_form) {
            lines.push(match self.post(sample).await {
                Ok((head, has_etag)) => {
                    heads.push(head);
                    accepted_form(has_etag).for_policy(&sample.policy)
                }
                Err(MarkerError::Refused(problem)) if problem.is_not_implemented() => {
                    let line = problem.failed(POST, "").for_policy(&sample.policy);
                    line.fix("the store does not support forms, or not what the policy has: set S3_SUPPORTS_POST_POLICY=false if `post` fails for each policy")
                }
                Err(error) => {
                    const OR: &str = "; or, if `put` is ok for this policy, the store does not support it in forms: set S3_SUPPORTS_POST_POLICY=false";
                    let mut line = error.line(POST, sample);
                    if let Some(fix) = &mut line.fix {
                        fix.push_str(OR);
                    }
                    line
                }
            });
        }
        lines
    }

    /// Uploads a marker with a form. Returns the line of its HEAD request, and whether the answer to the
    /// form has an `ETag`.
    async fn post(&self, sample: &Sample) -> Result<(Line, bool)> {
        let upload = self.granted(Way::Form, sample, &sample.file).await?;
        let (head, response) = self.store(sample, &upload).await?;
        Ok((head, response.headers().contains_key(header::ETAG)))
    }

    /// Uploads a marker, sends a HEAD for it and removes it.
    async fn store(&self, sample: &Sample, upload: &Upload) -> Result<(Line, Response)> {
        let (marker, response) = self.send_marker(sample, upload).await?;
        let head = self.head(&marker.key, sample).await;
        self.discard(&marker).await?;
        Ok((head?, response))
    }

    async fn head(&self, key: &str, sample: &Sample) -> Result<Line> {
        const CHECK: &str = "head";
        let object = match self.head_object(key).await {
            Ok(object) => object,
            Err(problem) => {
                // These need the same permission as the HEAD request.
                let uses = [
                    (sample.may_download, "downloads"),
                    (sample.pending_prefix.is_some(), "POST /upload/commit"),
                    (self.config.http.events.is_some(), "the store's events"),
                ];
                let line = if let Some((_, needs)) = uses.iter().find(|(is_used, _)| *is_used) {
                    problem.failed(CHECK, &format!("s3:GetObject for {needs}"))
                } else {
                    let detail = format!("whether an upload has arrived is unknown: {problem}");
                    let fix = "s3:GetObject for POST /upload/verify";
                    Line::warning(CHECK, detail).fix_if(problem.fix(fix))
                };
                return Ok(line.for_policy(&sample.policy));
            }
        };
        let sent = format!(
            "{} bytes of {}",
            sample.body.len(),
            sample.file.content_type.as_str()
        );
        let stored = format!(
            "{} bytes of {}",
            object.content_length().unwrap_or_default(),
            object.content_type().unwrap_or_default()
        );
        if stored != sent {
            return Err(MarkerError::Mismatch(format!(
                "{sent} were stored as {stored}"
            )));
        }
        Ok(Line::ok(CHECK, "the object is as it was sent"))
    }

    /// Begins an upload in parts under each policy.
    async fn multipart(&self) -> Vec<Line> {
        if self.config.upload.forms_only {
            return vec![Line::skipped(MULTIPART, FORMS_ONLY)];
        }
        let mut lines = Vec::new();
        for sample in self.samples.iter().filter(|sample| sample.fits_multipart) {
            let line = match self.part(sample).await {
                Ok(()) => Line::ok(
                    MULTIPART,
                    "created, a part accepted and listed, and aborted",
                ),
                Err(MarkerError::NotSent(why)) => {
                    Line::failed(MULTIPART, format!("parts would stay in the bucket: {why}"))
                        .fix("the credentials need s3:AbortMultipartUpload")
                }
                Err(MarkerError::Refused(problem)) => problem.failed_or_unsupported(
                    MULTIPART,
                    "s3:PutObject, s3:AbortMultipartUpload and s3:ListMultipartUploadParts",
                ),
                Err(error) => error.line(MULTIPART, sample),
            };
            lines.push(line.for_policy(&sample.policy));
        }
        lines
    }

    /// Creates a multipart upload, sends a part, lists it, and aborts the upload.
    async fn part(&self, sample: &Sample) -> Result<()> {
        let key = self.granted(Way::Parts, sample, &sample.file).await?.key;
        self.ensure_parts_removable(&key).await?;
        let (marker, upload, part) = self.create_multipart(sample, &sample.file).await?;
        let response = self.send(&part).await?;
        if !response.headers().contains_key(header::ETAG) {
            let what = "the store answers a part without an ETag";
            return Err(MarkerError::Mismatch(what.to_owned()));
        }
        let parts = self.uploads.list_parts(&upload);
        let count = parts.await.map_err(Problem::from)?.len();
        if count != 1 {
            let what = format!("the store lists {count} parts where there is one");
            return Err(MarkerError::Mismatch(what));
        }
        self.discard(&marker).await
    }
}

fn accepted_form(has_etag: bool) -> Line {
    if has_etag {
        return Line::ok(POST, "accepted, and removed");
    }
    let detail =
        "accepted, and removed; but the answer has no ETag, for which Uppy 4 and 5 wait for ever";
    Line::warning(POST, detail).fix(
        "set S3_SUPPORTS_POST_POLICY=false, or have Uppy send parts (`shouldUseMultipart: true`)",
    )
}

/// Keeps, for each policy, the first line that is not ok. If all lines are ok, the first of them stands
/// for all policies.
fn head_lines(mut heads: Vec<Line>) -> Vec<Line> {
    if heads.iter().all(|head| head.status == Status::Ok) {
        heads.truncate(1);
        if heads.is_empty() {
            heads.push(Line::skipped("head", "no object was uploaded"));
        }
    } else {
        // A PUT and a form under the same policy show the same.
        let mut policies = BTreeSet::new();
        heads.retain(|head| head.status != Status::Ok && policies.insert(head.policy.clone()));
    }
    heads
}
