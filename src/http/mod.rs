//! The outside: routes, layers and the server. Translates between HTTP and [`crate::upload`], and
//! decides nothing.

pub mod auth;
mod companion;
mod error;
mod extract;
mod json;
mod limit;
mod observe;
mod openapi;
mod ops;
pub mod page;
mod server;
mod uploads;
mod verify;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

use self::auth::{Auth, Gate};
use self::error::{Cause, Problem};
pub use self::limit::Rate;
use self::limit::RateLimit;
#[cfg(feature = "lambda")]
pub(crate) use self::limit::address;
#[cfg(feature = "lambda")]
pub(crate) use self::observe::REQUEST_ID;
pub(crate) use self::ops::HEALTHZ;
pub use self::server::{Limits, Server, Stopping, serve};
use crate::telemetry::Metrics;
use crate::upload::UploadService;

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
    /// Who may call.
    pub auth: Auth,
    /// How often; as often as they like, if nothing is set.
    pub rate: Option<Rate>,
    /// Whose `X-Forwarded-For` counts.
    pub trusted_proxies: Vec<IpNet>,
    pub metrics: Metrics,
    pub stopping: Stopping,
}

/// The whole service but for its listener: what `serve`, `dev` and the tests all run.
pub fn router(uploads: Arc<UploadService>, settings: &Settings) -> Router {
    let gate = Gate {
        auth: settings.auth.clone(),
        rate_limit: settings.rate.map(|rate| {
            let limit = RateLimit::new(rate, settings.trusted_proxies.clone());
            Arc::new(limit)
        }),
    };
    let stopping = settings.stopping.clone();
    let routes = routes(gate, stopping).with_state(uploads);
    let (routes, mut document) = routes.split_for_parts();
    openapi::complete(&mut document, Some(&settings.auth));
    let page = settings.page.as_ref().map(page::router);
    routes
        .merge(page.unwrap_or_default())
        .merge(docs(document))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        // As one: each layer that a router gets of its own costs a box for each request.
        .layer((
            from_fn_with_state(settings.metrics.clone(), observe::observe),
            option_layer(cors(&settings.allowed_origins)),
            CatchPanicLayer::custom(panicked),
        ))
}

/// The metrics, for a listener of their own.
pub fn metrics_router(uploads: Arc<UploadService>, metrics: Metrics) -> Router {
    ops::metrics_router(uploads, metrics)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(Metrics::default(), observe::observe))
}

/// The OpenAPI document of any presignd. `/openapi.json` serves that of this one, which knows how its callers say
/// who they are.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut document = routes(Gate::default(), Stopping::default()).into_openapi();
    openapi::complete(&mut document, None);
    document
}

fn routes(gate: Gate, stopping: Stopping) -> OpenApiRouter<Arc<UploadService>> {
    OpenApiRouter::with_openapi(openapi::base())
        .merge(uploads::router())
        .merge(verify::router())
        .merge(companion::router())
        .route_layer(from_fn_with_state(gate, auth::authenticate))
        .merge(ops::router(stopping))
}

/// Swagger UI, and what it may do in a browser.
fn docs<S: Clone + Send + Sync + 'static>(document: utoipa::openapi::OpenApi) -> Router<S> {
    const POLICY: HeaderValue = HeaderValue::from_static(
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    );
    let ui = Router::from(SwaggerUi::new("/docs").url("/openapi.json", document));
    let policy = SetResponseHeaderLayer::if_not_present(header::CONTENT_SECURITY_POLICY, POLICY);
    ui.layer(policy)
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
                auth::API_KEY,
                observe::REQUEST_ID,
                // Uppy sends these, though we have no use for them.
                HeaderName::from_static("uppy-auth-token"),
                HeaderName::from_static("uppy-credentials-params"),
            ])
            .expose_headers([
                observe::REQUEST_ID,
                header::RETRY_AFTER,
                header::WWW_AUTHENTICATE,
            ])
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
    let mut response = Problem::internal().into_response();
    let cause = Cause("a handler panicked".to_owned());
    response.extensions_mut().insert(cause);
    response
}
