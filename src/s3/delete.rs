//! Deleting an object.

use super::error::absent;
use super::{Bucket, Error};

impl Bucket {
    /// Deletes the object of this key, if there is one. In a bucket that keeps versions, this adds
    /// a delete marker, whose version it returns.
    pub async fn delete(&self, key: &str) -> Result<Option<String>, Error> {
        let client = self.client().await?;
        let request = client.delete_object().bucket(&self.name).key(key);
        match request.send().await {
            Ok(answer) => Ok(answer.version_id),
            // S3 answers as if there had been an object, and other stores that there was none.
            Err(error) => Ok(absent(error, "s3:DeleteObject")?),
        }
    }
}
