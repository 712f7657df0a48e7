//! What was measured and counted.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value, json};

use super::Random;
use super::request::{Answer, Fault, Kind, Request};

/// The results of the current second and phase.
pub(super) struct Seen {
    phase: &'static str,
    pub(super) open: u64,
    /// Requests that were due, in all phases; the next fields count all phases, too.
    due: u64,
    pub(super) sent: u64,
    answered: u64,
    failed: u64,
    answers: BTreeMap<String, u64>,
    faults: BTreeMap<&'static str, u64>,
    /// Microseconds.
    second: Histogram,
    all: Histogram,
}

impl Seen {
    pub(super) fn new() -> Self {
        Self {
            phase: "",
            open: 0,
            due: 0,
            sent: 0,
            answered: 0,
            failed: 0,
            answers: BTreeMap::new(),
            faults: BTreeMap::new(),
            second: Histogram::default(),
            all: Histogram::default(),
        }
    }

    pub(super) fn next_request(&mut self, due: Instant, random: &mut Random) -> Request {
        self.due += 1;
        Request {
            due,
            number: self.due,
            kind: match random.next() % 100 {
                0..80 => Kind::Url,
                80..85 => Kind::List,
                85..90 => Kind::Form,
                90..93 => Kind::WrongName,
                93..96 => Kind::UnknownPolicy,
                _ => Kind::Health,
            },
            random: random.next() >> 8,
        }
    }

    pub(super) fn answered(&mut self, request: &Request, answer: &Answer) {
        let took = request.due.elapsed().as_micros();
        let took = u64::try_from(took).unwrap_or(u64::MAX);
        self.second.record(took);
        self.all.record(took);
        let name = format!("{} {}", request.route(), answer.status);
        *self.answers.entry(name).or_default() += 1;
        match request.check(answer) {
            Ok(()) => self.answered += 1,
            Err(fault) => self.fail(&fault),
        }
    }

    pub(super) fn fail(&mut self, fault: &Fault) {
        self.failed += 1;
        *self.faults.entry(fault.kind).or_default() += 1;
        if self.failed <= 20 {
            eprintln!("{fault}");
        }
    }

    pub(super) fn is_all_sent(&self) -> bool {
        self.sent + self.failed >= self.due
    }

    pub(super) fn is_settled(&self) -> bool {
        self.answered + self.failed >= self.due
    }

    pub(super) fn begin(&mut self, phase: &'static str) {
        self.phase = phase;
        self.all = Histogram::default();
    }

    pub(super) fn end_second(&mut self) {
        println!("{}", self.line("second", &self.second));
        self.second = Histogram::default();
    }

    pub(super) fn end_phase(&mut self) {
        println!("{}", self.line("phase", &self.all));
    }

    fn line(&self, event: &str, latencies: &Histogram) -> Value {
        json!({
            "event": event,
            "phase": self.phase,
            "open": self.open,
            "due": self.due,
            "sent": self.sent,
            "answered": self.answered,
            "failed": self.failed,
            "answers": self.answers,
            "faults": self.faults,
            "count": latencies.count,
            "p50": latencies.at(0.5),
            "p99": latencies.at(0.99),
            "p999": latencies.at(0.999),
            "max": latencies.max,
        })
    }
}

/// Counts values in buckets that are less than 1 % wide.
#[derive(Default)]
struct Histogram {
    /// The key is the upper end of the bucket.
    buckets: BTreeMap<u64, u64>,
    count: u64,
    max: u64,
}

impl Histogram {
    fn record(&mut self, value: u64) {
        /// The number of bits that a bucket distinguishes.
        const BITS: u32 = 7;
        let rest = (u64::BITS - value.leading_zeros()).saturating_sub(BITS + 1);
        *self.buckets.entry(value | ((1 << rest) - 1)).or_default() += 1;
        self.count += 1;
        self.max = self.max.max(value);
    }

    /// The value that this share of all values does not exceed; 0 if there are none.
    fn at(&self, part: f64) -> u64 {
        #[expect(clippy::cast_precision_loss, reason = "counts are small")]
        let wanted = self.count as f64 * part;
        let mut count = 0;
        for (&value, &more) in &self.buckets {
            count += more;
            #[expect(clippy::cast_precision_loss, reason = "counts are small")]
            if count as f64 >= wanted {
                return value.min(self.max);
            }
        }
        self.max
    }
}
