//! `/upload/…`: presigned requests for clients that speak plain REST.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use validator::Validate;

use super::error::{Failure, FieldErrors, Problem};
use super::extract::{Dto, Valid, present};
use crate::upload::{ContentType, File, Filename, Grant, UploadService};

pub(super) fn router() -> OpenApiRouter<Arc<UploadService>> {
    OpenApiRouter::new().routes(routes!(presigned_url))
}

/// The file that the client wants to upload.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = PresignedUrlRequest)]
struct FileDto {
    /// The file's name, without any folder. It becomes the last part of the key, normalised to
    /// Unicode NFC. At most 255 bytes of UTF-8; no `/`, `\`, control or invisible characters.
    #[serde(default, deserialize_with = "present")]
    #[validate(required(message = "is required"))]
    #[schema(value_type = String, required = true, min_length = 1, example = "example.jpg")]
    filename: Option<String>,

    /// The media type that the upload must have, parameters included.
    #[serde(default, deserialize_with = "present")]
    #[validate(
        required(message = "is required"),
        length(max = 255, message = "must not be longer than 255 characters")
    )]
    #[schema(value_type = String, required = true, min_length = 3, max_length = 255, example = "image/jpeg")]
    content_type: Option<String>,
}

impl Dto for FileDto {
    type Value = File;

    fn into_value(self, errors: &mut FieldErrors) -> Option<File> {
        let filename = self
            .filename
            .and_then(|name| errors.check("/filename", Filename::parse(&name)));
        let content_type = self
            .content_type
            .and_then(|text| errors.check("/contentType", ContentType::parse(&text)));
        Some(File {
            filename: filename?,
            content_type: content_type?,
        })
    }
}

/// Leave to upload one file with one request.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PresignedUrl)]
struct PresignedUrlDto {
    /// Where to send the file. Whoever has this URL can upload, so treat it as a secret.
    #[schema(
        format = "uri",
        example = "https://my-bucket.s3.ap-northeast-2.amazonaws.com/uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/example.jpg?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20260101T000000Z&X-Amz-Expires=600"
    )]
    url: String,
    /// The object's name in the bucket. Keep it: it is how you find the file again.
    #[schema(example = "uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/example.jpg")]
    key: String,
    /// The method to use; the URL works with no other.
    #[schema(example = "PUT")]
    method: String,
    /// The headers to send, exactly these.
    #[schema(example = json!({"content-type": "image/jpeg"}))]
    headers: BTreeMap<String, String>,
    /// The moment from which the store refuses the URL (RFC 3339, UTC).
    #[schema(format = "date-time", example = "2026-01-01T00:10:00Z")]
    expires_at: String,
}

impl From<Grant> for PresignedUrlDto {
    fn from(grant: Grant) -> Self {
        Self {
            url: grant.request.url,
            key: grant.key.as_str().to_owned(),
            method: grant.request.method,
            headers: grant.request.headers.into_iter().collect(),
            expires_at: rfc3339(grant.request.expires_at),
        }
    }
}

/// A moment in whole seconds, rounded down: `2026-01-01T00:10:00Z`.
fn rfc3339(moment: SystemTime) -> String {
    let moment = OffsetDateTime::from(moment);
    moment
        .replace_nanosecond(0)
        .unwrap_or(moment)
        .format(&Rfc3339)
        .unwrap_or_default()
}

/// Ask for a URL to upload one file
///
/// The answer's `url` takes one kind of request alone: `method`, with `headers`, for `key`, until
/// `expiresAt`. The store itself refuses any other.
#[utoipa::path(
    post,
    path = "/upload/presigned-url",
    tag = "upload",
    operation_id = "presignedUrl",
    request_body = FileDto,
    responses(
        (status = 201, description = "Leave to upload", body = PresignedUrlDto),
        (status = 400, description = "The body is not JSON, or fields are missing, unknown or wrong", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is longer than 64 KiB", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not `application/json`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "There are no credentials to sign with at the moment", body = Problem, content_type = "application/problem+json",
            headers(("retry-after" = u32, description = "Seconds to wait before asking again"))),
    )
)]
async fn presigned_url(
    State(uploads): State<Arc<UploadService>>,
    Valid(file): Valid<FileDto>,
) -> Result<(StatusCode, Json<PresignedUrlDto>), Failure> {
    let grant = uploads
        .presign_put(&file, Uuid::new_v4(), SystemTime::now())
        .await?;
    Ok((StatusCode::CREATED, Json(grant.into())))
}
