//! This machine's clock, compared with that of the store. A presigned URL is valid by the clock of the
//! store, so with a wrong clock here grants succeed, and the store refuses them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};

/// A difference of this many seconds is logged.
const NOTABLE: u64 = 60;

/// Takes the store's time from the `Date` of its answers.
#[derive(Clone, Debug, Default)]
pub struct ClockDifference {
    seconds_ahead: Arc<AtomicI64>,
}

impl ClockDifference {
    /// How far this machine's clock was ahead at the last answer; negative if it was behind, and 0 before
    /// the first answer.
    pub fn seconds_ahead(&self) -> i64 {
        self.seconds_ahead.load(Ordering::Relaxed)
    }

    /// The time by the store's clock.
    pub fn time_at_store(&self) -> SystemTime {
        let (now, ahead) = (SystemTime::now(), self.seconds_ahead());
        let difference = Duration::from_secs(ahead.unsigned_abs());
        let there = if ahead > 0 {
            now.checked_sub(difference)
        } else {
            now.checked_add(difference)
        };
        there.unwrap_or(now)
    }

    fn set(&self, seconds_ahead: i64) {
        let is_wrong = |seconds: i64| seconds.unsigned_abs() >= NOTABLE;
        let before = self.seconds_ahead.swap(seconds_ahead, Ordering::Relaxed);
        match (is_wrong(before), is_wrong(seconds_ahead)) {
            (false, true) => tracing::warn!(
                seconds_ahead,
                "this machine's clock differs from the store's, so the store may refuse grants as expired or not yet valid; set this machine's clock (NTP)"
            ),
            (true, false) => tracing::info!("this machine's clock is right again"),
            _ => {}
        }
    }
}

impl Intercept for ClockDifference {
    fn name(&self) -> &'static str {
        "ClockDifference"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let answer = context.response();
        // An answer from a cache was written earlier.
        let is_cached = answer.headers().get("age").is_some();
        if let Some(there) = date(answer).filter(|_| !is_cached) {
            self.set(DateTime::from(SystemTime::now()).secs() - there.secs());
        }
        Ok(())
    }
}

/// The `Date` of an answer: the time at the store.
pub(super) fn date(answer: &HttpResponse) -> Option<DateTime> {
    let date = answer.headers().get("date")?;
    DateTime::from_str(date, DateTimeFormat::HttpDate).ok()
}
