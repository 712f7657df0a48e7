//! `/s3/upload/{token}`: calls of uploads in parts in S3's own XML, for clients that insist on it.
//! The token is the permission for one call; presignd answers it, so that the policy holds.
//!
//! Clients follow these URLs and never build them, so they are not in the OpenAPI document.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response, Result};
use axum::routing::get;
use utoipa_axum::router::OpenApiRouter;

use super::multipart::PARTS_BYTES;
use super::multipart::dto::{CompleteDto, CompletedPartDto, Completion};
use crate::http::auth::Authenticated;
use crate::http::body::{self, Dto};
use crate::http::clients::{DEFAULT_TYPE, whole_number};
use crate::http::memory::Work;
use crate::http::own_address::OwnAddress;
use crate::http::problem::{Dialect, FieldErrors, Problem};
use crate::http::xml::{Document, element, listed_parts};
use crate::http::{AppState, in_dialect, path_parameter};
use crate::s3::MAX_PARTS;
use crate::upload::{
    Begin, Call, ContentType, Error, GrantRequest, OpenUpload, Operation, UploadService,
};

pub(in crate::http::clients) fn router() -> OpenApiRouter<AppState> {
    let calls = get(list).post(begin_or_complete).delete(abort);
    let routes = OpenApiRouter::new().route("/s3/upload/{token}", calls);
    in_dialect(routes, Dialect::Xml)
}

/// The URL of a call.
pub(in crate::http::clients) fn url(OwnAddress(address): &OwnAddress, token: &str) -> String {
    format!("{address}/s3/upload/{token}")
}

/// The call of the token in the path. It is checked before any body is read.
struct OpenedCall {
    caller: Authenticated,
    call: Call,
}

impl FromRequestParts<AppState> for OpenedCall {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Response> {
        let token = path_parameter(parts, "token").await?;
        let opened = state.uploads.open_call(&token, SystemTime::now());
        let caller = opened.as_ref().map(|(caller, _)| caller).ok();
        let caller = Authenticated::by_seal(caller, parts, state)?;
        let (_, call) = opened.map_err(IntoResponse::into_response)?;
        Ok(Self { caller, call })
    }
}

/// The error when the token is for another call.
fn another_call() -> Error {
    Error::NoSuchUpload("the URL is for another call")
}

async fn list(
    State(uploads): State<Arc<UploadService>>,
    OpenedCall { caller, call }: OpenedCall,
) -> Result<Document> {
    let Call::Continue(Operation::List, upload) = call else {
        return Err(another_call().into());
    };
    // There may be 10,000 parts.
    let _turn = caller.turn(Work::AskStore(2 * PARTS_BYTES)).await?;
    let parts = uploads.list_parts(&upload).await?;
    let parts = parts.iter().map(|part| {
        let number = element("PartNumber", &part.number.to_string());
        let etag = element("ETag", &part.etag);
        let size = element("Size", &part.size.to_string());
        format!("<Part>{number}{etag}{size}</Part>")
    });
    // S3 repeats the id of the upload. Ours is the token, with which this caller could do more than list.
    let of_upload = [
        element("Key", upload.key()),
        element("IsTruncated", "false"),
    ];
    let elements: String = of_upload.into_iter().chain(parts).collect();
    Ok(Document::new("ListPartsResult", &elements))
}

async fn begin_or_complete(
    State(uploads): State<Arc<UploadService>>,
    OpenedCall { caller, call }: OpenedCall,
    request: Request,
) -> Result<Document> {
    match call {
        Call::Begin(upload) => begin(&uploads, &caller, upload, request.headers()).await,
        Call::Continue(Operation::Complete, upload) => {
            complete(&uploads, &caller, &upload, request).await
        }
        Call::Continue(..) => Err(another_call().into()),
    }
}

async fn begin(
    uploads: &UploadService,
    caller: &Authenticated,
    upload: Begin,
    headers: &HeaderMap,
) -> Result<Document> {
    let of_header = || {
        let sent = headers.get(header::CONTENT_TYPE);
        let sent = sent.map_or(DEFAULT_TYPE.as_bytes(), |value| value.as_bytes());
        ContentType::parse(String::from_utf8_lossy(sent))
    };
    let content_type = upload.content_type.clone().map_or_else(of_header, Ok);
    let content_type =
        content_type.map_err(|invalid| Problem::for_field("/contentType", invalid))?;
    let file = upload.into_file(content_type);
    let upload = uploads
        .create_multipart(GrantRequest::new(caller, &file, SystemTime::now()))
        .await?;
    let elements = [
        element("Bucket", &upload.bucket),
        element("Key", upload.open.key()),
        element("UploadId", &upload.token),
    ];
    Ok(Document::new(
        "InitiateMultipartUploadResult",
        &elements.concat(),
    ))
}

async fn complete(
    uploads: &UploadService,
    caller: &Authenticated,
    upload: &OpenUpload,
    request: Request,
) -> Result<Document> {
    let received = body::bytes(request, CompleteDto::MAX_BYTES).await?;
    let work = CompleteDto::work(received.bytes().len());
    let _turn = caller.turn(work).await?;
    let parts = listed_parts(received.bytes(), MAX_PARTS.into())?;
    drop(received);
    let parts = parts.into_iter().map(|part| CompletedPartDto {
        // A text that is not a number cannot be the number of a part.
        part_number: part
            .number
            .map(|text| whole_number(text.trim()).unwrap_or(0)),
        e_tag: part.etag,
    });
    let dto = CompleteDto {
        parts: Some(parts.collect()),
        verify: None,
    };
    let Completion { parts, .. } = body::valid_value(dto, FieldErrors::default())?;
    let made = uploads
        .complete_multipart(caller, upload, &parts, false)
        .await?;
    let elements = [
        element("Location", &made.location),
        element("Bucket", &made.bucket),
        element("Key", &made.key),
    ];
    Ok(Document::new(
        "CompleteMultipartUploadResult",
        &elements.concat(),
    ))
}

async fn abort(
    State(uploads): State<Arc<UploadService>>,
    OpenedCall { caller, call, .. }: OpenedCall,
) -> Result<StatusCode> {
    let Call::Continue(Operation::Abort, upload) = call else {
        return Err(another_call().into());
    };
    uploads.abort_multipart(&caller, &upload).await?;
    Ok(StatusCode::NO_CONTENT)
}
