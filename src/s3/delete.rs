//! Deleting an object.

use std::time::SystemTime;

use aws_sdk_s3::error::ProvideErrorMetadata;

use super::{Bucket, Error, StoreCause, StoreError};

impl Bucket {
    /// Deletes the object of this key, if there is one. In a bucket that keeps versions, this adds
    /// a delete marker, whose version it returns.
    pub async fn delete(&self, key: &str, now: SystemTime) -> Result<Option<String>, Error> {
        self.credentials.get(now).await?;
        let request = self.client.delete_object().bucket(&self.name).key(key);
        let error = match request.send().await {
            Ok(answer) => return Ok(answer.version_id),
            Err(error) => error,
        };
        let status = error.raw_response().map(|answer| answer.status().as_u16());
        match (status, error.code()) {
            // Some stores answer 404 for a missing object. S3 answers as if there had been one.
            (Some(404), code) if code != Some("NoSuchBucket") => Ok(None),
            (Some(403), _) => {
                let cause = StoreCause::from_sdk(&error);
                let cause = cause.explained("the credentials need s3:DeleteObject");
                Err(StoreError::Failed(cause).into())
            }
            _ => Err(StoreError::from(error).into()),
        }
    }
}
