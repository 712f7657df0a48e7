//! Whether clients can upload at the endpoint that they are sent to, which may be that of S3
//! Transfer Acceleration.

use aws_sdk_s3::types::BucketAccelerateStatus;

use super::marker::MarkerError;
use super::problem::{Problem, proxy_remark};
use super::{Check, FORMS_ONLY, Line, NO_SAMPLE, Status};

const ACCELERATION: &str = "acceleration";
const VARIABLE: &str = "S3_PUBLIC_ENDPOINT_URL";

impl Check {
    pub(super) async fn public_endpoint(&self) -> Vec<Line> {
        const CHECK: &str = "public-endpoint";
        let host = &self.public_host;
        let mut lines = Vec::new();
        if host.is_internal() && !self.config.bind_addr.ip().is_loopback() {
            let detail =
                format!("clients are sent to {host}, which looks like a host of this network only");
            let fix = format!("set {VARIABLE} to the store's URL for clients");
            lines.push(Line::warning(CHECK, detail).fix(fix));
        }
        let Some(uploads) = &self.public_uploads else {
            return lines;
        };
        if self.config.s3.accelerate {
            let line = self.acceleration().await;
            let is_off = line.status == Status::Failed;
            lines.push(line);
            if is_off {
                return lines;
            }
        }
        if let Err(problem) = self.ask(&self.public_address).await {
            let detail = format!(
                "{} cannot be reached from here: {problem}",
                self.public_address
            );
            let fix = problem.connection_fix().map(str::to_owned);
            let fix = fix.unwrap_or_else(|| {
                let remark = proxy_remark(&self.public_address);
                format!("set {VARIABLE} to an address that clients can reach{remark}")
            });
            lines.push(Line::warning(CHECK, detail).fix(fix));
            return lines;
        }
        let line = match self.unique_samples().next() {
            _ if self.config.upload.forms_only => Line::skipped(CHECK, FORMS_ONLY),
            None => Line::skipped(CHECK, format!("it answers; {NO_SAMPLE}")),
            Some(sample) => match self.put(uploads, sample).await {
                Ok(_) => {
                    let address = &self.public_address;
                    Line::ok(
                        CHECK,
                        format!("{address} accepts a PUT that is signed for it"),
                    )
                }
                Err(error) => {
                    let redirect = match &error {
                        MarkerError::Refused(it) => it.redirect_fix(&self.bucket),
                        _ => None,
                    };
                    let mut line = error.line(CHECK, sample).fix_if(redirect);
                    if let Some(fix) = &mut line.fix {
                        *fix = fix.replace("AWS_ENDPOINT_URL_S3", VARIABLE);
                    }
                    line
                }
            },
        };
        lines.push(line);
        lines
    }

    async fn acceleration(&self) -> Line {
        let call = self.client.get_bucket_accelerate_configuration();
        let answer = call.bucket(&self.bucket).send().await;
        line(answer.map(|output| output.status).map_err(Problem::from))
    }
}

fn line(status: Result<Option<BucketAccelerateStatus>, Problem>) -> Line {
    match status {
        Ok(Some(BucketAccelerateStatus::Enabled)) => {
            Line::ok(ACCELERATION, "is on for this bucket")
        }
        Ok(_) => Line::failed(
            ACCELERATION,
            "is off for this bucket, so S3 refuses the uploads of all clients",
        )
        .fix(
            "turn on Transfer Acceleration in the properties of the bucket, or unset S3_ACCELERATE",
        ),
        Err(problem) if problem.is_not_implemented() => {
            Line::failed(ACCELERATION, "the store does not have it").fix("unset S3_ACCELERATE")
        }
        Err(problem) => problem.unknown(ACCELERATION, "s3:GetAccelerateConfiguration"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::super::problem::Refused;
    use super::*;

    fn refused(status: u16, code: &str) -> Problem {
        Problem::Refused(Refused {
            status: Some(status),
            code: code.to_owned(),
            ..Refused::default()
        })
    }

    #[test]
    fn a_bucket_without_acceleration_fails_and_what_is_unknown_does_not() {
        use BucketAccelerateStatus::{Enabled, Suspended};
        for (answer, expected, words) in [
            (Ok(Some(Enabled)), Status::Ok, "is on"),
            (Ok(Some(Suspended)), Status::Failed, "is off"),
            // S3's answer for a bucket where it has never been on.
            (Ok(None), Status::Failed, "is off"),
            (
                Err(refused(501, "NotImplemented")),
                Status::Failed,
                "does not have it",
            ),
            (
                Err(refused(405, "MethodNotAllowed")),
                Status::Failed,
                "does not have it",
            ),
            (
                Err(refused(403, "AccessDenied")),
                Status::Skipped,
                "s3:GetAccelerateConfiguration",
            ),
            (
                Err(refused(400, "InvalidRequest")),
                Status::Warning,
                "400 InvalidRequest",
            ),
        ] {
            let line = line(answer);
            assert_eq!(line.status, expected, "{line:?}");
            assert!(line.detail.contains(words), "{line:?}");
            assert_eq!(line.fix.is_some(), expected == Status::Failed, "{line:?}");
        }
    }
}
