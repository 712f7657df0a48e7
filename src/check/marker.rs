//! Uploads small markers with requests that the service's own code signs, sent as clients send
//! them. None is sent unless it can certainly be removed.

use std::collections::BTreeMap;
use std::time::SystemTime;

use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use reqwest::header::{self, HeaderMap};
use reqwest::multipart::{Form, Part};
use reqwest::{Method, Response};
use uuid::{Builder, Uuid, Version};

use super::problem::Problem;
use super::removal::Marker;
use super::{Check, Line};
use crate::upload::{File, GrantRequest, OpenUpload, Sample, UploadService};

/// Most functions with markers fail with a [`MarkerError`].
pub(super) type Result<T, E = MarkerError> = std::result::Result<T, E>;

/// Why a marker was not stored, or not removed.
#[derive(Debug)]
pub(super) enum MarkerError {
    /// It was not sent, because it could not be removed, for this reason.
    NotSent(String),
    Refused(Problem),
    /// It was stored differently from what was sent.
    Mismatch(String),
    NotRemoved(String, Problem),
}

impl MarkerError {
    pub(super) fn line(&self, check: &'static str, sample: &Sample) -> Line {
        let line = match self {
            Self::NotSent(why) => Line::skipped(
                check,
                format!("no marker was uploaded, because it would stay in the bucket: {why}"),
            ),
            Self::Mismatch(what) => Line::failed(check, what),
            Self::NotRemoved(key, problem) => {
                Line::failed(check, format!("{key} cannot be removed: {problem}"))
            }
            Self::Refused(problem) => problem.failed_or_unsupported(check, "s3:PutObject, and s3:PutObjectTagging, s3:PutObjectAcl, kms:GenerateDataKey where the policy has tags, an ACL, a key"),
        };
        line.for_policy(&sample.policy)
    }

    /// The line of something that the store must refuse or keep, if that could not be tried.
    pub(super) fn unclear(&self, check: &'static str, sample: &Sample) -> Line {
        match self {
            Self::Refused(problem) => problem.unclear(check),
            error => error.line(check, sample),
        }
    }
}

impl From<Problem> for MarkerError {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

/// A way of uploading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Put,
    Form,
    Parts,
}

/// A request that uploads one file as a grant says. Attempts change it before it is sent.
#[derive(Clone, Debug)]
pub(super) struct Upload {
    pub(super) method: Method,
    pub(super) key: String,
    pub(super) url: String,
    pub(super) headers: Vec<(String, String)>,
    /// The fields of a form; empty for a PUT.
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Upload {
    /// A PUT of the sample with no headers of its own.
    pub(super) fn put(url: String, key: String, sample: &Sample) -> Self {
        Self {
            method: Method::PUT,
            key,
            url,
            headers: Vec::new(),
            fields: Vec::new(),
            body: sample.body.to_vec(),
        }
    }

    /// The upload that a grant for `file`, issued at `now`, allows. A PUT stands for an upload in
    /// parts, which has the same properties.
    pub(super) async fn granted(
        uploads: &UploadService,
        way: Way,
        sample: &Sample,
        file: &File,
        now: SystemTime,
    ) -> Result<Self, Problem> {
        let asked = asked(sample, file, now);
        let (method, grant) = match way {
            Way::Put | Way::Parts => (Method::PUT, uploads.presign_put(asked).await?),
            Way::Form => (Method::POST, uploads.presign_post(asked).await?),
        };
        let request = grant.request;
        let headers = request.headers.into_iter();
        Ok(Self {
            method,
            key: grant.key.into_string(),
            url: request.url,
            headers: headers.map(|(name, value)| (name.into(), value)).collect(),
            fields: request.fields.into_iter().collect(),
            body: sample.body.to_vec(),
        })
    }
}

impl Check {
    /// The ways in which files may be uploaded under the policy.
    pub(super) fn ways(&self, sample: &Sample) -> impl Iterator<Item = Way> {
        let config = &self.config;
        let ways = [
            (Way::Put, !config.upload.forms_only),
            (Way::Form, config.upload.supports_post && sample.fits_form),
            (
                Way::Parts,
                !config.upload.forms_only && sample.fits_multipart,
            ),
        ];
        ways.into_iter()
            .filter_map(|(way, is_open)| is_open.then_some(way))
    }

    /// The upload that a grant for `file`, issued now, allows.
    pub(super) async fn granted(
        &self,
        way: Way,
        sample: &Sample,
        file: &File,
    ) -> Result<Upload, Problem> {
        Upload::granted(&self.uploads, way, sample, file, SystemTime::now()).await
    }

    /// Ensures that an object of this key replaces no other one and can be removed.
    pub(super) async fn ensure_may_store(&self, key: &str, sample: &Sample) -> Result<()> {
        if !sample.has_unique_key {
            let why = "its keys have no {uuid}, so it could replace another object";
            return Err(MarkerError::NotSent(why.to_owned()));
        }
        self.ensure_removable(key).await
    }

    /// Sends a request that creates an object, if the object can be removed. It is remembered until
    /// then.
    pub(super) async fn send_marker(
        &self,
        sample: &Sample,
        upload: &Upload,
    ) -> Result<(Marker, Response), MarkerError> {
        self.ensure_may_store(&upload.key, sample).await?;
        Ok(self.send_again(upload).await?)
    }

    /// Sends a request that creates an object whose removal was tried, and remembers the object.
    pub(super) async fn send_again(&self, upload: &Upload) -> Result<(Marker, Response), Problem> {
        let mut marker = Marker::object(&upload.key, None);
        // It is remembered first, because it may be stored even if no answer arrives.
        self.markers().push(marker.clone());
        let answer = self.send(upload).await;
        match &answer {
            Ok(response) => {
                let version = response.headers().get("x-amz-version-id");
                let version = version.and_then(|version| version.to_str().ok());
                marker.version = version.map(str::to_owned);
                self.markers().pop();
                self.markers().push(marker.clone());
            }
            Err(problem) if problem.is_refusal() => {
                self.markers().pop();
            }
            Err(_) => {}
        }
        Ok((marker, answer?))
    }

    pub(super) async fn send(&self, upload: &Upload) -> Result<Response, Problem> {
        let headers = upload.headers.iter();
        let request = self.http.request(upload.method.clone(), &upload.url);
        let request = headers.fold(request, |request, (name, value)| {
            request.header(name, value)
        });
        let body = upload.body.clone();
        let request = if upload.fields.is_empty() {
            request.body(body)
        } else {
            let fields = upload.fields.iter().cloned();
            let form = fields.fold(Form::new(), |form, (name, value)| form.text(name, value));
            request.multipart(form.part("file", Part::bytes(body).file_name("marker")))
        };
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

    pub(super) async fn head_object(&self, key: &str) -> Result<HeadObjectOutput, Problem> {
        let head = self.client.head_object().bucket(&self.bucket).key(key);
        Ok(head.send().await?)
    }

    /// Creates a multipart upload, and remembers it until it is aborted. The last value is a request that
    /// sends the first part.
    pub(super) async fn create_multipart(
        &self,
        sample: &Sample,
        file: &File,
    ) -> Result<(Marker, OpenUpload, Upload), Problem> {
        let (uploads, now) = (&self.uploads, SystemTime::now());
        self.count_request();
        let created = uploads.create_multipart(asked(sample, file, now));
        let upload = created.await?.open;
        let key = upload.key().to_owned();
        let marker = Marker::parts(&key, upload.id().to_owned());
        self.markers().push(marker.clone());
        let part = uploads.presign_part(&upload, (1, None), now);
        let part = Upload::put(part.await?.url, key, sample);
        Ok((marker, upload, part))
    }

    /// Completes an upload in one part.
    pub(super) async fn completed_marker(&self, sample: &Sample, file: &File) -> Result<Marker> {
        let key = self.granted(Way::Parts, sample, file).await?.key;
        self.ensure_parts_removable(&key).await?;
        // Checked before the upload begins: Garage drops the unfinished uploads of a key that is
        // deleted.
        self.ensure_may_store(&key, sample).await?;
        let (marker, upload, part) = self.create_multipart(sample, file).await?;
        let answer = self.send(&part).await?;
        let etag = answer.headers().get(header::ETAG);
        let etag = etag.and_then(|etag| etag.to_str().ok()).unwrap_or_default();
        let parts = BTreeMap::from([(1, etag.to_owned())]);
        let object = Marker::object(&marker.key, None);
        // It is remembered first, because it may be stored even if no answer arrives.
        self.markers().push(object.clone());
        let (uploads, caller) = (&self.uploads, &sample.caller);
        let complete = uploads.complete_multipart(caller, &upload, &parts, false);
        // It lists the parts first.
        self.count_request();
        self.count_request();
        complete.await.map_err(Problem::from)?;
        self.markers().retain(|kept| *kept != marker);
        Ok(object)
    }
}

/// The id in the key of a marker. Grants have only ids of version 4, so no policy can have granted
/// the key. A service that the store notifies of a marker therefore does not mistake it for an
/// upload.
fn marker_id() -> Uuid {
    let random = Builder::from_bytes(Uuid::new_v4().into_bytes());
    random.with_version(Version::Custom).into_uuid()
}

fn asked<'a>(sample: &'a Sample, file: &'a File, now: SystemTime) -> GrantRequest<'a> {
    GrantRequest {
        id: marker_id(),
        ..GrantRequest::new(&sample.caller, file, now)
    }
}

fn exposes_etag(headers: &HeaderMap) -> bool {
    let mut names = super::cors::list(headers, &header::ACCESS_CONTROL_EXPOSE_HEADERS);
    names.any(|name| name == "*" || name.eq_ignore_ascii_case("etag"))
}
