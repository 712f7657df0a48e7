//! The last grants of the service. With them the store explains a signature that does not match.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::Uri;
use serde_json::Value;

use super::strict::parameter;

/// The last grants, shared by all clones.
#[derive(Clone, Default)]
pub(super) struct Grants(Arc<Mutex<VecDeque<Grant>>>);

/// A presigned request.
#[derive(Clone)]
pub(super) struct Grant {
    signature: String,
    pub(super) method: String,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: BTreeMap<String, String>,
}

impl Grants {
    /// How many grants are kept.
    const MAX: usize = 4096;

    pub(super) fn find(&self, signature: &str) -> Option<Grant> {
        let grants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        grants
            .iter()
            .rev()
            .find(|grant| grant.signature == signature)
            .cloned()
    }

    /// Remembers all presigned URLs in an answer of any route: members whose value is such a URL,
    /// with the `method` and the `headers` beside them.
    pub(super) fn remember(&self, answer: &Value) {
        match answer {
            Value::Object(members) => {
                let headers = members.get("headers").and_then(Value::as_object);
                let headers = headers.into_iter().flatten().filter_map(|(name, value)| {
                    Some((name.to_ascii_lowercase(), value.as_str()?.to_owned()))
                });
                let headers: BTreeMap<_, _> = headers.collect();
                let method = members
                    .get("method")
                    .and_then(Value::as_str)
                    .unwrap_or("PUT");
                for url in members.values().filter_map(Value::as_str) {
                    self.remember_url(url, method, &headers);
                }
                members.values().for_each(|value| self.remember(value));
            }
            Value::Array(values) => values.iter().for_each(|value| self.remember(value)),
            _ => {}
        }
    }

    fn remember_url(&self, url: &str, method: &str, headers: &BTreeMap<String, String>) {
        let Ok(url) = url.parse::<Uri>() else { return };
        let query = url.query().unwrap_or_default();
        let Some(signature) = parameter(query, "X-Amz-Signature") else {
            return;
        };
        let mut grants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if grants.len() == Self::MAX {
            grants.pop_front();
        }
        grants.push_back(Grant {
            signature,
            method: method.to_owned(),
            host: url.authority().map(ToString::to_string).unwrap_or_default(),
            path: url.path().to_owned(),
            query: query.to_owned(),
            headers: headers.clone(),
        });
    }
}
