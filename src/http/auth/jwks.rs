//! The keys of an issuer, as it publishes them at a URL
//! ([RFC 7517](https://www.rfc-editor.org/rfc/rfc7517#section-5)).

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jsonwebtoken::jwk::Jwk;
use reqwest::{Client, Url, redirect};
use serde::Deserialize;

use super::Denied;
use super::jwt::JwtKey;
use crate::error_chain::causes;
use crate::refreshed::{Age, Limits, RefreshError, Refreshed};
use crate::telemetry::Metrics;

/// Keys of this age are fetched again in the background, so that a withdrawn key stops working.
const MAX_AGE: Duration = Duration::from_mins(5);
/// Keys of this age are used only if the issuer does not answer.
const MAX_AGE_UNCHECKED: Duration = Duration::from_mins(10);
/// Keys of this age are never used.
const LAST_AGE: Duration = Duration::from_hours(24);
const TIMEOUT: Duration = Duration::from_secs(5);
const LIMITS: Limits = Limits {
    timeout: TIMEOUT,
    // Limits the requests to the issuer, whatever tokens arrive.
    interval: Duration::from_secs(10),
    interval_without_value: Duration::from_secs(1),
    freezes: false,
};
const MAX_BYTES: usize = 512 * 1024;

/// The keys of an issuer, by their ids.
///
/// - They are cached: a token whose key is known is checked without asking the issuer.
/// - The issuer is asked at start, for an unknown key, and when the cached keys are old.
/// - A token of an unknown key is refused at once if the issuer was asked just before.
/// - While the issuer does not answer, cached keys are used for up to a day. A token whose key is
///   known does not wait if a fetch has failed in the last five minutes. A Lambda function fetches nothing
///   in the background, so there one request in ten seconds waits.
#[derive(Clone)]
pub struct Jwks {
    client: Client,
    url: Url,
    keys: Refreshed<Arc<KeySet>, String>,
    /// Set when the service is built, which is after the configuration was read.
    metrics: Arc<OnceLock<Metrics>>,
}

struct KeySet(Vec<Arc<JwtKey>>);

/// A set of keys, some of which may be of unknown kinds.
#[derive(Deserialize)]
struct PublishedSet {
    keys: Vec<serde_json::Value>,
}

impl KeySet {
    /// The key of this id. The only key of a set is that of tokens that name none, too.
    fn get(&self, id: Option<&str>) -> Option<Arc<JwtKey>> {
        let key = match (id, &*self.0) {
            (Some(id), keys) => keys.iter().rfind(|key| key.id.as_deref() == Some(id)),
            (None, [only]) => Some(only),
            (None, _) => None,
        };
        key.cloned()
    }
}

impl Jwks {
    /// The keys at `url`, for a process that goes on between requests or `freezes`, as a function of
    /// AWS Lambda does: it fetches them while requests wait.
    ///
    /// # Errors
    ///
    /// No TLS client can be built.
    pub fn new(url: Url, freezes: bool) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .timeout(TIMEOUT)
            // The operator trusts this URL, not one that it redirects to.
            .redirect(redirect::Policy::none())
            .build()?;
        let metrics = Arc::<OnceLock<Metrics>>::default();
        let counted_in = Arc::clone(&metrics);
        let limits = Limits { freezes, ..LIMITS };
        let keys = Refreshed::new(limits, move |result, _| {
            if let Some(metrics) = counted_in.get() {
                metrics.issuer_fetch(result.is_ok());
            }
            if let Err(error) = result {
                log_failed_fetch(error);
            }
        });
        Ok(Self {
            client,
            url,
            keys,
            metrics,
        })
    }

    /// How many keys the issuer publishes that verify tokens.
    ///
    /// # Errors
    ///
    /// Why they cannot be fetched, or that there are none.
    pub(crate) async fn count(&self) -> Result<usize, String> {
        let set = self.clone().fetch().await?;
        if set.0.len() == 1 {
            return Ok(1);
        }
        let ids: BTreeSet<&str> = set.0.iter().filter_map(|key| key.id.as_deref()).collect();
        match ids.len() {
            0 => Err("none of its several keys has a `kid`".into()),
            count => Ok(count),
        }
    }

    /// From now on, fetches are counted in `metrics`.
    pub(super) fn count_in(&self, metrics: Metrics) {
        self.metrics.set(metrics).ok(); // it was called before
    }

    /// Fetches the keys before the first token needs them.
    pub(super) async fn prepare(&self) {
        if self.keys.freezes() {
            return;
        }
        self.keys
            .get(|_, _| Age::Fresh, || self.clone().fetch())
            .await
            .ok(); // The first token tries again.
    }

    /// The key of this id; `None` if the issuer has no such key.
    ///
    /// # Errors
    ///
    /// The issuer has not answered yet, or not for a day.
    pub(super) async fn key(&self, id: Option<&str>) -> Result<Option<Arc<JwtKey>>, Denied> {
        let judge = |keys: &Arc<KeySet>, age| match age {
            age if age >= LAST_AGE => Age::Expired,
            _ if keys.get(id).is_none() => Age::Insufficient,
            age if age >= MAX_AGE_UNCHECKED => Age::Old,
            age if age >= MAX_AGE => Age::Stale,
            _ => Age::Fresh,
        };
        let keys = self.keys.get(judge, || self.clone().fetch()).await;
        keys.map(|keys| keys.get(id))
            .map_err(|_| Denied::IssuerUnavailable)
    }

    /// Whether the issuer still has this key, unchanged.
    ///
    /// # Errors
    ///
    /// The same as those of [`key`](Self::key).
    pub(super) async fn has(&self, key: &JwtKey) -> Result<bool, Denied> {
        let current = self.key(key.id.as_deref()).await?;
        Ok(current.is_some_and(|current| current.fingerprint == key.fingerprint))
    }

    async fn fetch(self) -> Result<Arc<KeySet>, String> {
        let described = |error: reqwest::Error| causes(&error.without_url());
        let request = self.client.get(self.url).send();
        let mut response = request.await.map_err(described)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(format!("the answer was {}", response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(described)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_BYTES {
                return Err(format!("the answer has more than {MAX_BYTES} bytes"));
            }
        }
        // The cause is omitted, because it may quote the answer.
        let set: PublishedSet = serde_json::from_slice(&body)
            .map_err(|_| "the answer is not a set of keys (RFC 7517)".to_owned())?;
        let usable: Vec<Arc<JwtKey>> = set
            .keys
            .into_iter()
            .filter_map(|jwk| serde_json::from_value::<Jwk>(jwk).ok())
            .filter_map(|jwk| JwtKey::from_jwk(&jwk).map(Arc::new))
            .collect();
        if usable.is_empty() {
            return Err("none of the keys verifies tokens".into());
        }
        Ok(Arc::new(KeySet(usable)))
    }
}

fn log_failed_fetch(error: &RefreshError<String>) {
    let error = match error {
        RefreshError::Failed(error) => error.clone(),
        _ => format!("it timed out after {TIMEOUT:?}"),
    };
    tracing::warn!(error, "the keys of JWT_JWKS_URL could not be fetched");
}

debug_name!(Jwks);
