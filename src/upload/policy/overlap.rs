//! Finds policies that can make the same keys. Pure.

use time::macros::date;
use uuid::Uuid;

use super::Policies;
use crate::upload::Filename;

impl Policies {
    /// Pairs of policies that can make the same key in the same bucket. An upload under one of them
    /// can be verified under the other, which may have other rules.
    pub fn with_same_keys(&self) -> Vec<(&str, &str)> {
        let policies: Vec<_> = self.0.iter().collect();
        let mut pairs = Vec::new();
        for (index, (name, policy)) in policies.iter().enumerate() {
            for (other_name, other) in &policies[index + 1..] {
                let can_make = |a: &super::Policy, b: &super::Policy| {
                    sample_keys(a)
                        .iter()
                        .any(|key| b.key.could_have_made(&b.key.sample_caller(), key))
                };
                let share_bucket = policy.bucket == other.bucket;
                if share_bucket && (can_make(policy, other) || can_make(other, policy)) {
                    pairs.push((&***name, &***other_name));
                }
            }
        }
        pairs
    }
}

/// Keys of plain and of awkward names.
fn sample_keys(policy: &super::Policy) -> Vec<String> {
    // Version 4, as all ids that are issued.
    let id = uuid::Builder::from_random_bytes([7; 16]).into_uuid();
    let names = ["a.txt".to_owned(), "a".to_owned(), Uuid::max().to_string()];
    let names = names.iter().filter_map(|name| Filename::parse(name).ok());
    let key = |name| {
        policy.key.key(
            &policy.key.sample_caller(),
            &name,
            id,
            date!(2026 - 01 - 02),
        )
    };
    names.map(|name| key(name).as_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn policies_that_can_make_the_same_key_are_named() {
        let toml = "
            [policies.a]
            [policies.b]
            max_size = '1 MiB'
            [policies.c]
            key = 'c/{uuid}/{filename}'
            [policies.d]
            key = 'd/{uuid}.{ext}'
            [policies.e]
            key = 'd/{filename}'
            overwrite = true
            [policies.f]
            key = 'f/{vars.tenant}/{uuid}'
            [policies.g]
            key = 'f/{vars.team}/{uuid}'
            [policies.h]
            key = 'h/{vars.tenant}/{uuid}'
            [policies.i]
            bucket = 'media'
            [policies.j]
            bucket = 'archive'
            [policies.k]
            bucket = 'archive'
            max_size = '1 MiB'
        ";
        let policies = Policies::parse(toml, Duration::from_mins(10)).unwrap();
        assert_eq!(
            policies.with_same_keys(),
            [("a", "b"), ("d", "e"), ("f", "g"), ("j", "k")]
        );
    }
}
