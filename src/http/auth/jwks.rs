//! The keys of an issuer, as it publishes them at a URL
//! ([RFC 7517](https://www.rfc-editor.org/rfc/rfc7517#section-5)).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jsonwebtoken::jwk::Jwk;
use reqwest::{Client, Url, redirect};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::jwt::JwtKey;
use crate::telemetry::causes;

/// Keys of this age are asked for anew, so that one that the issuer withdrew stops working.
const MAX_AGE: Duration = Duration::from_mins(10);
/// The issuer is not asked more often, whatever tokens come in.
const ASK_INTERVAL: Duration = Duration::from_secs(10);
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_BYTES: usize = 512 * 1024;

/// The keys of an issuer, by their ids.
///
/// - They are kept: a token whose key is known is checked without asking anyone, also while the issuer
///   cannot be reached.
/// - The issuer is asked at the start, for a key that is not known, and when the keys are old; one
///   question at a time, and at most one in [`ASK_INTERVAL`]. A token of an unknown key that comes in
///   between is refused at once.
#[derive(Clone)]
pub struct Jwks(Arc<Inner>);

struct Inner {
    client: Client,
    url: Url,
    keys: ArcSwapOption<Known>,
    /// When the issuer was asked last. Locked while it is asked.
    asked_at: Mutex<Option<Instant>>,
}

struct Known {
    keys: BTreeMap<String, Arc<JwtKey>>,
    /// The one for tokens that name no key, if there is but one.
    only: Option<Arc<JwtKey>>,
    since: Instant,
}

/// A set of keys, of which some may be of kinds that we do not know.
#[derive(Deserialize)]
struct PublishedSet {
    keys: Vec<serde_json::Value>,
}

impl Known {
    fn get(&self, id: Option<&str>) -> Option<Arc<JwtKey>> {
        match id {
            Some(id) => self.keys.get(id).cloned(),
            None => self.only.clone(),
        }
    }
}

impl Jwks {
    /// # Errors
    ///
    /// When there can be no client for TLS.
    pub fn new(url: Url) -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .timeout(ASK_TIMEOUT)
            // Whom the issuer points to is not whom the operator named.
            .redirect(redirect::Policy::none())
            .build()?;
        Ok(Self(Arc::new(Inner {
            client,
            url,
            keys: ArcSwapOption::empty(),
            asked_at: Mutex::default(),
        })))
    }

    pub(super) async fn prepare(&self) {
        self.0.ask_if_due(|_| true).await;
    }

    /// The key of this id; `None` if the issuer has no such key.
    ///
    /// # Errors
    ///
    /// If the issuer never answered yet.
    pub(super) async fn key(&self, id: Option<&str>) -> Result<Option<Arc<JwtKey>>, NoKeys> {
        let inner = &self.0;
        if let Some(known) = &*inner.keys.load() {
            let is_old = known.since.elapsed() > MAX_AGE;
            if let Some(key) = known.get(id) {
                // Unless somebody asks already.
                if is_old && inner.asked_at.try_lock().is_ok() {
                    let inner = Arc::clone(inner);
                    tokio::spawn(async move {
                        inner
                            .ask_if_due(|known| known.since.elapsed() > MAX_AGE)
                            .await;
                    });
                }
                return Ok(Some(key));
            }
        }
        // By a task of its own: a client that hangs up must not take the answer from the others.
        let asking = tokio::spawn({
            let (inner, id) = (Arc::clone(inner), id.map(str::to_owned));
            async move {
                inner
                    .ask_if_due(|known| known.get(id.as_deref()).is_none())
                    .await;
            }
        });
        let _panics_are_in_the_log = asking.await;
        let known = inner.keys.load();
        known.as_ref().map(|known| known.get(id)).ok_or(NoKeys)
    }
}

/// The issuer's keys could not be had yet.
#[derive(Debug)]
pub(super) struct NoKeys;

impl Inner {
    /// Asks the issuer if what is known `is_lacking` and it was not asked just now.
    async fn ask_if_due(&self, is_lacking: impl Fn(&Known) -> bool) {
        let mut asked_at = self.asked_at.lock().await;
        let is_lacking = self
            .keys
            .load()
            .as_ref()
            .is_none_or(|known| is_lacking(known));
        if !is_lacking || asked_at.is_some_and(|at| at.elapsed() < ASK_INTERVAL) {
            return;
        }
        *asked_at = Some(Instant::now());
        match self.ask().await {
            Ok(known) => self.keys.store(Some(Arc::new(known))),
            Err(error) => tracing::warn!(error, "the keys of JWT_JWKS_URL could not be fetched"),
        }
    }

    async fn ask(&self) -> Result<Known, String> {
        let described = |error: reqwest::Error| causes(&error.without_url());
        let request = self.client.get(self.url.clone()).send();
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
        // Not the cause: it may quote what is none of the log's business.
        let set: PublishedSet = serde_json::from_slice(&body)
            .map_err(|_| "the answer is no set of keys (RFC 7517)".to_owned())?;
        let usable: Vec<(Option<String>, Arc<JwtKey>)> = set
            .keys
            .into_iter()
            .filter_map(|jwk| serde_json::from_value::<Jwk>(jwk).ok())
            .filter_map(|jwk| Some((jwk.common.key_id.clone(), Arc::new(JwtKey::of_jwk(&jwk)?))))
            .collect();
        if usable.is_empty() {
            return Err("there is no key among them that verifies tokens".into());
        }
        let only = (usable.len() == 1).then(|| Arc::clone(&usable[0].1));
        let keys = usable.into_iter().filter_map(|(id, key)| Some((id?, key)));
        Ok(Known {
            keys: keys.collect(),
            only,
            since: Instant::now(),
        })
    }
}

impl fmt::Debug for Jwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Jwks")
    }
}
