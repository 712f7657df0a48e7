//! `/docs`: Swagger UI with the OpenAPI document of this service.

use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::{Config, SwaggerUi};

/// What the page may do in a browser.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// Where the document is.
const DOCUMENT: &str = "/openapi.json";

/// All answers share the same bytes, because anyone may request them: unread answers take no
/// memory.
pub(super) fn router(document: &OpenApi) -> Router {
    let document = serde_json::to_vec(document).expect("the document is valid JSON");
    let document = Bytes::from(document);
    let document = || async move { ([(header::CONTENT_TYPE, "application/json")], document) };
    Router::from(SwaggerUi::new("/docs").config(Config::from(DOCUMENT)))
        .route(DOCUMENT, get(document))
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

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http_body_util::BodyExt;
    use tower::ServiceExt;
    use utoipa::openapi::OpenApiBuilder;

    use super::*;

    #[tokio::test]
    async fn answers_share_their_bytes() {
        let router = router(&OpenApiBuilder::new().build());
        let answer = async |path: &str| {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            response.into_body().collect().await.unwrap().to_bytes()
        };
        for path in [DOCUMENT, "/docs/", "/docs/swagger-ui-bundle.js"] {
            let (one, other) = (answer(path).await, answer(path).await);
            assert!(one.len() > 10, "{path}");
            assert_eq!(one.as_ptr(), other.as_ptr(), "{path}");
        }
    }
}
