//! The outside: routes, layers and the server. Translates between HTTP and [`crate::upload`], and
//! decides nothing.

pub mod auth;
mod body;
mod clients;
mod health;
mod json;
mod middleware;
mod openapi;
pub mod page;
mod problem;
mod rate_limit;
mod server;
mod uploads;
mod verify;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRef, Request};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

use self::auth::{Auth, Gate};
pub(crate) use self::health::HEALTHZ;
use self::health::Readiness;
#[cfg(feature = "lambda")]
pub(crate) use self::middleware::REQUEST_ID;
use self::problem::Problem;
pub use self::rate_limit::Rate;
use self::rate_limit::RateLimit;
#[cfg(feature = "lambda")]
pub(crate) use self::rate_limit::address;
pub use self::server::{Limits, Server, serve};
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
    /// Cancelled when the service is to stop: it is not ready from then on.
    pub stop: CancellationToken,
}

/// State shared by all handlers.
#[derive(Clone, FromRef)]
struct AppState {
    uploads: Arc<UploadService>,
    gate: Arc<Gate>,
    readiness: Readiness,
    metrics: Metrics,
    stop: CancellationToken,
}

impl AppState {
    fn new(uploads: Arc<UploadService>, settings: &Settings) -> Self {
        let gate = Gate {
            auth: settings.auth.clone(),
            rate_limit: settings
                .rate
                .map(|rate| RateLimit::new(rate, settings.trusted_proxies.clone())),
        };
        Self {
            uploads,
            gate: Arc::new(gate),
            readiness: Readiness::default(),
            metrics: settings.metrics.clone(),
            stop: settings.stop.clone(),
        }
    }
}

/// All routes but `/metrics`: what `serve`, `dev` and the tests run.
pub fn router(uploads: Arc<UploadService>, settings: &Settings) -> Router {
    let (api, mut document) = routes()
        .with_state(AppState::new(uploads, settings))
        .split_for_parts();
    openapi::complete(&mut document, Some(&settings.auth));
    let page = settings.page.as_ref().map(page::router);
    let router = api.merge(page.unwrap_or_default()).merge(docs(document));
    let cors = cors(&settings.allowed_origins);
    middleware::add(with_fallbacks(router), cors, &settings.metrics)
}

/// The metrics, for a listener of their own.
pub fn metrics_router(uploads: Arc<UploadService>, settings: &Settings) -> Router {
    let router = health::metrics_router().with_state(AppState::new(uploads, settings));
    // Requests for metrics are not counted among those that the metrics show.
    middleware::add(with_fallbacks(router), None, &Metrics::default())
}

fn with_fallbacks(router: Router) -> Router {
    router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
}

/// The OpenAPI document of any presignd. `/openapi.json` serves that of this one, which knows how its callers say
/// who they are.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut document = routes().into_openapi();
    openapi::complete(&mut document, None);
    document
}

fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(openapi::base())
        .merge(uploads::router())
        .merge(verify::router())
        .merge(clients::router())
        .merge(health::router())
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
                middleware::REQUEST_ID,
                // Uppy sends these, though we have no use for them.
                HeaderName::from_static("uppy-auth-token"),
                HeaderName::from_static("uppy-credentials-params"),
            ])
            .expose_headers([
                middleware::REQUEST_ID,
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
