//! The HTTP side: routes, layers and the server. Translates between HTTP and [`crate::upload`],
//! authenticates callers, and limits rates, connections and memory. It does not decide what may be
//! uploaded.

pub mod auth;
mod body;
mod client_ip;
mod clients;
mod commit;
mod context;
mod cors;
mod delete;
mod docs;
mod downloads;
pub mod events;
mod head;
mod health;
mod json;
mod keys;
mod memory;
mod middleware;
mod openapi;
mod own_address;
pub mod page;
mod problem;
mod rate_limit;
mod receipts;
mod server;
mod unread;
mod uploads;
mod verify;
mod xml;

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRef, FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;
use tower::Service;
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa_axum::router::OpenApiRouter;

use self::auth::{Auth, Gate};
#[cfg(feature = "lambda")]
pub(crate) use self::client_ip::parse_address;
use self::context::{RequestContext, problems_in};
pub use self::cors::AllowedOrigins;
#[cfg(feature = "dev")]
pub(crate) use self::cors::is_loopback;
#[cfg(feature = "lambda")]
pub(crate) use self::head::RequestId;
#[cfg(feature = "dev")]
pub(crate) use self::head::preflight_origin;
pub(crate) use self::health::HEALTHZ;
use self::health::Operations;
use self::middleware::Observer;
use self::problem::{Dialect, Problem, catalogue};
pub use self::rate_limit::Rate;
pub use self::server::{Limits, Server, serve};
use crate::telemetry::Metrics;
use crate::upload::UploadService;

/// A router with its middleware: what a server serves, and what Lambda calls. It is always ready,
/// and each failure is an answer.
pub trait HttpService:
    Service<Request, Response = Response, Error = Infallible, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> HttpService for S where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub allowed_origins: AllowedOrigins,
    /// The upload page at `/`; `None` serves no page.
    pub page: Option<page::Settings>,
    /// Who may call.
    pub auth: Auth,
    /// How often each caller may call; `None` is no limit.
    pub rate: Option<Rate>,
    /// Proxies whose `X-Forwarded-For`, `X-Request-Id` and `traceparent` count.
    pub trusted_proxies: Vec<IpNet>,
    /// presignd's own address, if it is not the host that requests name.
    pub public_url: Option<String>,
    /// Whether `Host` has to be `localhost` or an IP address, unless a trusted proxy forwards the request.
    /// A web page can make a browser send requests to a loopback address under a host name of its own
    /// (DNS rebinding).
    pub local_hosts_only: bool,
    /// How the store's events reach the application; `None` without a webhook.
    pub events: Option<events::Settings>,
    pub metrics: Metrics,
    /// Cancelled when the service is to stop: it is not ready from then on.
    pub stop: CancellationToken,
}

/// State shared by all handlers.
#[derive(Clone, FromRef)]
struct AppState {
    uploads: Arc<UploadService>,
    gate: Arc<Gate>,
    operations: Arc<Operations>,
    public_url: Option<Arc<str>>,
}

impl AppState {
    fn new(uploads: Arc<UploadService>, settings: &Settings) -> Self {
        Self {
            gate: Arc::new(Gate::new(settings)),
            operations: Arc::new(Operations::new(Arc::clone(&uploads), settings)),
            public_url: settings.public_url.as_deref().map(Arc::from),
            uploads,
        }
    }
}

/// All routes but `/metrics`: what `serve`, `dev`, the function of Lambda and the tests run.
pub fn router(uploads: Arc<UploadService>, settings: &Settings) -> impl HttpService + use<> {
    let page = settings.page.as_ref().map(|page| {
        let needs_credential = settings.auth.is_required();
        page::router(page, Arc::clone(&uploads), needs_credential)
    });
    let state = AppState::new(uploads, settings);
    let (of_store, of_store_document) = events_router(&state, settings);
    let (api, mut document) = routes().with_state(state.clone()).split_for_parts();
    if let Some(of_store) = of_store_document {
        document.merge(of_store);
        events::complete_document(&mut document);
    }
    openapi::complete(&mut document, Some(&settings.auth));
    let (below_policy, _) = clients::router_of_policies()
        .with_state(state.clone())
        .split_for_parts();
    let below_ticket = match settings.auth.jwt {
        Some(_) => {
            let (routes, _) = routes_of_callers().with_state(state).split_for_parts();
            Router::new().nest(auth::TICKET_PATH, routes)
        }
        None => Router::new(),
    };
    let pages = page.unwrap_or_default().merge(docs::router(&document));
    let router = api
        .merge(below_ticket.merge(pages).layer(no_referrer()))
        .nest(auth::POLICY_PATH, below_policy)
        .merge(of_store);
    let cors = settings.allowed_origins.layer();
    let observer = Observer::new(settings, cors, settings.metrics.clone());
    middleware::add(with_fallbacks(router), observer)
}

/// The metrics, for a listener of their own, and the probes: there they get an answer even when
/// clients use all connections of the service.
pub fn metrics_router(
    uploads: Arc<UploadService>,
    settings: &Settings,
) -> impl HttpService + use<> {
    let (probes, _) = health::router().split_for_parts();
    let router = health::metrics_router().merge(probes);
    let router = router.with_state(Arc::new(Operations::new(uploads, settings)));
    // The requests of Prometheus and of the cluster are not counted with those of clients.
    let observer = Observer::new(settings, None, Metrics::default());
    middleware::add(with_fallbacks(router), observer)
}

/// For pages, and for routes whose address holds a ticket: no other site gets to know the address.
fn no_referrer() -> SetResponseHeaderLayer<HeaderValue> {
    let value = HeaderValue::from_static("no-referrer");
    SetResponseHeaderLayer::overriding(header::REFERRER_POLICY, value)
}

fn with_fallbacks(router: Router) -> Router {
    router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
}

/// Routes whose problems are written in `dialect`, also that of a wrong method, which would otherwise come from
/// outside of the layer.
fn in_dialect(routes: OpenApiRouter<AppState>, dialect: Dialect) -> OpenApiRouter<AppState> {
    let (routes, document) = routes.split_for_parts();
    let routes = routes
        .method_not_allowed_fallback(method_not_allowed)
        .layer(problems_in(dialect));
    OpenApiRouter::with_openapi(document).merge(routes.into())
}

/// The OpenAPI document with every way to authenticate. A running service serves one with its own
/// ways, at `/openapi.json`.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut document = routes().into_openapi();
    document.merge(events::router().into_openapi());
    events::complete_document(&mut document);
    openapi::complete(&mut document, None);
    document
}

fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(openapi::base())
        .merge(routes_of_callers())
        .merge(health::router())
        .merge(receipts::router())
        .merge(clients::router_of_calls())
}

/// The routes that authenticate their callers.
fn routes_of_callers() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .merge(uploads::router())
        .merge(verify::router())
        .merge(commit::router())
        .merge(delete::router())
        .merge(downloads::router())
        .merge(clients::router())
}

/// The routes for the store and their document, if the store has a token.
fn events_router(
    state: &AppState,
    settings: &Settings,
) -> (Router, Option<utoipa::openapi::OpenApi>) {
    let token = settings.events.as_ref().and_then(|it| it.token.clone());
    let events = events::Events::from_settings(&state.uploads, settings);
    let (Some(events), Some(token)) = (events, token) else {
        return (Router::new(), None);
    };
    let state = events::EventsState {
        events: Arc::new(events),
        token,
        gate: Arc::clone(&state.gate),
    };
    let (router, document) = events::router().with_state(state).split_for_parts();
    let probes = events::probes(settings.page.is_some());
    (router.merge(probes), Some(document))
}

/// The parameter `name` of the path, which its route has.
///
/// # Errors
///
/// The answer if the path cannot be decoded.
async fn path_parameter(parts: &mut Parts, name: &str) -> Result<String, Response> {
    let params = RawPathParams::from_request_parts(parts, &()).await;
    let params = params.map_err(IntoResponse::into_response)?;
    let value = params.iter().find(|(other, _)| *other == name);
    Ok(value.map(|(_, value)| value.to_owned()).unwrap_or_default())
}

/// The problem that replaces an answer with these headers, which is too long for the load balancer or the gateway.
#[cfg(feature = "lambda")]
pub(crate) fn answer_too_large(headers: &axum::http::HeaderMap) -> Response {
    let id = headers.get("x-request-id").and_then(|id| id.to_str().ok());
    Problem::new(&catalogue::ANSWER_TOO_LARGE).render(id.unwrap_or_default(), None)
}

/// Written for the client that the path names, because it shows the problem to its user.
async fn not_found(request: Request) -> Problem {
    let mut segments = request.uri().path().split('/');
    let dialect = segments.find_map(|segment| match segment {
        "s3" => Some(Dialect::Uppy),
        "better-upload" => Some(Dialect::BetterUpload),
        _ => None,
    });
    if let Some(dialect) = dialect {
        let context = RequestContext::of(request.extensions());
        context.dialect.set(dialect).ok(); // no route has set it
    }
    Problem::new(&catalogue::NO_SUCH_ROUTE)
}

async fn method_not_allowed(request: Request) -> Problem {
    let method = request.method();
    let detail = format!("this route does not support {method}; see the `allow` header");
    Problem::with_detail(&catalogue::METHOD_NOT_ALLOWED, &detail)
}
