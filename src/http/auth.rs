//! Who calls: found out before any handler runs, and handed to it as an extension, a [`Caller`].

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;

use crate::upload::Caller;

/// Lets in who may call.
pub(super) async fn authenticate(mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(Caller::anonymous());
    next.run(request).await
}
