//! What is counted and measured, in
//! [OpenMetrics](https://prometheus.io/docs/specs/om/open_metrics_spec/). `docs/operations.md`
//! explains each metric.
//!
//! Labels take a bounded number of values: names of routes, policies and operations, never anything
//! that a client chooses.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};

use super::dropped::DroppedLines;

/// In seconds, from the time of one signature to the longest time of completing a large upload.
const BUCKETS: [f64; 16] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
    20.0, 120.0,
];

/// A single label: its name and its value.
type Label = [(&'static str, &'static str); 1];
type Histograms<Labels> = Family<Labels, Histogram, fn() -> Histogram>;

/// The metrics of one service, in a registry of their own.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    requests: Histograms<RequestLabels>,
    grants: Family<GrantLabels, Counter>,
    commits: Family<OutcomeLabels, Counter>,
    deletes: Family<OutcomeLabels, Counter>,
    storage_calls: Histograms<[(&'static str, &'static str); 2]>,
    credentials_life: Gauge<f64, AtomicU64>,
    clock_ahead: Gauge,
    open_connections: Gauge,
    max_connections: Gauge,
    unreadable_requests: Counter,
    reloads: Family<Label, Counter>,
    loaded_at: Gauge<f64, AtomicU64>,
    events: Family<Label, Counter>,
    issuer_fetches: Family<Label, Counter>,
    webhooks: Histograms<Label>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GrantLabels {
    policy: Arc<str>,
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    policy: Arc<str>,
    outcome: &'static str,
}

/// A registry that metrics are added to.
struct Adding(Registry);

impl Adding {
    fn plain<M: Metric + Clone + Default>(&mut self, name: &str, help: &str) -> M {
        let metric = M::default();
        self.0.register(name, help, metric.clone());
        metric
    }

    fn seconds<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        let registry = &mut self.0;
        registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
        metric
    }
}

fn histograms<Labels: Clone + Eq + Hash>() -> Histograms<Labels> {
    Family::new_with_constructor(|| Histogram::new(BUCKETS))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut add = Adding(Registry::with_prefix("presignd"));
        let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        add.0.register("build", "The build that runs", version);
        add.0.register_collector(Box::new(DroppedLines));
        let inner = Inner {
            requests: add.seconds(
                "http_request_duration",
                "Requests, by the time until their answer",
                histograms(),
            ),
            grants: add.plain("grants", "Files for which a grant was requested, by the outcome"),
            commits: add.plain("commits", "Pending uploads that were to be committed, by the outcome"),
            deletes: add.plain("deletes", "Uploads that were to be deleted, by the outcome"),
            storage_calls: add.seconds(
                "storage_call_duration",
                "Calls to the store, by their duration",
                histograms(),
            ),
            credentials_life: add.seconds(
                "credentials_life",
                "Remaining lifetime of the cached credentials: +Inf if they do not expire, 0 if there are none",
                Gauge::default(),
            ),
            clock_ahead: add.seconds(
                "clock_ahead",
                "How far this machine's clock is ahead of that of the store, by the last probe; negative if it is behind",
                Gauge::default(),
            ),
            open_connections: add.plain("open_connections", "Connections that are open"),
            max_connections: add.plain("max_connections", "Connections that may be open at the same time"),
            unreadable_requests: add.plain(
                "unreadable_requests",
                "Connections that were closed because what arrived is not HTTP/1.1",
            ),
            reloads: add.plain("reloads", "Attempts to read API keys and policies again, by the outcome"),
            loaded_at: add.seconds(
                "configuration_loaded_timestamp",
                "When the API keys and policies in force were read, since 1970",
                Gauge::default(),
            ),
            issuer_fetches: add.plain(
                "issuer_fetches",
                "Requests for the keys of JWT_JWKS_URL, by the outcome",
            ),
            events: add.plain("events", "Events of the store, by the outcome"),
            webhooks: add.seconds(
                "webhook_duration",
                "Webhooks, by the time until the application's answer",
                histograms(),
            ),
            registry: add.0,
        };
        inner.begin_at_zero();
        inner.loaded_at.set(now());
        Self(Arc::new(inner))
    }
}

impl Inner {
    /// Creates the series that have alerts, because an alert on an increase misses a series that
    /// begins at 1.
    fn begin_at_zero(&self) {
        for outcome in ["arrived", "refused", "failed", "lost"] {
            drop(self.events.get_or_create(&[("outcome", outcome)]));
        }
        for outcome in ["ok", "failed"] {
            drop(self.reloads.get_or_create(&[("outcome", outcome)]));
            drop(self.issuer_fetches.get_or_create(&[("outcome", outcome)]));
        }
    }
}

impl Metrics {
    /// Counts a request. `method` and `route` must not be what a client sent, so that labels stay
    /// bounded.
    pub(crate) fn request(&self, method: &'static str, route: &str, status: u16, took: Duration) {
        let labels = RequestLabels {
            method,
            route: route.to_owned(),
            status,
        };
        let histogram = self.0.requests.get_or_create(&labels);
        histogram.observe(took.as_secs_f64());
    }

    /// Counts the files for which a grant was requested. `policy` must be a configured policy, so
    /// that labels stay bounded.
    pub(crate) fn grants(
        &self,
        policy: Arc<str>,
        kind: &'static str,
        outcome: &'static str,
        files: u64,
    ) {
        let labels = GrantLabels {
            policy,
            kind,
            outcome,
        };
        self.0.grants.get_or_create(&labels).inc_by(files);
    }

    /// Counts a request to commit an upload. `policy` must be a configured policy, so that labels
    /// stay bounded.
    pub(crate) fn commit(&self, policy: Arc<str>, outcome: &'static str) {
        let labels = OutcomeLabels { policy, outcome };
        self.0.commits.get_or_create(&labels).inc();
    }

    /// Counts a request to delete an upload. `policy` must be a configured policy, so that labels
    /// stay bounded.
    pub(crate) fn delete(&self, policy: Arc<str>, outcome: &'static str) {
        let labels = OutcomeLabels { policy, outcome };
        self.0.deletes.get_or_create(&labels).inc();
    }

    pub(crate) fn storage_call(
        &self,
        operation: &'static str,
        result: &'static str,
        took: Duration,
    ) {
        let labels = [("operation", operation), ("result", result)];
        let histogram = self.0.storage_calls.get_or_create(&labels);
        histogram.observe(took.as_secs_f64());
    }

    /// Counts a request for the keys of the issuer.
    pub(crate) fn issuer_fetch(&self, is_ok: bool) {
        let labels = [("outcome", ok_or_failed(is_ok))];
        self.0.issuer_fetches.get_or_create(&labels).inc();
    }

    /// Counts an attempt to read API keys and policies again.
    pub(crate) fn reload(&self, is_ok: bool) {
        let outcome = ok_or_failed(is_ok);
        self.0.reloads.get_or_create(&[("outcome", outcome)]).inc();
        if is_ok {
            self.0.loaded_at.set(now());
        }
    }

    /// Counts an event of the store.
    pub(crate) fn event(&self, outcome: &'static str) {
        self.0.events.get_or_create(&[("outcome", outcome)]).inc();
    }

    pub(crate) fn webhook(&self, result: &'static str, took: Duration) {
        let histogram = self.0.webhooks.get_or_create(&[("result", result)]);
        histogram.observe(took.as_secs_f64());
    }

    pub(crate) fn open_connections(&self) -> &Gauge {
        &self.0.open_connections
    }

    pub(crate) fn unreadable_requests(&self) -> &Counter {
        &self.0.unreadable_requests
    }

    /// Notes how many connections may be open at the same time.
    pub(crate) fn set_max_connections(&self, max: usize) {
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        self.0.max_connections.set(max);
    }

    /// How many seconds this machine's clock is ahead of that of the store.
    pub(crate) fn set_clock_ahead(&self, seconds_ahead: i64) {
        self.0.clock_ahead.set(seconds_ahead);
    }

    /// All metrics as text. `credentials_life` is the remaining lifetime of the cached credentials,
    /// in seconds.
    pub(crate) fn encode(&self, credentials_life: f64) -> Result<String, fmt::Error> {
        self.0.credentials_life.set(credentials_life);
        let mut text = String::new();
        text::encode(&mut text, &self.0.registry)?;
        Ok(text)
    }
}

fn ok_or_failed(is_ok: bool) -> &'static str {
    if is_ok { "ok" } else { "failed" }
}

fn now() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs_f64()
}
