//! `/upload/commit`: commits an upload that is what was granted, so that it counts from then on.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::auth::Authenticated;
use super::body::Valid;
use super::openapi::{BodyProblems, StoreProblems, VerifyProblems};
use super::verify::{AnswerDto, VerifyDto, VerifyRequest};
use crate::upload::UploadService;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(commit))
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
        VerifyProblems,
        BodyProblems,
        StoreProblems,
    )
)]
async fn commit(
    State(uploads): State<Arc<UploadService>>,
    caller: Authenticated,
    Valid(request, _reserved): Valid<VerifyDto>,
) -> axum::response::Result<Json<AnswerDto>> {
    request.answer(&uploads, caller, true).await
}
