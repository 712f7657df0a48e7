//! Lines of the log as JSON: when, how grave, the event's fields, and where from.
//!
//! They are those of [`tracing_subscriber::fmt::format::Json`] with its fields flattened, written in a fraction of its
//! time, since each request writes one.

use std::fmt::{self, Debug, Write};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::json::push_escaped;

pub(super) struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let now = OffsetDateTime::now_utc();
        let seconds = now.truncate_to_second().format(&Rfc3339);
        let seconds = seconds.map_err(|_| fmt::Error)?;
        let mut line = Line(String::with_capacity(512));
        line.0.push_str("{\"timestamp\":\"");
        line.0.push_str(seconds.trim_end_matches('Z'));
        write!(line.0, ".{:06}Z\"", now.microsecond())?;
        line.text("level", metadata.level().as_str());
        event.record(&mut line);
        line.text("target", metadata.target());
        line.0.push_str("}\n");
        writer.write_str(&line.0)
    }
}

/// An object that has begun.
struct Line(String);

impl Line {
    fn name(&mut self, name: &str) {
        self.0.push_str(",\"");
        self.0.push_str(name);
        self.0.push_str("\":");
    }

    fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        self.0.push('"');
        push_escaped(&mut self.0, text);
        self.0.push('"');
    }

    fn number(&mut self, field: &Field, number: impl fmt::Display) {
        self.name(field.name());
        let _infallible = write!(self.0, "{number}");
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field, value);
    }

    /// What is not one of those is written as text, the message among them.
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.name(field.name());
        self.0.push('"');
        let _infallible = write!(Escaping(&mut self.0), "{value:?}");
        self.0.push('"');
    }
}

struct Escaping<'a>(&'a mut String);

impl Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        push_escaped(self.0, text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use serde_json::Value;
    use tracing_subscriber::fmt::layer;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::telemetry::Written;

    /// The lines without their time, and the time.
    fn read(written: &Written) -> Vec<(String, OffsetDateTime)> {
        let text = written.text();
        let lines = text.lines().map(|line| {
            let json: Value = serde_json::from_str(line).expect(line);
            let timestamp = json["timestamp"].as_str().unwrap();
            assert_eq!(timestamp.len(), "2026-01-01T00:00:00.000000Z".len());
            let at = OffsetDateTime::parse(timestamp, &Rfc3339).unwrap();
            (line.replace(timestamp, ""), at)
        });
        lines.collect()
    }

    #[test]
    fn a_line_is_what_the_library_would_write() {
        let (ours, of_library) = (Written::default(), Written::default());
        let writer = |written: &Written| {
            let written = written.clone();
            move || written.clone()
        };
        let our_layer = layer().with_writer(writer(&ours)).event_format(JsonLines);
        let its_layer = layer()
            .with_writer(writer(&of_library))
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false);
        let subscriber = tracing_subscriber::registry()
            .with(our_layer)
            .with(its_layer);
        tracing::subscriber::with_default(subscriber, || {
            let hostile = "a\"b\\c\n\u{1}\u{7f}é🎉</script>";
            let error = io::Error::other(hostile);
            tracing::info!(
                text = hostile,
                none = None::<&str>,
                some = Some(""),
                "plain"
            );
            tracing::warn!(%error, debug = ?hostile, "with {hostile}");
            tracing::error!(count = 7_u16, many = u64::MAX, less = -7, is = true);
        });
        let (ours, of_library) = (read(&ours), read(&of_library));
        assert_eq!(ours.len(), 3);
        for ((line, at), (expected, expected_at)) in ours.iter().zip(&of_library) {
            assert_eq!(line, expected);
            assert!((*at - *expected_at).abs() < time::Duration::seconds(10));
        }
    }
}
