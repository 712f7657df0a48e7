//! Attempts on uploads in parts.

use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use reqwest::{Request, RequestBuilder, Url};

use super::attempts::{Attempt, COMPLETE_ETAG, PART_NUMBER, PART_UPLOAD};
use crate::check::marker::{Unable, grant};
use crate::check::problem::Problem;
use crate::check::removal::Marker;
use crate::check::{Check, Line};
use crate::upload::Sample;

const UPLOAD_ID: &str = "uploadId";

impl Check {
    pub(super) async fn prove_parts(&self) -> Vec<Line> {
        const CHECK: &str = "part-terms";
        let mut samples = self.samples.iter();
        let sample = samples.find(|sample| sample.has_unique_key && sample.fits_multipart);
        let Some(sample) = sample else {
            return vec![Line::skipped(CHECK, "no policy allows a marker in parts")];
        };
        let mut lines = Vec::new();
        match self.attempts_on_parts(sample, &mut lines).await {
            Ok(()) => {}
            Err(Unable::Refused(problem)) => lines.push(problem.unclear(CHECK)),
            Err(unable) => lines.push(unable.line(CHECK, sample)),
        }
        lines
    }

    /// Adds a line for each attempt; what was found counts even if a later one cannot be made.
    async fn attempts_on_parts(
        &self,
        sample: &Sample,
        lines: &mut Vec<Line>,
    ) -> Result<(), Unable> {
        let file = &sample.file;
        let grant = grant(&self.uploads, &sample.caller, file).await?;
        // Checked before the upload begins: Garage drops the unfinished uploads of a key that is
        // deleted.
        self.ensure_removable(grant.key.as_str()).await?;
        self.ensure_parts_removable(grant.key.as_str()).await?;
        let (marker, part) = self.create_multipart(sample, file).await?;
        let (other, other_part) = self.create_multipart(sample, file).await?;
        let part = part.build().map_err(Problem::from)?;
        let other_part = other_part.build().map_err(Problem::from)?;
        let other_id = parameter(other_part.url(), UPLOAD_ID);
        for (attempt, name, value) in [
            (&PART_UPLOAD, UPLOAD_ID, other_id.as_str()),
            (&PART_NUMBER, "partNumber", "2"),
        ] {
            lines.push(self.changed_part(attempt, &part, name, value).await);
        }
        self.discard(&other).await?;

        let id = parameter(part.url(), UPLOAD_ID);
        let sent = self.send(RequestBuilder::from_parts(self.http.clone(), part));
        sent.await?;
        let object = Marker::Object {
            key: marker.key().to_owned(),
            version: None,
        };
        self.markers().push(object.clone());
        let wrong = "\"00000000000000000000000000000000\"";
        let answer = self.complete(marker.key(), &id, wrong).await;
        lines.push(COMPLETE_ETAG.judge(answer));
        self.discard(&object).await?;
        self.discard(&marker).await
    }

    /// Sends a part to a URL in which one parameter differs from the signed one.
    async fn changed_part(
        &self,
        attempt: &Attempt,
        part: &Request,
        name: &str,
        value: &str,
    ) -> Line {
        let Some(mut part) = part.try_clone() else {
            return Line::skipped(attempt.check, "the part cannot be sent twice");
        };
        replace(part.url_mut(), name, value);
        let request = RequestBuilder::from_parts(self.http.clone(), part);
        attempt.judge(self.send(request).await)
    }

    async fn complete(&self, key: &str, id: &str, tag: &str) -> Result<(), Problem> {
        let part = CompletedPart::builder().part_number(1).e_tag(tag).build();
        let parts = CompletedMultipartUpload::builder().parts(part).build();
        let call = self.client.complete_multipart_upload();
        let call = call.bucket(self.bucket()).key(key).upload_id(id);
        call.multipart_upload(parts).send().await?;
        Ok(())
    }
}

fn parameter(url: &Url, name: &str) -> String {
    let mut pairs = url.query_pairs();
    let value = pairs.find(|(known, _)| known == name);
    value.map_or_else(String::new, |(_, value)| value.into_owned())
}

fn replace(url: &mut Url, name: &str, value: &str) {
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let pairs = pairs.into_iter().map(|(known, old)| {
        let value = if known == name { value.to_owned() } else { old };
        (known, value)
    });
    let pairs: Vec<_> = pairs.collect();
    url.query_pairs_mut().clear().extend_pairs(pairs);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_parameter_is_replaced_and_the_others_stay() {
        let mut url: Url = "http://h/k?a=1%2F2&uploadId=x&b=3".parse().unwrap();
        replace(&mut url, UPLOAD_ID, "y z");
        assert_eq!(url.query(), Some("a=1%2F2&uploadId=y+z&b=3"));
        assert_eq!(parameter(&url, UPLOAD_ID), "y z");
    }
}
