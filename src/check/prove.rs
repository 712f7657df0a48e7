//! `presignd check --prove`: violates the terms of grants, as a malicious client would, and fails
//! where the store accepts it. Like all checks, it uploads only what it can remove.

mod attempts;
mod kept;
mod parts;

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::presigning::PresigningConfig;

use self::attempts::{Attempt, FORM_FANOUT, FORM_HEADERS, FORMS, GrantKind, PUTS};
use super::marker::{MarkerError, Result, Upload, Way};
use super::problem::Problem;
use super::removal::Marker;
use super::unsigned::METADATA;
use super::{Check, FORMS_OFF, FORMS_ONLY, Line, NO_SAMPLE};
use crate::upload::{File, Sample};

impl Check {
    /// A line for each promise of a grant, and one with the number of requests.
    pub(super) async fn prove(&self) -> Vec<Line> {
        let before = self.requests.load(Ordering::Relaxed);
        let mut lines = if self.config.upload.forms_only {
            vec![Line::skipped("put-terms", FORMS_ONLY)]
        } else {
            let mut lines = self.attempts_on(Way::Put, PUTS).await;
            lines.extend(self.prove_parts().await);
            lines
        };
        if self.config.upload.supports_post {
            let forms = self.attempts_on(Way::Form, FORMS).await;
            // A single line means that the store refused the granted form, so further refusals prove
            // nothing.
            let is_accepted = forms.len() > 1;
            lines.extend(forms);
            if is_accepted {
                let fanout =
                    self.form_attempt(&FORM_FANOUT, async |it| self.writes_other_keys(it).await);
                lines.push(fanout.await);
                lines.push(self.form_of_returns().await);
            }
        } else {
            lines.push(Line::skipped("form-terms", FORMS_OFF));
        }
        lines.extend(self.kept().await);
        let sent = self.requests.load(Ordering::Relaxed) - before;
        let detail = format!("the proof has sent {sent} requests to the store");
        lines.push(Line::ok("cost", detail));
        lines
    }

    /// Makes all attempts on one way of uploading, if the store accepts the request that was
    /// granted: otherwise a refusal proves nothing.
    async fn attempts_on(&self, way: Way, attempts: &[Attempt]) -> Vec<Line> {
        let control = if way == Way::Form {
            "form-terms"
        } else {
            "put-terms"
        };
        let mut samples = self.unique_samples();
        let Some(sample) = samples.find(|sample| way == Way::Put || sample.fits_form) else {
            return vec![Line::skipped(control, NO_SAMPLE)];
        };
        match self.control(way, sample).await {
            Ok(()) => {}
            Err(MarkerError::Refused(problem)) => {
                let detail = format!("the store refuses what was granted, too: {problem}");
                return vec![Line::skipped(control, detail).for_policy(&sample.policy)];
            }
            Err(error) => return vec![error.line(control, sample)],
        }
        let mut lines = Vec::new();
        for attempt in attempts {
            lines.push(self.attempt(way, sample, attempt).await);
        }
        lines
    }

    async fn control(&self, way: Way, sample: &Sample) -> Result<()> {
        let upload = self.granted(way, sample, &sample.file).await?;
        let (marker, _) = self.send_marker(sample, &upload).await?;
        self.discard(&marker).await
    }

    /// The line of one attempt, which the store must refuse.
    async fn attempt(&self, way: Way, sample: &Sample, attempt: &Attempt) -> Line {
        let sample = match attempt.grant {
            GrantKind::WriteOnce => match self.unique_samples().find(|it| it.is_write_once) {
                Some(sample) => sample,
                None => return Line::skipped(attempt.check, attempt.not_needed),
            },
            GrantKind::EncodedSlash if self.samples.iter().all(|it| it.has_unique_key) => {
                return Line::skipped(attempt.check, attempt.not_needed);
            }
            _ => sample,
        };
        let line = self.try_attempt(way, sample, attempt).await;
        line.unwrap_or_else(|error| error.unclear(attempt.check, sample))
    }

    async fn try_attempt(&self, way: Way, sample: &Sample, attempt: &Attempt) -> Result<Line> {
        let (mut file, mut now) = (sample.file.clone(), SystemTime::now());
        match attempt.grant {
            GrantKind::Checksum => file.checksum_sha256 = Some(sample.checksum_sha256.clone()),
            GrantKind::Expired => {
                now -= self.config.upload.policies.longest_lifetime() + Duration::from_mins(1);
            }
            _ => {}
        }
        let mut upload = Upload::granted(&self.uploads, way, sample, &file, now).await?;
        let other_key = match attempt.grant {
            GrantKind::BucketInKey => Some(format!("{}/{}", self.bucket, upload.key)),
            GrantKind::EncodedSlash => Some(format!("{}%2Fx", upload.key)),
            _ => None,
        };
        if let Some(key) = other_key {
            upload = self.signed_for(key, sample).await?;
        }
        let first = if attempt.is_second {
            Some(self.send_marker(sample, &upload).await?.0)
        } else {
            None
        };
        (attempt.change)(&mut upload);
        if first.is_none() {
            self.ensure_may_store(&upload.key, sample).await?;
        }
        let answer = self.send_again(&upload).await;
        if let Ok((marker, _)) = &answer {
            self.discard(marker).await?;
        }
        if let Some(first) = first {
            self.discard(&first).await?;
        }
        Ok(attempt.judge(answer))
    }

    /// A PUT that is signed for a key that no policy makes.
    async fn signed_for(&self, key: String, sample: &Sample) -> Result<Upload, Problem> {
        let lifetime = PresigningConfig::expires_in(Duration::from_mins(1));
        let lifetime = lifetime.map_err(|error| Problem::NotSent(error.to_string()))?;
        let put = self.client.put_object().bucket(&self.bucket).key(&key);
        let url = put.presigned(lifetime).await?.uri().to_owned();
        Ok(Upload::put(url, key, sample))
    }

    /// The line of an attempt with a form, which the store may accept without obeying it.
    async fn form_attempt(
        &self,
        attempt: &Attempt,
        obeys: impl AsyncFnOnce(&Sample) -> Result<bool>,
    ) -> Line {
        let Some(sample) = self.unique_samples().find(|sample| sample.fits_form) else {
            return Line::skipped(attempt.check, NO_SAMPLE);
        };
        match obeys(sample).await {
            Ok(false) => Line::ok(attempt.check, "refused or ignored"),
            Ok(true) => attempt.failed(),
            Err(error) => error.unclear(attempt.check, sample),
        }
    }

    /// The counterpart of `unsigned-headers`, which is about PUTs.
    pub(super) async fn form_headers(&self) -> Line {
        self.form_attempt(&FORM_HEADERS, async |it| self.obeys_form_headers(it).await)
            .await
    }

    /// HTTP headers of a form must have no effect, because nothing signs them.
    async fn obeys_form_headers(&self, sample: &Sample) -> Result<bool> {
        let mut upload = self.granted(Way::Form, sample, &sample.file).await?;
        upload.headers.push((METADATA.to_owned(), "1".to_owned()));
        let marker = match self.send_marker(sample, &upload).await {
            Err(MarkerError::Refused(problem)) if problem.is_refusal() => return Ok(false),
            answer => answer?.0,
        };
        let obeys = self.has_metadata(&upload.key).await;
        self.discard(&marker).await?;
        Ok(obeys?)
    }

    /// A form must write its own key alone.
    async fn writes_other_keys(&self, sample: &Sample) -> Result<bool> {
        let mut upload = self.granted(Way::Form, sample, &sample.file).await?;
        let other = format!("{}x", upload.key);
        let list = serde_json::json!({"key": other}).to_string();
        upload.fields.push(("x-minio-fanout-list".to_owned(), list));
        self.ensure_may_store(&other, sample).await?;
        let other = Marker::object(&other, None);
        self.markers().push(other.clone());
        let sent = self.send_marker(sample, &upload).await;
        let written = self.head_object(&other.key).await;
        self.discard(&other).await?;
        match sent {
            Err(MarkerError::Refused(problem)) if problem.is_refusal() => return Ok(false),
            answer => self.discard(&answer?.0).await?,
        }
        match written {
            Ok(_) => Ok(true),
            Err(problem) if problem.status() == Some(404) => Ok(false),
            Err(problem) => Err(problem.into()),
        }
    }

    /// An upload that must be accepted: some stores fail to read files with many carriage returns,
    /// because one begins each boundary of a form.
    async fn form_of_returns(&self) -> Line {
        const CHECK: &str = "form-of-returns";
        const SIZE: usize = 1024 * 1024;
        for sample in self.unique_samples() {
            let file = File {
                size: Some(SIZE as u64),
                checksum_sha256: None,
                ..sample.file.clone()
            };
            // The policy may have a smaller limit, or require a checksum.
            let Ok(mut upload) = self.granted(Way::Form, sample, &file).await else {
                continue;
            };
            upload.body = vec![b'\r'; SIZE];
            let stored = async {
                let (marker, _) = self.send_marker(sample, &upload).await?;
                self.discard(&marker).await
            };
            return match stored.await {
                Ok(()) => Line::ok(CHECK, "accepted: 1 MiB of carriage returns"),
                Err(MarkerError::Refused(problem)) => {
                    let detail = format!(
                        "files with carriage returns, such as text from Windows, are refused at random: {problem}"
                    );
                    let fix = "upgrade the store, or upload with PUT; S3_SUPPORTS_POST_POLICY=false turns forms off";
                    Line::failed(CHECK, detail).fix(fix)
                }
                Err(error) => error.line(CHECK, sample),
            };
        }
        Line::skipped(CHECK, "no policy allows a form of 1 MiB")
    }
}
