//! Whether the store refuses `x-amz-*` headers that were not signed. A signature cannot forbid a
//! header: if the store accepts one, a grant permits far more than it says.

use reqwest::header::CONTENT_LENGTH;

use super::marker::{Unable, grant};
use super::problem::Problem;
use super::{Check, FORMS_ONLY, Line};
use crate::upload::Sample;

const CHECK: &str = "unsigned-headers";
const COPY_SOURCE: &str = "x-amz-copy-source";
const ACL: &str = "x-amz-acl";
pub(super) const METADATA: &str = "x-amz-meta-presignd-unsigned";
const READ_ALL: &str = "read every object that the credentials can read";
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
            Err(Unable::Refused(problem)) if problem.is_refusal() => {
                Line::skipped(CHECK, format!("no marker was accepted: {problem}"))
            }
            Err(Unable::Refused(problem)) => problem.unclear(CHECK),
            Err(Unable::Unfaithful(what)) => Line::failed(CHECK, what),
        }
    }

    /// What the holder of a grant can do beyond it.
    async fn accepted(&self, sample: &Sample) -> Result<Vec<String>, Unable> {
        let source = grant(&self.uploads, &sample.caller, &sample.file).await?;
        let key = source.key.as_str();
        self.ensure_removable(key).await?;
        let request = self.put_request(&source, sample);
        let (source_marker, _) = self.send_marker(key, request).await?;
        let copy_source = format!("/{}/{key}", self.bucket());

        let mut accepted = Vec::new();
        for (name, value) in [
            (METADATA, "1"),
            (ACL, "public-read"),
            (COPY_SOURCE, copy_source.as_str()),
        ] {
            let grant = grant(&self.uploads, &sample.caller, &sample.file).await?;
            let mut signed = grant.request.headers.iter();
            if signed.any(|(signed, _)| signed.eq_ignore_ascii_case(name)) {
                continue;
            }
            let key = grant.key.as_str();
            let request = self.put_request(&grant, sample).header(name, value);
            let (marker, response) = match self.send_marker(key, request).await {
                Ok(stored) => stored,
                Err(problem) if problem.is_refusal() => continue, // as it should be
                Err(problem) => return Err(problem.into()),
            };
            let body = response.text().await.map_err(Problem::from)?;
            match name {
                METADATA if self.has_metadata(key).await => {
                    accepted.push(format!("add metadata ({METADATA})"));
                }
                ACL if self.is_public(key).await => {
                    accepted.push(format!("make the upload public ({ACL})"));
                }
                COPY_SOURCE if body.contains("CopyObjectResult") => {
                    accepted.push(format!("{READ_ALL} ({COPY_SOURCE} on a PUT)"));
                }
                _ => {}
            }
            self.discard(&marker).await?;
        }
        let can_abort = self.ensure_parts_removable(key).await.is_ok();
        if can_abort
            && let Some(sample) = self.samples.iter().find(|sample| sample.fits_multipart)
            && self.copies_parts(sample, &copy_source).await?
        {
            accepted.push(format!("{READ_ALL} ({COPY_SOURCE} on a part)"));
        }
        self.discard(&source_marker).await?;
        Ok(accepted)
    }

    pub(super) async fn has_metadata(&self, key: &str) -> bool {
        let head = self.client.head_object().bucket(self.bucket()).key(key);
        let name = METADATA.trim_start_matches("x-amz-meta-");
        // If the request fails, nothing shows that the header was ignored.
        head.send().await.map_or(true, |object| {
            object
                .metadata
                .is_some_and(|metadata| metadata.contains_key(name))
        })
    }

    pub(super) async fn is_public(&self, key: &str) -> bool {
        const ALL_USERS: &str = "http://acs.amazonaws.com/groups/global/AllUsers";
        let acl = self.client.get_object_acl().bucket(self.bucket()).key(key);
        acl.send().await.map_or(true, |acl| {
            let mut grantees = acl.grants().iter().filter_map(|grant| grant.grantee());
            grantees.any(|grantee| grantee.uri() == Some(ALL_USERS))
        })
    }

    async fn copies_parts(&self, sample: &Sample, copy_source: &str) -> Result<bool, Unable> {
        let (marker, request) = self.create_multipart(sample, &sample.file).await?;
        // Ceph refuses a copy with a body.
        let request = request.header(COPY_SOURCE, copy_source);
        let request = request.header(CONTENT_LENGTH, 0).body("");
        let copies = match self.send(request).await {
            Ok(response) => {
                let body = response.text().await.map_err(Problem::from)?;
                body.contains("CopyPartResult")
            }
            Err(problem) if problem.is_refusal() => false,
            Err(problem) => return Err(problem.into()),
        };
        self.discard(&marker).await?;
        Ok(copies)
    }
}
