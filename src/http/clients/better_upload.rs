//! `POST /better-upload`: the protocol of [better-upload](https://better-upload.com)'s client, version 3.
//!
//! One answer has all that the client needs for its files: a PUT for each, or uploads in parts for all of
//! them. Files and parts go to the store; completing and aborting an upload come back, to
//! [`super::uppy::calls`].

mod dto;
mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::State;
use axum::response::Result;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::dto::{
    AnswerDto, FileDto, InPartsDto, MultipartDto, MultipartsDto, NoMetadata, ObjectDto, PartDto,
    RequestDto, RequestedFile, SingleDto, SinglesDto, UploadRequest,
};
use super::uppy::calls;
use super::{DEFAULT_TYPE, PART_URL_BYTES, PARTS_PER_REQUEST, as_text, parts_of};
use crate::http::auth::Authenticated;
use crate::http::body::Valid;
use crate::http::memory::Work;
use crate::http::openapi::{BodyProblems, SigningProblems, StoreProblems};
use crate::http::own_address::OwnAddress;
use crate::http::problem::{Dialect, FieldErrors, Problem};
use crate::http::{AppState, in_dialect};
use crate::upload::{
    Caller, ContentType, Error, Field, File, Invalid, MultipartUpload, ObjectKey, Operation,
    Refusal, UploadService,
};

/// How much longer than the URLs of its parts an upload can be completed: a part may be sent just
/// before its URL expires.
const EXTRA: Duration = Duration::from_hours(1);
/// Memory for the store's answer about one object.
const HEAD_BYTES: usize = 4096;

pub(super) fn router() -> OpenApiRouter<AppState> {
    let routes = OpenApiRouter::new().routes(routes!(presign));
    in_dialect(routes, Dialect::BetterUpload)
}

/// Presign uploads for better-upload
///
/// All or nothing: if one file is refused, all are. If a file is larger than 32 MiB or has no type, and the policy allows
/// uploads in parts, all files of the answer are sent in parts. A file that is uploaded already is not sent again if the
/// policy has `overwrite = false` and a key without `{uuid}`: the store would refuse it.
#[utoipa::path(
    post,
    path = "/better-upload",
    tag = "better-upload",
    operation_id = "presignForBetterUpload",
    request_body = RequestDto,
    responses(
        (status = 200, description = "Presigned requests", body = AnswerDto),
        BodyProblems,
        SigningProblems,
        StoreProblems,
    )
)]
async fn presign(
    State(uploads): State<Arc<UploadService>>,
    mut caller: Authenticated,
    address: OwnAddress,
    Valid(mut request, _reserved): Valid<RequestDto>,
) -> Result<Json<AnswerDto>> {
    let now = SystemTime::now();
    let allows_parts = uploads.allows_parts(&caller, request.route.as_deref());
    let allows_parts = allows_parts.map_err(|error| Problem::from_better_upload(error, |it| it))?;
    let is_for_parts =
        |it: &RequestedFile| it.content_type.is_none() || it.size > plan::MAX_SINGLE_BYTES;
    let in_parts = allows_parts && request.files.iter().any(is_for_parts);
    let mut files = files(&uploads, &caller, &mut request, in_parts)?;
    let existing = existing(&uploads, &mut caller, &request, &files, in_parts, now).await?;
    let mut is_new = existing.iter().map(Option::is_none);
    files.retain(|_| is_new.next().unwrap_or_default());
    let sent = request.files.into_iter().map(|file| file.sent);
    let sent: Vec<Sent> = sent.zip(existing).collect();
    if in_parts {
        return in_parts_answer(&uploads, &mut caller, &address, sent, &files, now).await;
    }
    let grants = uploads.presign_list(&caller, &files, false, now);
    let grants = grants
        .await
        .map_err(|error| problem_with_new(error, &sent))?;
    let mut grants = grants.into_iter();
    let files = sent
        .into_iter()
        .filter_map(|(sent, existing)| match existing {
            Some(key) => Some(SingleDto::skipped(sent, key)),
            None => grants.next().map(|grant| SingleDto::new(sent, grant)),
        });
    Ok(Json(AnswerDto::Single(SinglesDto {
        files: files.collect(),
        metadata: NoMetadata {},
    })))
}

/// A file as the client sent it, and the key of its object if it is uploaded already.
type Sent = (FileDto, Option<ObjectKey>);

/// The problem with those files of `sent` that are not uploaded yet, by their places in the request.
fn problem_with_new(error: Error, sent: &[Sent]) -> Problem {
    Problem::from_better_upload(error, |file| {
        let mut new = (0..sent.len()).filter(|&place| sent[place].1.is_none());
        new.nth(file).unwrap_or(file)
    })
}

/// Begins an upload in parts for each of `files`, which are those of `sent` that are not uploaded
/// yet.
async fn in_parts_answer(
    uploads: &UploadService,
    caller: &mut Authenticated,
    address: &OwnAddress,
    sent: Vec<Sent>,
    files: &[File],
    now: SystemTime,
) -> Result<Json<AnswerDto>> {
    let sizes: Vec<u64> = files.iter().filter_map(|file| file.size).collect();
    let part_size = plan::part_size(&sizes);
    let part_size = part_size.ok_or_else(|| problem_with_new(too_large(&sizes), &sent))?;
    let parts = sizes
        .iter()
        .map(|&size| parts_of(size, part_size).collect());
    let parts: Vec<BTreeMap<_, _>> = parts.collect();
    let count: usize = parts.iter().map(BTreeMap::len).sum();
    // Each file is a call to the store. One request is counted already.
    let calls = files.len() + count.saturating_sub(1) / PARTS_PER_REQUEST;
    caller.count_more(calls.saturating_sub(1))?;
    let _turn = caller.turn(Work::AskStore(count * PART_URL_BYTES)).await?;
    let begun = uploads.create_multiparts(caller, files, now).await;
    let begun = begun.map_err(|error| problem_with_new(error, &sent))?;
    let mut each = begun.iter().zip(&parts);
    let signed = async {
        let mut files = Vec::with_capacity(sent.len());
        for (place, (sent, existing)) in sent.into_iter().enumerate() {
            if let Some(key) = existing {
                files.push(InPartsDto::skipped(sent, key));
            } else if let Some((upload, parts)) = each.next() {
                let file = in_parts(uploads, caller, address, (sent, upload), parts, now).await;
                files.push(file.map_err(|error| Problem::from_better_upload(error, |_| place))?);
            }
        }
        Ok::<_, Problem>(files)
    };
    let signed = signed.await;
    if signed.is_err() {
        // The client gets no URL to abort them with.
        uploads.abort_multiparts(&begun).await;
    }
    Ok(Json(AnswerDto::Multipart(MultipartsDto {
        multipart: MultipartDto {
            files: signed?,
            part_size,
        },
        metadata: NoMetadata {},
    })))
}

/// The refusal of the largest file.
fn too_large(sizes: &[u64]) -> Error {
    let largest = (0..sizes.len()).max_by_key(|&index| sizes[index]);
    let detail =
        "is too large in one request with the others: an answer has at most 200 parts of 5 GiB";
    Error::Refused(vec![Refusal {
        file: largest.unwrap_or_default(),
        field: Field::Size,
        invalid: Invalid::new("file-too-large", detail),
    }])
}

/// All URLs of an upload in parts that has begun.
async fn in_parts(
    uploads: &UploadService,
    caller: &Caller,
    address: &OwnAddress,
    (sent, upload): (FileDto, &MultipartUpload),
    parts: &BTreeMap<u16, Option<u64>>,
    now: SystemTime,
) -> Result<InPartsDto, Error> {
    let call = |operation| {
        let sealed = uploads.seal_call(caller, &upload.open, operation, EXTRA, now);
        calls::url(address, &sealed.token)
    };
    let complete_signed_url = call(Operation::Complete);
    let abort_signed_url = call(Operation::Abort);
    let urls = uploads.presign_parts(&upload.open, parts, now).await?;
    let parts = urls.into_iter().zip(parts.values());
    let parts = parts.map(|((part_number, signed_url), size)| PartDto {
        signed_url,
        part_number,
        size: size.unwrap_or_default(),
    });
    Ok(InPartsDto {
        parts: parts.collect(),
        file: ObjectDto::new(sent, upload.open.key().to_owned()),
        upload_id: "",
        complete_signed_url,
        abort_signed_url,
        skip: None,
    })
}

/// The keys of those files that are uploaded already, in their order.
async fn existing(
    uploads: &UploadService,
    caller: &mut Authenticated,
    request: &UploadRequest,
    files: &[File],
    in_parts: bool,
    now: SystemTime,
) -> Result<Vec<Option<ObjectKey>>> {
    let is_asked = uploads.refuses_repeated(caller, request.route.as_deref());
    if !is_asked.map_err(|error| Problem::from_better_upload(error, |it| it))? {
        return Ok(files.iter().map(|_| None).collect());
    }
    // Each of them is a call to the store.
    caller.count_more(files.len() - 1)?;
    let _turn = caller
        .turn(Work::AskStore(files.len() * HEAD_BYTES))
        .await?;
    Ok(uploads.already_uploaded(caller, files, in_parts, now).await)
}

/// The files, with the metadata of the request.
fn files(
    uploads: &UploadService,
    caller: &Caller,
    request: &mut UploadRequest,
    in_parts: bool,
) -> Result<Vec<File>, Problem> {
    let mut errors = FieldErrors::default();
    let mut files = Vec::with_capacity(request.files.len());
    for (index, file) in request.files.iter().enumerate() {
        let content_type = match &file.content_type {
            Some(content_type) => Ok(content_type.clone()),
            None if in_parts => ContentType::parse(DEFAULT_TYPE),
            None => {
                let detail = "must not be empty: the policy does not allow uploads in parts, and only they can \
                    be bound to a type that the client does not send";
                Err(Invalid::new("type-required", detail))
            }
        };
        let content_type = errors.check(|| format!("/files/{index}/type"), content_type);
        files.extend(content_type.map(|content_type| File {
            size: Some(file.size),
            policy: request.route.clone(),
            ..File::new(file.filename.clone(), content_type)
        }));
    }
    if !errors.is_empty() {
        return Err(errors.into_problem());
    }
    // Taken, because the request may wait for others.
    let metadata = std::mem::take(&mut request.metadata).into_iter();
    let metadata = metadata.map(|(name, value)| (name, as_text(&value)));
    let metadata = uploads
        .allowed_metadata(caller, request.route.as_deref(), metadata)
        .map_err(|error| Problem::from_better_upload(error, |it| it))?;
    for file in &mut files {
        file.metadata.clone_from(&metadata);
    }
    Ok(files)
}
