//! API keys: random texts that the operator gives out. presignd keeps only their hashes.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{Sender, TokenHash};
use crate::upload::{Caller, Policies};

/// Makes a key recognisable for people and for secret scanners.
const PREFIX: &str = "presignd_";

/// The senders by the SHA-256 of their keys. Clones share one set, which can be replaced.
///
/// - Keys are random and long, so a single round of SHA-256 is as hard to reverse as many.
/// - A lookup by the hash takes the same time however many keys there are. Its timing is no use to
///   a client, who can choose a key but not its hash.
#[derive(Clone)]
pub struct ApiKeys(Arc<ArcSwap<InForce>>);

struct InForce {
    senders: HashMap<TokenHash, Sender>,
    /// The segments of all senders.
    names: HashSet<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileToml {
    #[serde(default)]
    keys: Vec<toml::Spanned<toml::Table>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyToml {
    name: String,
    sha256: String,
    policies: Option<BTreeSet<String>>,
    #[serde(default)]
    on_behalf: bool,
}

impl ApiKeys {
    /// Reads `[[keys]]` tables. Each has a `name`, a `sha256`, `policies` if it may not use all of
    /// `known`, and `on_behalf = true` if it may call for others. A name may have several keys, so
    /// that one can be replaced without a gap.
    ///
    /// # Errors
    ///
    /// The line, the field and what is wrong with it.
    pub fn parse(text: &str, known: &Policies) -> Result<Self, String> {
        let line = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
        let file: FileToml = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            // Only the number of the line: its text may be a key that was pasted in place of its
            // hash.
            format!("line {}: {}", line(at), error.message().replace('\n', "; "))
        })?;
        if file.keys.is_empty() {
            return Err("has no [[keys]]".into());
        }
        let mut keys = HashMap::with_capacity(file.keys.len());
        for entry in file.keys {
            let start = entry.span().start;
            // Lines are only counted for an error: a file may have thousands of keys.
            let fault = |why: &str| format!("[[keys]] in line {}: {why}", line(start));
            let (hash, sender) = read_key(entry.into_inner(), known).map_err(|why| fault(&why))?;
            match keys.entry(hash) {
                Entry::Vacant(entry) => entry.insert(sender),
                Entry::Occupied(_) => return Err(fault("sha256 is that of another entry")),
            };
        }
        let names = keys.values().map(|sender: &Sender| sender.caller.segment());
        let in_force = InForce {
            names: names.map(str::to_owned).collect(),
            senders: keys,
        };
        Ok(Self(Arc::new(ArcSwap::from_pointee(in_force))))
    }

    /// Replaces the keys for all requests from now on.
    pub fn replace(&self, other: &Self) {
        self.0.store(other.0.load_full());
    }

    /// The sender whose key has this hash.
    pub(super) fn get(&self, hash: &TokenHash) -> Option<Sender> {
        self.0.load().senders.get(hash).cloned()
    }

    /// Whether a key has this caller's name.
    pub(super) fn has_name_of(&self, caller: &Caller) -> bool {
        self.0.load().names.contains(caller.segment())
    }
}

debug_name!(ApiKeys);

fn read_key(entry: toml::Table, known: &Policies) -> Result<(TokenHash, Sender), String> {
    let key: KeyToml = entry
        .try_into()
        .map_err(|error: toml::de::Error| error.message().replace('\n', "; "))?;
    if key.name.is_empty() || key.name.contains(char::is_control) {
        return Err("name must not be empty nor have control characters".into());
    }
    let mut hash = [0; 32];
    let is_hash =
        base16ct::mixed::decode(&key.sha256, &mut hash).is_ok_and(|read| read.len() == 32);
    if !is_hash {
        return Err(
            "sha256 must be 64 hexadecimal digits, as `presignd api-key` prints them".into(),
        );
    }
    if let Some(policies) = &key.policies
        && let Some(policy) = policies.iter().find(|name| !known.contains(name))
    {
        return Err(format!(
            "policies has `{policy}`, and there is no such policy"
        ));
    }
    let sender = Sender {
        caller: Caller::named(&key.name, key.policies.map(Arc::new)),
        may_call_on_behalf: key.on_behalf,
    };
    Ok((hash, sender))
}

/// A fresh key for the caller `name`, of 256 random bits, and the entry that accepts it.
///
/// # Errors
///
/// The machine has no randomness.
pub fn new_api_key(name: &str) -> Result<(String, String), getrandom::Error> {
    let mut random = [0; 32];
    getrandom::fill(&mut random)?;
    let key = format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(random));
    let hash = Sha256::digest(&key);
    let hash = base16ct::HexDisplay(&hash);
    // TOML reads JSON's escapes in the same way.
    let name = serde_json::Value::from(name);
    let entry = format!("[[keys]]\nname = {name}\nsha256 = \"{hash:x}\"\n");
    Ok((key, entry))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn policies() -> Policies {
        Policies::built_in(Duration::from_secs(1))
    }

    fn parse(text: &str) -> Result<ApiKeys, String> {
        ApiKeys::parse(text, &policies())
    }

    fn caller(keys: &ApiKeys, key: &str) -> Option<Caller> {
        let sender = keys.get(&super::super::hash(key))?;
        Some(sender.caller)
    }

    #[test]
    fn a_fresh_key_lets_in_its_caller_alone() {
        for name in ["web", "a \"quoted\" \\ name", "이름"] {
            let (key, entry) = new_api_key(name).unwrap();
            let keys = parse(&entry).unwrap();
            assert_eq!(caller(&keys, &key), Some(Caller::named(name, None)));
            assert_eq!(caller(&keys, &key[1..]), None);
            assert_eq!(caller(&keys, ""), None);
            assert_ne!(key, new_api_key(name).unwrap().0);
            let random = BASE64_URL_SAFE_NO_PAD.decode(key.strip_prefix(PREFIX).unwrap());
            assert_eq!(random.unwrap().len(), 32);
            assert!(!entry.contains(&key) && !format!("{keys:?}").contains(name));
        }
    }

    #[test]
    fn a_name_may_have_two_keys_with_policies_of_their_own() {
        let (old, entry) = new_api_key("web").unwrap();
        let (new, other) = new_api_key("web").unwrap();
        let keys = parse(&format!("{entry}{other}policies = ['default']\n")).unwrap();
        let list = Arc::new(BTreeSet::from(["default".to_owned()]));
        assert_eq!(caller(&keys, &old), Some(Caller::named("web", None)));
        assert_eq!(caller(&keys, &new), Some(Caller::named("web", Some(list))));
    }

    #[test]
    fn a_bad_file_is_refused_with_line_and_reason_and_without_what_may_be_a_key() {
        let hash = "0".repeat(64);
        let secret = "presignd_secret";
        for (text, why) in [
            (String::new(), "no [[keys]]"),
            ("[[key]]\nname = 'x'".into(), "line 1"),
            (
                format!("[[keys]]\nname = ''\nsha256 = '{hash}'"),
                "line 1: name",
            ),
            (
                format!("[[keys]]\nname = \"a\\n\"\nsha256 = '{hash}'"),
                "line 1: name",
            ),
            (
                format!("\n[[keys]]\nname = 'a'\nsha256 = '{secret}'"),
                "line 2: sha256",
            ),
            (format!("[[keys]]\nname = 'a'\nsha256 = {secret}"), "line 3"),
            (
                format!("[[keys]]\nname = 'a'\nsha256 = '{}é'", "0".repeat(62)),
                "sha256",
            ),
            ("[[keys]]\nname = 'a'".into(), "sha256"),
            (
                format!("[[keys]]\nname = 'a'\nsha256 = '{hash}'\nkey = 'x'"),
                "key",
            ),
            (
                format!("[[keys]]\nname = 'a'\nsha256 = '{hash}'\npolicies = ['nope']"),
                "nope",
            ),
            (
                format!(
                    "[[keys]]\nname = 'a'\nsha256 = '{hash}'\n[[keys]]\nname = 'b'\nsha256 = '{hash}'"
                ),
                "line 4: sha256 is that of another",
            ),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(
                error.contains(why) && !error.contains('\n'),
                "{text}: {error}"
            );
            assert!(!error.contains(secret), "{error}");
        }
    }
}
