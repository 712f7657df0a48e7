//! `/docs`: Swagger UI with the OpenAPI document of this service.

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn};
use axum::response::{Html, IntoResponse, Response};
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::SwaggerUi;

/// What the page may do in a browser.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

pub(super) fn router<S: Clone + Send + Sync + 'static>(document: OpenApi) -> Router<S> {
    Router::from(SwaggerUi::new("/docs").url("/openapi.json", document))
        .layer(from_fn(index))
        .layer(SetResponseHeaderLayer::if_not_present(
            header::CONTENT_SECURITY_POLICY,
            POLICY,
        ))
}

/// Replaces Swagger UI's own index, which has no viewport for phones and no title of ours.
async fn index(request: Request, next: Next) -> Response {
    let is_index = matches!(request.uri().path(), "/docs/" | "/docs/index.html");
    let response = next.run(request).await;
    if is_index && response.status().is_success() {
        return Html(include_str!("docs.html")).into_response();
    }
    response
}
