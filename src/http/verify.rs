//! `/upload/verify`: checks whether an upload has arrived and is what was granted. `/upload/commit` has the
//! same request and the same answer.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use validator::Validate;

use super::AppState;
use super::auth::Authenticated;
use super::body::{Dto, Valid};
use super::json::{Fields, Json as JsonText};
use super::keys::{KEYS_PER_REQUEST, UploadProblemDto, key_or_keys, one_or_many, schemas_of};
use super::memory::Work;
use super::openapi::{BodyProblems, Crc64NvmeText, Sha256Text, StoreProblems, VerifyProblems};
use super::problem::{FieldErrors, Problem, catalogue};
use super::uploads::rfc3339;
use crate::upload::{
    Crc64NvmeChecksum, Expected, Invalid, MAX_WAIT, MAX_WAIT_KEYS, Metadata, Sha256Checksum,
    UploadService, Uploaded, Verification,
};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(verify))
}

/// The upload, or the uploads, to verify.
#[derive(Debug, Default, Serialize, Validate, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = VerifyFields)]
pub(super) struct VerifyDto {
    /// The key of one upload, from the answer that granted it.
    #[schema(value_type = String, required = false, example = "uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/example.jpg")]
    key: Option<String>,

    /// The keys of 1 to 100 uploads under the same policy, instead of `key`.
    #[validate(length(min = 1, max = 100, message = "must have 1 to 100 keys"))]
    #[schema(value_type = Vec<String>, required = false, min_items = 1, max_items = 100)]
    keys: Option<Vec<String>>,

    /// The policy that granted it; `default` if it is not given.
    #[validate(length(max = 255, message = "must not be longer than 255 characters"))]
    #[schema(value_type = Option<String>, required = false, max_length = 255, example = "default")]
    policy: Option<String>,

    /// The length in bytes that the file must have. Only with `key`.
    #[schema(value_type = Option<u64>, required = false, example = 6)]
    size: Option<u64>,

    /// The SHA-256 that the file must have, in base64. Only with `key`. A store keeps one only for
    /// uploads that were granted with a `checksumSha256`, and never for multipart uploads; if it has
    /// none, that is a mismatch as well.
    #[schema(value_type = Option<Sha256Text>, required = false)]
    checksum_sha256: Option<String>,

    /// The CRC-64/NVME that the file must have, in base64. Only with `key`. S3 computes it for every upload
    /// without another checksum, in parts too; a store that has none is a mismatch as well.
    #[schema(value_type = Option<Crc64NvmeText>, required = false)]
    checksum_crc64nvme: Option<String>,

    /// How many seconds to wait for uploads that have not arrived yet, at most 20. Only with `key`, or
    /// with at most 10 `keys`.
    #[schema(value_type = Option<u64>, required = false, maximum = 20, example = 5)]
    wait: Option<u64>,
}

/// [`VerifyDto`] as clients send it: `VerifyOne` or `VerifyMany`.
pub(super) struct VerifyRequest;

impl PartialSchema for VerifyRequest {
    fn schema() -> RefOr<Schema> {
        let description = "The upload, or the uploads, to verify: either `key` or `keys`";
        one_or_many("VerifyOne", "VerifyMany", description)
    }
}

impl ToSchema for VerifyRequest {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        let one = ("VerifyOne", "The upload to verify.");
        let many = ("VerifyMany", "The uploads to verify.");
        let of_one = ["size", "checksumSha256", "checksumCrc64nvme"];
        schemas_of::<VerifyDto>(one, many, &of_one, schemas);
    }
}

impl Dto for VerifyDto {
    type Value = Request;

    /// Enough for 100 of the longest keys, even if each character of them is escaped.
    const MAX_BYTES: usize = 1024 * 1024;

    /// Memory for keys and for the store's answers about them. Few keys are shorter than 48 bytes. An object
    /// whose texts are as long as they may be takes up to 28 KiB with its receipt and its part of the answer,
    /// but the store is asked about 600 keys of long lists at a time, and each connection may take 128 KiB.
    fn work(body_bytes: usize) -> Work {
        let keys = (1 + body_bytes / 48).min(100);
        Work::AskStore(3 * body_bytes + keys * 4096)
    }

    fn read(fields: &mut Fields<'_, '_, '_>) -> Self {
        let request = Self {
            keys: fields.texts("keys", 100),
            key: fields.optional("key", JsonText::text),
            policy: fields.optional("policy", JsonText::text),
            size: fields.optional("size", JsonText::whole_number),
            checksum_sha256: fields.optional("checksumSha256", JsonText::text),
            checksum_crc64nvme: fields.optional("checksumCrc64nvme", JsonText::text),
            wait: fields.optional("wait", JsonText::whole_number),
        };
        fields.refuse_others();
        request
    }

    fn into_value(self, errors: &mut FieldErrors) -> Option<Request> {
        let sha256 = self.checksum_sha256;
        let checksum_sha256 = errors.parse("", "checksumSha256", sha256, Sha256Checksum::parse);
        let crc64nvme = self.checksum_crc64nvme;
        let checksum_crc64nvme =
            errors.parse("", "checksumCrc64nvme", crc64nvme, Crc64NvmeChecksum::parse);
        let wait = Duration::from_secs(self.wait.unwrap_or_default());
        if wait > MAX_WAIT {
            let detail = format!("must be at most {} seconds", MAX_WAIT.as_secs());
            errors.push("/wait".into(), Invalid::new("out-of-range", detail));
        }
        let expected = |key| Expected {
            key,
            size: self.size,
            checksum_sha256: checksum_sha256.clone(),
            checksum_crc64nvme: checksum_crc64nvme.clone(),
        };
        let key_count = self.keys.as_ref().map_or(1, Vec::len);
        if !wait.is_zero() && key_count > MAX_WAIT_KEYS {
            let detail = format!("must not be given with more than {MAX_WAIT_KEYS} keys");
            errors.push("/wait".into(), Invalid::new("too-many-keys", detail));
        }
        let of_one = [
            ("/size", self.size.is_some()),
            ("/checksumSha256", checksum_sha256.is_some()),
            ("/checksumCrc64nvme", checksum_crc64nvme.is_some()),
        ];
        let is_list = self.keys.is_some();
        let keys = key_or_keys(self.key, self.keys, &of_one, errors)?;
        Some(Request {
            expected: keys.into_iter().map(expected).collect(),
            is_list,
            policy: self.policy,
            wait,
        })
    }
}

/// What a request asks for.
pub(super) struct Request {
    expected: Vec<Expected>,
    is_list: bool,
    policy: Option<String>,
    wait: Duration,
}

impl Request {
    /// Verifies the uploads, and commits them if `commits` says so.
    pub(super) async fn answer(
        self,
        uploads: &Arc<UploadService>,
        mut caller: Authenticated,
        commits: bool,
    ) -> axum::response::Result<Json<AnswerDto>> {
        let Self { expected, wait, .. } = self;
        // Each key is a call to the store.
        caller.count_more((expected.len() - 1) / KEYS_PER_REQUEST)?;
        let _waiting = match wait {
            Duration::ZERO => None,
            _ => Some(caller.waiting_permit()?),
        };
        let policy = self.policy.as_deref();
        let found = if commits {
            uploads.commit(&caller, policy, &expected, wait).await?
        } else {
            uploads.verify(&caller, policy, &expected, wait).await?
        };
        let mut results = expected.into_iter().zip(found);
        if self.is_list {
            let results = results.map(|(expected, found)| ResultDto::new(expected.key, found));
            let results = results.collect();
            return Ok(Json(AnswerDto::Many(VerifiedListDto { results })));
        }
        let (_, found) = results
            .next()
            .ok_or_else(|| Problem::internal("the key has no result"))?;
        Ok(Json(AnswerDto::One(outcome(found)?)))
    }
}

/// An upload that has arrived and is what its policy allows.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = VerifiedUpload)]
pub(super) struct VerifiedDto {
    #[schema(example = "uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/example.jpg")]
    key: String,
    /// In bytes.
    #[schema(example = 6)]
    size: u64,
    #[schema(example = "image/jpeg")]
    content_type: String,
    /// The store's entity tag, with its quotes. It changes when the file changes.
    #[schema(example = "\"9a0364b9e99bb480dd25e1f0284c8555\"")]
    etag: String,
    /// When it arrived (RFC 3339, UTC).
    #[schema(format = "date-time", example = "2026-01-01T00:01:00Z")]
    last_modified: String,
    /// The SHA-256 of the file, in base64. Absent if the store has none for the whole file.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, example = "WJG1tSLV3whtD/CxEPvZ0hu0/HFjrzTQgoai6Eb2vgM=")]
    checksum_sha256: Option<String>,
    /// The CRC-64/NVME of the file, in base64. Absent if the store has none for the whole file.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, example = "akP7S61aVgc=")]
    checksum_crc64nvme: Option<String>,
    /// The metadata that the store keeps with it.
    #[schema(value_type = BTreeMap<String, String>, example = json!({"album": "7"}))]
    metadata: Metadata,
    /// The policy that it was verified with.
    #[schema(example = "default")]
    policy: String,
    /// A JWT that states all this, if receipts are configured. `/.well-known/jwks.json` checks it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    receipt: Option<String>,
}

impl From<Uploaded> for VerifiedDto {
    fn from(upload: Uploaded) -> Self {
        let object = upload.object;
        Self {
            key: upload.key,
            size: object.size,
            content_type: upload.content_type.as_str().to_owned(),
            etag: object.etag,
            last_modified: rfc3339(object.last_modified),
            checksum_sha256: object.checksum_sha256,
            checksum_crc64nvme: object.checksum_crc64nvme,
            metadata: object.metadata,
            policy: upload.policy,
            receipt: upload.receipt,
        }
    }
}

/// The results for several uploads.
#[derive(Serialize, ToSchema)]
#[schema(as = VerifiedUploads)]
pub(super) struct VerifiedListDto {
    /// One for each key, in the order of the request.
    results: Vec<ResultDto>,
}

/// The result for one upload of several.
#[derive(Serialize, ToSchema)]
#[schema(as = VerifyResult)]
struct ResultDto {
    #[schema(example = "uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/example.jpg")]
    key: String,
    /// The status that a request for this key alone would have: 200, 404 or 409.
    #[schema(example = 200)]
    status: u16,
    /// The upload, if the status is 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = VerifiedDto, required = false)]
    upload: Option<VerifiedDto>,
    /// What is wrong, if the status is not 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = UploadProblemDto, required = false)]
    problem: Option<UploadProblemDto>,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = VerifyResponse)]
pub(super) enum AnswerDto {
    One(VerifiedDto),
    Many(VerifiedListDto),
}

fn outcome(verification: Verification) -> Result<VerifiedDto, Problem> {
    match verification {
        Verification::Uploaded(upload) => Ok((*upload).into()),
        Verification::NotUploaded => Err(Problem::new(&catalogue::NOT_UPLOADED)),
        Verification::Mismatch(refusals) => {
            Err(Problem::for_differences(&catalogue::MISMATCH, &refusals))
        }
        Verification::ContentMismatch(refusal) => Err(Problem::for_differences(
            &catalogue::CONTENT_MISMATCH,
            &[refusal],
        )),
        Verification::Replaced => Err(Problem::new(&catalogue::REPLACED)),
    }
}

impl ResultDto {
    fn new(key: String, verification: Verification) -> Self {
        let (status, upload, problem) = match outcome(verification) {
            Ok(upload) => (StatusCode::OK.as_u16(), Some(upload), None),
            Err(problem) => (problem.status, None, Some(problem.into())),
        };
        Self {
            key,
            status,
            upload,
            problem,
        }
    }
}

/// Verify an upload
///
/// presignd asks the store, so you need not trust the client. With `key`, the answer is 200 if the object
/// is there and is what the policy allows, 404 if it is not there, and 409 if it is something else. With
/// `keys`, the answer is 200 and has such a result for each.
///
/// For a key that the policy cannot have granted to the caller the answer is always 404, whether or not
/// the object exists.
#[utoipa::path(
    post,
    path = "/upload/verify",
    tag = "upload",
    operation_id = "verifyUpload",
    request_body = VerifyRequest,
    responses(
        (status = 200, description = "The upload, or a result for each of several", body = AnswerDto),
        VerifyProblems,
        BodyProblems,
        StoreProblems,
    )
)]
async fn verify(
    State(uploads): State<Arc<UploadService>>,
    caller: Authenticated,
    Valid(request, _reserved): Valid<VerifyDto>,
) -> axum::response::Result<Json<AnswerDto>> {
    request.answer(&uploads, caller, false).await
}
