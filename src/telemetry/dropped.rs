//! Counts the lines of the log that were lost, which the log itself cannot tell.

use std::fmt;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use tracing_appender::non_blocking::ErrorCounter;

/// Lines that could not be written. One counter for the process, because it has one log.
static NOT_WRITTEN: AtomicU64 = AtomicU64::new(0);
/// Lines that found the queue before the writer full.
static NOT_QUEUED: OnceLock<ErrorCounter> = OnceLock::new();

/// From now on, lines that find the queue full are counted, too.
pub(super) fn count(of_queue: ErrorCounter) {
    NOT_QUEUED.set(of_queue).ok(); // the first log of the process
}

/// Counts the lines that its writer refuses. Each line is one call.
pub(super) struct Counted<W>(pub(super) W);

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let written = self.0.write(line);
        if written.is_err() {
            NOT_WRITTEN.fetch_add(1, Ordering::Relaxed);
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The metric.
#[derive(Debug)]
pub(super) struct DroppedLines;

impl Collector for DroppedLines {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let not_queued = NOT_QUEUED.get().map_or(0, ErrorCounter::dropped_lines);
        let dropped = NOT_WRITTEN.load(Ordering::Relaxed) + not_queued as u64;
        let counter = ConstCounter::new(dropped);
        let help = "Lines of the log that were lost, because they could not be written in time";
        let metric =
            encoder.encode_descriptor("log_lines_dropped", help, None, counter.metric_type())?;
        counter.encode(metric)
    }
}
