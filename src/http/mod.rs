//! The outside: routes, layers and the server. Translates between HTTP and [`crate::upload`], and
//! decides nothing.

mod auth;
mod companion;
mod error;
mod extract;
mod json;
mod observe;
mod openapi;
mod ops;
pub mod page;
mod uploads;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

use self::error::Problem;
pub(crate) use self::ops::HEALTHZ;
use crate::upload::UploadService;

/// How long requests may go on after the service was told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a browser may remember the answer to a preflight: what Chromium takes at most.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_hours(2);

/// Which origins' pages may call the service from a browser.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// Only pages that the service itself serves.
    #[default]
    None,
    Any,
    Exactly(Vec<HeaderValue>),
}

#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub allowed_origins: AllowedOrigins,
    /// The upload page at `/`, if there is to be one.
    pub page: Option<page::Settings>,
}

/// The whole service but for its listener: what `serve`, `dev` and the tests all run.
pub fn router(uploads: Arc<UploadService>, settings: &Settings) -> Router {
    let (routes, document) = routes().with_state(uploads).split_for_parts();
    let page = settings.page.as_ref().map(page::router);
    routes
        .merge(page.unwrap_or_default())
        .merge(SwaggerUi::new("/docs").url("/openapi.json", document))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(option_layer(cors(&settings.allowed_origins)))
        .layer(from_fn(observe::observe))
}

/// The OpenAPI document, as `/openapi.json` serves it.
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes().into_openapi()
}

/// Serves `router` until `stop` is ready, then answers the requests that are under way.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let stopping = Arc::new(tokio::sync::Notify::new());
    let told = Arc::clone(&stopping);
    let server = axum::serve(listener, router).with_graceful_shutdown(async move {
        stop.await;
        told.notify_one();
    });
    tokio::select! {
        result = server => result,
        () = async {
            stopping.notified().await;
            tokio::time::sleep(DRAIN_TIMEOUT).await;
        } => {
            tracing::warn!("stopped with requests unanswered after {DRAIN_TIMEOUT:?}");
            Ok(())
        }
    }
}

fn routes() -> OpenApiRouter<Arc<UploadService>> {
    OpenApiRouter::with_openapi(openapi::base())
        .merge(uploads::router())
        .merge(companion::router())
        .route_layer(from_fn(auth::authenticate))
        .merge(ops::router())
}

fn cors(origins: &AllowedOrigins) -> Option<CorsLayer> {
    let origins = match origins {
        AllowedOrigins::None => return None,
        AllowedOrigins::Any => AllowOrigin::any(),
        AllowedOrigins::Exactly(origins) => AllowOrigin::list(origins.iter().cloned()),
    };
    Some(
        CorsLayer::new()
            .allow_origin(origins)
            .allow_methods([Method::GET, Method::POST, Method::DELETE])
            .allow_headers([
                header::ACCEPT,
                header::AUTHORIZATION,
                header::CONTENT_TYPE,
                observe::REQUEST_ID,
                // Uppy sends these, though we have no use for them.
                HeaderName::from_static("uppy-auth-token"),
                HeaderName::from_static("uppy-credentials-params"),
            ])
            .expose_headers([observe::REQUEST_ID, header::RETRY_AFTER])
            .max_age(PREFLIGHT_MAX_AGE),
    )
}

async fn not_found() -> Problem {
    Problem::not_found()
}

async fn method_not_allowed(request: Request) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        format!(
            "this route does not take {}; the `allow` header says what it takes",
            request.method()
        ),
    )
}

/// The panic's message is on standard error already, by the standard hook.
fn panicked(_panic: Box<dyn std::any::Any + Send>) -> Response {
    tracing::error!("a handler panicked");
    Problem::internal().into_response()
}
