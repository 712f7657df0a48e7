//! Whether browsers may upload to the bucket from the pages that may call the service: by the
//! bucket's rules where those can be read, and by preflights as browsers send them.

mod rules;

use std::collections::BTreeSet;
use std::time::SystemTime;

use aws_sdk_s3::types::{CorsConfiguration, CorsRule};
use reqwest::Method;
use reqwest::header::{self, HeaderMap, HeaderName};
use serde_json::Value;

use self::rules::{Needs, configuration};
use super::marker::{Upload, Way};
use super::problem::Problem;
use super::requests::add_md5;
use super::{Check, Line};
use crate::http::AllowedOrigins;
use crate::upload::{ContentType, Crc64NvmeChecksum, File};

const CHECK: &str = "cors";
/// Content types that browsers execute.
pub(super) const ACTIVE_TYPES: [&str; 4] = [
    "text/html",
    "image/svg+xml",
    "application/xml",
    "text/javascript",
];

impl Check {
    pub(super) fn origins(&self) -> Vec<String> {
        match &self.config.http.allowed_origins {
            AllowedOrigins::None | AllowedOrigins::Loopback => Vec::new(),
            AllowedOrigins::Any => vec!["*".to_owned()],
            AllowedOrigins::Exactly(origins) => {
                let origins = origins.iter().filter_map(|origin| origin.to_str().ok());
                origins.map(str::to_owned).collect()
            }
        }
    }

    /// A warning if a page with TLS uploads to a store without it.
    pub(super) fn mixed_content(&self) -> Option<Line> {
        let mut origins = self.origins().into_iter();
        let origin = origins.find(|origin| origin.starts_with("https://"))?;
        let address = &self.public_address;
        if !address.starts_with("http://") || self.public_host.is_loopback() {
            return None;
        }
        let detail = format!(
            "browsers block uploads from {origin} to {address}, because it has no TLS (mixed content)"
        );
        let fix = "give the store TLS, and set S3_PUBLIC_ENDPOINT_URL to its https:// address";
        Some(Line::warning("mixed-content", detail).fix(fix))
    }

    /// A line, with the rules that the bucket should have if its own are not enough.
    pub(super) async fn cors(&self, fix: bool) -> Line {
        let origins = self.origins();
        if origins.is_empty() {
            let detail = "CORS_ALLOWED_ORIGINS is not set, so no browser is expected to upload from another page";
            return if fix {
                Line::warning(CHECK, format!("{detail}, and no rule is added"))
                    .fix("set CORS_ALLOWED_ORIGINS to the origins of the pages that upload")
            } else {
                Line::skipped(CHECK, detail)
            };
        }
        let mut methods = Vec::new();
        if !self.config.upload.forms_only {
            methods.push("PUT");
        }
        if self.config.upload.supports_post {
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
        // MinIO has no rules, and answers the preflights for all buckets alike.
        if rules.is_empty() && matches!(self.refused_preflight(&needs).await, Ok(None)) {
            return self.answered("the bucket has no rules", &needs);
        }
        let missing = needs.missing(&rules);
        let wanted = needs.added_to(&rules);
        let shown = configuration(&wanted);
        if missing.is_empty() {
            return self.confirmed(&needs, needs.summary(), &shown).await;
        }
        if fix {
            return match self.set_rules(wanted, &needs).await {
                Ok(()) => {
                    let kept = match rules.len() {
                        0 => String::new(),
                        kept => format!("; kept of those that were there: {kept}"),
                    };
                    let rights = needs.summary();
                    let detail = format!("{rights}: the rule has been added{kept}");
                    self.confirmed(&needs, detail, &shown).await
                }
                Err(problem) => {
                    let fix = problem.fix("s3:PutBucketCORS");
                    let fix = fix.unwrap_or_else(|| "set the rules below".to_owned());
                    let detail = format!("the rule cannot be added: {problem}");
                    Line::failed(CHECK, detail).fix(fix).with_rules(&shown)
                }
            };
        }
        let detail = if rules.is_empty() {
            "the bucket has no rules, so browsers refuse to upload".to_owned()
        } else {
            missing.join("; ")
        };
        Line::failed(CHECK, detail)
            .fix("set the rules below, or let `presignd check --fix-cors` do it")
            .with_rules(&shown)
    }

    /// Sends preflights to confirm rules that look sufficient: some stores read `x-amz-meta-*`
    /// literally.
    async fn confirmed(&self, needs: &Needs, detail: String, wanted: &Value) -> Line {
        // Browsers send no preflight for a form.
        let sends_preflights = needs.methods.contains(&"PUT");
        for origin in needs.origins.iter().filter(|_| sends_preflights) {
            match self.preflight(origin, "PUT", &needs.headers).await {
                Ok(true) => {}
                Ok(false) => {
                    let names = joined(&needs.headers, ", ");
                    let detail = format!(
                        "the rules allow PUT from {origin}, but the store refuses the preflight with {names}"
                    );
                    let fix = "replace x-amz-meta-* in AllowedHeaders with the full names, or all of AllowedHeaders with *";
                    return Line::failed(CHECK, detail).fix(fix).with_rules(wanted);
                }
                Err(problem) => {
                    let detail = format!("{detail}, but a preflight failed: {problem}");
                    return Line::warning(CHECK, detail);
                }
            }
        }
        Line::ok(CHECK, detail)
    }

    /// The headers that a browser sends if the client asks for everything that it may.
    async fn signed_headers(&self) -> BTreeSet<String> {
        let mut headers = BTreeSet::from(["content-type".to_owned()]);
        for sample in &self.samples {
            let with_checksum = File {
                checksum_sha256: Some(sample.checksum_sha256.clone()),
                // S3 accepts one checksum of a file, but a client may send either.
                checksum_crc64nvme: Crc64NvmeChecksum::parse("AAAAAAAAAAA=").ok(),
                ..sample.file.clone()
            };
            // The content disposition of active content is signed, and that of other content is
            // not.
            let types = ACTIVE_TYPES.iter().copied().map(ContentType::parse);
            let active = types.flatten().map(|content_type| File {
                content_type,
                ..with_checksum.clone()
            });
            for file in std::iter::once(with_checksum.clone()).chain(active) {
                let upload = self.granted(Way::Put, sample, &file).await;
                // A type that the policy refuses needs no headers.
                let signed = upload.map(|upload| upload.headers).unwrap_or_default();
                headers.extend(signed.into_iter().map(|(name, _)| name));
            }
        }
        headers
    }

    async fn rules(&self) -> Result<Vec<CorsRule>, Problem> {
        let cors = self.client.get_bucket_cors().bucket(&self.bucket);
        match cors.send().await {
            Ok(output) => Ok(output.cors_rules.unwrap_or_default()),
            Err(error) => {
                let status = error.raw_response().map(|raw| raw.status().as_u16());
                let problem = Problem::from(error);
                // Garage answers 204 where there are none.
                if status == Some(204) || problem.means_no_rules() {
                    return Ok(Vec::new());
                }
                Err(problem)
            }
        }
    }

    /// Sets the rules, and reads them again to see that they are in force.
    async fn set_rules(&self, rules: Vec<CorsRule>, needs: &Needs) -> Result<(), Problem> {
        let configuration = CorsConfiguration::builder().set_cors_rules(Some(rules));
        let configuration = configuration
            .build()
            .map_err(|error| Problem::NotSent(error.to_string()))?;
        let put = self.client.put_bucket_cors().bucket(&self.bucket);
        let put = put.cors_configuration(configuration).customize();
        let written = put.mutate_request(add_md5).send().await;
        let written = match written.map_err(Problem::from) {
            Err(problem) if problem.is_refusal() => return Err(problem),
            // After any other error they may be in force nevertheless.
            written => written,
        };
        let missing = needs.missing(&self.rules().await?);
        if missing.is_empty() {
            return Ok(());
        }
        written?;
        let missing = missing.join("; ");
        Err(Problem::NotSent(format!(
            "the store accepted the rules, and still {missing}"
        )))
    }

    /// Checks with preflights alone, because `problem` prevents reading the rules.
    async fn cors_by_preflights(&self, needs: &Needs, problem: &Problem) -> Line {
        let unread = format!("the rules cannot be read ({problem})");
        match self.refused_preflight(needs).await {
            Ok(None) => self.answered(&unread, needs),
            Ok(Some(refused)) => {
                let fix = if problem.is_denied() {
                    "set the rules below; to read and set them, the credentials need s3:GetBucketCORS and s3:PutBucketCORS"
                } else {
                    "set the rules below in the way that this store has for it: see docs/stores.md"
                };
                let detail = format!("{unread}; the store refuses the preflight of {refused}");
                let wanted = configuration(&needs.added_to(&[]));
                Line::failed(CHECK, detail).fix(fix).with_rules(&wanted)
            }
            Err(problem) => {
                Line::warning(CHECK, format!("{unread}, and a preflight got {problem}"))
            }
        }
    }

    /// The method and the origin of a preflight that the store refuses.
    async fn refused_preflight(&self, needs: &Needs) -> Result<Option<String>, Problem> {
        for origin in &needs.origins {
            for method in &needs.methods {
                if !self.preflight(origin, method, &needs.headers).await? {
                    return Ok(Some(format!("{method} from {}", concrete(origin))));
                }
            }
        }
        Ok(None)
    }

    /// The line if all preflights are answered, though no rules are known, for this reason.
    fn answered(&self, unknown: &str, needs: &Needs) -> Line {
        let answered = format!("{unknown}; preflights are answered");
        match self.exposes_etag.get() {
            Some(true) => {
                let rights = needs.summary();
                let detail = format!("{rights} ({unknown}, preflights are answered)");
                Line::ok(CHECK, detail)
            }
            Some(false) => {
                let detail =
                    format!("{answered}, but pages may not read ETag, which uploads in parts need");
                let line = Line::failed(CHECK, detail).fix("have the store expose ETag");
                line.with_rules(&configuration(&needs.added_to(&[])))
            }
            None => Line::warning(
                CHECK,
                format!("{answered}; whether pages may read ETag is not known"),
            ),
        }
    }

    /// What a browser asks about before a PUT: Swift answers only for a URL that is signed.
    async fn address_of_put(&self) -> String {
        let uploads = self.public_uploads.as_ref().unwrap_or(&self.uploads);
        let now = SystemTime::now();
        if let Some(sample) = self.samples.first()
            && let Ok(put) = Upload::granted(uploads, Way::Put, sample, &sample.file, now).await
        {
            return put.url;
        }
        format!("{}/presignd-check", self.public_address)
    }

    /// Whether the store allows this upload in its answer to a browser's preflight.
    async fn preflight(
        &self,
        origin: &str,
        method: &str,
        headers: &BTreeSet<String>,
    ) -> Result<bool, Problem> {
        let origin = concrete(origin);
        let is_put = method == "PUT";
        let url = if is_put {
            self.address_of_put().await
        } else {
            format!("{}/", self.public_address)
        };
        let mut request = self.http.request(Method::OPTIONS, url);
        request = request
            .header(header::ORIGIN, &origin)
            .header(header::ACCESS_CONTROL_REQUEST_METHOD, method);
        // A form has no headers that need a preflight.
        if is_put {
            let names = joined(headers, ",");
            request = request.header(header::ACCESS_CONTROL_REQUEST_HEADERS, names);
        }
        let response = request.send().await?;
        let allows = |name, wanted: &str| {
            let mut allowed = list(response.headers(), name);
            allowed.any(|value| value == "*" || value.eq_ignore_ascii_case(wanted))
        };
        let allows_header = |name: &String| allows(&header::ACCESS_CONTROL_ALLOW_HEADERS, name);
        Ok(response.status().is_success()
            && allows(&header::ACCESS_CONTROL_ALLOW_ORIGIN, &origin)
            // A form's method needs no preflight.
            && (!is_put
                || allows(&header::ACCESS_CONTROL_ALLOW_METHODS, method)
                    && headers.iter().all(allows_header)))
    }
}

fn joined(names: &BTreeSet<String>, separator: &str) -> String {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.join(separator)
}

/// The members of a header that is a list.
pub(super) fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter();
    let values = values.filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// An origin of a page that `CORS_ALLOWED_ORIGINS` means: no page has one with a `*`.
pub(super) fn concrete(origin: &str) -> String {
    match origin {
        "*" => "https://presignd-check.example".to_owned(),
        pattern => pattern.replace('*', "presignd-check"),
    }
}
