//! Whether browsers may upload to the bucket from the pages that may call the service: by the bucket's
//! rules where those can be read, otherwise by asking as browsers do.

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
use crate::upload::{Caller, File};

const CHECK: &str = "cors";

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

    /// What there is to say, and the rules that the bucket should have if it has others.
    pub(super) async fn cors(&self, fix: bool) -> (Line, Option<Value>) {
        let origins = self.origins();
        if origins.is_empty() {
            let detail = "CORS_ALLOWED_ORIGINS is not set, so no browser is expected to upload from another page";
            return (Line::skipped(CHECK, detail), None);
        }
        let mut methods = vec!["PUT"];
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
            Err(problem) => return self.cors_by_asking(&needs, &problem).await,
        };
        let missing = needs.missing(&rules);
        if missing.is_empty() {
            return (Line::ok(CHECK, needs.all_in_order()), None);
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
                    (Line::ok(CHECK, detail + &kept), None)
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

    /// The headers that a browser sends, with all that a client may ask for.
    async fn signed_headers(&self) -> BTreeSet<String> {
        let mut headers = BTreeSet::from(["content-type".to_owned()]);
        for sample in &self.samples {
            let file = File {
                checksum_sha256: Some(sample.checksum_sha256.clone()),
                ..sample.file.clone()
            };
            let (caller, now) = (Caller::anonymous(), SystemTime::now());
            let grant = self
                .uploads
                .presign_put(&caller, &file, Uuid::new_v4(), now)
                .await;
            let signed = grant.map(|grant| grant.request.headers).unwrap_or_default();
            headers.extend(signed.into_iter().map(|(name, _)| name.into_owned()));
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
                let has_none =
                    problem.is(&["NoSuchCORSConfiguration"]) || problem.status() == Some(404);
                if has_none {
                    Ok(Vec::new())
                } else {
                    Err(problem)
                }
            }
        }
    }

    /// Sets the rules, and sees whether they have come to pass.
    async fn set_rules(&self, rules: Vec<CorsRule>, needs: &Needs) -> Result<(), Problem> {
        let configuration = CorsConfiguration::builder().set_cors_rules(Some(rules));
        let configuration = configuration
            .build()
            .map_err(|error| Problem::NotAsked(error.to_string()))?;
        let put = self.client.put_bucket_cors().bucket(self.bucket());
        let put = put.cors_configuration(configuration).send().await;
        put.map_err(|error| Problem::of_sdk(&error))?;
        let missing = needs.missing(&self.rules().await?);
        if missing.is_empty() {
            return Ok(());
        }
        let detail = format!("the store took it, and still {}", missing.join("; "));
        Err(Problem::NotAsked(detail))
    }

    /// Where the rules cannot be read, because of `problem`.
    async fn cors_by_asking(&self, needs: &Needs, problem: &Problem) -> (Line, Option<Value>) {
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
                        let line = Line::failed(CHECK, detail)
                            .fix("set the rules below in the way that this store has for it: see docs/stores.md");
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

    /// Whether the store answers a browser's question for this upload with yes.
    async fn preflight(
        &self,
        origin: &str,
        method: &str,
        headers: &BTreeSet<String>,
    ) -> Result<bool, Problem> {
        let origin = concrete(origin);
        let asked: Vec<&str> = headers.iter().map(String::as_str).collect();
        // Browsers ask for nothing of a form.
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
            // A form is sent without asking for the method.
            && (method == "POST" || has(header::ACCESS_CONTROL_ALLOW_METHODS, method))
            && asked.iter().all(|name| has(header::ACCESS_CONTROL_ALLOW_HEADERS, name)))
    }
}

/// An origin that `*` stands for, among all others.
pub(super) fn concrete(origin: &str) -> &str {
    if origin == "*" {
        "https://presignd-check.example"
    } else {
        origin
    }
}
