//! `/s3/multipart…`: uploads in parts.

pub(super) mod dto;
mod open_upload;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::dto::{
    AbortedDto, CompleteDto, CompletedDto, Completion, CreateDto, CreatedDto, PartDto, PartUrlDto,
    PartUrlsDto,
};
use self::open_upload::{KeyParam, Opened, UploadIdParam};
use super::{AppState, Pairs, bytes, file, parameter, seconds_until};
use crate::http::auth::Authenticated;
use crate::http::body::Valid;
use crate::http::clients::{MAX_BATCH, PART_URL_BYTES, PARTS_PER_REQUEST, as_text, whole_number};
use crate::http::memory::Work;
use crate::http::openapi::{
    BodyProblems, ObjectProblems, ParameterProblems, PolicyProblems, SessionProblems,
    SigningProblems, StoreProblems, link,
};
use crate::http::problem::Problem;
use crate::http::verify::VerifiedDto;
use crate::s3::MAX_PARTS;
use crate::upload::{GrantRequest, Invalid, UploadService};

/// Memory for 10,000 parts that the store lists, in bytes.
pub(super) const PARTS_BYTES: usize = 2 * 1024 * 1024;

pub(super) fn router() -> OpenApiRouter<AppState> {
    let mut router = OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(list_parts, abort))
        .routes(routes!(sign_parts))
        .routes(routes!(complete))
        .routes(routes!(sign_part));
    let operations = [
        ("signPart", "signPart"),
        ("signParts", "signParts"),
        ("listParts", "listParts"),
        ("complete", "completeMultipartUpload"),
        ("abort", "abortMultipartUpload"),
    ];
    link(
        router.get_openapi_mut(),
        "/s3/multipart",
        &operations,
        |link| {
            link.parameter("uploadId", "$response.body#/uploadId")
                .parameter("key", "$response.body#/key")
        },
    );
    router
}

#[derive(Deserialize)]
struct PartPath {
    #[serde(rename = "partNumber")]
    part_number: String,
}

/// The number of a part in a parameter, which is at `pointer`.
fn number(pointer: &str, text: &str) -> Result<u16, Problem> {
    // A text that is not a number cannot be the number of a part.
    let number = part_number(whole_number(text).unwrap_or(0));
    number.map_err(|invalid| Problem::for_field(pointer, invalid))
}

pub(super) fn part_number(number: u64) -> Result<u16, Invalid> {
    let number = u16::try_from(number).ok();
    let number = number.filter(|number| (1..=MAX_PARTS).contains(number));
    number.ok_or(Invalid::new(
        "out-of-range",
        "must be a whole number from 1 to 10,000",
    ))
}

/// Create a multipart upload
///
/// All further calls need the `uploadId` and the `key` of the answer.
#[utoipa::path(
    post,
    path = "/s3/multipart",
    tag = "uppy",
    operation_id = "createMultipartUpload",
    request_body = CreateDto,
    responses(
        (status = 200, description = "The upload was created", body = CreatedDto),
        BodyProblems,
        StoreProblems,
    )
)]
async fn create(
    State(uploads): State<Arc<UploadService>>,
    caller: Authenticated,
    Valid(dto, _reserved): Valid<CreateDto>,
) -> axum::response::Result<Json<CreatedDto>> {
    let parts = dto.first_parts();
    let metadata = dto.metadata.unwrap_or_default();
    let metadata = metadata
        .into_iter()
        .map(|(name, value)| (name, as_text(&value)));
    let file = file(
        &uploads,
        &caller,
        dto.filename.as_deref(),
        ("/type", dto.content_type.as_deref()),
        dto.size,
        metadata,
        dto.policy.as_deref(),
    )?;
    let work = match parts.len() {
        0 => Work::Short,
        count => Work::AskStore(count * PART_URL_BYTES),
    };
    let _turn = caller.turn(work).await?;
    let upload = uploads
        .create_multipart(GrantRequest::new(&caller, &file, SystemTime::now()))
        .await
        .map_err(Problem::from_uppy)?;
    // The upload has begun, so an error here is not a failure: the client can ask for each URL.
    let presigned_urls = match parts.len() {
        0 => BTreeMap::new(),
        _ => uploads
            .presign_parts(&upload.open, &parts, SystemTime::now())
            .await
            .unwrap_or_default(),
    };
    Ok(Json(CreatedDto {
        presigned_urls,
        key: upload.open.key().to_owned(),
        upload_id: upload.token,
        bucket: upload.bucket,
    }))
}

/// List the parts that have arrived
///
/// A client that resumes an upload learns here what it need not send again.
#[utoipa::path(
    get,
    path = "/s3/multipart/{uploadId}",
    tag = "uppy",
    operation_id = "listParts",
    params(UploadIdParam, KeyParam),
    responses(
        (status = 200, description = "All parts that have arrived, in their order", body = Vec<PartDto>),
        ParameterProblems,
        SessionProblems,
        StoreProblems,
    )
)]
async fn list_parts(
    State(uploads): State<Arc<UploadService>>,
    Opened { caller, upload }: Opened,
) -> axum::response::Result<Json<Vec<PartDto>>> {
    let _turn = caller.turn(Work::AskStore(2 * PARTS_BYTES)).await?;
    let parts = uploads.list_parts(&upload).await?;
    let parts = parts.into_iter().map(|part| PartDto {
        part_number: part.number,
        e_tag: part.etag,
        size: part.size,
    });
    Ok(Json(parts.collect()))
}

/// Presign a part
///
/// presignd does not ask the store. If the upload has ended, the store refuses the part.
#[utoipa::path(
    get,
    path = "/s3/multipart/{uploadId}/{partNumber}",
    tag = "uppy",
    operation_id = "signPart",
    params(
        UploadIdParam,
        ("partNumber" = u16, Path, description = "1 to 10,000", minimum = 1, maximum = 10_000, example = 1),
        KeyParam,
        ("size" = Option<u64>, Query, description = "The length of the part in bytes. If it is given, the store accepts only this length", maximum = 5_368_709_120_u64, example = 5_242_880),
    ),
    responses(
        (status = 200, description = "A presigned PUT", body = PartUrlDto),
        ParameterProblems,
        SessionProblems,
        PolicyProblems,
        SigningProblems,
    )
)]
async fn sign_part(
    State(uploads): State<Arc<UploadService>>,
    Opened { upload, .. }: Opened,
    Path(path): Path<PartPath>,
    Query(pairs): Pairs,
) -> Result<Json<PartUrlDto>, Problem> {
    let number = number("/partNumber", &path.part_number)?;
    let size = parameter(&pairs, "size").map(bytes).transpose()?;
    drop(pairs);
    let now = SystemTime::now();
    let request = uploads.presign_part(&upload, (number, size), now).await?;
    Ok(Json(PartUrlDto {
        expires: seconds_until(request.expires_at, now),
        url: request.url,
    }))
}

/// Presign several parts
///
/// presignd does not ask the store. If the upload has ended, the store refuses the parts.
#[utoipa::path(
    get,
    path = "/s3/multipart/{uploadId}/batch",
    tag = "uppy",
    operation_id = "signParts",
    params(
        UploadIdParam,
        KeyParam,
        ("partNumbers" = String, Query, description = "1 to 200 numbers from 1 to 10,000, separated by commas", pattern = "^0{0,9}([1-9][0-9]{0,3}|10000)(,0{0,9}([1-9][0-9]{0,3}|10000)){0,199}$", example = "1,2,3"),
    ),
    responses(
        (status = 200, description = "Presigned PUTs", body = PartUrlsDto),
        ParameterProblems,
        SessionProblems,
        PolicyProblems,
        SigningProblems,
    )
)]
async fn sign_parts(
    State(uploads): State<Arc<UploadService>>,
    Opened { mut caller, upload }: Opened,
    Query(pairs): Pairs,
) -> axum::response::Result<Json<PartUrlsDto>> {
    let numbers = parameter(&pairs, "partNumbers");
    let required = || Problem::for_field("/partNumbers", Invalid::new("required", "is required"));
    let numbers = numbers.ok_or_else(required)?;
    if numbers.split(',').count() > MAX_BATCH {
        let detail = format!("must be at most {MAX_BATCH} numbers");
        return Err(Problem::for_field("/partNumbers", Invalid::new("length", detail)).into());
    }
    // Each part is signed once, however often it is named.
    let parts: BTreeMap<u16, Option<u64>> = numbers
        .split(',')
        .map(|text| Ok((number("/partNumbers", text)?, None)))
        .collect::<Result<_, Problem>>()?;
    drop(pairs);
    caller.count_more((parts.len() - 1) / PARTS_PER_REQUEST)?;
    let _turn = caller
        .turn(Work::Sign(parts.len() * PART_URL_BYTES))
        .await?;
    let presigned_urls = uploads.presign_parts(&upload, &parts, SystemTime::now());
    let presigned_urls = presigned_urls.await.map_err(Problem::from_part_numbers)?;
    Ok(Json(PartUrlsDto { presigned_urls }))
}

/// Complete a multipart upload
///
/// Makes the object of its parts. If they are larger than the policy allows, the upload is aborted.
#[utoipa::path(
    post,
    path = "/s3/multipart/{uploadId}/complete",
    tag = "uppy",
    operation_id = "completeMultipartUpload",
    params(UploadIdParam, KeyParam),
    request_body = CompleteDto,
    responses(
        (status = 200, description = "The object exists", body = CompletedDto),
        BodyProblems,
        SessionProblems,
        ObjectProblems,
        StoreProblems,
    )
)]
async fn complete(
    State(uploads): State<Arc<UploadService>>,
    Opened { caller, upload }: Opened,
    Valid(completion, _reserved): Valid<CompleteDto>,
) -> Result<Json<CompletedDto>, Problem> {
    let Completion { parts, verify } = completion;
    let has_receipts = uploads.receipt_keys().is_some();
    let made = uploads
        .complete_multipart(&caller, &upload, &parts, verify || has_receipts)
        .await?;
    let receipt = made.upload.as_ref().and_then(|it| it.receipt.clone());
    Ok(Json(CompletedDto {
        location: made.location,
        key: made.key,
        bucket: made.bucket,
        receipt,
        upload: made.upload.filter(|_| verify).map(VerifiedDto::from),
    }))
}

/// Abort a multipart upload
///
/// The store deletes the parts that have arrived. Aborting again is no error.
#[utoipa::path(
    delete,
    path = "/s3/multipart/{uploadId}",
    tag = "uppy",
    operation_id = "abortMultipartUpload",
    params(UploadIdParam, KeyParam),
    responses(
        (status = 200, description = "The upload and its parts are gone, or were already", body = AbortedDto),
        ParameterProblems,
        SessionProblems,
        StoreProblems,
    )
)]
async fn abort(
    State(uploads): State<Arc<UploadService>>,
    Opened { caller, upload }: Opened,
) -> Result<Json<AbortedDto>, Problem> {
    uploads.abort_multipart(&caller, &upload).await?;
    Ok(Json(AbortedDto {}))
}
