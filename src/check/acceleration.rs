//! Whether S3 Transfer Acceleration is on for the bucket, if clients are sent to it.

use aws_sdk_s3::types::BucketAccelerateStatus;

use super::problem::Problem;
use super::{Check, Line};

const CHECK: &str = "acceleration";

impl Check {
    pub(super) async fn acceleration(&self) -> Line {
        let call = self.client.get_bucket_accelerate_configuration();
        let answer = call.bucket(self.bucket()).send().await;
        line(answer.map(|output| output.status).map_err(Problem::from))
    }
}

fn line(status: Result<Option<BucketAccelerateStatus>, Problem>) -> Line {
    match status {
        Ok(Some(BucketAccelerateStatus::Enabled)) => Line::ok(CHECK, "is on for this bucket"),
        Ok(_) => Line::failed(
            CHECK,
            "is off for this bucket, so S3 refuses the uploads of all clients",
        )
        .fix(
            "turn on Transfer Acceleration in the properties of the bucket, or unset S3_ACCELERATE",
        ),
        Err(problem) if problem.is_not_implemented() => {
            Line::failed(CHECK, "the store does not have it").fix("unset S3_ACCELERATE")
        }
        Err(problem) => problem.unknown(CHECK, "s3:GetAccelerateConfiguration"),
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
