//! Uploads of small markers, signed by the service's own code and sent as clients send them. None is sent
//! before it is certain that it can be removed.

use std::collections::BTreeSet;
use std::time::SystemTime;

use reqwest::header::{self, HeaderMap};
use reqwest::multipart::{Form, Part};
use reqwest::{RequestBuilder, Response};
use uuid::Uuid;

use super::problem::Problem;
use super::removal::{Marker, Token};
use super::{Check, FORMS_ONLY, Line};
use crate::upload::{Caller, Grant, MultipartUpload, Sample, UploadService};

/// Why a marker was not stored, or not removed.
#[derive(Debug)]
pub(super) enum Unable {
    /// It could not be removed; why.
    WouldStay(String),
    Refused(Problem),
    /// It was not stored as it was sent, or not removed.
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
        line.of_policy(&sample.policy)
    }
}

impl From<Problem> for Unable {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

impl Check {
    /// Uploads under each policy, in each way.
    pub(super) async fn uploads(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut head = Line::skipped("head", "no object was uploaded");
        let mut has_stored = false;
        if self.config.forms_only {
            lines.push(Line::skipped("put", FORMS_ONLY));
        }
        let samples = self.samples.iter().filter(|_| !self.config.forms_only);
        for sample in samples {
            lines.push(match self.put(&self.uploads, sample).await {
                Err(unable) => unable.line("put", sample),
                Ok(stored) => {
                    if !has_stored {
                        head = stored;
                    }
                    has_stored = true;
                    Line::ok("put", "accepted, and removed").of_policy(&sample.policy)
                }
            });
        }
        lines.push(head);
        lines.extend(self.form().await);
        lines.extend(self.multipart().await);
        lines
    }

    /// PUTs a sample; the line is that of its HEAD.
    pub(super) async fn put(
        &self,
        uploads: &UploadService,
        sample: &Sample,
    ) -> Result<Line, Unable> {
        let now = SystemTime::now();
        let caller = Caller::anonymous();
        let grant = uploads
            .presign_put(&caller, &sample.file, Uuid::new_v4(), now)
            .await;
        let grant = grant.map_err(|error| Problem::of_upload(&error))?;
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

    async fn form(&self) -> Option<Line> {
        const CHECK: &str = "post";
        if !self.config.supports_post {
            return Some(Line::skipped(CHECK, "S3_SUPPORTS_POST_POLICY is false"));
        }
        let sample = self.samples.iter().find(|sample| sample.fits_form)?;
        let now = SystemTime::now();
        let grant = self
            .uploads
            .presign_post(&Caller::anonymous(), &sample.file, Uuid::new_v4(), now)
            .await;
        let stored = match grant {
            Err(error) => Err(Problem::of_upload(&error).into()),
            Ok(grant) => {
                let form = grant
                    .form
                    .fields
                    .into_iter()
                    .fold(Form::new(), |form, (name, value)| form.text(name, value));
                let form = form.part("file", Part::bytes(sample.body).file_name("marker"));
                let request = self.http.post(&grant.form.url).multipart(form);
                self.store(grant.key.as_str(), sample, request).await
            }
        };
        Some(match stored {
            Ok(_) => Line::ok(CHECK, "accepted, and removed").of_policy(&sample.policy),
            Err(Unable::Refused(problem)) if problem.is_not_implemented() => problem
                .failed(CHECK, "")
                .fix("the store does not support forms: set S3_SUPPORTS_POST_POLICY=false"),
            Err(unable) => unable.line(CHECK, sample),
        })
    }

    /// Sends a request that creates an object, sends a HEAD for the object and removes it.
    async fn store(
        &self,
        key: &str,
        sample: &Sample,
        request: RequestBuilder,
    ) -> Result<Line, Unable> {
        if !sample.has_unique_key {
            let why = "its keys have no {uuid}, so it could replace another object";
            return Err(Unable::WouldStay(why.to_owned()));
        }
        self.see_that_it_can_be_removed(key)
            .await
            .map_err(Unable::WouldStay)?;
        // Before it is sent: it may be stored even if there is no answer.
        let object = |version| Marker::Object {
            key: key.to_owned(),
            version,
        };
        self.markers().push(object(None));
        let response = match self.send(request).await {
            Err(problem @ Problem::Refused(_)) => {
                self.markers().pop();
                return Err(problem.into());
            }
            answer => answer?,
        };
        let version = response.headers().get("x-amz-version-id");
        let version = version.and_then(|version| Some(version.to_str().ok()?.to_owned()));
        let marker = object(version);
        if let Some(pushed) = self.markers().last_mut() {
            *pushed = marker.clone();
        }
        let head = self.head(key, sample).await;
        self.remove(&marker).await.map_err(|problem| {
            Unable::Unfaithful(format!(
                "accepted, but {key} cannot be removed: {}",
                problem.says()
            ))
        })?;
        self.markers().retain(|kept| *kept != marker);
        head
    }

    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, Problem> {
        let origin = self.origins().into_iter().next();
        let request = match &origin {
            Some(origin) => request.header(header::ORIGIN, super::cors::concrete(origin)),
            None => request,
        };
        let response = request.send().await.map_err(Problem::of_http)?;
        if !response.status().is_success() {
            return Err(Problem::of_response(response).await);
        }
        if origin.is_some() {
            let exposes = exposes_etag(response.headers());
            self.exposes_etag.set(exposes).ok(); // the first answer counts
        }
        Ok(response)
    }

    async fn head(&self, key: &str, sample: &Sample) -> Result<Line, Unable> {
        const CHECK: &str = "head";
        let asked = self
            .client
            .head_object()
            .bucket(self.bucket())
            .key(key)
            .send()
            .await;
        let object = match asked {
            Ok(object) => object,
            Err(error) => {
                let problem = Problem::of_sdk(&error);
                let line = Line::warning(
                    CHECK,
                    format!(
                        "whether an upload has arrived is unknown: {}",
                        problem.says()
                    ),
                );
                return Ok(
                    match problem.fix("s3:GetObject for POST /upload/verify and for nothing else") {
                        Some(fix) => line.fix(fix),
                        None => line,
                    },
                );
            }
        };
        let expected = (sample.file.content_type.as_str(), sample.body.len());
        let stored = (
            object.content_type().unwrap_or_default(),
            object
                .content_length()
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or_default(),
        );
        if stored != expected {
            return Err(Unable::Unfaithful(format!(
                "{} bytes of {} were stored as {} bytes of {}",
                expected.1, expected.0, stored.1, stored.0
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
        Some(line.of_policy(&sample.policy))
    }

    /// Creates a multipart upload, and notes it as a marker to remove.
    pub(super) async fn create_multipart(
        &self,
        sample: &Sample,
    ) -> Result<(MultipartUpload, Marker), Unable> {
        let (now, caller) = (SystemTime::now(), Caller::anonymous());
        let upload = self
            .uploads
            .create_multipart(&caller, &sample.file, Uuid::new_v4(), now)
            .await;
        let upload = upload.map_err(|error| Problem::of_upload(&error))?;
        let marker = Marker::Upload {
            key: upload.key.clone(),
            token: Token(upload.token.clone()),
        };
        self.markers().push(marker.clone());
        Ok((upload, marker))
    }

    /// Creates a multipart upload, sends a part, lists it, and aborts the upload.
    async fn part(&self, sample: &Sample) -> Result<(), Unable> {
        let (now, caller) = (SystemTime::now(), Caller::anonymous());
        let key = self
            .uploads
            .presign_put(&caller, &sample.file, Uuid::new_v4(), now)
            .await;
        let key = key.map_err(|error| Problem::of_upload(&error))?.key;
        self.see_that_parts_can_be_removed(key.as_str()).await?;
        let (upload, marker) = self.create_multipart(sample).await?;
        let (key, token) = (&upload.key, &upload.token);
        let requests = self
            .uploads
            .presign_parts(&caller, token, key, &BTreeSet::from([1]), now)
            .await;
        let requests = requests.map_err(|error| Problem::of_upload(&error))?;
        for request in requests.values() {
            let response = self
                .send(self.http.put(&request.url).body(sample.body))
                .await?;
            if !response.headers().contains_key(header::ETAG) {
                return Err(Unable::Unfaithful(
                    "the store answers a part without an ETag".to_owned(),
                ));
            }
        }
        let parts = self.uploads.list_parts(&caller, token, key, now).await;
        let parts = parts.map_err(|error| Problem::of_upload(&error))?;
        if parts.len() != 1 {
            return Err(Unable::Unfaithful(format!(
                "the store lists {} parts where there is one",
                parts.len()
            )));
        }
        self.remove(&marker).await?;
        self.markers().retain(|kept| *kept != marker);
        Ok(())
    }
}

fn exposes_etag(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCESS_CONTROL_EXPOSE_HEADERS);
    values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|name| matches!(name.trim().to_ascii_lowercase().as_str(), "etag" | "*"))
}
