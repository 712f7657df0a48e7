//! Attempts on uploads in parts.

use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use percent_encoding::percent_decode_str;

use super::attempts::{COMPLETE_ETAG, PART_NUMBER, PART_UPLOAD};
use crate::check::marker::{Result, Upload, Way};
use crate::check::problem::Problem;
use crate::check::removal::Marker;
use crate::check::{Check, Line};
use crate::upload::Sample;

const UPLOAD_ID: &str = "uploadId";

impl Check {
    pub(super) async fn prove_parts(&self) -> Vec<Line> {
        const CHECK: &str = "part-terms";
        let Some(sample) = self.unique_samples().find(|sample| sample.fits_multipart) else {
            return vec![Line::skipped(CHECK, "no policy allows a marker in parts")];
        };
        let mut lines = Vec::new();
        if let Err(error) = self.attempts_on_parts(sample, &mut lines).await {
            lines.push(error.unclear(CHECK, sample));
        }
        lines
    }

    /// Adds a line for each attempt; what was found counts even if a later one cannot be made.
    async fn attempts_on_parts(&self, sample: &Sample, lines: &mut Vec<Line>) -> Result<()> {
        let key = self.granted(Way::Parts, sample, &sample.file).await?.key;
        // Checked before the upload begins: Garage drops the unfinished uploads of a key that is
        // deleted.
        self.ensure_may_store(&key, sample).await?;
        self.ensure_parts_removable(&key).await?;
        let (marker, _, part) = self.create_multipart(sample, &sample.file).await?;
        let (other, _, other_part) = self.create_multipart(sample, &sample.file).await?;
        for (attempt, name, value) in [
            (
                &PART_UPLOAD,
                UPLOAD_ID,
                parameter(&other_part.url, UPLOAD_ID),
            ),
            (&PART_NUMBER, "partNumber", "2"),
        ] {
            let changed = Upload {
                url: with_parameter(&part.url, name, value),
                ..part.clone()
            };
            lines.push(attempt.judge(self.send(&changed).await));
        }
        self.discard(&other).await?;

        self.send(&part).await?;
        let object = Marker::object(&marker.key, None);
        self.markers().push(object.clone());
        let id = percent_decode_str(parameter(&part.url, UPLOAD_ID)).decode_utf8_lossy();
        let wrong = "\"00000000000000000000000000000000\"";
        let answer = self.complete(&marker.key, &id, wrong).await;
        lines.push(COMPLETE_ETAG.judge(answer));
        self.discard(&object).await?;
        self.discard(&marker).await
    }

    async fn complete(&self, key: &str, id: &str, tag: &str) -> Result<(), Problem> {
        let part = CompletedPart::builder().part_number(1).e_tag(tag).build();
        let parts = CompletedMultipartUpload::builder().parts(part).build();
        let call = self.client.complete_multipart_upload();
        let call = call.bucket(&self.bucket).key(key).upload_id(id);
        call.multipart_upload(parts).send().await?;
        Ok(())
    }
}

/// The value of a parameter, encoded as in the URL.
fn parameter<'a>(url: &'a str, name: &str) -> &'a str {
    let mut pairs = url
        .split(['?', '&'])
        .filter_map(|pair| pair.split_once('='));
    let value = pairs.find(|(known, _)| *known == name);
    value.map_or("", |(_, value)| value)
}

/// The URL with another value of a parameter.
fn with_parameter(url: &str, name: &str, value: &str) -> String {
    let old = format!("{name}={}", parameter(url, name));
    url.replacen(&old, &format!("{name}={value}"), 1)
}
