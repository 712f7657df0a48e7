//! Whether the store can be reached, its clock, and the configuration of the bucket.

use std::time::{Duration, Instant, SystemTime};

use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use reqwest::header;

use super::problem::{BUCKET_REGION, Problem, proxy_remark};
use super::{Check, Line};
use crate::s3;

/// S3 refuses signatures of a clock that differs
/// [by more](https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html).
const MAX_SKEW: Duration = Duration::from_mins(15);
const NOTABLE_SKEW: Duration = Duration::from_secs(30);

/// What the answer to an unsigned request shows.
#[derive(Debug)]
pub(super) struct Reached {
    took: Duration,
    /// The store's clock, and ours in the middle of the call.
    clocks: Option<(SystemTime, SystemTime)>,
    region: Option<String>,
}

impl Check {
    /// Sends an unsigned HEAD request for the bucket: any answer shows that the store can be
    /// reached.
    pub(super) async fn ask(&self, address: &str) -> Result<Reached, Problem> {
        let (begin, now) = (Instant::now(), SystemTime::now());
        let response = self.http.head(address).send().await?;
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
                let fix = problem.connection_fix().map(str::to_owned);
                let fix = fix.unwrap_or_else(|| {
                    let remark = proxy_remark(&self.address);
                    format!("start the store, or set AWS_ENDPOINT_URL_S3 to its address{remark}")
                });
                let detail = format!("{}: {problem}", self.address);
                let mut line = Line::failed(CHECK, detail).fix(fix);
                if let Some(other) = self.other_address().await
                    && self.ask(&other).await.is_ok()
                {
                    line = line.fix(format!("{}: {other} answers", self.other_style()));
                }
                lines.push(line);
                return None;
            }
        };
        let is_in_path = self.address.ends_with(&format!("/{}", self.bucket));
        let style = if is_in_path { "path" } else { "virtual-hosted" };
        let millis = reached.took.as_millis();
        lines.push(Line::ok(
            CHECK,
            format!("answers in {millis} ms, {style} style"),
        ));
        lines.push(clock(reached.clocks));
        Some(reached)
    }

    fn other_style(&self) -> String {
        let other = !self.config.s3.force_path_style;
        format!("set S3_FORCE_PATH_STYLE={other}")
    }

    /// The bucket's address in the other style, if there is one.
    async fn other_address(&self) -> Option<String> {
        let settings = s3::Settings {
            force_path_style: !self.config.s3.force_path_style,
            public_endpoint: None,
            accelerate: false,
            bucket: self.bucket.clone(),
        };
        let credentials = self.credentials.clone();
        let other = s3::buckets(&self.aws.sdk_config, &settings, [], credentials, false);
        let other = other.await.ok()?.default_bucket().address("");
        let other = other.trim_end_matches('/').to_owned();
        (other != self.address).then_some(other)
    }

    /// Checks whether the bucket exists, and in which region. False if nothing can be tried with
    /// it.
    pub(super) async fn region_and_bucket(&self, reached: &Reached, lines: &mut Vec<Line>) -> bool {
        const CHECK: &str = "bucket";
        let head = self.client.head_bucket().bucket(&self.bucket).send().await;
        let (mut problem, mut real) = match head.map_err(Problem::from) {
            Ok(output) => (None, output.bucket_region),
            Err(problem) => {
                let region = problem.region().map(str::to_owned);
                (Some(problem), region)
            }
        };
        real = real.or_else(|| reached.region.clone());
        let mut denied = None;
        let mut may_be_a_proxy = false;
        let has_answer = problem.as_ref().is_none_or(|it| it.status().is_some());
        // The answer to a HEAD request has no body, so another call asks for the reason, or shows that a page
        // answers in the place of the store.
        let location = self.client.get_bucket_location().bucket(&self.bucket);
        if has_answer && let Err(reason) = location.send().await.map_err(Problem::from) {
            real = real.or_else(|| reason.region().map(str::to_owned));
            may_be_a_proxy = reason.is_404_without_code() || reason.is_unreadable();
            if reason.is_denied() {
                denied = Some(reason);
            } else if may_be_a_proxy || problem.is_some() && !reason.is_not_implemented() {
                problem = Some(reason);
            }
        }
        let ours = self.aws.sdk_config.region();
        let ours = ours.map(ToString::to_string).unwrap_or_default();
        let (line, is_elsewhere) = region(&ours, real.as_deref(), problem.is_none());
        lines.push(line);
        let name = &self.bucket;
        let (line, may_go_on) = match problem {
            None => {
                let detail = format!("{name} exists, and the store accepts the credentials");
                (Line::ok(CHECK, detail), true)
            }
            Some(_) if is_elsewhere => (Line::skipped(CHECK, "it is in another region"), false),
            Some(problem) if problem.is_not_implemented() => {
                let detail = "the store does not say whether it exists; the uploads of this check will show it";
                (Line::skipped(CHECK, detail), true)
            }
            Some(problem) if problem.is_denied() => {
                let why = denied.unwrap_or(problem);
                let line = if why.is_403_of_proxy() {
                    let detail = format!("whether it exists is unknown: {why}");
                    Line::warning(CHECK, detail).fix_if(why.fix(""))
                } else {
                    let detail = format!(
                        "whether it exists is unknown ({why}): the credentials need s3:ListBucket, which POST /upload/verify needs, too; the uploads of this check will show whether it exists"
                    );
                    Line::warning(CHECK, detail)
                };
                (line, true)
            }
            Some(problem) => {
                let mut line = problem.failed(CHECK, "s3:ListBucket");
                if let Some(fix) = problem.redirect_fix(name) {
                    line = line.fix(fix);
                } else if may_be_a_proxy {
                    let detail = format!("{problem}: this may not be the store");
                    let fix = format!(
                        "set AWS_ENDPOINT_URL_S3 to the store's address, and look at the proxies before it; if it is the store, create the bucket {name}"
                    );
                    line = Line::failed(CHECK, detail).fix(fix);
                } else if problem.is(&["NoSuchBucket", "NotFound", ""])
                    && problem.status() == Some(404)
                {
                    line = Line::failed(CHECK, format!("there is no bucket {name}"))
                        .fix("create it, or set AWS_S3_BUCKET_NAME, or the policy's `bucket`, to one that exists");
                }
                if self.is_there_in_other_style().await {
                    line = line.fix(self.other_style());
                }
                (line, false)
            }
        };
        lines.push(line);
        may_go_on
    }

    async fn is_there_in_other_style(&self) -> bool {
        if self.other_address().await.is_none() {
            return false;
        }
        let config = self.client.config().to_builder();
        let config = config.force_path_style(!self.config.s3.force_path_style);
        let client = aws_sdk_s3::Client::from_conf(config.build());
        let head = client.head_bucket().bucket(&self.bucket);
        head.send().await.is_ok()
    }

    pub(super) async fn public_access(&self) -> Line {
        const CHECK: &str = "public-access";
        const FIX: &str = "turn on Block Public Access, unless the bucket is public on purpose";
        let call = self.client.get_public_access_block();
        let answer = call.bucket(&self.bucket).send().await;
        let block = match answer.map_err(Problem::from) {
            Ok(output) => output.public_access_block_configuration,
            Err(problem) if problem.is(&["NoSuchPublicAccessBlockConfiguration"]) => {
                return Line::warning(CHECK, "is not blocked").fix(FIX);
            }
            Err(problem) => return problem.unknown(CHECK, "s3:GetBucketPublicAccessBlock"),
        };
        let is_blocked = block.is_some_and(|block| {
            let rules = [
                block.block_public_acls,
                block.ignore_public_acls,
                block.block_public_policy,
                block.restrict_public_buckets,
            ];
            rules == [Some(true); 4]
        });
        if is_blocked {
            Line::ok(CHECK, "is blocked")
        } else {
            Line::warning(CHECK, "is blocked only in part").fix(FIX)
        }
    }
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
        let detail = format!("within {} s of the store's", skew.as_secs() + 1);
        return Line::ok(CHECK, detail);
    }
    let words = humantime::format_duration(Duration::from_secs(skew.as_secs()));
    let detail = format!("this machine's clock is {words} {which} the store's");
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

/// Compares the region that requests are signed for with the `real` one. Returns a line, and
/// whether requests fail because the regions differ.
fn region(ours: &str, real: Option<&str>, is_accepted: bool) -> (Line, bool) {
    const CHECK: &str = "region";
    let Some(real) = real else {
        let detail = format!("signing for {ours}; the store does not say where the bucket is");
        let line = if is_accepted { Line::ok } else { Line::skipped };
        return (line(CHECK, detail), false);
    };
    if real == ours {
        return (
            Line::ok(CHECK, format!("{ours}, where the bucket is")),
            false,
        );
    }
    let detail = format!("the bucket is in {real}, and requests are signed for {ours}");
    let line = if is_accepted {
        Line::warning(CHECK, format!("{detail}; this store accepts them"))
    } else {
        Line::failed(CHECK, detail)
    };
    (line.fix(format!("set AWS_REGION={real}")), !is_accepted)
}
