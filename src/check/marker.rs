//! Uploads small markers with requests that the service's own code signs, sent as clients send
//! them. None is sent unless it can certainly be removed.

use std::time::SystemTime;

use reqwest::header::{self, HeaderMap};
use reqwest::multipart::{Form, Part};
use reqwest::{RequestBuilder, Response};
use uuid::{Builder, Uuid, Version};

use super::problem::Problem;
use super::removal::{Marker, Token};
use super::{Check, FORMS_ONLY, Line, Status};
use crate::upload::{Caller, File, Grant, Sample, UploadService};

/// Why a marker was not stored, or not removed.
#[derive(Debug)]
pub(super) enum Unable {
    /// It was not sent, because it could not be removed, for this reason.
    WouldStay(String),
    Refused(Problem),
    /// It was stored differently from what was sent, or not removed.
    Unfaithful(String),
}

impl Unable {
    pub(super) fn line(&self, check: &'static str, sample: &Sample) -> Line {
        let line = match self {
            Self::WouldStay(why) => Line::skipped(
                check,
                format!("no marker was uploaded, because it would stay in the bucket: {why}"),
            ),
            Self::Unfaithful(what) => Line::failed(check, what),
            Self::Refused(problem) => {
                let line = problem.failed(check, "s3:PutObject, and s3:PutObjectTagging, s3:PutObjectAcl, kms:GenerateDataKey where the policy has tags, an ACL, a key");
                if problem.is_not_implemented() {
                    line.fix("the store does not support something in the policy: remove it from the policy")
                } else {
                    line
                }
            }
        };
        line.for_policy(&sample.policy)
    }
}

impl From<Problem> for Unable {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

impl Check {
    /// Uploads a marker under each policy, in each way.
    pub(super) async fn uploads(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut heads = Vec::new();
        if self.config.forms_only {
            lines.push(Line::skipped("put", FORMS_ONLY));
        }
        for sample in self.samples.iter().filter(|_| !self.config.forms_only) {
            lines.push(match self.put(&self.uploads, sample).await {
                Err(unable) => unable.line("put", sample),
                Ok(head) => {
                    heads.push(head);
                    Line::ok("put", "accepted, and removed").for_policy(&sample.policy)
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
    pub(super) async fn put(
        &self,
        uploads: &UploadService,
        sample: &Sample,
    ) -> Result<Line, Unable> {
        let grant = grant(uploads, &sample.caller, &sample.file).await?;
        let request = self.put_request(&grant, sample);
        self.store(grant.key.as_str(), sample, request).await
    }

    /// The request that a client sends with the grant.
    pub(super) fn put_request(&self, grant: &Grant, sample: &Sample) -> RequestBuilder {
        let request = self.http.put(&grant.request.url).body(sample.body);
        let headers = grant.request.headers.iter();
        headers.fold(request, |request, (name, value)| {
            request.header(name.as_ref(), value)
        })
    }

    /// POSTs a sample, or one of each policy if there are only forms. Their HEAD requests then go
    /// into `heads`.
    async fn forms(&self, heads: &mut Vec<Line>) -> Vec<Line> {
        const CHECK: &str = "post";
        if !self.config.supports_post {
            return vec![Line::skipped(CHECK, "S3_SUPPORTS_POST_POLICY is false")];
        }
        let samples = self.samples.iter().filter(|sample| sample.fits_form);
        let count = if self.config.forms_only {
            usize::MAX
        } else {
            1
        };
        let mut lines = Vec::new();
        for sample in samples.take(count) {
            lines.push(match self.post(sample).await {
                Ok(head) => {
                    heads.extend(self.config.forms_only.then_some(head));
                    Line::ok(CHECK, "accepted, and removed").for_policy(&sample.policy)
                }
                Err(Unable::Refused(problem)) if problem.is_not_implemented() => problem
                    .failed(CHECK, "")
                    .fix("the store does not support forms: set S3_SUPPORTS_POST_POLICY=false"),
                Err(unable) => unable.line(CHECK, sample),
            });
        }
        lines
    }

    async fn post(&self, sample: &Sample) -> Result<Line, Unable> {
        let (key, request) = self.form_request(sample).await?;
        self.store(&key, sample, request).await
    }

    /// The request that a client sends with a form, and the key of its object.
    pub(super) async fn form_request(
        &self,
        sample: &Sample,
    ) -> Result<(String, RequestBuilder), Problem> {
        let (caller, now) = (&sample.caller, SystemTime::now());
        let grant = self
            .uploads
            .presign_post(caller, &sample.file, marker_id(), now);
        let grant = grant.await?;
        let fields = grant.form.fields.into_iter();
        let form = fields.fold(Form::new(), |form, (name, value)| form.text(name, value));
        let form = form.part("file", Part::bytes(sample.body).file_name("marker"));
        let request = self.http.post(&grant.form.url).multipart(form);
        Ok((grant.key.into_string(), request))
    }

    /// Sends a request that creates an object, sends a HEAD for the object and removes it.
    async fn store(
        &self,
        key: &str,
        sample: &Sample,
        request: RequestBuilder,
    ) -> Result<Line, Unable> {
        self.ensure_may_store(key, sample).await?;
        let (marker, _) = self.send_marker(key, request).await?;
        let head = self.head(key, sample).await;
        self.discard(&marker).await?;
        head
    }

    /// Ensures that an object of this key replaces no other one and can be removed.
    pub(super) async fn ensure_may_store(&self, key: &str, sample: &Sample) -> Result<(), Unable> {
        if !sample.has_unique_key {
            let why = "its keys have no {uuid}, so it could replace another object";
            return Err(Unable::WouldStay(why.to_owned()));
        }
        self.ensure_removable(key).await
    }

    /// Sends a request that creates an object, and remembers the object until it is removed.
    pub(super) async fn send_marker(
        &self,
        key: &str,
        request: RequestBuilder,
    ) -> Result<(Marker, Response), Problem> {
        let object = |version| Marker::Object {
            key: key.to_owned(),
            version,
        };
        // It is remembered first, because it may be stored even if no answer arrives.
        self.markers().push(object(None));
        let response = match self.send(request).await {
            Err(problem) => {
                if problem.is_refusal() {
                    self.markers().pop();
                }
                return Err(problem);
            }
            Ok(response) => response,
        };
        let version = response.headers().get("x-amz-version-id");
        let version = version.and_then(|version| Some(version.to_str().ok()?.to_owned()));
        let marker = object(version);
        self.markers().pop();
        self.markers().push(marker.clone());
        Ok((marker, response))
    }

    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, Problem> {
        let origin = self.origins().into_iter().next();
        let request = match &origin {
            Some(origin) => request.header(header::ORIGIN, super::cors::concrete(origin)),
            None => request,
        };
        self.count_request();
        let response = request.send().await?;
        if !response.status().is_success() {
            return Err(Problem::from_response(response).await);
        }
        if origin.is_some() {
            let exposes = exposes_etag(response.headers());
            self.exposes_etag.set(exposes).ok(); // the first answer counts
        }
        Ok(response)
    }

    async fn head(&self, key: &str, sample: &Sample) -> Result<Line, Unable> {
        const CHECK: &str = "head";
        let head = self.client.head_object().bucket(self.bucket()).key(key);
        let object = match head.send().await.map_err(Problem::from) {
            Ok(object) => object,
            Err(problem) => {
                // Downloads need the same permission as the HEAD request.
                let line = if sample.may_download {
                    problem.failed(CHECK, "s3:GetObject for downloads")
                } else {
                    let detail = format!("whether an upload has arrived is unknown: {problem}");
                    let fix = "s3:GetObject for POST /upload/verify and for nothing else";
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
            return Err(Unable::Unfaithful(format!(
                "{sent} were stored as {stored}"
            )));
        }
        Ok(Line::ok(CHECK, "the object is as it was sent"))
    }

    async fn multipart(&self) -> Option<Line> {
        const CHECK: &str = "multipart";
        if self.config.forms_only {
            return Some(Line::skipped(CHECK, FORMS_ONLY));
        }
        let sample = self.samples.iter().find(|sample| sample.fits_multipart)?;
        let line = match self.part(sample).await {
            Ok(()) => Line::ok(CHECK, "created, a part accepted and listed, and aborted"),
            Err(Unable::WouldStay(why)) => {
                Line::failed(CHECK, format!("parts would stay in the bucket: {why}"))
                    .fix("the credentials need s3:AbortMultipartUpload")
            }
            Err(Unable::Refused(problem)) => problem.failed(
                CHECK,
                "s3:PutObject, s3:AbortMultipartUpload and s3:ListMultipartUploadParts",
            ),
            Err(Unable::Unfaithful(what)) => Line::failed(CHECK, what),
        };
        Some(line.for_policy(&sample.policy))
    }

    /// Creates a multipart upload, sends a part, lists it, and aborts the upload.
    async fn part(&self, sample: &Sample) -> Result<(), Unable> {
        let grant = grant(&self.uploads, &sample.caller, &sample.file).await?;
        self.ensure_parts_removable(grant.key.as_str()).await?;
        let (marker, request) = self.create_multipart(sample, &sample.file).await?;
        let response = self.send(request).await?;
        if !response.headers().contains_key(header::ETAG) {
            let what = "the store answers a part without an ETag";
            return Err(Unable::Unfaithful(what.to_owned()));
        }
        if let Marker::Upload { key, token } = &marker {
            let (caller, now) = (&sample.caller, SystemTime::now());
            let parts = self.uploads.list_parts(caller, &token.0, key, now).await;
            let count = parts.map_err(Problem::from)?.len();
            if count != 1 {
                let what = format!("the store lists {count} parts where there is one");
                return Err(Unable::Unfaithful(what));
            }
        }
        self.discard(&marker).await
    }

    /// Creates a multipart upload, and remembers it until it is aborted. Also returns a request
    /// that sends the first part.
    pub(super) async fn create_multipart(
        &self,
        sample: &Sample,
        file: &File,
    ) -> Result<(Marker, RequestBuilder), Problem> {
        let (caller, now) = (&sample.caller, SystemTime::now());
        let upload = self
            .uploads
            .create_multipart(caller, file, marker_id(), now);
        self.count_request();
        let upload = upload.await?;
        let (key, token) = (upload.key, Token(upload.token));
        let marker = Marker::Upload {
            key: key.clone(),
            token: token.clone(),
        };
        self.markers().push(marker.clone());
        let part = self
            .uploads
            .presign_part(caller, &token.0, &key, (1, None), now);
        let request = self.http.put(part.await?.url).body(sample.body);
        Ok((marker, request))
    }
}

/// The lines that are not ok, or else one that is.
fn head_lines(mut heads: Vec<Line>) -> Vec<Line> {
    if heads.iter().all(|head| head.status == Status::Ok) {
        heads.truncate(1);
        if heads.is_empty() {
            heads.push(Line::skipped("head", "no object was uploaded"));
        }
    } else {
        heads.retain(|head| head.status != Status::Ok);
    }
    heads
}

/// A grant to PUT `file`, as the service gives it to a client.
pub(super) async fn grant(
    uploads: &UploadService,
    caller: &Caller,
    file: &File,
) -> Result<Grant, Problem> {
    let now = SystemTime::now();
    let grant = uploads.presign_put(caller, file, marker_id(), now).await?;
    Ok(grant)
}

/// The id in the key of a marker. Grants have only ids of version 4, so no policy can have granted
/// the key. A service that the store notifies of a marker therefore does not mistake it for an
/// upload.
pub(super) fn marker_id() -> Uuid {
    let random = Builder::from_bytes(Uuid::new_v4().into_bytes());
    random.with_version(Version::Custom).into_uuid()
}

fn exposes_etag(headers: &HeaderMap) -> bool {
    let mut names = super::cors::list(headers, &header::ACCESS_CONTROL_EXPOSE_HEADERS);
    names.any(|name| name == "*" || name.eq_ignore_ascii_case("etag"))
}
