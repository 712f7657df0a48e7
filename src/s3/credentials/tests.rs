//! Credentials of a provider that fails, hangs and panics, under a clock that tests turn.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

const HOUR: Duration = Duration::from_hours(1);
const WANTED: Duration = Duration::from_mins(11);

/// Gives out credentials named after how often it was asked.
#[derive(Clone, Debug, Default)]
struct Provider {
    asked: Arc<AtomicU64>,
    life: Option<Duration>,
    /// Each answer lives as much longer as the first.
    lengthens: bool,
    answer_after: Duration,
    /// The first answer that is an error.
    fails_from: Option<u64>,
    panics_at: Option<u64>,
}

impl ProvideCredentials for Provider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let n = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
            tokio::time::sleep(self.answer_after).await;
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

    /// The same, with a count of its own.
    fn cache_that_asks_apart(&self) -> CredentialsCache {
        let apart = Self {
            asked: Arc::default(),
            ..self.clone()
        };
        apart.cache()
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }
}

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

#[tokio::test(start_paused = true)]
async fn a_provider_is_asked_once_while_its_credentials_live_long_enough() {
    let provider = Provider {
        life: Some(HOUR),
        ..Provider::default()
    };
    let cache = provider.cache();
    for second in 0..1000 {
        cache
            .get(start() + Duration::from_secs(second))
            .await
            .unwrap();
    }
    assert_eq!(provider.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn credentials_that_a_grant_would_outlive_are_renewed_first() {
    let provider = Provider {
        life: Some(HOUR),
        lengthens: true,
        answer_after: Duration::from_secs(1),
        ..Provider::default()
    };
    let cache = provider.cache();
    cache.get(start()).await.unwrap();
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
async fn a_failing_renewal_leaves_what_is_valid() {
    let provider = Provider {
        life: Some(HOUR),
        fails_from: Some(2),
        ..Provider::default()
    };
    let cache = provider.cache();
    cache.get(start()).await.unwrap();
    let late = start() + HOUR - Duration::from_secs(1);
    assert_eq!(cache.get(late).await.unwrap().access_key_id(), "KEY1");
    cache.get(start() + HOUR).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn credentials_without_an_end_are_renewed_behind_the_scenes() {
    let provider = Provider {
        answer_after: Duration::from_secs(3),
        ..Provider::default()
    };
    let cache = provider.cache();
    cache.get(start()).await.unwrap();
    let later = start() + ENDLESS_FOR;
    let begin = tokio::time::Instant::now();
    assert_eq!(cache.get(later).await.unwrap().access_key_id(), "KEY1");
    assert!(begin.elapsed() < Duration::from_secs(1));
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(cache.get(later).await.unwrap().access_key_id(), "KEY2");
}

#[tokio::test(start_paused = true)]
async fn how_long_what_is_at_hand_lives_is_known_without_asking() {
    let ending = Provider {
        life: Some(HOUR),
        ..Provider::default()
    };
    let cache = ending.cache();
    assert_eq!(cache.life(start()), None);
    cache.get(start()).await.unwrap();
    assert_eq!(cache.life(start()), Some(HOUR));
    assert_eq!(cache.life(start() + HOUR), Some(Duration::ZERO));
    assert_eq!(cache.life(start() + 2 * HOUR), None);
    assert_eq!(ending.asked(), 1);
    let endless = Provider::default().cache();
    endless.get(start()).await.unwrap();
    assert_eq!(endless.life(start()), Some(Duration::MAX));
}

#[tokio::test(start_paused = true)]
async fn callers_who_hang_up_do_not_take_the_answer_from_others() {
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
        cache
            .get(start() + Duration::from_secs(second))
            .await
            .unwrap();
    }
    assert_eq!(provider.asked(), 4); // at 0, 30, 60 and 90 s
}

#[tokio::test(start_paused = true)]
async fn expired_credentials_are_never_given_out() {
    let provider = Provider {
        life: Some(HOUR),
        ..Provider::default()
    };
    let cache = provider.cache();
    cache.get(start()).await.unwrap();
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
    assert!(begin.elapsed() < ASK_TIMEOUT + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_panics_is_asked_again() {
    let provider = Provider {
        panics_at: Some(1),
        ..Provider::default()
    };
    let cache = provider.cache();
    cache.get(start()).await.unwrap_err();
    let credentials = cache.get(start()).await.unwrap();
    assert_eq!(credentials.access_key_id(), "KEY2");
}

/// Whatever the clock does, what is found without the lock is what would be found with it.
#[tokio::test(start_paused = true)]
async fn what_is_settled_is_what_would_be_answered() {
    for (life, lengthens, fails_from) in [
        (None, false, None),
        (Some(HOUR), true, None),
        (Some(HOUR), false, Some(2)),
        (Some(Duration::from_mins(2)), false, None),
    ] {
        let provider = Provider {
            life,
            lengthens,
            fails_from,
            ..Provider::default()
        };
        let cache = provider.cache();
        let unsettled = provider.cache_that_asks_apart();
        for minute in [
            0, 1, 0, 2, 14, 15, 16, 3, 48, 49, 50, 58, 59, 45, 59, 60, 61,
        ] {
            for second in [0, 1, 29, 30, 31] {
                let now = start() + Duration::from_secs(60 * minute + second);
                unsettled.0.settled.store(None);
                let key = |answer: Answer| answer.map(|it| it.access_key_id().to_owned()).ok();
                let expected = key(unsettled.get(now).await);
                assert_eq!(
                    key(cache.get(now).await),
                    expected,
                    "{life:?} {minute} {second}"
                );
                // Renewals behind the scenes.
                tokio::task::yield_now().await;
            }
        }
    }
}

#[test]
fn while_there_is_nothing_to_ask_nobody_takes_the_lock() {
    let get = |cache: &CredentialsCache, now| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(cache.get(now)).unwrap()
    };
    for life in [None, Some(HOUR), Some(Duration::from_mins(2))] {
        let provider = Provider {
            life,
            ..Provider::default()
        };
        let cache = provider.cache();
        get(&cache, start());
        let _locked = cache.0.state();
        let (answer, answered) = std::sync::mpsc::channel();
        let other = cache.clone();
        let later = start() + Duration::from_secs(29);
        std::thread::spawn(move || answer.send(get(&other, later)));
        let credentials = answered.recv_timeout(ASK_TIMEOUT).unwrap();
        assert_eq!(credentials.access_key_id(), "KEY1");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_provider_is_an_error_with_its_reason() {
    let provider = Provider {
        fails_from: Some(1),
        ..Provider::default()
    };
    let error = provider.cache().get(start()).await.unwrap_err();
    assert!(error.to_string().contains("none here"), "{error}");
}
