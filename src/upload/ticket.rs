//! Tickets: what an application decides about the uploads of one caller. Pure.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::caller::segment;
use super::content_type::ContentTypeRange;
use super::metadata::{Metadata, check_fixed};

/// What narrows a policy for one caller; it never allows more than the policy.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The only policy that may be used, also by requests that name none.
    pub(super) policy: Option<String>,
    /// In bytes.
    pub(super) max_size: Option<u64>,
    pub(super) content_types: Option<Vec<ContentTypeRange>>,
    /// Segments of keys, by the names that templates have for them.
    vars: BTreeMap<String, String>,
    /// Metadata that each object gets and no client can change.
    pub(super) metadata: Metadata,
}

/// The claim of a token. A member that is `null` is refused: it may be a value that went missing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Claim {
    #[serde(default, deserialize_with = "present")]
    policy: Option<String>,
    #[serde(default, deserialize_with = "present")]
    max_size: Option<u64>,
    #[serde(default, deserialize_with = "present")]
    content_types: Option<Vec<String>>,
    #[serde(default)]
    vars: BTreeMap<String, String>,
    #[serde(default)]
    metadata: Metadata,
}

/// What is wrong with the member at `path`, which could not be read.
fn fault_of(path: &str) -> &'static str {
    match path.split(['.', '[']).next().unwrap_or_default() {
        "policy" => "must be text: the name of a policy",
        "max_size" => "must be a whole number of bytes, without quotes or a unit",
        "content_types" if path == "content_types" => "must be an array of content types",
        "vars" | "metadata" if !path.contains('.') => "must be an object of names and texts",
        "content_types" | "vars" | "metadata" => "must be text",
        _ => {
            "no ticket has; a ticket may have `policy`, `max_size`, `content_types`, `vars` and `metadata`"
        }
    }
}

fn present<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(deserializer).map(Some)
}

impl Ticket {
    /// Reads `{"policy", "max_size", "content_types", "vars", "metadata"}`, all of them optional.
    ///
    /// # Errors
    ///
    /// What is wrong with the claim. The text completes a sentence that begins with its name.
    pub fn parse(claim: &Value) -> Result<Self, String> {
        // A list would be read as the members in their order.
        if !claim.is_object() {
            return Err("must be an object".into());
        }
        let claim: Claim = serde_path_to_error::deserialize(claim).map_err(|error| {
            let path = error.path().to_string();
            format!("has `{path}`, which {}", fault_of(&path))
        })?;
        if claim.max_size == Some(0) {
            return Err("has `max_size` 0, so nothing could be uploaded".into());
        }
        if claim.content_types.as_ref().is_some_and(Vec::is_empty) {
            return Err("has no `content_types`, so nothing could be uploaded".into());
        }
        let content_types = claim.content_types.map(|types| {
            let ranges = types.iter().map(|text| {
                ContentTypeRange::parse(text)
                    .map_err(|reason| format!("has `content_types` with `{text}`, which {reason}"))
            });
            ranges.collect::<Result<_, _>>()
        });
        let content_types = content_types.transpose()?;
        for (name, value) in &claim.vars {
            if !is_var_name(name) {
                return Err(format!("has `vars` with the name `{name}`; {VAR_NAMES}"));
            }
            if value.is_empty() {
                return Err(format!("has `vars.{name}`, which must not be empty"));
            }
        }
        check_fixed(&claim.metadata)
            .map_err(|(member, reason)| format!("has `{member}`, which {reason}"))?;
        let vars = claim.vars.iter().map(|(name, value)| (&**name, &**value));
        Ok(Self {
            policy: claim.policy,
            max_size: claim.max_size,
            content_types,
            metadata: claim.metadata,
            ..Self::from_vars(vars)
        })
    }

    /// A ticket with these variables, whose values are escaped here, and no limits.
    pub(super) fn from_vars<'a>(vars: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let vars = vars.map(|(name, value)| (name.to_owned(), segment(value)));
        Self {
            vars: vars.collect(),
            ..Self::default()
        }
    }

    /// The same, for values that are already escaped.
    pub(super) fn from_segments(vars: &[(&str, &str)]) -> Self {
        let vars = vars.iter();
        let vars = vars.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Self {
            vars: vars.collect(),
            ..Self::default()
        }
    }

    /// What stands for `{vars.NAME}` in keys, escaped like the name of a caller.
    pub(super) fn var(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str)
    }

    /// The same for equal tickets, and for no others.
    pub(super) fn digest(&self) -> String {
        // A struct of texts and numbers always becomes JSON.
        let json = serde_json::to_vec(self).unwrap_or_default();
        BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(json))
    }

    /// Roughly what it takes in memory, in bytes.
    pub(super) fn weight(&self) -> usize {
        let of_map = |map: &BTreeMap<String, String>| -> usize {
            map.iter()
                .map(|(name, value)| 64 + name.len() + value.len())
                .sum()
        };
        let types = self.content_types.iter().flatten();
        let types: usize = types.map(|range| 32 + range.to_string().len()).sum();
        let policy = self.policy.as_ref().map_or(0, String::len);
        size_of::<Self>() + policy + types + of_map(&self.vars) + of_map(&self.metadata)
    }
}

pub(super) const VAR_NAMES: &str =
    "names of variables have 1 to 64 letters, digits, `_` and `-`, all of them ASCII";

pub(super) fn is_var_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

// The values are the application's, and may be secret.
debug_name!(Ticket);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_members_are_optional_and_none_may_be_null() {
        let ticket = Ticket::parse(&json!({})).unwrap();
        assert_eq!(ticket, Ticket::from_vars(std::iter::empty()));
        for name in ["policy", "max_size", "content_types", "vars", "metadata"] {
            assert!(Ticket::parse(&json!({name: null})).is_err(), "{name}");
        }
    }

    #[test]
    fn what_no_ticket_has_is_refused_by_name() {
        for (claim, says) in [
            (json!(null), "object"),
            (json!([]), "object"),
            (json!("avatar"), "object"),
            (
                json!({"max_sise": 1}),
                "`max_sise`, which no ticket has; a ticket may have",
            ),
            (
                json!({"policies": ["a"]}),
                "`policies`, which no ticket has",
            ),
            (json!({"policy": 7}), "`policy`, which must be text"),
            (json!({"policy": ["a"]}), "`policy`, which must be text"),
            (
                json!({"max_size": "5 MiB"}),
                "`max_size`, which must be a whole number of bytes",
            ),
            (json!({"max_size": 0}), "`max_size`"),
            (json!({"max_size": null}), "`max_size`, which must be"),
            (json!({"max_size": -1}), "`max_size`, which must be"),
            (json!({"max_size": 1.5}), "`max_size`"),
            (json!({"max_size": 1e300}), "`max_size`"),
            (json!({"content_types": []}), "`content_types`"),
            (
                json!({"content_types": "image/*"}),
                "`content_types`, which must be an array",
            ),
            (
                json!({"content_types": ["a/b", 7]}),
                "`content_types[1]`, which must be text",
            ),
            (json!({"content_types": ["image"]}), "`content_types`"),
            (json!({"content_types": ["a/b;c=d"]}), "`content_types`"),
            (json!({"vars": []}), "`vars`, which must be an object"),
            (
                json!({"vars": {"tenant": 7}}),
                "`vars.tenant`, which must be text",
            ),
            (json!({"vars": {"tenant": ""}}), "`vars.tenant`"),
            (json!({"vars": {"": "a"}}), "name"),
            (json!({"vars": {"a.b": "a"}}), "name"),
            (json!({"vars": {"é": "a"}}), "name"),
            (json!({"vars": {"x".repeat(65): "a"}}), "name"),
            (json!({"metadata": {"A": "a"}}), "`metadata.A`"),
            (json!({"metadata": {"a": ""}}), "`metadata.a`"),
            (json!({"metadata": {"a": "b\r\nc"}}), "`metadata.a`"),
            (json!({"metadata": {"a": "${filename}"}}), "`metadata.a`"),
            (
                json!({"metadata": {"a": "=?UTF-8?B?eA0K?="}}),
                "`metadata.a`",
            ),
            (json!({"metadata": {"a": "x".repeat(2048)}}), "`metadata`"),
        ] {
            let error = Ticket::parse(&claim).unwrap_err();
            assert!(error.contains(says), "{claim}: {error}");
        }
    }

    #[test]
    fn only_equal_tickets_have_the_same_digest() {
        let of = |claim: Value| Ticket::parse(&claim).unwrap().digest();
        let both = of(json!({"vars": {"a": "1", "b": "2"}, "max_size": 5}));
        assert_eq!(
            both,
            of(json!({"max_size": 5, "vars": {"b": "2", "a": "1"}}))
        );
        let digests = [
            of(json!({})),
            of(json!({"max_size": 5})),
            of(json!({"vars": {"a": "1"}})),
            of(json!({"metadata": {"a": "1"}})),
            of(json!({"vars": {"a": "1", "b": "3"}, "max_size": 5})),
            both,
        ];
        let distinct: std::collections::BTreeSet<_> = digests.iter().collect();
        assert_eq!(distinct.len(), digests.len());
    }
}
