//! The credentials that requests are signed with.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::{self, ProvideCredentials, SharedCredentialsProvider, future};
use futures_util::FutureExt;

use crate::error_chain::causes;
use crate::refreshed::{Age, Limits, RefreshError, Refreshed};

/// The longest time that the provider may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Credentials that do not expire are fetched again after this time, so that a rotation is noticed.
const MAX_AGE: Duration = Duration::from_mins(15);
/// Credentials are renewed in the background when they expire within this time, so that a renewal that
/// fails is noticed before grants do.
const RENEW_BEFORE: Duration = Duration::from_mins(5);
const LIMITS: Limits = Limits {
    timeout: TIMEOUT,
    // Limits how often a provider is asked that fails, or that has only credentials that expire soon.
    // After a timeout, its process may go on, because nothing ends it, and each fetch starts another one.
    interval: Duration::from_secs(30),
    interval_without_value: Duration::from_secs(1),
    // Lambda gives a function credentials that do not expire while it lives.
    freezes: false,
};

/// Credentials of one provider, shared by everything that signs.
///
/// - [`get`](Self::get) gives valid credentials or an error; never expired ones.
/// - They are valid for at least the longest grant, if the provider has such credentials. Otherwise
///   they are used until they expire.
/// - Credentials that do not expire are renewed in the background, and so are others after a renewal
///   has failed.
#[derive(Clone)]
pub struct CredentialsCache {
    provider: SharedCredentialsProvider,
    /// In seconds.
    longest_grant: Arc<AtomicU64>,
    cache: Refreshed<Arc<Credentials>, CredentialsError>,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("the provider of credentials did not answer in {TIMEOUT:?}")]
    TimedOut,
    #[error("the provider gave no valid credentials: {0}")]
    Failed(Arc<str>),
    #[error("the provider gave credentials that have expired")]
    Expired,
    /// Names the part; the value is a secret.
    #[error("the {0} contains a line break or another character that cannot be signed")]
    Malformed(&'static str),
}

impl CredentialsError {
    /// What to do.
    pub(crate) fn fix(&self) -> Cow<'static, str> {
        let fix = match self {
            Self::TimedOut => {
                "find out why the source of the credentials (the metadata service, STS, or the command of the profile) or the network to it does not answer"
            }
            Self::Failed(why) => {
                if let Some(profile) = missing_profile(why) {
                    return format!("add the profile {profile} to ~/.aws/config or ~/.aws/credentials (AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE), or correct its name in AWS_PROFILE or source_profile").into();
                }
                "correct what the error says about the source that should give credentials; if there is no source yet, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give this machine a role"
            }
            Self::Expired => {
                "get new credentials, and compare the clock of this machine with another one"
            }
            Self::Malformed(_) => "set it again, without anything before or after it",
        };
        fix.into()
    }
}

/// The profile that does not exist, as the SDK says in the midst of what its other sources of credentials lack.
fn missing_profile(why: &str) -> Option<&str> {
    let (before, _) = why.split_once("` was not defined")?;
    Some(before.rsplit_once("profile `")?.1)
}

impl CredentialsCache {
    pub fn new(provider: SharedCredentialsProvider, longest_grant: Duration) -> Self {
        Self {
            provider,
            longest_grant: Arc::new(longest_grant.as_secs().into()),
            cache: Refreshed::new(LIMITS, log_failed_renewal),
        }
    }

    /// From now on, credentials are to be valid for at least this time.
    pub fn set_longest_grant(&self, longest_grant: Duration) {
        let seconds = longest_grant.as_secs();
        self.longest_grant.store(seconds, Ordering::Relaxed);
    }

    /// Credentials that are valid at `now`.
    pub async fn get(&self, now: SystemTime) -> Result<Arc<Credentials>, CredentialsError> {
        let longest_grant = Duration::from_secs(self.longest_grant.load(Ordering::Relaxed));
        let judge = |credentials: &Arc<Credentials>, age| match credentials.expiry() {
            Some(end) if end <= now => Age::Expired,
            Some(end) if end < now + longest_grant => Age::Old,
            Some(end) if end < now + RENEW_BEFORE => Age::Stale,
            None if age >= MAX_AGE => Age::Stale,
            _ => Age::Fresh,
        };
        let credentials = self.cache.get(judge, || self.clone().fetch(now)).await;
        credentials.map_err(CredentialsError::from)
    }

    /// The time from `now` until the cached credentials expire: `None` if there are none,
    /// [`Duration::MAX`] if they do not expire.
    ///
    /// Nobody waits, but a renewal that is due begins: a service that nobody uses has valid credentials
    /// as long as somebody watches them.
    pub fn remaining_lifetime(&self, now: SystemTime) -> Option<Duration> {
        let cached = self.cache.cached();
        self.get(now).now_or_never(); // the fetch has a task of its own
        match cached?.expiry() {
            None => Some(Duration::MAX),
            Some(end) => end.duration_since(now).ok(),
        }
    }

    async fn fetch(self, now: SystemTime) -> Result<Arc<Credentials>, CredentialsError> {
        match self.provider.provide_credentials().await {
            Err(error) => Err(CredentialsError::Failed(causes(&error).into())),
            Ok(credentials) if credentials.expiry().is_some_and(|end| end <= now) => {
                Err(CredentialsError::Expired)
            }
            Ok(credentials) => check_characters(&credentials).map(|()| Arc::new(credentials)),
        }
    }
}

impl From<RefreshError<Self>> for CredentialsError {
    fn from(error: RefreshError<Self>) -> Self {
        match error {
            RefreshError::Failed(error) => error,
            RefreshError::TimedOut => Self::TimedOut,
            RefreshError::NoValue => {
                Self::Failed("it panicked, or those that it gave have expired".into())
            }
        }
    }
}

/// Logs a renewal that failed while the cached credentials are valid. Without valid credentials, the
/// requests that need them fail and log the error themselves.
fn log_failed_renewal(
    result: Result<&Arc<Credentials>, &RefreshError<CredentialsError>>,
    cached: Option<&Arc<Credentials>>,
) {
    let now = SystemTime::now();
    let is_valid = |it: &Arc<Credentials>| it.expiry().is_none_or(|end| end > now);
    if let Err(error) = result
        && cached.is_some_and(is_valid)
    {
        let error = CredentialsError::from(error.clone());
        tracing::warn!(%error, "credentials not renewed");
    }
}

/// The key id and the token are sent in headers, and a control character in the secret is always a
/// mistake, which the store would answer with 403.
fn check_characters(credentials: &Credentials) -> Result<(), CredentialsError> {
    let is_printable = |text: &str| text.bytes().all(|b| matches!(b, b' '..=b'~'));
    if !is_printable(credentials.access_key_id()) {
        return Err(CredentialsError::Malformed("access key id"));
    }
    if credentials.secret_access_key().contains(char::is_control) {
        return Err(CredentialsError::Malformed("secret access key"));
    }
    if !credentials.session_token().is_none_or(is_printable) {
        return Err(CredentialsError::Malformed("session token"));
    }
    Ok(())
}

/// The SDK's client signs with the same credentials.
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

debug_name!(CredentialsCache);
