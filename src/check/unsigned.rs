//! Whether the store refuses headers that were not signed, and a PUT without a valid signature. A
//! signature cannot forbid a header: if the store accepts one, a grant permits far more than it says.

use percent_encoding::utf8_percent_encode;
use reqwest::{Method, Url};

use super::marker::{MarkerError, Result, Upload, Way};
use super::problem::Problem;
use super::{Check, FORMS_ONLY, Line, NO_SAMPLE};
use crate::s3::IN_PATH;
use crate::upload::Sample;

const CHECK: &str = "unsigned-headers";
const COPY_SOURCE: &str = "x-amz-copy-source";
const ACL: &str = "x-amz-acl";
pub(super) const METADATA: &str = "x-amz-meta-presignd-unsigned";
/// Other names of the same metadata: of RustFS, Ceph and Swift.
const OTHER_METADATA: [&str; 4] = [
    "x-rustfs-meta-presignd-unsigned",
    "x-minio-meta-presignd-unsigned",
    "x-goog-meta-presignd-unsigned",
    "x-object-meta-presignd-unsigned",
];
const TAGGING: &str = "x-amz-tagging";
const TAG: &str = "presignd-unsigned=1";
/// `SeaweedFS` stores its value as the disposition of the upload.
const DISPOSITION: &str = "response-content-disposition";
const SHOWN: &str = "inline; filename=presignd";
const READ_ALL: &str = "read every object that the credentials can read";
const USE_FORMS: &str = "set S3_FORMS_ONLY=true (not on MinIO, RustFS or Supabase), or ";
const FIX: &str = "have a proxy before the store refuse requests with such headers that were not signed, and give the credentials s3:GetObject and s3:PutObject for the upload prefixes only: see docs/stores.md";

impl Check {
    pub(super) async fn unsigned_headers(&self) -> Line {
        if self.config.upload.forms_only {
            return Line::skipped(CHECK, FORMS_ONLY);
        }
        let Some(sample) = self.unique_samples().next() else {
            return Line::skipped(CHECK, NO_SAMPLE);
        };
        let mut accepted = Vec::new();
        let tried = self.try_headers(sample, &mut accepted).await;
        if !accepted.is_empty() {
            let detail = format!(
                "whoever gets one grant can {}: the store accepts headers that were not signed",
                accepted.join(", ")
            );
            let forms = if self.config.upload.supports_post {
                USE_FORMS
            } else {
                ""
            };
            return Line::failed(CHECK, detail).fix(format!("{forms}{FIX}"));
        }
        match tried {
            Ok(None) => Line::ok(
                CHECK,
                "the store refuses or ignores headers that were not signed",
            ),
            Err(MarkerError::Refused(problem)) if problem.is_refusal() => {
                Line::skipped(CHECK, format!("no marker was accepted: {problem}"))
            }
            Ok(Some(problem)) | Err(MarkerError::Refused(problem)) => problem.unclear(CHECK),
            Err(error) => error.line(CHECK, sample),
        }
    }

    /// Adds to `accepted` what the holder of a grant can do with headers that were not signed. Returns a
    /// problem if it is not known of each header whether the store obeys it.
    async fn try_headers(
        &self,
        sample: &Sample,
        accepted: &mut Vec<String>,
    ) -> Result<Option<Problem>> {
        let source = self.granted(Way::Put, sample, &sample.file).await?;
        let (source_marker, _) = self.send_marker(sample, &source).await?;
        let key = utf8_percent_encode(&source.key, IN_PATH);
        let copy_source = format!("/{}/{key}", self.bucket);

        let mut unknown = None;
        let metadata = OTHER_METADATA.map(|name| (name, "1", "add metadata"));
        let others = [
            (METADATA, "1", "add metadata"),
            (ACL, "public-read", "make the upload public"),
            (TAGGING, TAG, "add tags"),
            (
                DISPOSITION,
                SHOWN,
                "have browsers show a file that is granted as a download",
            ),
            (COPY_SOURCE, copy_source.as_str(), READ_ALL),
        ];
        for (name, value, ability) in others.into_iter().chain(metadata) {
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
            ACL => self.is_public(key).await,
            COPY_SOURCE => Ok(body.contains("CopyObjectResult")),
            TAGGING => self.tags_of(key).await.map(|tags| !tags.is_empty()),
            DISPOSITION => {
                let head = self.head_object(key).await;
                head.map(|head| head.content_disposition() == Some(value))
            }
            _ => self.has_metadata(key).await,
        };
        self.discard(&marker).await?;
        Ok(obeys?)
    }

    pub(super) async fn has_metadata(&self, key: &str) -> Result<bool, Problem> {
        let metadata = self.head_object(key).await?.metadata.unwrap_or_default();
        Ok(metadata.contains_key(METADATA.trim_start_matches("x-amz-meta-")))
    }

    pub(super) async fn is_public(&self, key: &str) -> Result<bool, Problem> {
        const ALL_USERS: &str = "http://acs.amazonaws.com/groups/global/AllUsers";
        let acl = self.client.get_object_acl().bucket(&self.bucket).key(key);
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

    /// Whether the store accepts a streamed PUT with a wrong signature. MinIO's community versions do
    /// ([CVE-2026-41145](https://nvd.nist.gov/vuln/detail/CVE-2026-41145)).
    pub(super) async fn unsigned_stream(&self) -> Line {
        const CHECK: &str = "unsigned-stream";
        let way = if self.config.upload.forms_only {
            Way::Form
        } else {
            Way::Put
        };
        let mut samples = self.unique_samples();
        let Some(sample) = samples.find(|sample| way == Way::Put || sample.fits_form) else {
            return Line::skipped(CHECK, NO_SAMPLE);
        };
        let sent = async {
            let grant = self.granted(way, sample, &sample.file).await?;
            let upload = streamed(grant, sample.checksum_sha256.as_base64())?;
            self.ensure_may_store(&upload.key, sample).await?;
            let (marker, _) = self.send_again(&upload).await?;
            self.discard(&marker).await
        };
        match sent.await {
            Ok(()) => Line::failed(CHECK, "whoever gets one grant or one form can write any object, for ever: the store does not check the signature of a streamed PUT (CVE-2026-41145)")
                .fix("use another store, or a version of this one without that fault: no setting helps, see docs/stores.md"),
            Err(MarkerError::Refused(problem)) if matches!(problem.status(), Some(401 | 403 | 501)) => {
                Line::ok(CHECK, "the store refuses a streamed PUT with a wrong signature")
            }
            Err(error) => error.unclear(CHECK, sample),
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

/// A streamed PUT of the same object, with the credentials of a grant and with a wrong signature. It ends
/// with the checksum of the file, which MinIO insists on.
fn streamed(grant: Upload, checksum_sha256: &str) -> Result<Upload, Problem> {
    const OF_CREDENTIALS: [&str; 4] = [
        "X-Amz-Algorithm",
        "X-Amz-Credential",
        "X-Amz-Date",
        "X-Amz-Security-Token",
    ];
    let mut url = Url::parse(&grant.url).map_err(|error| Problem::NotSent(error.to_string()))?;
    let parameters: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    if grant.method == Method::POST {
        // The address of a form is that of the bucket.
        let key = utf8_percent_encode(&grant.key, IN_PATH);
        let path = format!("{}/{key}", url.path().trim_end_matches('/'));
        url.set_path(&path);
    }
    let given = parameters.iter().chain(&grant.fields);
    let credentials = given.filter_map(|(name, value)| {
        let mut names = OF_CREDENTIALS.into_iter();
        let name = names.find(|it| it.eq_ignore_ascii_case(name))?;
        Some((name, value.as_str()))
    });
    let size = grant.body.len();
    let headers = [
        (
            "x-amz-content-sha256",
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER".to_owned(),
        ),
        ("x-amz-decoded-content-length", size.to_string()),
        ("x-amz-trailer", "x-amz-checksum-sha256".to_owned()),
    ];
    // Garage refuses a request that does not sign them, whatever its signature is.
    let signed = ["host"]
        .into_iter()
        .chain(headers.iter().map(|(name, _)| *name));
    let signed = signed.collect::<Vec<_>>().join(";");
    let signature = "0".repeat(64);
    let wrong = [
        ("X-Amz-Expires", "600"),
        ("X-Amz-SignedHeaders", &signed),
        ("X-Amz-Signature", &signature),
    ];
    let mut query = url.query_pairs_mut();
    query.clear().extend_pairs(credentials).extend_pairs(wrong);
    drop(query);
    let trailer = format!("\r\n0\r\nx-amz-checksum-sha256:{checksum_sha256}\r\n\r\n");
    Ok(Upload {
        method: Method::PUT,
        url: url.into(),
        headers: headers.map(|(name, value)| (name.to_owned(), value)).into(),
        fields: Vec::new(),
        body: [
            format!("{size:x}\r\n").as_bytes(),
            &grant.body,
            trailer.as_bytes(),
        ]
        .concat(),
        key: grant.key,
    })
}
