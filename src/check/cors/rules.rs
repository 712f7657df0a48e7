//! A bucket's CORS rules: what is missing in them, and what they should be. Pure.

use std::collections::BTreeSet;

use aws_sdk_s3::types::CorsRule;
use serde_json::{Value, json};

use crate::upload::Sample;

/// What browsers need.
#[derive(Debug)]
pub(super) struct Needs {
    /// `*` or the pages' origins, as in `CORS_ALLOWED_ORIGINS`.
    pub(super) origins: Vec<String>,
    pub(super) methods: Vec<&'static str>,
    /// The headers that uploads are signed with, in lower case.
    pub(super) headers: BTreeSet<String>,
}

impl Needs {
    pub(super) fn summary(&self) -> String {
        format!(
            "{} may {} here",
            self.origins.join(", "),
            self.methods.join(" and ")
        )
    }

    /// What is missing in `rules`, in words.
    ///
    /// The first rule with the origin, the method and all headers answers a preflight; the first
    /// with the origin and the method answers the upload itself
    /// ([documentation of S3](https://docs.aws.amazon.com/AmazonS3/latest/userguide/cors.html)).
    pub(super) fn missing(&self, rules: &[CorsRule]) -> Vec<String> {
        let mut missing = Vec::new();
        for origin in &self.origins {
            for method in &self.methods {
                let applies = |rule: &&CorsRule| {
                    let mut origins = rule.allowed_origins().iter();
                    rule.allowed_methods()
                        .iter()
                        .any(|allowed| allowed == method)
                        && origins.any(|allowed| matches(allowed, origin))
                };
                let mut applicable = rules.iter().filter(applies).peekable();
                let Some(&first) = applicable.peek() else {
                    missing.push(format!("{method} from {origin} is not allowed"));
                    continue;
                };
                if *method != "PUT" {
                    continue;
                }
                let allows = |rule: &CorsRule, name: &str| {
                    let mut allowed = rule.allowed_headers().iter();
                    allowed.any(|allowed| matches(&allowed.to_ascii_lowercase(), name))
                };
                if !applicable.any(|rule| self.headers.iter().all(|name| allows(rule, name))) {
                    let names = self.headers.iter().map(String::as_str);
                    let names: Vec<&str> = names.filter(|name| !allows(first, name)).collect();
                    let names = names.join(", ");
                    missing.push(format!("{method} from {origin} may not have {names}"));
                }
                let mut exposed = first.expose_headers().iter();
                if !exposed.any(|name| name.eq_ignore_ascii_case("etag")) {
                    missing.push(format!("ETag is not exposed to {origin}"));
                }
            }
        }
        missing
    }

    /// `rules` with a new first one: the first rule that matches counts.
    pub(super) fn added_to(&self, rules: &[CorsRule]) -> Vec<CorsRule> {
        // Metadata may have any name. Not all stores know a pattern such as `x-amz-meta-*`.
        let any = format!("x-amz-meta-{}", Sample::ANY_METADATA);
        let headers = if self.headers.contains(&any) {
            vec!["*".to_owned()]
        } else {
            self.headers.iter().cloned().collect()
        };
        let ours = CorsRule::builder()
            .set_allowed_origins(Some(self.origins.clone()))
            .set_allowed_methods(Some(self.methods.iter().map(ToString::to_string).collect()))
            .set_allowed_headers(Some(headers))
            .expose_headers("ETag")
            .expose_headers("Location")
            .max_age_seconds(3600)
            .build();
        ours.into_iter().chain(rules.iter().cloned()).collect()
    }
}

/// Whether a pattern of S3 matches. One `*` in it stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => {
            text.len() >= before.len() + after.len()
                && text.starts_with(before)
                && text.ends_with(after)
        }
    }
}

/// The rules in the JSON that the AWS command line accepts.
pub(super) fn configuration(rules: &[CorsRule]) -> Value {
    let rules: Vec<Value> = rules
        .iter()
        .map(|rule| {
            let mut object = json!({
                "AllowedOrigins": rule.allowed_origins(),
                "AllowedMethods": rule.allowed_methods(),
                "AllowedHeaders": rule.allowed_headers(),
                "ExposeHeaders": rule.expose_headers(),
            });
            if let Some(id) = rule.id() {
                object["ID"] = json!(id);
            }
            if let Some(seconds) = rule.max_age_seconds() {
                object["MaxAgeSeconds"] = json!(seconds);
            }
            object
        })
        .collect();
    json!({ "CORSRules": rules })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs() -> Needs {
        Needs {
            origins: vec!["https://a.example".into()],
            methods: vec!["PUT", "POST"],
            headers: ["content-type", "x-amz-meta-presignd-check"]
                .map(str::to_owned)
                .into(),
        }
    }

    fn rule(origin: &str, methods: &[&str], headers: &[&str], exposed: &[&str]) -> CorsRule {
        let owned = |list: &[&str]| Some(list.iter().map(ToString::to_string).collect());
        CorsRule::builder()
            .allowed_origins(origin)
            .set_allowed_methods(owned(methods))
            .set_allowed_headers(owned(headers))
            .set_expose_headers(owned(exposed))
            .build()
            .unwrap()
    }

    #[test]
    fn the_proposed_rule_is_enough_whatever_the_other_rules_are() {
        let needs = needs();
        assert_eq!(needs.missing(&needs.added_to(&[])), [""; 0]);
        let other = rule("*", &["PUT", "GET"], &[], &[]);
        let rules = needs.added_to(std::slice::from_ref(&other));
        assert_eq!(needs.missing(&rules), [""; 0]);
        assert_eq!(rules[1], other);
    }

    #[test]
    fn rules_are_read_as_s3_reads_them() {
        let needs = needs();
        for good in [
            rule("*", &["PUT", "POST"], &["*"], &["ETag"]),
            rule(
                "https://*.example",
                &["POST", "PUT"],
                &["Content-Type", "X-Amz-Meta-*"],
                &["etag"],
            ),
        ] {
            assert_eq!(needs.missing(&[good]), [""; 0]);
        }
        let all = ["content-type", "x-amz-*"];
        for (rules, says) in [
            (vec![], "PUT from https://a.example is not allowed"),
            (
                vec![rule("http://a.example", &["PUT", "POST"], &all, &["ETag"])],
                "PUT from",
            ),
            (
                vec![rule("*", &["PUT"], &all, &["ETag"])],
                "POST from https://a.example is not allowed",
            ),
            (
                vec![rule("*", &["PUT", "POST"], &["x-amz-*"], &["ETag"])],
                "may not have content-type",
            ),
            (
                vec![rule("*", &["PUT", "POST"], &all, &[])],
                "ETag is not exposed",
            ),
            // The first rule answers the upload, though the second answers the preflight.
            (
                vec![
                    rule("*", &["PUT", "POST"], &[], &[]),
                    rule("*", &["PUT"], &all, &["ETag"]),
                ],
                "ETag is not exposed",
            ),
        ] {
            let missing = needs.missing(&rules).join("; ");
            assert!(missing.contains(says), "{missing}");
        }
    }
}
