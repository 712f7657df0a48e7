//! Whether the store refuses `x-amz-*` headers that were not signed. A signature cannot forbid a
//! header: if the store accepts one, a grant permits far more than it says.

use percent_encoding::utf8_percent_encode;

use super::marker::{MarkerError, Result, Way};
use super::problem::Problem;
use super::{Check, FORMS_ONLY, Line, NO_SAMPLE};
use crate::s3::IN_PATH;
use crate::upload::Sample;

const CHECK: &str = "unsigned-headers";
const COPY_SOURCE: &str = "x-amz-copy-source";
const ACL: &str = "x-amz-acl";
pub(super) const METADATA: &str = "x-amz-meta-presignd-unsigned";
const READ_ALL: &str = "read every object that the credentials can read";
const FIX: &str = "set S3_FORMS_ONLY=true, or have a proxy before the store refuse requests with x-amz-* headers that were not signed, and give the credentials s3:GetObject and s3:PutObject for the upload prefixes only: see docs/stores.md";

impl Check {
    pub(super) async fn unsigned_headers(&self) -> Line {
        if self.config.forms_only {
            return Line::skipped(CHECK, FORMS_ONLY);
        }
        let Some(sample) = self.unique_samples().next() else {
            return Line::skipped(CHECK, NO_SAMPLE);
        };
        let mut accepted = Vec::new();
        let tried = self.try_headers(sample, &mut accepted).await;
        if !accepted.is_empty() {
            let detail = format!(
                "whoever gets one grant can {}: the store accepts x-amz-* headers that were not signed",
                accepted.join(", ")
            );
            return Line::failed(CHECK, detail).fix(FIX);
        }
        match tried {
            Ok(None) => Line::ok(
                CHECK,
                "the store refuses or ignores x-amz-* headers that were not signed",
            ),
            Err(MarkerError::Refused(problem)) if problem.is_refusal() => {
                Line::skipped(CHECK, format!("no marker was accepted: {problem}"))
            }
            Ok(Some(problem)) | Err(MarkerError::Refused(problem)) => problem.unclear(CHECK),
            Err(error) => error.line(CHECK, sample),
        }
    }

    /// Adds what the holder of a grant can do beyond it. Returns why that is not all, if it is not.
    async fn try_headers(
        &self,
        sample: &Sample,
        accepted: &mut Vec<String>,
    ) -> Result<Option<Problem>> {
        let source = self.granted(Way::Put, sample, &sample.file).await?;
        let (source_marker, _) = self.send_marker(sample, &source).await?;
        let key = utf8_percent_encode(&source.key, IN_PATH);
        let copy_source = format!("/{}/{key}", self.bucket());

        let mut unknown = None;
        for (name, value, ability) in [
            (METADATA, "1", "add metadata"),
            (ACL, "public-read", "make the upload public"),
            (COPY_SOURCE, copy_source.as_str(), READ_ALL),
        ] {
            match self.obeys(sample, name, value).await {
                Ok(false) => {}
                Ok(true) if name == COPY_SOURCE => {
                    accepted.push(format!("{ability} ({name} on a PUT)"));
                }
                Ok(true) => accepted.push(format!("{ability} ({name})")),
                // The others may be worse.
                Err(MarkerError::Refused(problem)) => unknown = Some(problem),
                Err(error) => return Err(error),
            }
        }
        let can_abort = self.ensure_parts_removable(&source.key).await.is_ok();
        if can_abort
            && let Some(sample) = self.samples.iter().find(|sample| sample.fits_multipart)
            && self.copies_parts(sample, &copy_source).await?
        {
            accepted.push(format!("{READ_ALL} ({COPY_SOURCE} on a part)"));
        }
        self.discard(&source_marker).await?;
        Ok(unknown)
    }

    /// Whether the store obeys a header of a PUT that was not signed.
    async fn obeys(&self, sample: &Sample, name: &str, value: &str) -> Result<bool> {
        let mut upload = self.granted(Way::Put, sample, &sample.file).await?;
        let mut signed = upload.headers.iter();
        if signed.any(|(signed, _)| signed.eq_ignore_ascii_case(name)) {
            return Ok(false);
        }
        upload.headers.push((name.to_owned(), value.to_owned()));
        let (marker, response) = match self.send_marker(sample, &upload).await {
            // As it should be.
            Err(MarkerError::Refused(problem)) if problem.is_refusal() => return Ok(false),
            answer => answer?,
        };
        let key = &upload.key;
        let body = response.text().await.map_err(Problem::from)?;
        let obeys = match name {
            METADATA => self.has_metadata(key).await,
            ACL => self.is_public(key).await,
            _ => Ok(body.contains("CopyObjectResult")),
        };
        self.discard(&marker).await?;
        Ok(obeys?)
    }

    pub(super) async fn has_metadata(&self, key: &str) -> Result<bool, Problem> {
        let head = self.client.head_object().bucket(self.bucket()).key(key);
        let metadata = head.send().await?.metadata.unwrap_or_default();
        Ok(metadata.contains_key(METADATA.trim_start_matches("x-amz-meta-")))
    }

    pub(super) async fn is_public(&self, key: &str) -> Result<bool, Problem> {
        const ALL_USERS: &str = "http://acs.amazonaws.com/groups/global/AllUsers";
        let acl = self.client.get_object_acl().bucket(self.bucket()).key(key);
        match acl.send().await.map_err(Problem::from) {
            Ok(acl) => {
                let mut grantees = acl.grants().iter().filter_map(|grant| grant.grantee());
                Ok(grantees.any(|grantee| grantee.uri() == Some(ALL_USERS)))
            }
            // The store has no ACLs.
            Err(problem) if problem.is_not_implemented() => Ok(false),
            Err(problem) => Err(problem),
        }
    }

    async fn copies_parts(&self, sample: &Sample, copy_source: &str) -> Result<bool> {
        let (marker, _, mut part) = self.create_multipart(sample, &sample.file).await?;
        let copy = [(COPY_SOURCE, copy_source), ("content-length", "0")];
        let copy = copy.map(|(name, value)| (name.to_owned(), value.to_owned()));
        part.headers.extend(copy);
        // Ceph refuses a copy with a body.
        part.body.clear();
        let copies = match self.send(&part).await {
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
