//! The credentials that requests are signed with: asked for rarely, known to the second.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
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
/// - While there is nothing to ask, nobody takes a lock.
#[derive(Clone)]
pub struct CredentialsCache(Arc<Inner>);

struct Inner {
    provider: SharedCredentialsProvider,
    wanted_life: Duration,
    /// A copy of what is kept in `state`, for those who find that there is nothing to ask.
    settled: ArcSwapOption<Settled>,
    state: Mutex<State>,
}

struct Settled {
    credentials: Arc<Credentials>,
    /// They are valid and good enough before this moment.
    until: SystemTime,
}

#[derive(Default)]
struct State {
    kept: Option<Arc<Credentials>>,
    /// Not before this moment is the provider asked while what is kept is valid.
    ask_again_at: Option<SystemTime>,
    /// The question that is under way.
    asking: Option<Asking>,
}

type Answer = Result<Arc<Credentials>, CredentialsError>;
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
            settled: ArcSwapOption::empty(),
            state: Mutex::default(),
        }))
    }

    /// Credentials that are valid at `now`, and as long as they can be had.
    pub async fn get(&self, now: SystemTime) -> Answer {
        match self.at_hand(now) {
            Some(credentials) => Ok(credentials),
            None => self.ask_or_wait(now).await,
        }
    }

    /// The same, if there is nothing to ask.
    pub(super) fn at_hand(&self, now: SystemTime) -> Option<Arc<Credentials>> {
        let settled = self.0.settled.load();
        let settled = settled.as_ref().filter(|settled| now < settled.until)?;
        Some(Arc::clone(&settled.credentials))
    }

    async fn ask_or_wait(&self, now: SystemTime) -> Answer {
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
    fn kept_or_asking(&self, now: SystemTime) -> (Option<Arc<Credentials>>, Option<Asking>) {
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
            Ok(Ok(credentials)) if is_valid(&credentials, now) => Ok(Arc::new(credentials)),
            Ok(Ok(_)) => Err(CredentialsError::Expired),
        };
        let mut state = self.state();
        state.asking = None;
        match &answer {
            Ok(credentials) => {
                if credentials.expiry().is_none() {
                    state.ask_again_at = Some(now + ENDLESS_FOR);
                }
                state.kept = Some(Arc::clone(credentials));
            }
            Err(error) if state.kept.is_some() => {
                tracing::warn!(%error, "credentials not renewed");
            }
            Err(_) => {} // the failing request tells
        }
        let settled = state.kept.as_ref().and_then(|kept| {
            Some(Settled {
                credentials: Arc::clone(kept),
                until: self.settled_until(kept, state.ask_again_at?),
            })
        });
        self.settled.store(settled.map(Arc::new));
        answer
    }

    /// The first moment at which there is, or could be, something to ask.
    fn settled_until(&self, kept: &Credentials, ask_again_at: SystemTime) -> SystemTime {
        let Some(end) = kept.expiry() else {
            return ask_again_at;
        };
        let outlives_until = end.checked_sub(self.wanted_life).unwrap_or(UNIX_EPOCH);
        outlives_until.max(ask_again_at.min(end))
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
                .map(Arc::unwrap_or_clone)
                .map_err(provider::error::CredentialsError::provider_error)
        })
    }
}

impl fmt::Debug for CredentialsCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialsCache").finish_non_exhaustive()
    }
}
