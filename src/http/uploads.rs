//! `/upload/…`: presigned requests for clients of this service's own API.

mod files;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::files::{FileDto, Files, FilesDto};
use super::AppState;
use super::auth::Authenticated;
use super::body::Valid;
use super::openapi::{BodyProblems, SigningProblems, link};
use super::problem::Problem;
use crate::upload::{Grant, GrantRequest, UploadService};

pub(super) fn router() -> OpenApiRouter<AppState> {
    let mut router = OpenApiRouter::new()
        .routes(routes!(presigned_url))
        .routes(routes!(presigned_urls))
        .routes(routes!(presigned_post));
    let operations = [
        ("verify", "verifyUpload"),
        ("commit", "commitUpload"),
        ("download", "presignDownload"),
        ("delete", "deleteUpload"),
    ];
    for path in ["/upload/presigned-url", "/upload/presigned-post"] {
        link(router.get_openapi_mut(), path, &operations, |link| {
            // As text: swagger-parser, on which openapi-generator is built, refuses objects in `requestBody`.
            link.description("The body of the request has the `key` of this answer")
        });
    }
    router
}

/// A presigned request that uploads one file.
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
    /// The name of the object in the bucket. Keep it to find the file again.
    #[schema(example = "uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/example.jpg")]
    key: String,
    /// The method to use. The URL works with no other.
    #[schema(example = "PUT")]
    method: &'static str,
    /// The headers to send, exactly these. (`content-length` may be signed as well, but HTTP clients
    /// set it themselves.)
    #[serde(serialize_with = "as_map")]
    #[schema(value_type = BTreeMap<String, String>, example = json!({"content-type": "image/jpeg"}))]
    headers: Vec<(Cow<'static, str>, String)>,
    /// The fields of the form, if the request is one. Only a list with `forms` has forms.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = json!({"key": "uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/example.jpg"}))]
    fields: Option<BTreeMap<String, String>>,
    /// The most bytes that the store accepts with the form, if the request is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = 262_144)]
    max_size: Option<u64>,
    /// When the URL expires (RFC 3339, UTC).
    #[schema(format = "date-time", example = "2026-01-01T00:10:00Z")]
    expires_at: String,
}

impl From<Grant> for PresignedUrlDto {
    fn from(grant: Grant) -> Self {
        let request = grant.request;
        Self {
            url: request.url,
            key: grant.key.into_string(),
            method: request.method,
            headers: request.headers,
            fields: Some(request.fields).filter(|fields| !fields.is_empty()),
            max_size: grant.max_size,
            expires_at: rfc3339(request.expires_at),
        }
    }
}

/// Presigned requests that upload several files.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PresignedUrls)]
struct PresignedUrlsDto {
    /// One for each file, in the order of the request.
    uploads: Vec<PresignedUrlDto>,
}

/// A presigned form (`multipart/form-data`) that uploads one file.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PresignedPost)]
struct PresignedPostDto {
    /// Where to send the form.
    #[schema(
        format = "uri",
        example = "https://my-bucket.s3.ap-northeast-2.amazonaws.com/"
    )]
    url: String,
    /// The name of the object in the bucket. Keep it to find the file again.
    #[schema(example = "uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/example.jpg")]
    key: String,
    /// The method to use.
    #[schema(example = "POST")]
    method: &'static str,
    /// The fields of the form, exactly these. Send the file after them, in a field named `file`.
    /// Whoever has them can upload, so treat them as a secret.
    #[schema(example = json!({
        "key": "uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/example.jpg",
        "content-type": "image/jpeg",
        "policy": "eyJleHBpcmF0aW9uIjoiMjAyNi0wMS0wMVQwMDoxMDowMFoifQ==",
        "x-amz-signature": "5d3c8f609d0e4b1f8e513c2f5c0a8f3e5d3c8f609d0e4b1f8e513c2f5c0a8f3e"
    }))]
    fields: BTreeMap<String, String>,
    /// The most bytes that the store accepts.
    #[schema(value_type = u64, example = 5_368_709_120_u64)]
    max_size: Option<u64>,
    /// When the form expires (RFC 3339, UTC).
    #[schema(format = "date-time", example = "2026-01-01T00:10:00Z")]
    expires_at: String,
}

pub(super) fn as_map<S: Serializer>(
    pairs: &[(Cow<'static, str>, String)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, value)| (name, value)))
}

/// A time in whole seconds, rounded down: `2026-01-01T00:10:00Z`. An earlier one than 1970, which only a
/// broken store has for an object, counts as 1970.
pub(super) fn rfc3339(moment: SystemTime) -> String {
    humantime::format_rfc3339_seconds(moment.max(UNIX_EPOCH)).to_string()
}

/// Presign an upload
///
/// The URL is valid for one kind of request only: `method`, with `headers`, for `key`, until
/// `expiresAt`. The store itself refuses another method, key, content type or signed header.
#[utoipa::path(
    post,
    path = "/upload/presigned-url",
    tag = "upload",
    operation_id = "presignUpload",
    request_body = FileDto,
    responses(
        (status = 201, description = "A presigned request", body = PresignedUrlDto),
        BodyProblems,
        SigningProblems,
    )
)]
async fn presigned_url(
    State(uploads): State<Arc<UploadService>>,
    caller: Authenticated,
    Valid(file, _reserved): Valid<FileDto>,
) -> Result<(StatusCode, Json<PresignedUrlDto>), Problem> {
    let grant = uploads
        .presign_put(GrantRequest::new(&caller, &file, SystemTime::now()))
        .await?;
    Ok((StatusCode::CREATED, Json(grant.into())))
}

/// Presign several uploads
///
/// All or nothing: if one file is refused, all are, and the problem names each reason by the file's
/// place in the list. With `forms`, an upload that has `fields` is a form, as `POST
/// /upload/presigned-post` describes it.
#[utoipa::path(
    post,
    path = "/upload/presigned-urls",
    tag = "upload",
    operation_id = "presignUploads",
    request_body = FilesDto,
    responses(
        (status = 201, description = "Presigned requests", body = PresignedUrlsDto),
        BodyProblems,
        SigningProblems,
    )
)]
async fn presigned_urls(
    State(uploads): State<Arc<UploadService>>,
    caller: Authenticated,
    Valid(list, _reserved): Valid<FilesDto>,
) -> Result<(StatusCode, Json<PresignedUrlsDto>), Problem> {
    let Files { files, forms } = list;
    let now = SystemTime::now();
    let grants = uploads.presign_list(&caller, &files, forms, now).await;
    let grants = grants.map_err(Problem::from_list)?.into_iter();
    let uploads = grants.map(PresignedUrlDto::from).collect();
    Ok((StatusCode::CREATED, Json(PresignedUrlsDto { uploads })))
}

/// Presign an upload by form
///
/// Send `fields` and then the file to `url`, as `multipart/form-data`. The store accepts at most
/// `maxSize` bytes, or exactly `size` if the request has it. It refuses any other field and value.
#[utoipa::path(
    post,
    path = "/upload/presigned-post",
    tag = "upload",
    operation_id = "presignForm",
    request_body = FileDto,
    responses(
        (status = 201, description = "A presigned form", body = PresignedPostDto),
        BodyProblems,
        SigningProblems,
    )
)]
async fn presigned_post(
    State(uploads): State<Arc<UploadService>>,
    caller: Authenticated,
    Valid(file, _reserved): Valid<FileDto>,
) -> Result<(StatusCode, Json<PresignedPostDto>), Problem> {
    let grant = uploads
        .presign_post(GrantRequest::new(&caller, &file, SystemTime::now()))
        .await?;
    let request = grant.request;
    let form = PresignedPostDto {
        url: request.url,
        key: grant.key.into_string(),
        method: request.method,
        fields: request.fields,
        max_size: grant.max_size,
        expires_at: rfc3339(request.expires_at),
    };
    Ok((StatusCode::CREATED, Json(form)))
}
