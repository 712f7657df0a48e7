//! `/upload/delete`: deletes an upload.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use validator::Validate;

use super::AppState;
use super::auth::Authenticated;
use super::body::{Dto, Valid};
use super::json::{Fields, Json as JsonText};
use super::openapi::{BodyProblems, KeyProblems, StoreProblems};
use super::problem::{FieldErrors, Problem, catalogue};
use crate::upload::UploadService;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(delete))
}

/// The upload to delete.
#[derive(Debug, Default, Serialize, Validate, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = DeleteRequest)]
struct DeleteDto {
    /// The key of the upload, from the answer that granted it.
    #[validate(required(message = "is required"))]
    #[schema(value_type = String, required = true, example = "uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/example.jpg")]
    key: Option<String>,

    /// The policy that granted it; `default` if it is not given.
    #[validate(length(max = 255, message = "must not be longer than 255 characters"))]
    #[schema(value_type = Option<String>, required = false, max_length = 255, example = "default")]
    policy: Option<String>,
}

impl Dto for DeleteDto {
    /// The key, and the policy.
    type Value = (String, Option<String>);

    fn read(fields: &mut Fields<'_, '_, '_>) -> Self {
        let request = Self {
            key: fields.field("key", JsonText::text),
            policy: fields.optional("policy", JsonText::text),
        };
        fields.refuse_others();
        request
    }

    fn into_value(self, _: &mut FieldErrors) -> Option<Self::Value> {
        Some((self.key?, self.policy))
    }
}

/// An upload that is deleted.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DeletedUpload)]
struct DeletedDto {
    #[schema(example = "uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/example.jpg")]
    key: String,
    /// The version of the delete marker, if the bucket keeps versions: earlier ones are still there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    version_id: Option<String>,
}

const FOREIGN_KEY: &str = "the policy of this request (`default`, unless `policy` names another one) cannot have granted this key to the caller";

/// Delete an upload
///
/// The answer is the same if there is no such object, so the call can be repeated. The policy has to allow
/// deleting. For a key that the policy cannot have granted to the caller the answer is always 404, whether or
/// not the object exists.
#[utoipa::path(
    post,
    path = "/upload/delete",
    tag = "upload",
    operation_id = "deleteUpload",
    request_body = DeleteDto,
    responses(
        (status = 200, description = "There is no such object any more", body = DeletedDto),
        KeyProblems,
        BodyProblems,
        StoreProblems,
    )
)]
async fn delete(
    State(uploads): State<Arc<UploadService>>,
    caller: Authenticated,
    Valid((key, policy), _reserved): Valid<DeleteDto>,
) -> Result<Json<DeletedDto>, Problem> {
    let deleted = uploads.delete(&caller, policy.as_deref(), &key).await?;
    let deleted =
        deleted.ok_or_else(|| Problem::with_detail(&catalogue::NOT_UPLOADED, FOREIGN_KEY))?;
    Ok(Json(DeletedDto {
        key,
        version_id: deleted.version_id,
    }))
}
