//! Whether the store can be reached, its clock, and the configuration of the bucket.

use std::time::{Duration, Instant, SystemTime};

use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use aws_sdk_s3::types::{ExpirationStatus, LifecycleRule};
use reqwest::header;

use super::problem::{BUCKET_REGION, Problem};
use super::{Check, Line};
use crate::s3;

/// S3 refuses what is signed with a clock that differs [by more](https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html).
const MAX_SKEW: Duration = Duration::from_mins(15);
const NOTABLE_SKEW: Duration = Duration::from_secs(30);

/// What the answer to an unsigned request tells.
#[derive(Debug)]
pub(super) struct Reached {
    took: Duration,
    /// Its clock, and ours in the middle of the question.
    clocks: Option<(SystemTime, SystemTime)>,
    region: Option<String>,
}

impl Check {
    /// Sends a HEAD for the bucket without a signature: any answer shows that the store can be reached.
    pub(super) async fn ask(&self, address: &str) -> Result<Reached, Problem> {
        let (begin, now) = (Instant::now(), SystemTime::now());
        let response = self.http.head(address).send().await;
        let response = response.map_err(Problem::of_http)?;
        let took = begin.elapsed();
        let header = |name: &str| response.headers().get(name)?.to_str().ok();
        let date = header(header::DATE.as_str())
            .and_then(|date| DateTime::from_str(date, DateTimeFormat::HttpDate).ok())
            .and_then(|date| SystemTime::try_from(date).ok());
        Ok(Reached {
            took,
            clocks: date.map(|date| (date, now + took / 2)),
            region: header(BUCKET_REGION).map(str::to_owned),
        })
    }

    /// Whether the store can be reached, in which style, and its clock.
    pub(super) async fn endpoint(&self, lines: &mut Vec<Line>) -> Option<Reached> {
        const CHECK: &str = "endpoint";
        let reached = match self.ask(&self.address).await {
            Ok(reached) => reached,
            Err(problem) => {
                let mut line = Line::failed(CHECK, format!("{}: {}", self.address, problem.says()))
                    .fix("start the store, or set AWS_ENDPOINT_URL_S3 to its address");
                if let Some(other) = self.other_address().await
                    && self.ask(&other).await.is_ok()
                {
                    line = line.fix(format!("{}: {other} answers", self.other_style()));
                }
                lines.push(line);
                return None;
            }
        };
        let style = if self.address.ends_with(&format!("/{}", self.bucket())) {
            "path"
        } else {
            "virtual-hosted"
        };
        let millis = reached.took.as_millis();
        lines.push(Line::ok(
            CHECK,
            format!("answers in {millis} ms, {style} style"),
        ));
        lines.push(clock(reached.clocks));
        Some(reached)
    }

    fn other_style(&self) -> String {
        format!(
            "set S3_FORCE_PATH_STYLE={}",
            !self.config.s3.force_path_style
        )
    }

    /// The bucket's address in the other style, if there is one.
    async fn other_address(&self) -> Option<String> {
        let settings = s3::Settings {
            force_path_style: !self.config.s3.force_path_style,
            public_endpoint: None,
            ..self.config.s3.clone()
        };
        let credentials = self.credentials.clone();
        let other = s3::bucket(&self.aws.sdk_config, settings, credentials, false);
        let other = other.await.ok()?.address("");
        let other = other.trim_end_matches('/').to_owned();
        (other != self.address).then_some(other)
    }

    /// Whether the bucket exists, and where. False if nothing can be tried with it.
    pub(super) async fn region_and_bucket(&self, reached: &Reached, lines: &mut Vec<Line>) -> bool {
        const BUCKET: &str = "bucket";
        let head = self.client.head_bucket().bucket(self.bucket()).send().await;
        let (mut problem, mut real) = match &head {
            Ok(output) => (None, output.bucket_region().map(str::to_owned)),
            Err(error) => {
                let problem = Problem::of_sdk(error);
                let region = problem.region().map(str::to_owned);
                (Some(problem), region)
            }
        };
        real = real.or_else(|| reached.region.clone());
        let mut denied = None;
        if problem
            .as_ref()
            .is_some_and(|problem| problem.status().is_some())
        {
            // Answers to HEAD have no body with a reason.
            let location = self.client.get_bucket_location().bucket(self.bucket());
            if let Err(error) = location.send().await {
                let told = Problem::of_sdk(&error);
                real = real.or_else(|| told.region().map(str::to_owned));
                if told.is_denied() {
                    denied = Some(told.says());
                } else if !told.is_not_implemented() {
                    problem = Some(told);
                }
            }
        }
        let ours = self
            .aws
            .sdk_config
            .region()
            .map(ToString::to_string)
            .unwrap_or_default();
        let (line, is_elsewhere) = region(&ours, real.as_deref(), problem.is_none());
        lines.push(line);
        let Some(problem) = problem else {
            lines.push(Line::ok(
                BUCKET,
                format!(
                    "{} exists, and the store accepts the credentials",
                    self.bucket()
                ),
            ));
            return true;
        };
        if is_elsewhere {
            lines.push(Line::skipped(BUCKET, "it is in another region"));
            return false;
        }
        if problem.is_not_implemented() {
            lines.push(Line::skipped(
                BUCKET,
                "the store does not say whether it exists; uploads will show",
            ));
            return true;
        }
        if problem.is_denied() {
            let why = denied.unwrap_or_else(|| problem.says());
            let detail = format!(
                "whether it exists is unknown ({why}): the credentials need s3:ListBucket, which POST /upload/verify needs, too; uploads will show"
            );
            lines.push(Line::warning(BUCKET, detail));
            return true;
        }
        let mut line = problem.failed(BUCKET, "s3:ListBucket");
        if problem.status() == Some(404) {
            line = Line::failed(BUCKET, format!("there is no bucket {}", self.bucket()))
                .fix("create it, or set AWS_S3_BUCKET_NAME to one that exists");
        }
        if self.is_there_in_other_style().await {
            line = line.fix(self.other_style());
        }
        lines.push(line);
        false
    }

    async fn is_there_in_other_style(&self) -> bool {
        if self.other_address().await.is_none() {
            return false;
        }
        let config = self.client.config().to_builder();
        let config = config.force_path_style(!self.config.s3.force_path_style);
        let client = aws_sdk_s3::Client::from_conf(config.build());
        client
            .head_bucket()
            .bucket(self.bucket())
            .send()
            .await
            .is_ok()
    }

    pub(super) async fn lifecycle(&self) -> Line {
        const CHECK: &str = "lifecycle";
        const MISSING: &str = "no rule removes the parts of uploads that nobody completes; they cost money until they are removed";
        const FIX: &str = "add a lifecycle rule with AbortIncompleteMultipartUpload for the whole bucket, 7 days or more";
        let asked = self.client.get_bucket_lifecycle_configuration();
        match asked.bucket(self.bucket()).send().await {
            Ok(output) => {
                let rules = output.rules().iter().filter(|rule| is_for_all(rule));
                let days = |rule: &LifecycleRule| {
                    rule.abort_incomplete_multipart_upload()?
                        .days_after_initiation()
                };
                match rules.filter_map(days).min() {
                    // The lifetime of sessions.
                    Some(days) if days < 7 => Line::warning(
                        CHECK,
                        format!("unfinished uploads expire after {days} days"),
                    )
                    .fix("set 7 days or more: clients may continue a multipart upload that long"),
                    Some(days) => Line::ok(
                        CHECK,
                        format!("unfinished uploads expire after {days} days"),
                    ),
                    None => Line::warning(CHECK, MISSING).fix(FIX),
                }
            }
            Err(error) => {
                let problem = Problem::of_sdk(&error);
                if problem.is(&["NoSuchLifecycleConfiguration"]) || problem.status() == Some(404) {
                    return Line::warning(CHECK, MISSING).fix(FIX);
                }
                problem.unknown(CHECK, "s3:GetLifecycleConfiguration")
            }
        }
    }

    pub(super) async fn public_access(&self) -> Line {
        const CHECK: &str = "public-access";
        const FIX: &str = "turn on Block Public Access, unless the bucket is public on purpose";
        let asked = self.client.get_public_access_block();
        match asked.bucket(self.bucket()).send().await {
            Ok(output) => {
                let all = output
                    .public_access_block_configuration()
                    .is_some_and(|block| {
                        [
                            block.block_public_acls(),
                            block.ignore_public_acls(),
                            block.block_public_policy(),
                            block.restrict_public_buckets(),
                        ] == [Some(true); 4]
                    });
                if all {
                    Line::ok(CHECK, "is blocked")
                } else {
                    Line::warning(CHECK, "is blocked only in part").fix(FIX)
                }
            }
            Err(error) => {
                let problem = Problem::of_sdk(&error);
                if problem.is(&["NoSuchPublicAccessBlockConfiguration"]) {
                    return Line::warning(CHECK, "is not blocked").fix(FIX);
                }
                problem.unknown(CHECK, "s3:GetBucketPublicAccessBlock")
            }
        }
    }
}

fn is_for_all(rule: &LifecycleRule) -> bool {
    #[expect(deprecated, reason = "older rules have it")]
    let prefix = rule.prefix();
    rule.status() == &ExpirationStatus::Enabled
        && prefix.is_none_or(str::is_empty)
        && rule.filter().is_none_or(|filter| {
            filter.prefix().is_none_or(str::is_empty)
                && filter.tag().is_none()
                && filter.and().is_none()
                && filter.object_size_greater_than().is_none()
                && filter.object_size_less_than().is_none()
        })
}

/// The line for the difference between the store's clock and ours.
fn clock(clocks: Option<(SystemTime, SystemTime)>) -> Line {
    const CHECK: &str = "clock";
    let Some((theirs, ours)) = clocks else {
        return Line::skipped(CHECK, "the store's answer has no date");
    };
    let (skew, which) = match theirs.duration_since(ours) {
        Ok(behind) => (behind, "behind"),
        Err(error) => (error.duration(), "ahead of"),
    };
    if skew < NOTABLE_SKEW {
        // Dates have a precision of one second.
        return Line::ok(
            CHECK,
            format!("within {} s of the store's", skew.as_secs() + 1),
        );
    }
    let skew_words = humantime::format_duration(Duration::from_secs(skew.as_secs()));
    let detail = format!("this machine's clock is {skew_words} {which} the store's");
    let line = if skew >= MAX_SKEW {
        Line::failed(
            CHECK,
            format!("{detail}: the store refuses what is signed here"),
        )
    } else {
        Line::warning(
            CHECK,
            format!("{detail}: grants expire at another moment than they say"),
        )
    };
    line.fix("set the clock (NTP)")
}

/// The line for the region that we sign for and the `real` one; and whether requests fail because they
/// differ.
fn region(ours: &str, real: Option<&str>, is_accepted: bool) -> (Line, bool) {
    const CHECK: &str = "region";
    match real {
        None => {
            let detail = format!("signing for {ours}; the store does not say where the bucket is");
            let line = if is_accepted {
                Line::ok(CHECK, detail)
            } else {
                Line::skipped(CHECK, detail)
            };
            (line, false)
        }
        Some(real) if real == ours => (
            Line::ok(CHECK, format!("{ours}, where the bucket is")),
            false,
        ),
        Some(real) => {
            let detail = format!("the bucket is in {real}, and requests are signed for {ours}");
            let fix = format!("set AWS_REGION={real}");
            if is_accepted {
                let line = Line::warning(CHECK, format!("{detail}; this store accepts them"));
                (line.fix(fix), false)
            } else {
                (Line::failed(CHECK, detail).fix(fix), true)
            }
        }
    }
}
