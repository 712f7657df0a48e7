//! The protocols of upload clients that others wrote. Each module translates one protocol; none of
//! them decides what may be uploaded.

mod uppy;

use axum::extract::State;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;

use super::AppState;
use super::problem::Dialect;

/// Marks an answer as one for clients that read problems in another form.
async fn mark(State(dialect): State<Dialect>, mut response: Response) -> Response {
    response.extensions_mut().insert(dialect);
    response
}

/// The routes of clients that cannot name a policy, to be put below a path that does.
pub(super) fn router_of_policies() -> OpenApiRouter<AppState> {
    uppy::router()
}

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().merge(uppy::router())
}

/// The calls that are sealed into URLs, which need no other credentials.
pub(super) fn router_of_calls() -> OpenApiRouter<AppState> {
    uppy::calls::router()
}
