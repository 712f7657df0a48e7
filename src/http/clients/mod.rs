//! The protocols of upload clients that others wrote. Each module translates one protocol; none of
//! them decides what may be uploaded.

mod uppy;

use utoipa_axum::router::OpenApiRouter;

use super::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().merge(uppy::router())
}
