//! Whether the store refuses `x-amz-*` headers that were not signed. A signature cannot forbid a header:
//! where the store accepts them, one grant is worth far more than it says.

use std::collections::BTreeSet;
use std::time::SystemTime;

use reqwest::RequestBuilder;
use uuid::Uuid;

use super::marker::Unable;
use super::problem::Problem;
use super::removal::Marker;
use super::{Check, FORMS_ONLY, Line};
use crate::upload::{Caller, Grant, Sample};

const CHECK: &str = "unsigned-headers";
const COPY_SOURCE: &str = "x-amz-copy-source";
const ACL: &str = "x-amz-acl";
const METADATA: &str = "x-amz-meta-presignd-unsigned";
const FIX: &str = "set S3_FORMS_ONLY=true, or have a proxy before the store refuse requests with x-amz-* headers that were not signed, and give the credentials s3:GetObject for the upload prefixes only: see docs/stores.md";

impl Check {
    pub(super) async fn unsigned_headers(&self) -> Line {
        if self.config.forms_only {
            return Line::skipped(CHECK, FORMS_ONLY);
        }
        let sample = self.samples.iter().find(|sample| sample.has_unique_key);
        let Some(sample) = sample else {
            return Line::skipped(CHECK, "no policy has unique keys for a marker");
        };
        match self.accepted(sample).await {
            Ok(accepted) if accepted.is_empty() => Line::ok(
                CHECK,
                "the store refuses or ignores x-amz-* headers that were not signed",
            ),
            Ok(accepted) => {
                let detail = format!(
                    "whoever gets one grant can {}: the store accepts x-amz-* headers that were not signed",
                    accepted.join(", ")
                );
                Line::failed(CHECK, detail).fix(FIX)
            }
            Err(Unable::WouldStay(why)) => {
                Line::skipped(CHECK, format!("no marker was uploaded: {why}"))
            }
            Err(Unable::Refused(problem)) => {
                Line::skipped(CHECK, format!("no marker was accepted: {}", problem.says()))
            }
            Err(Unable::Unfaithful(what)) => Line::failed(CHECK, what),
        }
    }

    /// What the holder of a grant can do beyond it.
    async fn accepted(&self, sample: &Sample) -> Result<Vec<String>, Unable> {
        let (source, request) = self.marker(sample).await?;
        self.see_that_it_can_be_removed(source.key.as_str())
            .await
            .map_err(Unable::WouldStay)?;
        let source_marker = self.keep(&source);
        self.send(request).await?;
        let copy_source = format!("/{}/{}", self.bucket(), source.key.as_str());

        let mut accepted = Vec::new();
        for (name, value) in [
            (METADATA, "1"),
            (ACL, "public-read"),
            (COPY_SOURCE, copy_source.as_str()),
        ] {
            let (grant, request) = self.marker(sample).await?;
            let mut signed = grant.request.headers.iter();
            if signed.any(|(signed, _)| signed.eq_ignore_ascii_case(name)) {
                continue;
            }
            let marker = self.keep(&grant);
            let key = grant.key.as_str();
            if let Some(body) = self.accepted_body(request.header(name, value)).await? {
                let what = match name {
                    METADATA if self.has_metadata(key).await => {
                        format!("add metadata ({METADATA})")
                    }
                    ACL if self.is_public(key).await => {
                        format!("make the upload public ({ACL})")
                    }
                    COPY_SOURCE if body.contains("CopyObjectResult") => {
                        format!(
                            "read every object that the credentials can read ({COPY_SOURCE} on a PUT)"
                        )
                    }
                    _ => String::new(),
                };
                accepted.extend(Some(what).filter(|what| !what.is_empty()));
                self.discard(&marker).await?;
            }
        }
        let can_abort = self
            .see_that_parts_can_be_removed(source.key.as_str())
            .await;
        if can_abort.is_ok()
            && let Some(sample) = self.samples.iter().find(|sample| sample.fits_multipart)
            && self.copies_parts(sample, &copy_source).await?
        {
            accepted.push(format!(
                "read every object that the credentials can read ({COPY_SOURCE} on a part)"
            ));
        }
        self.discard(&source_marker).await?;
        Ok(accepted)
    }

    /// A grant for a marker, and the request that it allows.
    async fn marker(&self, sample: &Sample) -> Result<(Grant, RequestBuilder), Problem> {
        let (caller, now) = (Caller::anonymous(), SystemTime::now());
        let grant = self
            .uploads
            .presign_put(&caller, &sample.file, Uuid::new_v4(), now)
            .await;
        let grant = grant.map_err(|error| Problem::of_upload(&error))?;
        let request = self.put_request(&grant, sample);
        Ok((grant, request))
    }

    /// Remembers that the grant's object has to be removed.
    fn keep(&self, grant: &Grant) -> Marker {
        let marker = Marker::Object {
            key: grant.key.as_str().to_owned(),
            version: None,
        };
        self.markers().push(marker.clone());
        marker
    }

    async fn discard(&self, marker: &Marker) -> Result<(), Unable> {
        self.remove(marker).await.map_err(|problem| {
            let key = marker.key();
            Unable::Unfaithful(format!("{key} cannot be removed: {}", problem.says()))
        })?;
        self.markers().retain(|kept| kept != marker);
        Ok(())
    }

    /// The store's answer to a request that it accepts; `None` if it refuses the request, as it should.
    async fn accepted_body(&self, request: RequestBuilder) -> Result<Option<String>, Problem> {
        match self.send(request).await {
            Ok(response) => Ok(Some(response.text().await.map_err(Problem::of_http)?)),
            Err(Problem::Refused(_)) => {
                self.markers().pop();
                Ok(None)
            }
            Err(problem) => Err(problem),
        }
    }

    async fn has_metadata(&self, key: &str) -> bool {
        let head = self.client.head_object().bucket(self.bucket()).key(key);
        let name = METADATA.trim_start_matches("x-amz-meta-");
        // Where that is unknown, nothing shows that the header was ignored.
        head.send().await.map_or(true, |object| {
            object
                .metadata()
                .is_some_and(|metadata| metadata.contains_key(name))
        })
    }

    async fn is_public(&self, key: &str) -> bool {
        const ALL_USERS: &str = "http://acs.amazonaws.com/groups/global/AllUsers";
        let acl = self.client.get_object_acl().bucket(self.bucket()).key(key);
        acl.send().await.map_or(true, |acl| {
            let mut grantees = acl.grants().iter().filter_map(|grant| grant.grantee());
            grantees.any(|grantee| grantee.uri() == Some(ALL_USERS))
        })
    }

    async fn copies_parts(&self, sample: &Sample, copy_source: &str) -> Result<bool, Unable> {
        let (now, caller) = (SystemTime::now(), Caller::anonymous());
        let (upload, marker) = self.create_multipart(sample).await?;
        let parts = BTreeSet::from([1]);
        let requests = self
            .uploads
            .presign_parts(&caller, &upload.token, &upload.key, &parts, now)
            .await;
        let requests = requests.map_err(|error| Problem::of_upload(&error))?;
        let mut copies = false;
        for request in requests.values() {
            let request = self.http.put(&request.url).body(sample.body);
            match self.send(request.header(COPY_SOURCE, copy_source)).await {
                Ok(response) => {
                    let body = response.text().await.map_err(Problem::of_http)?;
                    copies |= body.contains("CopyPartResult");
                }
                Err(Problem::Refused(_)) => {}
                Err(problem) => return Err(problem.into()),
            }
        }
        self.discard(&marker).await?;
        Ok(copies)
    }
}
