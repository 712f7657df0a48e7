//! `/upload/commit`: commits an upload that is what was granted, so that it counts from then on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use utoipa::IntoResponses;
use utoipa::openapi::{RefOr, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::auth::Authenticated;
use super::body::Valid;
use super::openapi::{BodyProblems, CallerProblems, PolicyProblems, StoreProblems, for_upload};
use super::problem::catalogue;
use super::verify::{AnswerDto, Request, VerifyDto, VerifyRequest};
use crate::upload::UploadService;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(commit))
}

/// The problems of committing one upload.
struct CommitProblems;

impl IntoResponses for CommitProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        for_upload(&[
            &catalogue::MISMATCH,
            &catalogue::CONTENT_MISMATCH,
            &catalogue::REPLACED,
        ])
    }
}

/// Commit an upload
///
/// Verifies the upload as `/upload/verify` does, and answers the same. If it is what the policy allows, it
/// counts from then on: its tag is no longer `presignd=pending`, so the lifecycle rule for that tag spares
/// it. Call it again whenever the answer did not arrive. Under a policy without `pending` it only verifies.
#[utoipa::path(
    post,
    path = "/upload/commit",
    tag = "upload",
    operation_id = "commitUpload",
    request_body = VerifyRequest,
    responses(
        (status = 200, description = "The upload, or a result for each of several", body = AnswerDto),
        CommitProblems,
        CallerProblems,
        BodyProblems,
        PolicyProblems,
        StoreProblems,
    )
)]
async fn commit(
    State(uploads): State<Arc<UploadService>>,
    caller: Authenticated,
    Valid(request, _reserved): Valid<VerifyDto>,
) -> axum::response::Result<Json<AnswerDto>> {
    let _waiting = request.admit(&caller)?;
    let Request {
        expected,
        policy,
        wait,
        ..
    } = &request;
    let found = uploads
        .commit(
            &caller,
            policy.as_deref(),
            expected,
            *wait,
            SystemTime::now(),
        )
        .await?;
    Ok(Json(request.answer(found)?))
}
