//! The credentials that requests are signed with: asked for rarely, known to the second.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::{self, ProvideCredentials, SharedCredentialsProvider, future};

use tokio::sync::watch;

use crate::telemetry::causes;

/// How long one answer of the provider may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Credentials without an end are asked for anew after this time, so that a rotation is noticed.
const ENDLESS_FOR: Duration = Duration::from_mins(15);
/// When the provider gives only short-lived credentials or fails, it is not asked more often.
const ASK_INTERVAL: Duration = Duration::from_secs(30);

/// Credentials of one provider, shared by all who sign.
///
/// - Whoever asks gets credentials that are valid now, or an error; never expired ones.
/// - They outlive what is signed with them (`wanted_life`), if the provider can give such: when those at
///   hand do not, it is asked, and only if it has no better ones are they used to their end.
/// - The provider is asked once at a time, and not more often than every [`ASK_INTERVAL`] while there
///   are valid credentials. It is asked by a task of its own, so that nobody who hangs up takes the
///   answer from the others; all wait for the same answer, [`ASK_TIMEOUT`] at most.
/// - Credentials without an end are renewed behind the scenes.
#[derive(Clone)]
pub struct CredentialsCache(Arc<Inner>);

struct Inner {
    provider: SharedCredentialsProvider,
    wanted_life: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    kept: Option<Credentials>,
    /// Not before this moment is the provider asked while what is kept is valid.
    ask_again_at: Option<SystemTime>,
    /// The question that is under way.
    asking: Option<Asking>,
}

type Answer = Result<Credentials, CredentialsError>;
type Asking = watch::Receiver<Option<Answer>>;

#[derive(Clone, Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("the provider of credentials did not answer in {ASK_TIMEOUT:?}")]
    TimedOut,
    #[error("the provider gave none: {0}")]
    Failed(Arc<str>),
    #[error("the provider gave credentials that have expired")]
    Expired,
}

impl CredentialsCache {
    pub fn new(provider: SharedCredentialsProvider, wanted_life: Duration) -> Self {
        Self(Arc::new(Inner {
            provider,
            wanted_life,
            state: Mutex::default(),
        }))
    }

    /// Credentials that are valid at `now`, and as long as they can be had.
    pub async fn get(&self, now: SystemTime) -> Answer {
        let (kept, asking) = self.kept_or_asking(now);
        let Some(mut asking) = asking else {
            return kept.ok_or(CredentialsError::TimedOut);
        };
        let answer = match asking.wait_for(Option::is_some).await {
            Ok(answer) => answer.clone(),
            Err(_) => None, // the task is gone: the runtime is stopping
        };
        match (answer, kept) {
            (Some(Ok(fresh)), _) if is_valid(&fresh, now) => Ok(fresh),
            (_, Some(kept)) => Ok(kept),
            (Some(Err(error)), None) => Err(error),
            (Some(Ok(_)), None) => Err(CredentialsError::Expired),
            (None, None) => Err(CredentialsError::TimedOut),
        }
    }

    /// How long the credentials at hand live on from `now`, without asking anyone: `None` if there are
    /// none, [`Duration::MAX`] if they have no end.
    pub fn life(&self, now: SystemTime) -> Option<Duration> {
        let state = self.0.state();
        match state.kept.as_ref()?.expiry() {
            None => Some(Duration::MAX),
            Some(end) => end.duration_since(now).ok(),
        }
    }

    /// What is at hand and valid, and the question to wait for if that is not good enough.
    fn kept_or_asking(&self, now: SystemTime) -> (Option<Credentials>, Option<Asking>) {
        let mut state = self.0.state();
        // One whose task died, by a panic of the provider, gets no answer: it is as if it was not asked.
        state.asking.take_if(|asking| asking.has_changed().is_err());
        let kept = state.kept.clone().filter(|kept| is_valid(kept, now));
        let may_ask = kept.is_none() || state.ask_again_at.is_none_or(|at| at <= now);
        let ends_soon = kept.as_ref().is_none_or(|kept| {
            kept.expiry()
                .is_some_and(|end| end < now + self.0.wanted_life)
        });
        if !may_ask && state.asking.is_none() {
            return (kept, None);
        }
        let is_due = ends_soon || kept.as_ref().is_some_and(|kept| kept.expiry().is_none());
        if is_due && state.asking.is_none() {
            let (answer, asking) = watch::channel(None);
            state.asking = Some(asking);
            state.ask_again_at = Some(now + ASK_INTERVAL);
            let inner = Arc::clone(&self.0);
            tokio::spawn(async move { answer.send_replace(Some(inner.ask(now).await)) });
        }
        let asking = state.asking.clone().filter(|_| ends_soon);
        (kept, asking)
    }
}

impl Inner {
    async fn ask(&self, now: SystemTime) -> Answer {
        let answer = tokio::time::timeout(ASK_TIMEOUT, self.provider.provide_credentials()).await;
        let answer = match answer {
            Err(_) => Err(CredentialsError::TimedOut),
            Ok(Err(error)) => Err(CredentialsError::Failed(causes(&error).into())),
            Ok(Ok(credentials)) if is_valid(&credentials, now) => Ok(credentials),
            Ok(Ok(_)) => Err(CredentialsError::Expired),
        };
        let mut state = self.state();
        state.asking = None;
        match &answer {
            Ok(credentials) => {
                if credentials.expiry().is_none() {
                    state.ask_again_at = Some(now + ENDLESS_FOR);
                }
                state.kept = Some(credentials.clone());
            }
            Err(error) if state.kept.is_some() => {
                tracing::warn!(%error, "credentials not renewed");
            }
            Err(_) => {} // the failing request tells
        }
        answer
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_valid(credentials: &Credentials, now: SystemTime) -> bool {
    credentials.expiry().is_none_or(|end| end > now)
}

/// For the SDK's client: it signs with the same credentials.
impl ProvideCredentials for CredentialsCache {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            self.get(SystemTime::now())
                .await
                .map_err(provider::error::CredentialsError::provider_error)
        })
    }
}

impl fmt::Debug for CredentialsCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialsCache").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
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

    #[tokio::test(start_paused = true)]
    async fn a_failing_provider_is_an_error_with_its_reason() {
        let provider = Provider {
            fails_from: Some(1),
            ..Provider::default()
        };
        let error = provider.cache().get(start()).await.unwrap_err();
        assert!(error.to_string().contains("none here"), "{error}");
    }
}
