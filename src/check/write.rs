//! Whether the credentials may write, if no upload to the bucket could be tried. An upload in parts that is begun
//! and aborted stores nothing, whatever the policies allow.

use super::marker::{MarkerError, Result, Way};
use super::problem::Problem;
use super::removal::Marker;
use super::{Check, Line, MULTIPART, POST, PUT, Status};
use crate::upload::Sample;

const CHECK: &str = "write";

impl Check {
    /// A line for each policy if the `uploads` were all skipped, which would say nothing.
    pub(super) async fn write(&self, uploads: &[Line]) -> Vec<Line> {
        let of_ways = |line: &&Line| [PUT, POST, MULTIPART].contains(&line.check);
        let mut tried = uploads.iter().filter(of_ways);
        if tried.any(|line| line.status != Status::Skipped) {
            return Vec::new();
        }
        let mut lines = Vec::new();
        for sample in &self.samples {
            let line = match self.begin(sample).await {
                Ok(()) => Line::warning(
                    CHECK,
                    "no file was uploaded, for the reasons above; but an upload in parts was begun and aborted, so the credentials may write",
                ),
                Err(error) => failed(error, sample),
            };
            lines.push(line.for_policy(&sample.policy));
        }
        lines
    }

    async fn begin(&self, sample: &Sample) -> Result<()> {
        // With forms alone, nothing else is granted.
        let way = self.ways(sample).next().unwrap_or(Way::Put);
        let key = self.granted(way, sample, &sample.file).await?.key;
        self.ensure_parts_removable(&key).await?;
        let create = self.client.create_multipart_upload();
        let created = create.bucket(&self.bucket).key(&key).send().await;
        let upload = created.map_err(Problem::from)?.upload_id;
        // Without it the marker would be the object of this key, which may be somebody's.
        let upload = upload.ok_or(Problem::Unreadable)?;
        let marker = Marker::parts(&key, upload);
        self.markers().push(marker.clone());
        self.discard(&marker).await
    }
}

fn failed(error: MarkerError, sample: &Sample) -> Line {
    const FIX: &str = "permit s3:DeleteObject for the markers of this check (with versions s3:DeleteObjectVersion), or at least s3:PutObject and s3:AbortMultipartUpload, with which it begins an upload and aborts it; if the bucket demands headers such as those of encryption, permit the first, as this attempt has no headers";
    let (why, fix) = match error {
        MarkerError::NotSent(why) => (why, None),
        MarkerError::Refused(problem) => {
            let fix =
                problem.fix("s3:PutObject; and s3:DeleteObject for the markers of this check");
            (problem.to_string(), fix)
        }
        error => return error.line(CHECK, sample),
    };
    let detail = format!(
        "no upload was tried, for the reasons above, and none in parts can be begun ({why}): whether any works is unknown"
    );
    Line::failed(CHECK, detail).fix(fix.unwrap_or_else(|| FIX.to_owned()))
}
