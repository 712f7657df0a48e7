//! Credentials of a provider that fails, hangs and panics, under a clock that tests turn.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

const HOUR: Duration = Duration::from_hours(1);
const WANTED: Duration = Duration::from_mins(11);

/// Gives credentials that are named after the number of the call.
#[derive(Clone, Debug, Default)]
struct Provider {
    asked: Arc<AtomicU64>,
    life: Option<Duration>,
    /// The lifetime is multiplied by the number of the call.
    lengthens: bool,
    answer_after: Duration,
    /// The number of the first call that fails.
    fails_from: Option<u64>,
    panics_at: Option<u64>,
    /// The number of the first call that is never answered.
    hangs_from: Option<u64>,
    /// The number of the first call that is answered again.
    hangs_until: Option<u64>,
}

impl ProvideCredentials for Provider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let n = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
            tokio::time::sleep(self.answer_after).await;
            let answers_again = self.hangs_until.is_some_and(|first| n >= first);
            if self.hangs_from.is_some_and(|first| n >= first) && !answers_again {
                std::future::pending::<()>().await;
            }
            assert_ne!(self.panics_at, Some(n), "as asked for");
            if self.fails_from.is_some_and(|first| n >= first) {
                return Err(provider::error::CredentialsError::not_loaded("none here"));
            }
            let times = if self.lengthens {
                u32::try_from(n).unwrap()
            } else {
                1
            };
            let end = self.life.map(|life| start() + life * times);
            Ok(Credentials::new(format!("KEY{n}"), "", None, end, "test"))
        })
    }
}

impl Provider {
    fn cache(&self) -> CredentialsCache {
        CredentialsCache::new(SharedCredentialsProvider::new(self.clone()), WANTED)
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A provider whose credentials are valid for an hour.
fn hourly() -> Provider {
    Provider {
        life: Some(HOUR),
        ..Provider::default()
    }
}

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

#[tokio::test(start_paused = true)]
async fn a_provider_is_asked_once_while_its_credentials_are_valid_long_enough() {
    let provider = hourly();
    let cache = provider.cache();
    for second in 0..1000 {
        let now = start() + Duration::from_secs(second);
        cache.get(now).await.unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert_eq!(provider.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn credentials_that_a_grant_would_outlive_are_renewed_first() {
    let provider = Provider {
        lengthens: true,
        answer_after: Duration::from_secs(1),
        ..hourly()
    };
    let cache = provider.cache();
    cache.get(start()).await.unwrap();
    tokio::time::advance(HOUR / 2).await;
    for left in [WANTED, WANTED / 2, Duration::from_secs(1)] {
        let credentials = cache.get(start() + HOUR - left).await.unwrap();
        let enough = left >= WANTED;
        assert_eq!(
            credentials.access_key_id(),
            if enough { "KEY1" } else { "KEY2" }
        );
    }
    assert_eq!(provider.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn credentials_are_renewed_in_time_for_an_alert_also_where_grants_are_short() {
    let provider = Provider {
        lengthens: true,
        answer_after: Duration::from_secs(1),
        ..hourly()
    };
    let minute = Duration::from_mins(1);
    let cache = CredentialsCache::new(SharedCredentialsProvider::new(provider.clone()), minute);
    cache.get(start()).await.unwrap();
    tokio::time::advance(HOUR / 2).await;
    cache.get(start() + HOUR - 5 * minute).await.unwrap();
    assert_eq!(provider.asked(), 1);
    let now = start() + HOUR - 4 * minute;
    let credentials = cache.get(now).await.unwrap();
    assert_eq!(credentials.access_key_id(), "KEY1", "nobody waits");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(cache.get(now).await.unwrap().access_key_id(), "KEY2");
}

#[tokio::test(start_paused = true)]
async fn whoever_watches_the_lifetime_has_credentials_renewed_that_nobody_uses() {
    let provider = Provider {
        lengthens: true,
        ..hourly()
    };
    let cache = provider.cache();
    assert_eq!(cache.remaining_lifetime(start()), None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cache.remaining_lifetime(start()), Some(HOUR));
    tokio::time::sleep(HOUR).await;
    assert_eq!(provider.asked(), 1, "a renewal was not due");
    let now = start() + HOUR + Duration::from_mins(1);
    assert_eq!(cache.remaining_lifetime(now), None, "they have expired");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let left = Duration::from_mins(59);
    assert_eq!(cache.remaining_lifetime(now), Some(left));
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_leaves_valid_credentials() {
    let provider = Provider {
        fails_from: Some(2),
        ..hourly()
    };
    let cache = provider.cache();
    cache.get(start()).await.unwrap();
    tokio::time::advance(HOUR / 2).await;
    let late = start() + HOUR - Duration::from_secs(1);
    assert_eq!(cache.get(late).await.unwrap().access_key_id(), "KEY1");
    cache.get(start() + HOUR).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn credentials_that_do_not_expire_are_renewed_in_the_background() {
    let provider = Provider {
        answer_after: Duration::from_secs(3),
        ..Provider::default()
    };
    let cache = provider.cache();
    cache.get(start()).await.unwrap();
    let later = start() + MAX_AGE;
    tokio::time::advance(MAX_AGE).await;
    let begin = tokio::time::Instant::now();
    assert_eq!(cache.get(later).await.unwrap().access_key_id(), "KEY1");
    assert!(begin.elapsed() < Duration::from_secs(1));
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(cache.get(later).await.unwrap().access_key_id(), "KEY2");
}

#[tokio::test(start_paused = true)]
async fn the_lifetime_of_cached_credentials_is_known_without_waiting() {
    let ending = hourly();
    let cache = ending.cache();
    assert_eq!(cache.remaining_lifetime(start()), None);
    cache.get(start()).await.unwrap();
    assert_eq!(cache.remaining_lifetime(start()), Some(HOUR));
    assert_eq!(
        cache.remaining_lifetime(start() + HOUR),
        Some(Duration::ZERO)
    );
    assert_eq!(cache.remaining_lifetime(start() + 2 * HOUR), None);
    assert_eq!(ending.asked(), 1);
    let endless = Provider::default().cache();
    endless.get(start()).await.unwrap();
    assert_eq!(endless.remaining_lifetime(start()), Some(Duration::MAX));
}

#[tokio::test(start_paused = true)]
async fn callers_who_hang_up_do_not_deprive_others_of_the_answer() {
    let provider = Provider {
        answer_after: Duration::from_secs(3),
        ..Provider::default()
    };
    let cache = provider.cache();
    let patience = Duration::from_secs(2);
    tokio::time::timeout(patience, cache.get(start()))
        .await
        .unwrap_err();
    let second = tokio::time::timeout(patience, cache.get(start())).await;
    assert_eq!(second.unwrap().unwrap().access_key_id(), "KEY1");
    assert_eq!(provider.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_provider_of_short_lived_credentials_is_not_asked_every_time() {
    let provider = Provider {
        life: Some(Duration::from_mins(2)),
        ..Provider::default()
    };
    let cache = provider.cache();
    for second in 0..100 {
        let now = start() + Duration::from_secs(second);
        cache.get(now).await.unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert_eq!(provider.asked(), 4); // at 0, 30, 60 and 90 s
}

#[tokio::test(start_paused = true)]
async fn expired_credentials_are_never_given_out() {
    let provider = hourly();
    let cache = provider.cache();
    cache.get(start()).await.unwrap();
    tokio::time::advance(HOUR).await;
    let error = cache.get(start() + HOUR).await.unwrap_err();
    assert!(matches!(error, CredentialsError::Expired), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_hanging_provider_holds_all_callers_for_one_timeout() {
    let provider = Provider {
        answer_after: HOUR,
        ..Provider::default()
    };
    let cache = provider.cache();
    let begin = tokio::time::Instant::now();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let cache = cache.clone();
        callers.spawn(async move { cache.get(start()).await });
    }
    for result in callers.join_all().await {
        assert!(matches!(result, Err(CredentialsError::TimedOut)));
    }
    assert_eq!(provider.asked(), 1);
    assert!(begin.elapsed() < TIMEOUT + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_hanging_provider_holds_up_nobody_who_has_valid_credentials() {
    let provider = Provider {
        hangs_from: Some(2),
        ..hourly()
    };
    let cache = provider.cache();
    cache.get(start()).await.unwrap();
    let late = start() + HOUR - WANTED / 2;
    let mut waited = Vec::new();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(30)).await;
        let begin = tokio::time::Instant::now();
        cache.get(late).await.unwrap();
        waited.push(begin.elapsed().as_secs());
    }
    assert_eq!(waited, [TIMEOUT.as_secs(), 0, 0, 0]);
    tokio::time::sleep(TIMEOUT).await;
    assert_eq!(provider.asked(), 5, "it is asked in the background");
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_hung_is_asked_again_after_half_a_minute() {
    let provider = Provider {
        hangs_from: Some(1),
        hangs_until: Some(3),
        ..Provider::default()
    };
    let cache = provider.cache();
    let start_of_test = tokio::time::Instant::now();
    let credentials = loop {
        let begin = tokio::time::Instant::now();
        match cache.get(start()).await {
            Ok(credentials) => break credentials,
            Err(error) => assert!(matches!(error, CredentialsError::TimedOut), "{error}"),
        }
        let waited = begin.elapsed();
        assert!(waited.is_zero() || waited == TIMEOUT, "{waited:?}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    assert_eq!(credentials.access_key_id(), "KEY3");
    let took = start_of_test.elapsed().as_secs();
    assert!((60..62).contains(&took), "asked at 0, 30 and 60 s: {took}");
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_panics_is_asked_again() {
    let provider = Provider {
        panics_at: Some(1),
        ..Provider::default()
    };
    let cache = provider.cache();
    let error = cache.get(start()).await.unwrap_err();
    assert!(error.to_string().contains("panicked"), "{error}");
    tokio::time::sleep(LIMITS.interval_without_value).await;
    let credentials = cache.get(start()).await.unwrap();
    assert_eq!(credentials.access_key_id(), "KEY2");
}

/// A line break in a variable, such as one pasted with its line end, must not become a request.
#[tokio::test(start_paused = true)]
async fn credentials_that_no_header_can_carry_are_an_error_that_names_the_part() {
    for (id, secret, token, part) in [
        ("AKID\n", "secret", None, "access key id"),
        ("AKID", "secret\r", None, "secret access key"),
        ("AKID", "secret", Some("to\0ken"), "session token"),
        ("AKÏD", "secret", None, "access key id"),
    ] {
        let token = token.map(str::to_owned);
        let provider = Credentials::new(id, secret, token, None, "test");
        let cache = CredentialsCache::new(SharedCredentialsProvider::new(provider), WANTED);
        let error = cache.get(start()).await.unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains("AK"), "{error}");
    }
    let provider = Credentials::new("\"AK ID\"", "sécret \"", Some("t+/=".into()), None, "test");
    let cache = CredentialsCache::new(SharedCredentialsProvider::new(provider), WANTED);
    cache.get(start()).await.unwrap();
}

/// It may be a process, or a service that limits its callers.
#[tokio::test(start_paused = true)]
async fn a_failing_provider_is_an_error_with_its_reason_and_asked_once_a_second() {
    let provider = Provider {
        fails_from: Some(1),
        ..Provider::default()
    };
    let cache = provider.cache();
    for _ in 0..50 {
        let error = cache.get(start()).await.unwrap_err();
        assert!(error.to_string().contains("none here"), "{error}");
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    assert_eq!(provider.asked(), 5);
}
