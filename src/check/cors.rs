//! Whether browsers may upload to the bucket from the pages that may call the service: by the bucket's
//! rules where those can be read, and by preflights as browsers send them.

mod rules;

use std::collections::BTreeSet;
use std::time::SystemTime;

use aws_sdk_s3::types::{CorsConfiguration, CorsRule};
use reqwest::{Method, header};
use serde_json::Value;
use uuid::Uuid;

use self::rules::{Needs, configuration};
use super::problem::Problem;
use super::{Check, Line};
use crate::http::AllowedOrigins;
use crate::upload::{Caller, ContentType, File};

const CHECK: &str = "cors";
/// Types that browsers run.
const ACTIVE_TYPES: [&str; 4] = [
    "text/html",
    "image/svg+xml",
    "application/xml",
    "text/javascript",
];

impl Check {
    pub(super) fn origins(&self) -> Vec<String> {
        match &self.config.allowed_origins {
            AllowedOrigins::None => Vec::new(),
            AllowedOrigins::Any => vec!["*".to_owned()],
            AllowedOrigins::Exactly(origins) => {
                let origins = origins.iter().filter_map(|origin| origin.to_str().ok());
                origins.map(str::to_owned).collect()
            }
        }
    }

    /// The line, and the rules that the bucket should have if it has others.
    pub(super) async fn cors(&self, fix: bool) -> (Line, Option<Value>) {
        let origins = self.origins();
        if origins.is_empty() {
            let detail = "CORS_ALLOWED_ORIGINS is not set, so no browser is expected to upload from another page";
            return (Line::skipped(CHECK, detail), None);
        }
        let mut methods = Vec::new();
        if !self.config.forms_only {
            methods.push("PUT");
        }
        if self.config.supports_post {
            methods.push("POST");
        }
        let needs = Needs {
            origins,
            methods,
            headers: self.signed_headers().await,
        };
        let rules = match self.rules().await {
            Ok(rules) => rules,
            Err(problem) => return self.cors_by_preflights(&needs, &problem).await,
        };
        let missing = needs.missing(&rules);
        if missing.is_empty() {
            let wanted = Some(configuration(&needs.added_to(&rules)));
            return self.confirmed(&needs, needs.all_in_order(), wanted).await;
        }
        let wanted = needs.added_to(&rules);
        let shown = Some(configuration(&wanted));
        if fix {
            return match self.set_rules(wanted, &needs).await {
                Ok(()) => {
                    let detail = format!("{}: the rule has been added", needs.all_in_order());
                    let kept = match rules.len() {
                        0 => String::new(),
                        kept => format!("; kept of those that were there: {kept}"),
                    };
                    self.confirmed(&needs, detail + &kept, shown).await
                }
                Err(problem) => {
                    let line = Line::failed(
                        CHECK,
                        format!("the rule cannot be added: {}", problem.says()),
                    );
                    let fix = problem.fix("s3:PutBucketCORS");
                    (
                        line.fix(fix.unwrap_or_else(|| "set the rules below".to_owned())),
                        shown,
                    )
                }
            };
        }
        let detail = if rules.is_empty() {
            "the bucket has no rules, so browsers refuse to upload".to_owned()
        } else {
            missing.join("; ")
        };
        let line = Line::failed(CHECK, detail)
            .fix("set the rules below, or let `presignd check --fix-cors` do it");
        (line, shown)
    }

    /// The line of rules that should be enough, once the store has answered preflights by them: some
    /// stores take `x-amz-meta-*` literally.
    async fn confirmed(
        &self,
        needs: &Needs,
        detail: String,
        wanted: Option<Value>,
    ) -> (Line, Option<Value>) {
        // Browsers send no preflight for a form.
        let origins = needs
            .origins
            .iter()
            .filter(|_| needs.methods.contains(&"PUT"));
        for origin in origins {
            match self.preflight(origin, "PUT", &needs.headers).await {
                Ok(true) => {}
                Ok(false) => {
                    let asked: Vec<&str> = needs.headers.iter().map(String::as_str).collect();
                    let detail = format!(
                        "the rules allow PUT from {origin}, but the store refuses the preflight with {}",
                        asked.join(", ")
                    );
                    let fix = "replace x-amz-meta-* in AllowedHeaders with the full names, or all of AllowedHeaders with *";
                    return (Line::failed(CHECK, detail).fix(fix), wanted);
                }
                Err(problem) => {
                    let detail = format!("{detail}, but a preflight failed: {}", problem.says());
                    return (Line::warning(CHECK, detail), None);
                }
            }
        }
        (Line::ok(CHECK, detail), None)
    }

    /// The headers that a browser sends, with all that a client may ask for.
    async fn signed_headers(&self) -> BTreeSet<String> {
        let mut headers = BTreeSet::from(["content-type".to_owned()]);
        for sample in &self.samples {
            let with_checksum = File {
                checksum_sha256: Some(sample.checksum_sha256.clone()),
                ..sample.file.clone()
            };
            // The content disposition of active content is signed, and that of other content is not.
            let types = ACTIVE_TYPES.iter().copied().map(ContentType::parse);
            let active = types.flatten().map(|content_type| File {
                content_type,
                ..with_checksum.clone()
            });
            for file in std::iter::once(with_checksum.clone()).chain(active) {
                let (caller, now) = (Caller::anonymous(), SystemTime::now());
                let grant = self
                    .uploads
                    .presign_put(&caller, &file, Uuid::new_v4(), now)
                    .await;
                // A type that the policy refuses needs nothing.
                let signed = grant.map(|grant| grant.request.headers).unwrap_or_default();
                headers.extend(signed.into_iter().map(|(name, _)| name.into_owned()));
            }
        }
        headers
    }

    async fn rules(&self) -> Result<Vec<CorsRule>, Problem> {
        match self
            .client
            .get_bucket_cors()
            .bucket(self.bucket())
            .send()
            .await
        {
            Ok(output) => Ok(output.cors_rules.unwrap_or_default()),
            Err(error) => {
                let problem = Problem::of_sdk(&error);
                // Garage answers 204 where there are none.
                let has_none = problem.is(&["NoSuchCORSConfiguration"])
                    || problem.status() == Some(404)
                    || error
                        .raw_response()
                        .is_some_and(|answer| answer.status().as_u16() == 204);
                if has_none {
                    Ok(Vec::new())
                } else {
                    Err(problem)
                }
            }
        }
    }

    /// Sets the rules, and reads them again to see that they are in force.
    async fn set_rules(&self, rules: Vec<CorsRule>, needs: &Needs) -> Result<(), Problem> {
        let configuration = CorsConfiguration::builder().set_cors_rules(Some(rules));
        let configuration = configuration
            .build()
            .map_err(|error| Problem::NotSent(error.to_string()))?;
        let put = self.client.put_bucket_cors().bucket(self.bucket());
        let put = put.cors_configuration(configuration).send().await;
        put.map_err(|error| Problem::of_sdk(&error))?;
        let missing = needs.missing(&self.rules().await?);
        if missing.is_empty() {
            return Ok(());
        }
        let detail = format!(
            "the store accepted the rules, and still {}",
            missing.join("; ")
        );
        Err(Problem::NotSent(detail))
    }

    /// Where the rules cannot be read, because of `problem`.
    async fn cors_by_preflights(&self, needs: &Needs, problem: &Problem) -> (Line, Option<Value>) {
        let configuration = Some(configuration(&needs.added_to(&[])));
        let unread = format!("the rules cannot be read ({})", problem.says());
        for origin in &needs.origins {
            for method in &needs.methods {
                match self.preflight(origin, method, &needs.headers).await {
                    Err(problem) => {
                        let detail = format!("{unread}, and a preflight got {}", problem.says());
                        return (Line::warning(CHECK, detail), None);
                    }
                    Ok(false) => {
                        let detail = format!(
                            "{unread}; the store refuses the preflight of {method} from {}",
                            concrete(origin)
                        );
                        let fix = if problem.is_denied() {
                            "set the rules below; to read and set them, the credentials need s3:GetBucketCORS and s3:PutBucketCORS"
                        } else {
                            "set the rules below in the way that this store has for it: see docs/stores.md"
                        };
                        let line = Line::failed(CHECK, detail).fix(fix);
                        return (line, configuration);
                    }
                    Ok(true) => {}
                }
            }
        }
        let line = match self.exposes_etag.get() {
            Some(true) => Line::ok(
                CHECK,
                format!(
                    "{} ({unread}, preflights are answered)",
                    needs.all_in_order()
                ),
            ),
            Some(false) => {
                let detail = format!(
                    "{unread}; preflights are answered, but pages may not read ETag, which uploads in parts need"
                );
                let line = Line::failed(CHECK, detail);
                return (line.fix("have the store expose ETag"), configuration);
            }
            None => Line::warning(
                CHECK,
                format!(
                    "{unread}; preflights are answered; whether pages may read ETag is not known"
                ),
            ),
        };
        (line, None)
    }

    /// Whether the store allows this upload in its answer to a browser's preflight.
    async fn preflight(
        &self,
        origin: &str,
        method: &str,
        headers: &BTreeSet<String>,
    ) -> Result<bool, Problem> {
        let origin = concrete(origin);
        let asked: Vec<&str> = headers.iter().map(String::as_str).collect();
        // A form has no headers that browsers ask for.
        let asked = if method == "PUT" { asked } else { Vec::new() };
        let url = match method {
            "PUT" => format!("{}/presignd-check", self.public_address),
            _ => format!("{}/", self.public_address),
        };
        let mut request = self
            .http
            .request(Method::OPTIONS, url)
            .header(header::ORIGIN, origin)
            .header(header::ACCESS_CONTROL_REQUEST_METHOD, method);
        if !asked.is_empty() {
            request = request.header(header::ACCESS_CONTROL_REQUEST_HEADERS, asked.join(","));
        }
        let response = request.send().await.map_err(Problem::of_http)?;
        let values = |name| {
            let values = response.headers().get_all(name).iter();
            let values = values.filter_map(|value| value.to_str().ok());
            let values = values
                .flat_map(|value| value.split(','))
                .map(|value| value.trim().to_owned());
            values.collect::<Vec<String>>()
        };
        let has = |name, wanted: &str| {
            values(name)
                .iter()
                .any(|value| value == "*" || value.eq_ignore_ascii_case(wanted))
        };
        Ok(response.status().is_success()
            && has(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin)
            // Browsers send a form without asking for its method.
            && (method == "POST" || has(header::ACCESS_CONTROL_ALLOW_METHODS, method))
            && asked.iter().all(|name| has(header::ACCESS_CONTROL_ALLOW_HEADERS, name)))
    }
}

/// An origin to ask with: for `*`, any.
pub(super) fn concrete(origin: &str) -> &str {
    if origin == "*" {
        "https://presignd-check.example"
    } else {
        origin
    }
}
