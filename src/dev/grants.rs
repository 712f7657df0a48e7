//! The last grants of the service, and what differs from one of them in a request whose signature
//! does not match.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::Uri;
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;
use serde_json::Value;

/// The last grants, shared by all clones.
#[derive(Clone, Default)]
pub(super) struct Grants(Arc<Mutex<VecDeque<Grant>>>);

/// A presigned request.
#[derive(Clone)]
struct Grant {
    signature: String,
    method: String,
    host: String,
    path: String,
    query: String,
    headers: BTreeMap<String, String>,
}

impl Grants {
    /// How many grants are kept.
    const MAX: usize = 4096;

    fn find(&self, signature: &str) -> Option<Grant> {
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

    /// Why the signature of a request does not match: what differs from what the service granted.
    pub(super) fn mismatch(&self, request: &Parts) -> String {
        let query = request.uri.query().unwrap_or_default();
        let Some(signature) = parameter(query, "X-Amz-Signature") else {
            return "The signature does not match what was sent. Check the secret key: `presignd dev` printed the one of this store.".into();
        };
        let signed_headers = parameter(query, "X-Amz-SignedHeaders").unwrap_or_default();
        let Some(grant) = self.find(&signature) else {
            return format!(
                "The signature does not match. It covers the method, the path, the query and the headers {}; one of them is not what was signed, or the URL was signed with another secret key.",
                signed_headers.replace(';', ", ")
            );
        };
        let differs = |what: &str, signed: &str, sent: &str| {
            format!("the URL was signed for {what} {signed}; the request has {sent}")
        };
        if request.method != grant.method.as_str() {
            return differs("the method", &grant.method, request.method.as_str());
        }
        if request.uri.path() != grant.path {
            return differs("the path", &grant.path, request.uri.path());
        }
        let header = |name: &str| {
            let value = request.headers.get(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()))
        };
        // Answers do not have the values that a client sends anyway, such as the size of the file.
        let mut unknown = Vec::new();
        for name in signed_headers.split(';') {
            let sent = header(name);
            let signed = match grant.headers.get(name) {
                Some(signed) => signed,
                None if name == "host" => &grant.host,
                None => {
                    unknown.push(format!("{name} {}", sent.as_deref().unwrap_or("none")));
                    continue;
                }
            };
            if sent.as_deref() != Some(signed) {
                return differs(name, signed, sent.as_deref().unwrap_or("none"));
            }
        }
        if query != grant.query {
            return "the URL's query was changed after it was signed".into();
        }
        if unknown.is_empty() {
            return "one of the signed headers was sent more than once".into();
        }
        format!(
            "the URL was signed for another value of one of these headers; the request has {}",
            unknown.join(", ")
        )
    }
}

/// The key, or what else the path names.
pub(super) fn target(path: &str) -> String {
    let path = percent_decode_str(path).decode_utf8_lossy();
    let bucket_and_key = path.strip_prefix('/').and_then(|path| path.split_once('/'));
    bucket_and_key
        .map(|(_, key)| key)
        .filter(|key| !key.is_empty())
        .unwrap_or(&path)
        .to_owned()
}

/// The decoded value of a parameter in a query.
pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(given, _)| *given == name)?;
    Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
}
