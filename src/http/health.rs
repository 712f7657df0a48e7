//! Routes for operators: probes and metrics.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::{FromRef, State};
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Settings;
use super::middleware::Routine;
use super::openapi::ReadinessProblems;
use super::problem::{Problem, catalogue};
use crate::error_chain::causes;
use crate::refreshed::{Age, Limits, Refreshed};
use crate::telemetry::Metrics;
use crate::upload::{Error, UploadService};

/// Where [`healthz`] is; `presignd healthcheck` asks there.
pub(crate) const HEALTHZ: &str = "/healthz";

/// The probes, for any state that has [`Operations`].
pub(super) fn router<S>() -> OpenApiRouter<S>
where
    S: Clone + Send + Sync + 'static,
    Arc<Operations>: FromRef<S>,
{
    OpenApiRouter::new()
        .routes(routes!(healthz))
        .routes(routes!(readyz))
}

#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// Check that the service is alive
///
/// Does not call the store.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operations",
    operation_id = "getHealth",
    responses((status = 200, description = "The service is alive", body = Health))
)]
async fn healthz() -> (Extension<Routine>, Json<Health>) {
    (Extension(Routine), Json(Health { status: "ok" }))
}

/// State shared by the routes for operators.
pub(super) struct Operations {
    uploads: Arc<UploadService>,
    /// What the last probe found out; `None` means that the service is ready.
    readiness: Refreshed<Option<Problem>, Infallible>,
    metrics: Metrics,
    stop: CancellationToken,
}

impl Operations {
    pub(super) fn new(uploads: Arc<UploadService>, settings: &Settings) -> Self {
        Self {
            uploads,
            readiness: Refreshed::new(LIMITS, |_, _| {}),
            metrics: settings.metrics.clone(),
            stop: settings.stop.clone(),
        }
    }
}

/// How long a result counts, so that probes cost the store little.
const READINESS_AGE: Duration = Duration::from_secs(5);
const LIMITS: Limits = Limits {
    // Longer than the timeouts of the calls that a probe makes.
    timeout: Duration::from_secs(20),
    interval: Duration::ZERO,
    interval_without_value: Duration::ZERO,
    freezes: false,
};

/// Check that the service can grant uploads
///
/// It can if it has credentials, the store answers for the bucket, and it is not shutting down. A
/// result counts for 5 seconds.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operations",
    operation_id = "getReadiness",
    responses((status = 200, description = "The service can grant uploads", body = Health), ReadinessProblems)
)]
async fn readyz(
    State(operations): State<Arc<Operations>>,
) -> Result<(Extension<Routine>, Json<Health>), Problem> {
    if operations.stop.is_cancelled() {
        return Err(Problem::new(&catalogue::STOPPING));
    }
    let judge = |_: &_, age| match age {
        age if age < READINESS_AGE => Age::Fresh,
        _ => Age::Expired,
    };
    let probe = operations
        .readiness
        .get(judge, || probe(Arc::clone(&operations.uploads)))
        .await;
    match probe {
        Ok(None) => Ok(healthz().await),
        Ok(Some(problem)) => Err(problem),
        Err(_) => Err(Problem::internal(
            "the probe panicked, or did not finish in time",
        )),
    }
}

async fn probe(uploads: Arc<UploadService>) -> Result<Option<Problem>, Infallible> {
    let mut problem = None;
    for (bucket, error) in uploads.probe().await {
        if matches!(error, Error::NoCredentials(_)) {
            // The same holds for all buckets.
            tracing::warn!(error = causes(&error), "not ready");
            return Ok(Some(Problem::new(&catalogue::CREDENTIALS_UNAVAILABLE)));
        }
        tracing::warn!(bucket, error = causes(&error), "not ready");
        problem = Some(Problem::new(&catalogue::STORAGE_UNAVAILABLE));
    }
    Ok(problem)
}

/// The metrics. They have a listener of their own, so that no client can read them.
pub(super) fn metrics_router() -> Router<Arc<Operations>> {
    Router::new().route("/metrics", get(metrics))
}

async fn metrics(State(operations): State<Arc<Operations>>) -> Result<impl IntoResponse, Problem> {
    const OPEN_METRICS: HeaderValue =
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    let lifetime = match operations.uploads.credentials_lifetime(SystemTime::now()) {
        None => 0.0,
        Some(Duration::MAX) => f64::INFINITY,
        Some(lifetime) => lifetime.as_secs_f64(),
    };
    let text = operations
        .metrics
        .encode(lifetime)
        .map_err(Problem::internal)?;
    let content_type = [(header::CONTENT_TYPE, OPEN_METRICS)];
    Ok((Extension(Routine), content_type, text))
}
