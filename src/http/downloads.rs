//! `/download/presigned-url`: presigned requests that fetch uploads.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

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
use super::openapi::{BodyProblems, DownloadProblems, FilenameText, StoreProblems};
use super::problem::{FieldErrors, Problem, catalogue};
use super::uploads::{as_map, rfc3339};
use crate::upload::{Disposition, Download, Filename, Invalid, UploadService, Wanted};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(presigned_url))
}

/// The upload, or the uploads, to download.
#[derive(Debug, Default, Serialize, Validate, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = DownloadFields)]
struct DownloadDto {
    /// The key of one upload, from the answer that granted it.
    #[schema(value_type = String, required = false, example = "uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/example.jpg")]
    key: Option<String>,

    /// The keys of 1 to 1,000 uploads under the same policy, instead of `key`.
    #[validate(length(min = 1, max = 1000, message = "must have 1 to 1,000 keys"))]
    #[schema(value_type = Vec<String>, required = false, min_items = 1, max_items = 1000)]
    keys: Option<Vec<String>>,

    /// The policy that granted it; `default` if it is not given.
    #[validate(length(max = 255, message = "must not be longer than 255 characters"))]
    #[schema(value_type = Option<String>, required = false, max_length = 255, example = "default")]
    policy: Option<String>,

    /// `attachment`, which browsers save, or `inline`, which they show. A file whose type is not known to be
    /// harmless is always an attachment. `attachment` if it is not given.
    #[schema(value_type = Option<DispositionText>, required = false)]
    disposition: Option<String>,

    /// The name under which browsers save the file; otherwise the last segment of the key. Only with `key`.
    #[schema(value_type = Option<FilenameText>, required = false)]
    filename: Option<String>,
}

/// What a browser does with a file.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "only its schema is used")]
enum DispositionText {
    Inline,
    Attachment,
}

/// [`DownloadDto`] as clients send it: `DownloadOne` or `DownloadMany`.
struct DownloadRequest;

impl PartialSchema for DownloadRequest {
    fn schema() -> RefOr<Schema> {
        let description = "The upload, or the uploads, to download: either `key` or `keys`";
        one_or_many("DownloadOne", "DownloadMany", description)
    }
}

impl ToSchema for DownloadRequest {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        let one = ("DownloadOne", "The upload to download.");
        let many = ("DownloadMany", "The uploads to download.");
        schemas_of::<DownloadDto>(one, many, &["filename"], schemas);
    }
}

/// What a request asks for.
struct Request {
    wanted: Wanted,
    is_list: bool,
    policy: Option<String>,
}

impl Dto for DownloadDto {
    type Value = Request;

    /// Enough for 1,000 of the longest keys.
    const MAX_BYTES: usize = 2 * 1024 * 1024;

    /// Memory for keys and for a grant for each, of which there are three copies while the answer
    /// is written. presignd may have to ask the store about each. Few keys are shorter than 48
    /// bytes.
    fn work(body_bytes: usize) -> Work {
        let keys = (1 + body_bytes / 48).min(1000);
        Work::AskStore(4 * body_bytes + keys * 6 * 1024)
    }

    fn read(fields: &mut Fields<'_, '_, '_>) -> Self {
        let request = Self {
            keys: fields.texts("keys", 1000),
            key: fields.optional("key", JsonText::text),
            policy: fields.optional("policy", JsonText::text),
            disposition: fields.optional("disposition", JsonText::text),
            filename: fields.optional("filename", JsonText::text),
        };
        fields.refuse_others();
        request
    }

    fn into_value(self, errors: &mut FieldErrors) -> Option<Request> {
        let wanted = self.disposition.as_deref();
        let disposition = errors.parse("", "disposition", wanted, disposition);
        let of_one = [("/filename", self.filename.is_some())];
        let filename = errors.parse("", "filename", self.filename, Filename::parse);
        let is_list = self.keys.is_some();
        let keys = key_or_keys(self.key, self.keys, &of_one, errors)?;
        Some(Request {
            wanted: Wanted {
                keys,
                disposition: disposition.unwrap_or_default(),
                filename,
            },
            is_list,
            policy: self.policy,
        })
    }
}

fn disposition(text: &str) -> Result<Disposition, Invalid> {
    match text {
        "inline" => Ok(Disposition::Inline),
        "attachment" => Ok(Disposition::Attachment),
        _ => {
            let detail = "must be `inline` or `attachment`";
            Err(Invalid::new("not-a-disposition", detail))
        }
    }
}

/// A presigned request that fetches one upload.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PresignedDownload)]
struct PresignedDownloadDto {
    /// Where the file is. Whoever has this URL can fetch it, so treat it as a secret.
    #[schema(
        format = "uri",
        example = "https://my-bucket.s3.ap-northeast-2.amazonaws.com/uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/example.jpg?response-content-disposition=attachment&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20260101T000000Z&X-Amz-Expires=600"
    )]
    url: String,
    #[schema(example = "uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/example.jpg")]
    key: String,
    /// The method to use. The URL works with no other.
    #[schema(example = "GET")]
    method: &'static str,
    /// The headers to send: none so far. Others, such as `range`, may be sent as well.
    #[serde(serialize_with = "as_map")]
    #[schema(value_type = BTreeMap<String, String>, example = json!({}))]
    headers: Vec<(Cow<'static, str>, String)>,
    /// When the URL expires (RFC 3339, UTC).
    #[schema(format = "date-time", example = "2026-01-01T00:10:00Z")]
    expires_at: String,
}

/// The results for several uploads.
#[derive(Serialize, ToSchema)]
#[schema(as = PresignedDownloads)]
struct PresignedDownloadsDto {
    /// One for each key, in the order of the request.
    results: Vec<ResultDto>,
}

/// The result for one upload of several.
#[derive(Serialize, ToSchema)]
#[schema(as = DownloadResult)]
struct ResultDto {
    #[schema(example = "uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/example.jpg")]
    key: String,
    /// The status that a request for this key alone would have: 201, 404 or 409.
    #[schema(example = 201)]
    status: u16,
    /// The presigned request, if the status is 201.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = PresignedDownloadDto, required = false)]
    download: Option<PresignedDownloadDto>,
    /// Why there is none, if the status is not 201.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = UploadProblemDto, required = false)]
    problem: Option<UploadProblemDto>,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = DownloadResponse)]
enum AnswerDto {
    One(PresignedDownloadDto),
    Many(PresignedDownloadsDto),
}

fn outcome(key: String, download: Download) -> Result<PresignedDownloadDto, Problem> {
    match download {
        Download::Granted(request) => Ok(PresignedDownloadDto {
            url: request.url,
            key,
            method: request.method,
            headers: request.headers,
            expires_at: rfc3339(request.expires_at),
        }),
        Download::NotUploaded => Err(Problem::new(&catalogue::NOT_UPLOADED)),
        Download::Pending => Err(Problem::new(&catalogue::PENDING)),
    }
}

impl ResultDto {
    fn new(key: String, download: Download) -> Self {
        let (status, download, problem) = match outcome(key.clone(), download) {
            Ok(download) => (StatusCode::CREATED.as_u16(), Some(download), None),
            Err(problem) => (problem.status, None, Some(problem.into())),
        };
        Self {
            key,
            status,
            download,
            problem,
        }
    }
}

/// Presign a download
///
/// The URL fetches one upload until `expiresAt`, in ranges too. The policy has to allow downloads. With `keys`,
/// the answer has such a result for each.
///
/// For a key that the policy cannot have granted to the caller the answer is always 404, whether or not the
/// object exists. For other keys presignd asks the store only if the policy has `pending`, or for `inline`;
/// otherwise it is the store that answers 404 if there is no object.
#[utoipa::path(
    post,
    path = "/download/presigned-url",
    tag = "download",
    operation_id = "presignDownload",
    request_body = DownloadRequest,
    responses(
        (status = 201, description = "A presigned request, or a result for each of several uploads", body = AnswerDto),
        DownloadProblems,
        BodyProblems,
        StoreProblems,
    )
)]
async fn presigned_url(
    State(uploads): State<Arc<UploadService>>,
    mut caller: Authenticated,
    Valid(request, _reserved): Valid<DownloadDto>,
) -> axum::response::Result<(StatusCode, Json<AnswerDto>)> {
    let (wanted, policy) = (request.wanted, request.policy.as_deref());
    if uploads.asks_store_for_downloads(&caller, policy, wanted.disposition) {
        caller.count_more((wanted.keys.len() - 1) / KEYS_PER_REQUEST)?;
    }
    let found = uploads
        .presign_gets(&caller, policy, &wanted, SystemTime::now())
        .await?;
    let mut results = wanted.keys.into_iter().zip(found);
    let answer = if request.is_list {
        let results = results.map(|(key, download)| ResultDto::new(key, download));
        AnswerDto::Many(PresignedDownloadsDto {
            results: results.collect(),
        })
    } else {
        let (key, download) = results
            .next()
            .ok_or_else(|| Problem::internal("the key has no result"))?;
        AnswerDto::One(outcome(key, download)?)
    };
    Ok((StatusCode::CREATED, Json(answer)))
}
