//! The protocols of upload clients that others wrote. Each module translates one protocol; none of
//! them decides what may be uploaded.

mod uppy;

use utoipa_axum::router::OpenApiRouter;

use super::AppState;

/// The routes of clients that cannot name a policy, to be put below a path that does.
pub(super) fn router_of_policies() -> OpenApiRouter<AppState> {
    uppy::router()
}

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().merge(uppy::router())
}
