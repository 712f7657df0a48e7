//! `POST /s3/sign`: one call of Uppy's `signRequest` for each of its requests to S3, with the caller's
//! credentials. Files and parts go to the store; the other calls come back, to [`super::calls`].

mod dto;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::dto::{SignDto, SignedDto, Wanted};
use super::{calls, file};
use crate::http::AppState;
use crate::http::auth::Authenticated;
use crate::http::body::Valid;
use crate::http::clients::as_text;
use crate::http::openapi::{BodyProblems, SessionProblems, SigningProblems};
use crate::http::own_address::OwnAddress;
use crate::http::problem::Problem;
use crate::upload::{Error, GrantRequest, Operation, SealedCall, UploadService};

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(sign))
}

/// Presign a request for Uppy 6
///
/// The answer is what Uppy's `signRequest` returns. Files and parts go to the store; URLs of the other calls lead
/// back to this service, which answers them in S3's XML, and need no credentials.
#[utoipa::path(
    post,
    path = "/s3/sign",
    tag = "uppy",
    operation_id = "signRequest",
    request_body = SignDto,
    responses(
        (status = 200, description = "A presigned request", body = SignedDto),
        BodyProblems,
        SessionProblems,
        SigningProblems,
    )
)]
async fn sign(
    State(uploads): State<Arc<UploadService>>,
    caller: Authenticated,
    address: OwnAddress,
    Valid(signing, _reserved): Valid<SignDto>,
) -> Result<Json<SignedDto>, Problem> {
    let now = SystemTime::now();
    let back = |method, sealed: SealedCall| {
        let url = calls::url(&address, &sealed.token);
        SignedDto::for_call(method, url, sealed.expires_at, now)
    };
    let open = |upload_id: &str| uploads.open_upload(&caller, upload_id, None, now);
    let continued = |method, upload_id: &str, operation| {
        let upload = open(upload_id)?;
        let sealed = uploads.seal_call(&caller, &upload, operation, Duration::ZERO, now);
        Ok::<_, Error>(back(method, sealed))
    };
    let signed = match &signing.wanted {
        Wanted::File | Wanted::Create => {
            let metadata = signing.metadata.iter();
            let file = file(
                &uploads,
                &caller,
                Some(&signing.filename),
                ("/contentType", signing.content_type.as_deref()),
                signing.size,
                metadata.map(|(name, value)| (name.clone(), as_text(value))),
                signing.policy.as_deref(),
            )?;
            if signing.wanted == Wanted::Create {
                // Uppy sends the type with the next request only.
                let is_typed = signing.content_type.is_some();
                back("POST", uploads.seal_begin(&caller, &file, is_typed, now)?)
            } else {
                let grant = uploads.presign_single(GrantRequest::new(&caller, &file, now));
                SignedDto::for_file(grant.await?, now)
            }
        }
        Wanted::Part(id, number) => {
            let upload = open(id)?;
            let request = uploads.presign_part(&upload, (*number, signing.size), now);
            SignedDto::for_request(request.await?, now)
        }
        Wanted::List(id) => continued("GET", id, Operation::List)?,
        Wanted::Complete(id) => continued("POST", id, Operation::Complete)?,
        Wanted::Abort(id) => continued("DELETE", id, Operation::Abort)?,
    };
    Ok(Json(signed))
}
