//! Finds policies that can make the same keys. Pure.

use super::Policies;

impl Policies {
    /// Pairs of policies that can make the same key in the same bucket. An upload under one of them
    /// can be verified, and maybe replaced, under the other, which may have other rules.
    pub fn with_same_keys(&self) -> Vec<(&str, &str)> {
        let policies: Vec<_> = self.0.iter().collect();
        let mut pairs = Vec::new();
        for (index, (name, policy)) in policies.iter().enumerate() {
            for (other_name, other) in &policies[index + 1..] {
                if policy.bucket == other.bucket && policy.key.overlaps(&other.key) {
                    pairs.push((&***name, &***other_name));
                }
            }
        }
        pairs
    }
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

    /// Whether a start warns of two policies with these keys.
    fn can_make_the_same_key(a: &str, b: &str) -> bool {
        let toml = [("a", a), ("b", b)]
            .map(|(name, key)| format!("[policies.{name}]\nkey = '{key}'\noverwrite = true\n"));
        let policies = Policies::parse(&toml.concat(), Duration::from_mins(10)).unwrap();
        !policies.with_same_keys().is_empty()
    }

    #[test]
    fn a_placeholder_can_stand_for_whatever_its_values_can_be() {
        for (a, b) in [
            // A caller may have any name, and a variable any value.
            ("{caller}/{filename}", "public/{filename}"),
            ("{caller}/{filename}", "{vars.tenant}/{filename}"),
            ("{vars.tenant}/{filename}", "public/{filename}"),
            ("{caller}/x/{filename}", "y/{caller}/{filename}"),
            ("{caller}/{uuid}", "public/{filename}"),
            ("{caller}/{uuid}", "{vars.tenant}/{uuid}"),
            ("{caller}/logo.png", "public/{filename}"),
            ("{caller}/{filename}", "{yyyy}/{filename}"),
            ("{caller}/{filename}", "{filename}/{caller}"),
            ("{caller}/a", "x=2Fy/a"),
            ("{caller}/a", "x-{filename}/a"),
            // Some users choose their names, also after the id of an upload that they know.
            ("{caller}/{filename}", "{uuid}/{filename}"),
            ("{vars.tenant}/{filename}", "{uuid}/{filename}"),
            // A file may have any name.
            ("{filename}/x", "y/{filename}"),
            ("a/{filename}", "a/logo.png"),
            ("a/{filename}.{ext}", "a/x-{filename}"),
            ("a/{uuid}.{ext}", "a/{filename}"),
            ("a/{uuid}.{ext}", "a/{uuid}"),
            ("a/{uuid}{ext}", "a/{uuid}"),
            ("a/{mm}.{ext}", "a/{dd}.png"),
            ("a/{yyyy}", "a/{mm}{dd}"),
            ("{yyyy}/{mm}/{filename}", "2026/{dd}/{filename}"),
        ] {
            for (a, b) in [(a, b), (b, a)] {
                assert!(can_make_the_same_key(a, b), "{a} and {b}");
            }
        }
    }

    #[test]
    fn there_is_no_warning_of_keys_that_always_differ() {
        for (a, b) in [
            ("users/{caller}/{filename}", "public/{filename}"),
            ("users/{caller}/{filename}", "public/{caller}/{filename}"),
            ("users/{caller}/{uuid}", "tenants/{vars.tenant}/{uuid}"),
            ("{caller}/a/{filename}", "{caller}/b/{filename}"),
            ("{caller}/{filename}", "public/files/{filename}"),
            // No name becomes these.
            ("{caller}/{filename}", ".well-known/{filename}"),
            ("{caller}/{filename}", "the public/{filename}"),
            ("{caller}/{filename}", "a=b/{filename}"),
            ("{caller}/{filename}", "a b-{filename}/{filename}"),
            ("{uuid}/{filename}", "public/{filename}"),
            ("{uuid}/{filename}", "{yyyy}/{filename}"),
            ("a/{uuid}.{ext}", "a/{uuid}-small.{ext}"),
            ("a/{uuid}.{ext}", "a/{uuid}small"),
            ("a/{uuid}.png", "a/{uuid}.jpg"),
            ("a/{yyyy}", "a/{mm}"),
            ("a/{yyyy}", "a/today"),
        ] {
            for (a, b) in [(a, b), (b, a)] {
                assert!(!can_make_the_same_key(a, b), "{a} and {b}");
            }
        }
    }
}
