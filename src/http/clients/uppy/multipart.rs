//! `/s3/multipart…`: uploads in parts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::{FromRequest, Path, Query, Request, State};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use validator::Validate;

use super::{AppState, Pairs, file, parameter, seconds_until};
use crate::http::auth::Authenticated;
use crate::http::body::{Dto, Valid};
use crate::http::json::{Fields, Json as JsonText};
use crate::http::openapi::{
    BodyProblems, CallerProblems, FilenameText, MediaTypeOrNothing, ObjectProblems,
    ParameterProblems, PolicyProblems, SessionProblems, SigningProblems, StoreProblems,
};
use crate::http::problem::{Failure, FieldErrors, Problem};
use crate::s3::MAX_PARTS;
use crate::upload::{File, Invalid, UploadService};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(list_parts, abort))
        .routes(routes!(sign_parts))
        .routes(routes!(complete))
        .routes(routes!(sign_part))
}

/// The key that a call has to bring along.
fn key(pairs: &[(String, String)]) -> Result<&str, Problem> {
    parameter(pairs, "key")
        .ok_or_else(|| Problem::of_field("/key", Invalid::new("required", "is required")))
}

fn part_number(text: &str) -> Result<u16, Problem> {
    text.parse()
        .ok()
        .filter(|number| (1..=MAX_PARTS).contains(number))
        .ok_or_else(|| Problem::of_field("/partNumber", out_of_range()))
}

fn out_of_range() -> Invalid {
    Invalid::new("out-of-range", "must be a whole number from 1 to 10,000")
}

/// The file that Uppy wants to upload in parts.
#[derive(Debug, Default, Serialize, Validate, ToSchema)]
#[schema(as = CompanionCreateRequest)]
struct CreateDto {
    /// The file's name.
    #[validate(required(message = "is required"))]
    #[schema(value_type = FilenameText, required = true)]
    filename: Option<String>,
    /// Its media type; `application/octet-stream` if it is not given or empty.
    #[serde(rename = "type")]
    #[schema(value_type = Option<MediaTypeOrNothing>, required = false)]
    content_type: Option<String>,
    /// What the store is to keep with the object, as far as the policy lets clients set it; the rest
    /// is left out.
    #[schema(value_type = Option<BTreeMap<String, Value>>, required = false, example = json!({"album": "7"}))]
    metadata: Option<BTreeMap<String, Value>>,
    /// The name of the policy; `default` if it is not given.
    #[schema(required = false, example = "default")]
    policy: Option<String>,
    /// The file's length in bytes, for those who know it: one that is too large is refused now instead
    /// of when it is completed. It binds nothing.
    #[schema(value_type = Option<u64>, required = false, example = 104_857_600)]
    size: Option<u64>,
}

impl Dto for CreateDto {
    type Value = Self;

    // Other fields are ignored, as Companion ignores them.
    fn read(fields: &mut Fields<'_, '_, '_>) -> Self {
        Self {
            filename: fields.required("filename", JsonText::text),
            content_type: fields.optional("type", JsonText::text),
            metadata: fields.map("metadata", JsonText::value),
            policy: fields.optional("policy", JsonText::text),
            size: fields.optional("size", JsonText::whole_number),
        }
    }

    fn into_value(self, _errors: &mut FieldErrors) -> Option<Self> {
        Some(self)
    }
}

/// An upload in parts that has begun.
#[derive(Serialize, ToSchema)]
#[schema(as = CompanionCreated)]
#[serde(rename_all = "camelCase")]
struct CreatedDto {
    /// The object's name in the bucket.
    #[schema(example = "uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/example.mp4")]
    key: String,
    /// What all further calls have to bring along, together with the key. It lives for 7 days.
    #[schema(example = "eyJhbGciOiJIUzI1NiJ9.eyJ1cGxvYWRfaWQiOiJ4In0.c2lnbmF0dXJl")]
    upload_id: String,
    #[schema(example = "my-bucket")]
    bucket: String,
}

/// Uppy: begin an upload in parts
#[utoipa::path(
    post,
    path = "/s3/multipart",
    tag = "uppy",
    operation_id = "companionCreate",
    request_body = CreateDto,
    responses(
        (
            status = 200,
            description = "The upload has begun",
            body = CreatedDto,
            links(
                ("signPart" = (
                    operation_id = "companionSignPart",
                    parameters(
                        ("uploadId" = "$response.body#/uploadId"),
                        ("key" = "$response.body#/key")
                    )
                )),
                ("signParts" = (
                    operation_id = "companionSignParts",
                    parameters(
                        ("uploadId" = "$response.body#/uploadId"),
                        ("key" = "$response.body#/key")
                    )
                )),
                ("listParts" = (
                    operation_id = "companionListParts",
                    parameters(
                        ("uploadId" = "$response.body#/uploadId"),
                        ("key" = "$response.body#/key")
                    )
                )),
                ("complete" = (
                    operation_id = "companionComplete",
                    parameters(
                        ("uploadId" = "$response.body#/uploadId"),
                        ("key" = "$response.body#/key")
                    )
                )),
                ("abort" = (
                    operation_id = "companionAbort",
                    parameters(
                        ("uploadId" = "$response.body#/uploadId"),
                        ("key" = "$response.body#/key")
                    )
                ))
            )
        ),
        CallerProblems,
        BodyProblems,
        PolicyProblems,
        StoreProblems,
    )
)]
async fn create(
    State(uploads): State<Arc<UploadService>>,
    caller: Authenticated,
    Valid(dto): Valid<CreateDto>,
) -> Result<Json<CreatedDto>, Failure> {
    let metadata = dto.metadata.unwrap_or_default();
    let metadata = metadata
        .into_iter()
        .map(|(name, value)| (name, as_text(&value)));
    let file = file(
        &uploads,
        &caller,
        dto.filename.as_deref(),
        dto.content_type.as_deref(),
        metadata,
        dto.policy.as_deref(),
    )?;
    let file = File {
        size: dto.size,
        ..file
    };
    let upload = uploads
        .create_multipart(&caller, &file, Uuid::new_v4(), SystemTime::now())
        .await
        .map_err(Failure::of_uppy)?;
    Ok(Json(CreatedDto {
        key: upload.key,
        upload_id: upload.token,
        bucket: upload.bucket,
    }))
}

/// What JavaScript's `String(value)` gives: Uppy sends that with small files, and Companion makes it of
/// what Uppy sends with large ones.
fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Object(_) => "[object Object]".into(),
        Value::Array(elements) => {
            let texts = elements.iter().map(|element| match element {
                Value::Null => String::new(),
                element => as_text(element),
            });
            texts.collect::<Vec<_>>().join(",")
        }
    }
}

/// A part that the store has.
#[derive(Serialize, ToSchema)]
#[schema(as = CompanionPart)]
#[serde(rename_all = "PascalCase")]
struct PartDto {
    #[schema(example = 1)]
    part_number: u16,
    #[serde(rename = "ETag")]
    #[schema(example = "\"d41d8cd98f00b204e9800998ecf8427e\"")]
    e_tag: String,
    /// In bytes.
    #[schema(example = 5_242_880)]
    size: u64,
}

/// Uppy: which parts have arrived?
#[utoipa::path(
    get,
    path = "/s3/multipart/{uploadId}",
    tag = "uppy",
    operation_id = "companionListParts",
    params(
        ("uploadId" = String, Path, description = "From the answer that began the upload"),
        ("key" = String, Query, description = "The key, from the same answer"),
    ),
    responses(
        (status = 200, description = "All of them, in their order", body = Vec<PartDto>),
        CallerProblems,
        ParameterProblems,
        SessionProblems,
        StoreProblems,
    )
)]
async fn list_parts(
    State(uploads): State<Arc<UploadService>>,
    caller: Authenticated,
    Path(token): Path<String>,
    Query(pairs): Pairs,
) -> Result<Json<Vec<PartDto>>, Failure> {
    let key = key(&pairs)?;
    let parts = uploads
        .list_parts(&caller, &token, key, SystemTime::now())
        .await?;
    let parts = parts.into_iter().map(|part| PartDto {
        part_number: part.number,
        e_tag: part.etag,
        size: part.size,
    });
    Ok(Json(parts.collect()))
}

/// Leave to upload one part with one PUT.
#[derive(Serialize, ToSchema)]
#[schema(as = CompanionPartUrl)]
struct PartUrlDto {
    #[schema(
        format = "uri",
        example = "https://my-bucket.s3.ap-northeast-2.amazonaws.com/uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/example.mp4?partNumber=1&uploadId=x&X-Amz-Expires=600"
    )]
    url: String,
    /// Seconds until the store refuses the URL.
    #[schema(example = 600)]
    expires: u64,
}

/// Uppy: a URL to upload one part
///
/// The store is not asked. If the upload has ended, it refuses what is sent to the URL.
#[utoipa::path(
    get,
    path = "/s3/multipart/{uploadId}/{partNumber}",
    tag = "uppy",
    operation_id = "companionSignPart",
    params(
        ("uploadId" = String, Path, description = "From the answer that began the upload"),
        ("partNumber" = u16, Path, description = "1 to 10,000", minimum = 1, maximum = 10_000, example = 1),
        ("key" = String, Query, description = "The key, from the same answer"),
    ),
    responses(
        (status = 200, description = "Leave to upload", body = PartUrlDto),
        CallerProblems,
        ParameterProblems,
        SessionProblems,
        SigningProblems,
    )
)]
async fn sign_part(
    State(uploads): State<Arc<UploadService>>,
    caller: Authenticated,
    Path((token, number)): Path<(String, String)>,
    Query(pairs): Pairs,
) -> Result<Json<PartUrlDto>, Failure> {
    let key = key(&pairs)?;
    let number = part_number(&number)?;
    let now = SystemTime::now();
    let mut requests = uploads
        .presign_parts(&caller, &token, key, &BTreeSet::from([number]), now)
        .await?;
    let request = requests.remove(&number).ok_or_else(Problem::internal)?;
    Ok(Json(PartUrlDto {
        expires: seconds_until(request.expires_at, now),
        url: request.url,
    }))
}

/// Leave to upload several parts.
#[derive(Serialize, ToSchema)]
#[schema(as = CompanionPartUrls)]
#[serde(rename_all = "camelCase")]
struct PartUrlsDto {
    /// A URL for each number.
    #[schema(value_type = BTreeMap<String, String>, example = json!({"1": "https://my-bucket.s3.ap-northeast-2.amazonaws.com/uploads/x?partNumber=1"}))]
    presigned_urls: BTreeMap<u16, String>,
}

/// Uppy: URLs to upload several parts
///
/// The store is not asked. If the upload has ended, it refuses what is sent to the URLs.
#[utoipa::path(
    get,
    path = "/s3/multipart/{uploadId}/batch",
    tag = "uppy",
    operation_id = "companionSignParts",
    params(
        ("uploadId" = String, Path, description = "From the answer that began the upload"),
        ("key" = String, Query, description = "The key, from the same answer"),
        ("partNumbers" = String, Query, description = "Numbers from 1 to 10,000, separated by commas", pattern = "^0*([1-9][0-9]{0,3}|10000)(,0*([1-9][0-9]{0,3}|10000))*$", example = "1,2,3"),
    ),
    responses(
        (status = 200, description = "Leave to upload", body = PartUrlsDto),
        CallerProblems,
        ParameterProblems,
        SessionProblems,
        SigningProblems,
    )
)]
async fn sign_parts(
    State(uploads): State<Arc<UploadService>>,
    caller: Authenticated,
    Path(token): Path<String>,
    Query(pairs): Pairs,
) -> Result<Json<PartUrlsDto>, Failure> {
    let key = key(&pairs)?;
    let numbers = parameter(&pairs, "partNumbers").unwrap_or_default();
    // Each once, however often it is named.
    let numbers: BTreeSet<u16> = numbers
        .split(',')
        .map(part_number)
        .collect::<Result<_, _>>()?;
    let requests = uploads
        .presign_parts(&caller, &token, key, &numbers, SystemTime::now())
        .await?;
    let presigned_urls = requests
        .into_iter()
        .map(|(number, request)| (number, request.url));
    Ok(Json(PartUrlsDto {
        presigned_urls: presigned_urls.collect(),
    }))
}

/// The parts that make up the object.
#[derive(Debug, Default, Serialize, Validate, ToSchema)]
#[schema(as = CompanionCompleteRequest)]
struct CompleteDto {
    /// 1 to 10,000 parts.
    #[validate(
        required(message = "is required"),
        length(min = 1, max = 10_000, message = "must have 1 to 10,000 parts")
    )]
    #[schema(value_type = Vec<CompletedPartDto>, required = true, min_items = 1, max_items = 10_000)]
    parts: Option<Vec<CompletedPartDto>>,
}

/// A part as the store acknowledged it.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
#[schema(as = CompanionCompletedPart)]
struct CompletedPartDto {
    /// 1 to 10,000.
    #[schema(value_type = u16, required = true, minimum = 1, maximum = 10_000, example = 1)]
    part_number: Option<u64>,
    /// The `ETag` header of the store's answer to the PUT.
    #[serde(rename = "ETag")]
    #[schema(value_type = String, required = true, example = "\"d41d8cd98f00b204e9800998ecf8427e\"")]
    e_tag: Option<String>,
}

impl CompletedPartDto {
    fn read(fields: &mut Fields<'_, '_, '_>) -> Self {
        Self {
            part_number: fields.required("PartNumber", JsonText::whole_number),
            e_tag: fields.required("ETag", JsonText::text),
        }
    }
}

impl Dto for CompleteDto {
    /// Entity tags by the parts' numbers.
    type Value = BTreeMap<u16, String>;

    /// Enough for 10,000 parts.
    const MAX_BYTES: usize = 2 * 1024 * 1024;

    fn read(fields: &mut Fields<'_, '_, '_>) -> Self {
        let parts = fields.list("parts", usize::from(MAX_PARTS), |reader, json| {
            reader.object(json, CompletedPartDto::read)
        });
        Self { parts }
    }

    fn into_value(self, errors: &mut FieldErrors) -> Option<Self::Value> {
        let mut parts = BTreeMap::new();
        for (index, part) in self.parts?.into_iter().enumerate() {
            let pointer = |name| format!("/parts/{index}/{name}");
            // Not by `validator`, which does not know these names.
            let required = || Invalid::new("required", "is required");
            let etag = errors.check(|| pointer("ETag"), part.e_tag.ok_or_else(required));
            let number = part.part_number.ok_or_else(required);
            let number = number.and_then(|number| {
                let number = u16::try_from(number).ok();
                let number = number.filter(|number| (1..=MAX_PARTS).contains(number));
                number.ok_or_else(out_of_range)
            });
            let number = number.and_then(|number| {
                if parts.contains_key(&number) {
                    let detail = "must not be given more than once";
                    return Err(Invalid::new("duplicate-part", detail));
                }
                Ok(number)
            });
            let number = errors.check(|| pointer("PartNumber"), number);
            if let (Some(number), Some(etag)) = (number, etag) {
                parts.insert(number, etag);
            }
        }
        Some(parts)
    }
}

/// The object that the parts make up.
#[derive(Serialize, ToSchema)]
#[schema(as = CompanionCompleted)]
struct CompletedDto {
    /// The object's address.
    #[schema(
        format = "uri",
        example = "https://my-bucket.s3.ap-northeast-2.amazonaws.com/uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/example.mp4"
    )]
    location: String,
    #[schema(example = "uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/example.mp4")]
    key: String,
    #[schema(example = "my-bucket")]
    bucket: String,
}

/// Uppy: make the object of its parts
///
/// If the parts are larger than the policy allows, the upload is aborted.
#[utoipa::path(
    post,
    path = "/s3/multipart/{uploadId}/complete",
    tag = "uppy",
    operation_id = "companionComplete",
    params(
        ("uploadId" = String, Path, description = "From the answer that began the upload"),
        ("key" = String, Query, description = "The key, from the same answer"),
    ),
    request_body = CompleteDto,
    responses(
        (status = 200, description = "The object is there", body = CompletedDto),
        CallerProblems,
        BodyProblems,
        SessionProblems,
        ObjectProblems,
        PolicyProblems,
        StoreProblems,
    )
)]
async fn complete(
    State(uploads): State<Arc<UploadService>>,
    caller: Authenticated,
    Path(token): Path<String>,
    Query(pairs): Pairs,
    request: Request,
) -> Result<Json<CompletedDto>, Failure> {
    let key = key(&pairs)?;
    // Before its body is read, which may be long.
    uploads.check_multipart(&caller, &token, key, SystemTime::now())?;
    let Valid(parts) = Valid::<CompleteDto>::from_request(request, &uploads).await?;
    let upload = uploads
        .complete_multipart(&caller, &token, key, &parts, SystemTime::now())
        .await?;
    Ok(Json(CompletedDto {
        location: upload.location,
        key: upload.key,
        bucket: upload.bucket,
    }))
}

/// Nothing, as an object: Uppy reads a body after every success.
#[derive(Serialize, ToSchema)]
#[schema(as = CompanionAborted)]
struct AbortedDto {}

/// Uppy: end an upload and forget its parts
#[utoipa::path(
    delete,
    path = "/s3/multipart/{uploadId}",
    tag = "uppy",
    operation_id = "companionAbort",
    params(
        ("uploadId" = String, Path, description = "From the answer that began the upload"),
        ("key" = String, Query, description = "The key, from the same answer"),
    ),
    responses(
        (status = 200, description = "It is gone, or was already", body = AbortedDto),
        CallerProblems,
        ParameterProblems,
        SessionProblems,
        StoreProblems,
    )
)]
async fn abort(
    State(uploads): State<Arc<UploadService>>,
    caller: Authenticated,
    Path(token): Path<String>,
    Query(pairs): Pairs,
) -> Result<Json<AbortedDto>, Failure> {
    let key = key(&pairs)?;
    uploads
        .abort_multipart(&caller, &token, key, SystemTime::now())
        .await?;
    Ok(Json(AbortedDto {}))
}
