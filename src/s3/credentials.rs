//! The credentials that requests are signed with: asked for rarely, known to the second.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::{self, ProvideCredentials, SharedCredentialsProvider, future};

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
/// - They are renewed in time to outlive what is signed with them, if the provider can give such.
/// - The provider is asked by one task at a time. While valid credentials are at hand nobody waits
///   for it; otherwise everybody waits for the same answer, and at most [`ASK_TIMEOUT`] twice.
#[derive(Clone)]
pub struct CredentialsCache(Arc<Inner>);

struct Inner {
    provider: SharedCredentialsProvider,
    /// The life that credentials should have left when something is signed with them.
    wanted_life: Duration,
    state: Mutex<State>,
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    kept: Option<Credentials>,
    renew_at: Option<SystemTime>,
    failure: Option<(Instant, CredentialsError)>,
}

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
            asking: tokio::sync::Mutex::default(),
        }))
    }

    /// Credentials that are valid at `now`.
    pub async fn get(&self, now: SystemTime) -> Result<Credentials, CredentialsError> {
        match self.0.kept(now) {
            Some((credentials, false)) => return Ok(credentials),
            Some((credentials, true)) => {
                let this = self.clone();
                tokio::spawn(async move {
                    if let Ok(_turn) = this.0.asking.try_lock() {
                        let _logged = this.0.ask(now).await;
                    }
                });
                return Ok(credentials);
            }
            None => {}
        }
        let asked_at = Instant::now();
        let _turn = self.0.asking.lock().await;
        // Another task may have asked while this one waited for its turn.
        if let Some((credentials, _)) = self.0.kept(now) {
            return Ok(credentials);
        }
        if let Some((failed_at, error)) = &self.0.state().failure
            && *failed_at > asked_at
        {
            return Err(error.clone());
        }
        self.0.ask(now).await
    }
}

impl Inner {
    /// The credentials at hand if they are valid, and whether it is time to renew them.
    fn kept(&self, now: SystemTime) -> Option<(Credentials, bool)> {
        let mut state = self.state();
        let credentials = state.kept.clone().filter(|c| is_valid(c, now))?;
        let renew = state.renew_at.is_some_and(|at| at <= now);
        if renew {
            // The one who is told so renews; the next is told only if that came to nothing.
            state.renew_at = Some(now + ASK_INTERVAL);
        }
        Some((credentials, renew))
    }

    async fn ask(&self, now: SystemTime) -> Result<Credentials, CredentialsError> {
        let answer = tokio::time::timeout(ASK_TIMEOUT, self.provider.provide_credentials()).await;
        let result = match answer {
            Err(_) => Err(CredentialsError::TimedOut),
            Ok(Err(error)) => Err(CredentialsError::Failed(causes(&error).into())),
            Ok(Ok(credentials)) if is_valid(&credentials, now) => Ok(credentials),
            Ok(Ok(_)) => Err(CredentialsError::Expired),
        };
        let mut state = self.state();
        match &result {
            Ok(credentials) => {
                let renew_at = match credentials.expiry() {
                    Some(end) => (end - self.wanted_life).max(now + ASK_INTERVAL),
                    None => now + ENDLESS_FOR,
                };
                *state = State {
                    kept: Some(credentials.clone()),
                    renew_at: Some(renew_at),
                    failure: None,
                };
            }
            Err(error) => {
                if state.kept.is_some() {
                    // Otherwise the failing request tells.
                    tracing::warn!(%error, "credentials not renewed");
                }
                state.failure = Some((Instant::now(), error.clone()));
            }
        }
        result
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
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
        answer_after: Duration,
        fails: bool,
    }

    impl ProvideCredentials for Provider {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::new(async {
                let n = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::time::sleep(self.answer_after).await;
                if self.fails {
                    return Err(provider::error::CredentialsError::not_loaded("none here"));
                }
                let end = self.life.map(|life| start() + life);
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

    async fn settle() {
        tokio::time::sleep(Duration::from_millis(1)).await;
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
        settle().await;
        assert_eq!(provider.asked(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_are_renewed_before_a_grant_would_outlive_them() {
        let provider = Provider {
            life: Some(HOUR),
            ..Provider::default()
        };
        let cache = provider.cache();
        cache.get(start()).await.unwrap();
        cache.get(start() + HOUR - WANTED).await.unwrap();
        settle().await;
        assert_eq!(provider.asked(), 2);
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
            settle().await;
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
    async fn a_failing_provider_is_an_error_with_its_reason() {
        let provider = Provider {
            fails: true,
            ..Provider::default()
        };
        let error = provider.cache().get(start()).await.unwrap_err();
        assert!(error.to_string().contains("none here"), "{error}");
    }
}
