//! A value that is fetched, cached, and fetched again before it is too old. It knows nothing about
//! what the value is: whoever needs it judges its age and says how to fetch it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// For this long after a failed fetch, nobody waits for a new value. It is longer than the time between
/// two requests of most services; the first request after a longer pause waits again.
const FAILURE_COUNTS_FOR: Duration = Duration::from_mins(5);

/// A cached value.
///
/// - One fetch runs at a time; all who need its result wait for the same one.
/// - A fetch is a task of its own, so a client that hangs up does not take the result from others.
/// - When a fetch fails, the cached value stays.
/// - Each fetch is reported once, however many wait for it, and also if it has timed out.
pub(crate) struct Refreshed<T, E> {
    limits: Limits,
    report: Report<T, E>,
    state: Arc<Mutex<State<T, E>>>,
}

/// Gets the result of a fetch, and the value that was cached until then.
type Report<T, E> = Arc<dyn Fn(Result<&T, &RefreshError<E>>, Option<&T>) + Send + Sync>;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The longest time that one fetch may take.
    pub(crate) timeout: Duration,
    /// The shortest time between the starts of two fetches while the cached value can be used.
    pub(crate) interval: Duration,
    /// The same while no cached value can be used, unless the last fetch has timed out: then
    /// `interval` counts, because it may have left something behind that still hangs.
    pub(crate) interval_without_value: Duration,
    /// Whether the process stops as soon as it has answered, as a function of AWS Lambda does. A fetch
    /// in the background would stop with it, and time out when the process continues.
    pub(crate) freezes: bool,
}

/// The judgement on a cached value. A process that freezes fetches nothing in the background: it waits
/// at [`Age::Stale`] as at [`Age::Old`], also after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    /// Use it.
    Fresh,
    /// Use it, and fetch another one in the background.
    Stale,
    /// Wait for another one, and use this one only if there is none. If fetching has just failed,
    /// use this one at once.
    Old,
    /// Wait for another one in any case, and use this one only if there is none.
    Insufficient,
    /// Never use it.
    Expired,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefreshError<E> {
    Failed(E),
    TimedOut,
    /// The fetch has panicked, or its value has expired already.
    NoValue,
}

struct State<T, E> {
    cached: Option<(T, Instant)>,
    fetched_at: Option<Instant>,
    /// The error of the last fetch, and when it failed; `None` if it has succeeded.
    failure: Option<(RefreshError<E>, Instant)>,
    /// The fetch that is running.
    fetch: Option<Fetch<T, E>>,
}

impl<T, E> State<T, E> {
    fn has_just_failed(&self) -> bool {
        self.failure
            .as_ref()
            .is_some_and(|(_, at)| at.elapsed() < FAILURE_COUNTS_FOR)
    }
}

type Fetch<T, E> = watch::Receiver<Option<Result<T, RefreshError<E>>>>;

impl<T, E> Refreshed<T, E>
where
    T: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    /// `report` gets the result of each fetch, and the value that was cached until then.
    pub(crate) fn new(
        limits: Limits,
        report: impl Fn(Result<&T, &RefreshError<E>>, Option<&T>) + Send + Sync + 'static,
    ) -> Self {
        let state = State {
            cached: None,
            fetched_at: None,
            failure: None,
            fetch: None,
        };
        Self {
            limits,
            report: Arc::new(report),
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The value, from the cache or from `fetch`. `judge` gets a value and the time since it was
    /// fetched. When it is too soon to fetch again, the error of the last fetch is the result.
    pub(crate) async fn get<F>(
        &self,
        judge: impl Fn(&T, Duration) -> Age,
        fetch: impl FnOnce() -> F,
    ) -> Result<T, RefreshError<E>>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let (cached, running) = {
            let mut state = self.lock();
            let age = match &state.cached {
                Some((value, since)) => judge(value, since.elapsed()),
                None => Age::Expired,
            };
            let age = match age {
                Age::Stale if self.limits.freezes => Age::Old,
                // Otherwise everybody would wait for a source that hangs, again and again.
                Age::Old if state.has_just_failed() && !self.limits.freezes => Age::Stale,
                age => age,
            };
            let cached = state.cached.as_ref().map(|(value, _)| value.clone());
            let cached = cached.filter(|_| age != Age::Expired);
            if let (Age::Fresh, Some(value)) = (age, &cached) {
                return Ok(value.clone());
            }
            let running = self.running_fetch(&mut state, cached.is_some(), fetch);
            if let (Age::Stale, Some(value)) = (age, &cached) {
                return Ok(value.clone());
            }
            (cached, running)
        };
        let result = match running {
            Err(too_soon) => Err(too_soon),
            // The channel closes without a result when the fetch panics.
            Ok(mut running) => match running.wait_for(Option::is_some).await {
                Ok(result) => result.clone().unwrap_or(Err(RefreshError::NoValue)),
                Err(_) => Err(RefreshError::NoValue),
            },
        };
        match result {
            Ok(value) if judge(&value, Duration::ZERO) != Age::Expired => Ok(value),
            Ok(_) => cached.ok_or(RefreshError::NoValue),
            Err(error) => cached.ok_or(error),
        }
    }

    /// Whether the process stops between requests: see [`Limits::freezes`].
    pub(crate) fn freezes(&self) -> bool {
        self.limits.freezes
    }

    /// The cached value, however old it is.
    pub(crate) fn cached(&self) -> Option<T> {
        let state = self.lock();
        state.cached.as_ref().map(|(value, _)| value.clone())
    }

    /// The running fetch, which begins now if there is none; if it is too soon for one, the error of
    /// the last one.
    fn running_fetch<F>(
        &self,
        state: &mut State<T, E>,
        has_value: bool,
        fetch: impl FnOnce() -> F,
    ) -> Result<Fetch<T, E>, RefreshError<E>>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        // A fetch that panicked will never have a result.
        state.fetch.take_if(|fetch| fetch.has_changed().is_err());
        if let Some(fetch) = &state.fetch {
            return Ok(fetch.clone());
        }
        let failure = state.failure.as_ref().map(|(error, _)| error.clone());
        let interval = if has_value || matches!(failure, Some(RefreshError::TimedOut)) {
            self.limits.interval
        } else {
            self.limits.interval_without_value
        };
        if state.fetched_at.is_some_and(|at| at.elapsed() < interval) {
            return Err(failure.unwrap_or(RefreshError::NoValue));
        }
        let (sender, receiver) = watch::channel(None);
        state.fetched_at = Some(Instant::now());
        state.fetch = Some(receiver.clone());
        let (this, fetch) = (self.clone(), fetch());
        tokio::spawn(async move {
            let result = match timeout(this.limits.timeout, fetch).await {
                Ok(result) => result.map_err(RefreshError::Failed),
                Err(_) => Err(RefreshError::TimedOut),
            };
            let cached = this.cached();
            (this.report)(result.as_ref(), cached.as_ref());
            {
                let mut state = this.lock();
                state.fetch = None;
                state.failure = None;
                let now = Instant::now();
                match &result {
                    Ok(value) => state.cached = Some((value.clone(), now)),
                    Err(error) => state.failure = Some((error.clone(), now)),
                }
            }
            sender.send_replace(Some(result));
        });
        Ok(receiver)
    }
}

impl<T, E> Refreshed<T, E> {
    fn lock(&self) -> MutexGuard<'_, State<T, E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T, E> Clone for Refreshed<T, E> {
    fn clone(&self) -> Self {
        Self {
            limits: self.limits,
            report: Arc::clone(&self.report),
            state: Arc::clone(&self.state),
        }
    }
}

/// The value may be a secret.
impl<T, E> fmt::Debug for Refreshed<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refreshed").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        timeout: Duration::from_secs(5),
        interval: Duration::from_secs(10),
        interval_without_value: Duration::ZERO,
        freezes: false,
    };

    /// Judges every value that is older than a second in the same way.
    async fn get(values: &Refreshed<u8, ()>, age: Age, fetched: Result<u8, ()>) -> Result<u8, ()> {
        let judge = move |_: &u8, since| match since {
            since if since < Duration::from_secs(1) => Age::Fresh,
            _ => age,
        };
        let fetch = async move || {
            tokio::time::sleep(Duration::from_secs(1)).await;
            fetched
        };
        values.get(judge, fetch).await.map_err(|_| ())
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_value_is_used_at_once_after_a_failure_until_a_fetch_succeeds() {
        let values = Refreshed::new(LIMITS, |_, _| {});
        let mut begin = Instant::now();
        let mut waited = || {
            std::mem::replace(&mut begin, Instant::now())
                .elapsed()
                .as_secs()
        };
        let later = || tokio::time::sleep(LIMITS.interval);
        assert_eq!(get(&values, Age::Old, Ok(1)).await, Ok(1));
        later().await;
        waited();
        assert_eq!(get(&values, Age::Old, Err(())).await, Ok(1));
        assert_eq!(waited(), 1);
        later().await;
        waited();
        assert_eq!(get(&values, Age::Old, Ok(2)).await, Ok(1));
        assert_eq!(
            waited(),
            0,
            "the value is used while another one is fetched"
        );
        later().await;
        waited();
        assert_eq!(get(&values, Age::Old, Ok(3)).await, Ok(3));
        assert_eq!(waited(), 1, "the last fetch has succeeded");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_of_long_ago_does_not_count() {
        let values = Refreshed::new(LIMITS, |_, _| {});
        assert_eq!(get(&values, Age::Old, Ok(1)).await, Ok(1));
        tokio::time::sleep(LIMITS.interval).await;
        assert_eq!(get(&values, Age::Old, Err(())).await, Ok(1));
        tokio::time::sleep(FAILURE_COUNTS_FOR).await;
        assert_eq!(get(&values, Age::Old, Ok(2)).await, Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_freezes_fetches_nothing_in_the_background() {
        let limits = Limits {
            freezes: true,
            ..LIMITS
        };
        let values = Refreshed::new(limits, |_, _| {});
        assert_eq!(get(&values, Age::Stale, Ok(1)).await, Ok(1));
        for (fetched, expected) in [(Ok(2), 2), (Err(()), 2), (Ok(3), 3)] {
            tokio::time::sleep(LIMITS.interval).await;
            assert_eq!(get(&values, Age::Stale, fetched).await, Ok(expected));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_cannot_do_with_a_value_waits_also_after_a_failure() {
        let values = Refreshed::new(LIMITS, |_, _| {});
        assert_eq!(get(&values, Age::Insufficient, Ok(1)).await, Ok(1));
        for fetched in [Err(()), Ok(2)] {
            tokio::time::sleep(LIMITS.interval).await;
            let expected = Ok(fetched.unwrap_or(1));
            assert_eq!(get(&values, Age::Insufficient, fetched).await, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_is_reported_once_also_if_it_hangs() {
        let reported = Arc::new(Mutex::new(Vec::new()));
        let reports = Arc::clone(&reported);
        let values = Refreshed::new(LIMITS, move |result, cached| {
            let report = (result.copied().map_err(Clone::clone), cached.copied());
            reports.lock().unwrap().push(report);
        });
        let judge = |_: &u8, _| Age::Insufficient;
        values.get(judge, || async { Ok(1) }).await.unwrap();
        for fetched in [None, Some(Err(())), Some(Ok(2))] {
            tokio::time::sleep(LIMITS.interval).await;
            let fetch = async move || match fetched {
                Some(result) => result,
                None => std::future::pending().await,
            };
            let (one, other) = tokio::join!(values.get(judge, fetch), values.get(judge, fetch));
            assert_eq!(one, other);
        }
        let expected = [
            (Ok(1), None),
            (Err(RefreshError::TimedOut), Some(1)),
            (Err(RefreshError::Failed(())), Some(1)),
            (Ok(2), Some(1)),
        ];
        assert_eq!(*reported.lock().unwrap(), expected);
    }
}
