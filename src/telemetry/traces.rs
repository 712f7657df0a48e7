//! A span for each request, sent to a collector by OTLP over HTTP.
//!
//! Spans are made here, from what a span may say, and not of what is logged: nothing else can get into them.
//! They wait in a queue of bounded length for a thread of its own, so that no request waits for a collector or
//! fails with it.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::http::HeaderMap;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Span as _, SpanKind, Status, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span};

/// How long the end of the process may wait for the collector.
const LAST_SPANS: Duration = Duration::from_secs(3);

/// Of the process, as its log is.
static TRACES: OnceLock<(SdkTracerProvider, SdkTracer)> = OnceLock::new();

/// Sends spans from now on. The exporter reads where to, and more, from
/// [variables of its own](https://opentelemetry.io/docs/specs/otel/protocol/exporter/).
pub(super) fn init() -> Result<()> {
    let exporter = SpanExporter::builder().with_http().build();
    let resource = Resource::builder()
        .with_service_name("presignd")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter.context("OTEL_EXPORTER_OTLP_ENDPOINT")?)
        .with_resource(resource.build())
        .build();
    let tracer = provider.tracer("presignd");
    let _there_already = TRACES.set((provider, tracer));
    Ok(())
}

/// Sends what is left, if that can be done in bounded time.
pub(super) fn flush() {
    let Some((provider, _)) = TRACES.get() else {
        return;
    };
    if provider.shutdown_with_timeout(LAST_SPANS).is_err() {
        tracing::warn!("the last traces were not sent within {LAST_SPANS:?}");
    }
}

/// The span of a request, which goes on with the trace of who sent it. `route` is a route's pattern, `None` if it
/// has none; `method` one of HTTP's own.
pub(crate) fn begin(
    method: &'static str,
    route: Option<&str>,
    headers: &HeaderMap,
) -> Option<Span> {
    let (_, tracer) = TRACES.get()?;
    // Into a context of its own: nothing of the thread's.
    let parent = TraceContextPropagator::new()
        .extract_with_context(&Context::new(), &HeaderExtractor(headers));
    let name = route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}"));
    let route = route.map(|route| KeyValue::new("http.route", route.to_owned()));
    let attributes = [KeyValue::new("http.request.method", method)];
    let span = tracer
        .span_builder(name)
        .with_kind(SpanKind::Server)
        .with_attributes(attributes.into_iter().chain(route));
    Some(span.start_with_context(tracer, &parent))
}

/// As [OpenTelemetry's conventions](https://opentelemetry.io/docs/specs/semconv/http/http-spans/) have it.
pub(crate) fn end(mut span: Span, status: u16) {
    let code = i64::from(status);
    span.set_attribute(KeyValue::new("http.response.status_code", code));
    if status >= 500 {
        span.set_attribute(KeyValue::new("error.type", code.to_string()));
        span.set_status(Status::error(""));
    }
    span.end();
}

/// What lines of the log name the trace by.
pub(crate) fn id(span: &Span) -> String {
    span.span_context().trace_id().to_string()
}
