//! The log: its destination, its format, and what is kept out of it. Also the [metrics](Metrics)
//! and the traces.

mod dropped;
mod json;
mod metrics;
#[cfg(not(feature = "otlp"))]
#[path = "telemetry/no_traces.rs"]
mod traces;
#[cfg(feature = "otlp")]
mod traces;

use std::io::{BufWriter, IsTerminal};

use tracing::Level;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::filter::{FilterExt, LevelFilter, Targets, filter_fn};
use tracing_subscriber::layer::{Filter, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use self::dropped::Counted;
use self::json::JsonLines;
pub use self::metrics::Metrics;
pub(crate) use self::traces::Trace;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Pretty,
    Json,
}

#[derive(Clone, Debug)]
pub struct Settings {
    /// By default pretty on a terminal, and JSON elsewhere.
    pub format: Option<LogFormat>,
    pub filter: Targets,
    /// The collector that traces are sent to, if any.
    #[cfg(feature = "otlp")]
    pub traces: Option<String>,
}

pub fn default_filter() -> Targets {
    Targets::new()
        .with_default(Level::INFO)
        // The embedded store calls it an error when a client pauses or cancels.
        .with_target("s3s", LevelFilter::OFF)
}

/// Sends the log of this process to standard error until the returned guard is dropped, and its
/// traces to the collector, if there is one.
///
/// A thread of its own writes the log, so no request waits for it. If nobody reads standard error,
/// lines are lost, and counted in the [metrics](Metrics).
pub fn init(settings: Settings) -> anyhow::Result<WorkerGuard> {
    #[cfg(feature = "otlp")]
    if let Some(collector) = &settings.traces {
        traces::init(collector)?;
    }
    let on_terminal = std::io::stderr().is_terminal();
    let format = settings.format.unwrap_or(if on_terminal {
        LogFormat::Pretty
    } else {
        LogFormat::Json
    });
    // The thread flushes when its queue is empty, so that many lines share a system call.
    let writer = Counted(BufWriter::new(std::io::stderr()));
    let (writer, guard) = tracing_appender::non_blocking(writer);
    dropped::count(writer.error_counter());
    let output = fmt::layer().with_writer(writer);
    let output = match format {
        LogFormat::Pretty => output.with_ansi(on_terminal).with_target(false).boxed(),
        LogFormat::Json => output.event_format(JsonLines).boxed(),
    };
    tracing_subscriber::registry()
        .with(output.with_filter(without_secrets(settings.filter)))
        .init();
    Ok(guard)
}

/// The part of `wanted` that the log may contain.
///
/// Dependencies log more than a log should contain: the SDK writes requests and signatures at
/// TRACE, and the embedded store puts whole requests into spans. No filter that an operator sets
/// lets those through.
///
/// The two conditions are one filter: nested filters would both be evaluated for every line that is
/// not logged.
fn without_secrets<S>(wanted: Targets) -> impl Filter<S> {
    let own_or_warning = filter_fn(|metadata| {
        metadata.target().starts_with("presignd")
            || (metadata.is_event() && *metadata.level() <= Level::WARN)
    });
    wanted.and(own_or_warning.with_max_level_hint(Level::TRACE))
}

/// Sends what is still queued, in bounded time. Called before the process exits.
pub fn flush() {
    #[cfg(feature = "otlp")]
    traces::flush();
}
