//! Routes for those who run the service.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Where [`healthz`] is; `presignd healthcheck` asks there.
pub(crate) const HEALTHZ: &str = "/healthz";

pub(super) fn router<S: Clone + Send + Sync + 'static>() -> OpenApiRouter<S> {
    OpenApiRouter::new().routes(routes!(healthz))
}

#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// Always `ok`: a service that is not well does not answer.
    #[schema(example = "ok")]
    status: &'static str,
}

/// Is the service alive?
///
/// Says nothing about S3.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operations",
    operation_id = "healthz",
    responses((status = 200, description = "It is", body = Health))
)]
async fn healthz() -> Json<Health> {
    Json(Health { status: "ok" })
}
