//! A span for each request, sent to a collector by OTLP over HTTP.
//!
//! Spans are made here from the few values that they may show, not from log events, so that nothing
//! else can get into them. A bounded queue and a thread of its own send them: no request waits for
//! a collector, or fails with it.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::http::HeaderMap;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Span as _, SpanKind, Status, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span};

/// How long the end of the process may wait for the collector.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// Global, as the log of the process is.
static TRACES: OnceLock<(SdkTracerProvider, SdkTracer)> = OnceLock::new();

/// Starts to send spans to `collector`. The exporter reads further options from
/// [OpenTelemetry's variables](https://opentelemetry.io/docs/specs/otel/protocol/exporter/).
pub(super) fn init(collector: &str) -> Result<()> {
    let endpoint = format!("{}/v1/traces", collector.trim_end_matches('/'));
    let exporter = SpanExporter::builder().with_http();
    let exporter = exporter.with_endpoint(endpoint).build();
    // The builder reads the name from the variables, and would ignore it if one was set here.
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let is_named = !variable("OTEL_SERVICE_NAME").is_empty()
        || variable("OTEL_RESOURCE_ATTRIBUTES")
            .split(',')
            .any(|attribute| attribute.trim().starts_with("service.name="));
    let builder = if is_named {
        Resource::builder()
    } else {
        Resource::builder().with_service_name("presignd")
    };
    let resource =
        builder.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter.context("OTEL_EXPORTER_OTLP_ENDPOINT")?)
        .with_resource(resource.build())
        .build();
    let tracer = provider.tracer("presignd");
    TRACES.set((provider, tracer)).ok(); // a second call changes nothing
    Ok(())
}

/// Sends the queued spans, in bounded time.
pub(super) fn flush() {
    let Some((provider, _)) = TRACES.get() else {
        return;
    };
    if provider.shutdown_with_timeout(FLUSH_TIMEOUT).is_err() {
        tracing::warn!("the last traces were not sent within {FLUSH_TIMEOUT:?}");
    }
}

/// The span of a request; none unless traces are sent.
#[derive(Debug)]
pub(crate) struct Trace(Option<(Span, &'static str)>);

impl Trace {
    /// Continues the trace that the headers name; without headers, begins a new one. `method` is a
    /// standard one.
    pub(crate) fn begin(method: &'static str, headers: Option<&HeaderMap>) -> Self {
        let Some((_, tracer)) = TRACES.get() else {
            return Self(None);
        };
        // A fresh context: nothing that is attached to the thread.
        let parent = headers.map_or_else(Context::new, |headers| {
            TraceContextPropagator::new()
                .extract_with_context(&Context::new(), &HeaderExtractor(headers))
        });
        let span = tracer
            .span_builder(method)
            .with_kind(SpanKind::Server)
            .with_attributes([KeyValue::new("http.request.method", method)]);
        Self(Some((span.start_with_context(tracer, &parent), method)))
    }

    /// The id that leads from a log line to the trace.
    pub(crate) fn id(&self) -> Option<String> {
        let (span, _) = self.0.as_ref()?;
        Some(span.span_context().trace_id().to_string())
    }

    /// Ends the span as
    /// [OpenTelemetry's conventions](https://opentelemetry.io/docs/specs/semconv/http/http-spans/)
    /// require. `route` is the pattern of the route that the request matched.
    pub(crate) fn end(&mut self, route: Option<&str>, status: u16) {
        let Some((mut span, method)) = self.0.take() else {
            return;
        };
        if let Some(route) = route {
            span.update_name(format!("{method} {route}"));
            span.set_attribute(KeyValue::new("http.route", route.to_owned()));
        }
        let code = i64::from(status);
        span.set_attribute(KeyValue::new("http.response.status_code", code));
        if status >= 500 {
            span.set_attribute(KeyValue::new("error.type", code.to_string()));
            span.set_status(Status::error(""));
        }
        span.end();
    }
}
