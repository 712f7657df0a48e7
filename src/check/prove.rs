//! `presignd check --prove`: violates the terms of grants, as a malicious client would, and fails
//! where the store accepts it. Like all checks, it uploads only what it can remove.

mod attempts;
mod kept;
mod parts;

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use reqwest::multipart::{Form, Part};
use reqwest::{Method, RequestBuilder};

use self::attempts::{Attempt, FORMS, PUTS, Terms};
use super::marker::{Unable, marker_id};
use super::problem::Problem;
use super::unsigned::METADATA;
use super::{Check, FORMS_ONLY, Line};
use crate::upload::{File, Sample};

const NO_SAMPLE: &str = "no policy has unique keys for a marker";
/// Why no form is tried.
const NO_FORMS: &str = "S3_SUPPORTS_POST_POLICY is false";

/// A request that uploads one file as a grant says. Attempts change it before it is sent.
#[derive(Clone, Debug)]
struct Upload {
    method: Method,
    key: String,
    url: String,
    headers: Vec<(String, String)>,
    /// The fields of a form; empty for a PUT.
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Put,
    Form,
}

impl Check {
    /// A line for each promise of a grant, and one with the number of requests.
    pub(super) async fn prove(&self) -> Vec<Line> {
        let before = self.requests.load(Ordering::Relaxed);
        let mut lines = if self.config.forms_only {
            vec![Line::skipped("put-terms", FORMS_ONLY)]
        } else {
            let mut lines = self.all(Kind::Put, PUTS).await;
            lines.extend(self.prove_parts().await);
            lines
        };
        if self.config.supports_post {
            let forms = self.all(Kind::Form, FORMS).await;
            // Without the first, the store accepts no form at all.
            if forms.len() > 1 {
                lines.extend(forms);
                lines.push(self.form_headers().await);
                lines.push(self.form_of_returns().await);
            } else {
                lines.extend(forms);
            }
        } else {
            lines.push(Line::skipped("form-terms", NO_FORMS));
        }
        lines.extend(self.kept().await);
        let sent = self.requests.load(Ordering::Relaxed) - before;
        let detail = format!("the proof has sent {sent} requests to the store");
        lines.push(Line::ok("cost", detail));
        lines
    }

    /// Makes all attempts of one kind, if the store accepts the request that was granted: otherwise
    /// a refusal proves nothing.
    async fn all(&self, kind: Kind, attempts: &[Attempt]) -> Vec<Line> {
        let control = match kind {
            Kind::Put => "put-terms",
            Kind::Form => "form-terms",
        };
        let mut samples = self.samples.iter().filter(|sample| sample.has_unique_key);
        let sample = samples.find(|sample| kind == Kind::Put || sample.fits_form);
        let Some(sample) = sample else {
            return vec![Line::skipped(control, NO_SAMPLE)];
        };
        if let Err(unable) = self.control(kind, sample).await {
            return vec![match unable {
                Unable::Refused(problem) => {
                    let detail = format!("the store refuses what was granted, too: {problem}");
                    Line::skipped(control, detail).for_policy(&sample.policy)
                }
                unable => unable.line(control, sample),
            }];
        }
        let mut lines = Vec::new();
        for attempt in attempts {
            lines.push(self.attempt(kind, sample, attempt).await);
        }
        lines
    }

    async fn control(&self, kind: Kind, sample: &Sample) -> Result<(), Unable> {
        let upload = self.granted(kind, sample, &sample.file, SystemTime::now());
        let upload = upload.await?;
        self.ensure_removable(&upload.key).await?;
        let (marker, _) = self.send_marker(&upload.key, self.request(&upload)).await?;
        self.discard(&marker).await
    }

    /// The line of one attempt, which the store must refuse.
    async fn attempt(&self, kind: Kind, sample: &Sample, attempt: &Attempt) -> Line {
        match self.try_attempt(kind, sample, attempt).await {
            Ok(line) => line,
            Err(Unable::Refused(problem)) => problem.unclear(attempt.check),
            Err(unable) => unable.line(attempt.check, sample),
        }
    }

    async fn try_attempt(
        &self,
        kind: Kind,
        sample: &Sample,
        attempt: &Attempt,
    ) -> Result<Line, Unable> {
        let now = SystemTime::now();
        let mut upload = match attempt.terms {
            Terms::AsUsual => self.granted(kind, sample, &sample.file, now).await?,
            Terms::Checksum => {
                let file = File {
                    checksum_sha256: Some(sample.checksum_sha256.clone()),
                    ..sample.file.clone()
                };
                self.granted(kind, sample, &file, now).await?
            }
            Terms::Expired => {
                let ago = self.config.policies.longest_lifetime() + Duration::from_mins(1);
                self.granted(kind, sample, &sample.file, now - ago).await?
            }
            Terms::WriteOnce => match self.write_once(now).await? {
                Some(upload) => upload,
                None => return Ok(Line::skipped(attempt.check, attempt.not_needed)),
            },
        };
        let first = if attempt.is_second {
            let stored = self.send_marker(&upload.key, self.request(&upload)).await?;
            Some(stored.0)
        } else {
            None
        };
        (attempt.change)(&mut upload);
        let answer = self.send_marker(&upload.key, self.request(&upload)).await;
        if let Ok((marker, _)) = &answer {
            self.discard(marker).await?;
        }
        if let Some(first) = first {
            self.discard(&first).await?;
        }
        Ok(attempt.judge(answer))
    }

    /// A grant of a policy with `overwrite = false`.
    async fn write_once(&self, now: SystemTime) -> Result<Option<Upload>, Problem> {
        for sample in self.samples.iter().filter(|sample| sample.has_unique_key) {
            let upload = self.granted(Kind::Put, sample, &sample.file, now).await?;
            let mut headers = upload.headers.iter();
            if headers.any(|(name, _)| name == "if-none-match") {
                return Ok(Some(upload));
            }
        }
        Ok(None)
    }

    /// HTTP headers of a form must have no effect, because nothing signs them.
    async fn form_headers(&self) -> Line {
        const ATTEMPT: &Attempt = &attempts::FORM_HEADERS;
        let Some(sample) = self.form_sample() else {
            return Line::skipped(ATTEMPT.check, NO_SAMPLE);
        };
        let kept = async {
            let upload = self.granted(Kind::Form, sample, &sample.file, SystemTime::now());
            let upload = upload.await?;
            let request = self.request(&upload).header(METADATA, "1");
            let (marker, _) = match self.send_marker(&upload.key, request).await {
                Err(problem) if problem.is_refusal() => return Ok(false),
                answer => answer?,
            };
            let kept = self.has_metadata(&upload.key).await;
            self.discard(&marker).await?;
            Ok(kept?)
        };
        match kept.await {
            Ok(false) => Line::ok(ATTEMPT.check, "refused or ignored"),
            Ok(true) => ATTEMPT.failed(),
            Err(Unable::Refused(problem)) => problem.unclear(ATTEMPT.check),
            Err(unable) => unable.line(ATTEMPT.check, sample),
        }
    }

    /// An upload that must be accepted: some stores fail to read files with many carriage returns,
    /// because one begins each boundary of a form.
    async fn form_of_returns(&self) -> Line {
        const CHECK: &str = "form-of-returns";
        const SIZE: usize = 1024 * 1024;
        for sample in self.samples.iter().filter(|sample| sample.has_unique_key) {
            let file = File {
                size: Some(SIZE as u64),
                checksum_sha256: None,
                ..sample.file.clone()
            };
            let granted = self.granted(Kind::Form, sample, &file, SystemTime::now());
            // The policy may have a smaller limit, or require a checksum.
            let Ok(mut upload) = granted.await else {
                continue;
            };
            upload.body = vec![b'\r'; SIZE];
            let stored = async {
                let (marker, _) = self.send_marker(&upload.key, self.request(&upload)).await?;
                self.discard(&marker).await
            };
            return match stored.await {
                Ok(()) => Line::ok(CHECK, "accepted: 1 MiB of carriage returns"),
                Err(Unable::Refused(problem)) => {
                    let detail = format!(
                        "files with carriage returns, such as text from Windows, are refused at random: {problem}"
                    );
                    let fix = "upgrade the store, or upload with PUT; S3_SUPPORTS_POST_POLICY=false turns forms off";
                    Line::failed(CHECK, detail).fix(fix)
                }
                Err(unable) => unable.line(CHECK, sample),
            };
        }
        Line::skipped(CHECK, "no policy allows a form of 1 MiB")
    }

    fn form_sample(&self) -> Option<&Sample> {
        let mut samples = self.samples.iter();
        samples.find(|sample| sample.has_unique_key && sample.fits_form)
    }

    /// What a client sends that uses a grant for `file`, made at `now`, as intended.
    async fn granted(
        &self,
        kind: Kind,
        sample: &Sample,
        file: &File,
        now: SystemTime,
    ) -> Result<Upload, Problem> {
        let (caller, id, body) = (&sample.caller, marker_id(), sample.body.to_vec());
        Ok(match kind {
            Kind::Put => {
                let grant = self.uploads.presign_put(caller, file, id, now).await?;
                let headers = grant.request.headers.into_iter();
                Upload {
                    method: Method::PUT,
                    key: grant.key.as_str().to_owned(),
                    url: grant.request.url,
                    headers: headers.map(|(name, value)| (name.into(), value)).collect(),
                    fields: Vec::new(),
                    body,
                }
            }
            Kind::Form => {
                let grant = self.uploads.presign_post(caller, file, id, now).await?;
                Upload {
                    method: Method::POST,
                    key: grant.key.as_str().to_owned(),
                    url: grant.form.url,
                    headers: Vec::new(),
                    fields: grant.form.fields,
                    body,
                }
            }
        })
    }

    fn request(&self, upload: &Upload) -> RequestBuilder {
        let headers = upload.headers.iter();
        let request = self.http.request(upload.method.clone(), &upload.url);
        let request = headers.fold(request, |request, (name, value)| {
            request.header(name, value)
        });
        if upload.fields.is_empty() {
            return request.body(upload.body.clone());
        }
        let fields = upload.fields.iter().cloned();
        let form = fields.fold(Form::new(), |form, (name, value)| form.text(name, value));
        let file = Part::bytes(upload.body.clone()).file_name("marker");
        request.multipart(form.part("file", file))
    }
}
