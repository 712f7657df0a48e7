//! What the configuration alone shows: the policies and ways of uploading, the callers and the
//! credentials.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use humantime::format_duration;
use reqwest::header;

use super::problem::{connection_fix, origin};
use super::{Check, Line};
use crate::http::auth::Keys;

impl Check {
    pub(super) fn settings(&self) -> Line {
        let names: Vec<&str> = self.samples.iter().map(|s| s.policy.as_str()).collect();
        let forms = match (
            self.config.upload.supports_post,
            self.config.upload.forms_only,
        ) {
            (false, _) => ", no forms",
            (_, true) => ", forms only",
            _ => "",
        };
        let (bucket, address, names) = (&self.bucket, &self.address, names.join(", "));
        let detail = format!("bucket {bucket}, at {address}; policies: {names}{forms}");
        Line::ok("settings", detail)
    }

    /// A line that says who may ask for grants; none if other machines cannot reach the service.
    pub(super) fn callers(&self) -> Option<Line> {
        const CHECK: &str = "callers";
        if self.config.bind_addr.ip().is_loopback() {
            return None;
        }
        let config = &self.config;
        let (mut details, mut fixes) = (Vec::new(), Vec::new());
        if !config.http.auth.is_required() {
            details.push("whoever reaches the service may upload");
            fixes.push("AUTH_MODE");
        }
        if config.http.rate.is_none() {
            details.push("there is no limit on how often anyone may call");
            fixes.push("RATE_LIMIT_PER_SECOND");
        }
        Some(if details.is_empty() {
            Line::ok(CHECK, "authenticated, with a rate limit")
        } else {
            let fix = format!("set {}", fixes.join(" and "));
            Line::warning(CHECK, details.join("; ")).fix(fix)
        })
    }

    /// A line that says whether the keys of the issuer can be fetched; none without `JWT_JWKS_URL`.
    pub(super) async fn issuer(&self) -> Option<Line> {
        const CHECK: &str = "issuer";
        let Keys::Set(keys) = &self.config.http.auth.jwt.as_ref()?.keys else {
            return None;
        };
        Some(match keys.count().await {
            Ok(count) => Line::ok(CHECK, format!("usable keys at JWT_JWKS_URL: {count}")),
            Err(error) => {
                let detail = format!("the keys of JWT_JWKS_URL cannot be fetched: {error}");
                let fix = if error.starts_with("the answer was 3") {
                    "it redirects, and redirects are not followed: set JWT_JWKS_URL to the `jwks_uri` in the issuer's /.well-known/openid-configuration"
                } else {
                    let fix = connection_fix(&error);
                    fix.unwrap_or("check the URL, and whether this machine reaches it; without the keys every token gets 503")
                };
                Line::failed(CHECK, detail).fix(fix)
            }
        })
    }

    /// A line that says whether the application that gets webhooks can be reached; none without
    /// `WEBHOOK_URL`.
    pub(super) async fn webhook(&self) -> Option<Line> {
        const CHECK: &str = "webhook";
        let webhook = &self.config.http.events.as_ref()?.webhook;
        Some(match webhook.probe().await {
            Ok(answer) => {
                let status = answer.status();
                let detail = format!(
                    "WEBHOOK_URL answers ({} to OPTIONS); no event was sent",
                    status.as_u16()
                );
                if !status.is_redirection() {
                    return Some(Line::ok(CHECK, detail));
                }
                let to = answer.headers().get(header::LOCATION);
                let to = to.and_then(|to| origin(to.to_str().ok()?));
                let to = to.map_or(String::new(), |to| format!(" to {to}"));
                Line::warning(CHECK, format!("{detail}; it redirects{to}"))
                    .fix("set WEBHOOK_URL to the address that it redirects to: events follow no redirects")
            }
            Err(error) => {
                let fix = connection_fix(&error.to_string());
                let fix = fix.unwrap_or(
                    "start the application, check WEBHOOK_URL, and whether this machine reaches it; until then the store sends its events again",
                );
                Line::failed(CHECK, format!("WEBHOOK_URL: {error}")).fix(fix)
            }
        })
    }

    pub(super) async fn credentials(&self) -> Line {
        const CHECK: &str = "credentials";
        let now = SystemTime::now();
        let credentials = match self.credentials.get(now).await {
            Ok(credentials) => credentials,
            Err(error) => {
                return Line::failed(CHECK, error.to_string()).fix(error.fix());
            }
        };
        let source = source(&credentials);
        let Some(left) = credentials.expiry().map(|end| end.duration_since(now)) else {
            return Line::ok(CHECK, format!("from {source}, do not expire"));
        };
        let left = Duration::from_secs(left.unwrap_or_default().as_secs());
        let detail = format!("from {source}, valid for {}", format_duration(left));
        let longest = self.config.upload.policies.longest_lifetime();
        if left < longest {
            let longest = format_duration(longest);
            let detail = format!(
                "{detail}, which is less than the {longest} of a grant: such grants expire early"
            );
            return Line::warning(CHECK, detail)
                .fix("use credentials with a longer lifetime, or grants with a shorter one (UPLOAD_URL_EXPIRES_IN, expires_in)");
        }
        Line::ok(CHECK, detail)
    }
}

/// The name of the provider. The SDK shows it only in `Debug`, without the secrets.
fn source(credentials: &Credentials) -> String {
    let text = format!("{credentials:?}");
    text.split('"').nth(1).unwrap_or("a provider").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_of_credentials_is_named_and_nothing_else_of_them() {
        let credentials = Credentials::new("AKID", "hidden", None, None, "SomeProvider");
        assert_eq!(source(&credentials), "SomeProvider");
    }
}
