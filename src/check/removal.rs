//! Taking out of the bucket what was put in.

use std::time::SystemTime;

use aws_sdk_s3::types::BucketVersioningStatus;

use super::Check;
use super::problem::Problem;
use crate::upload::Caller;

/// Something in the bucket that is not to stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    Object {
        key: String,
        version: Option<String>,
    },
    Upload {
        key: String,
        token: Token,
    },
}

/// Of an upload in parts.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token(pub(super) String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Marker {
    pub(super) fn key(&self) -> &str {
        match self {
            Self::Object { key, .. } | Self::Upload { key, .. } => key,
        }
    }
}

impl Check {
    /// Tries to remove an object that is not there, in the way in which one that is there would be.
    pub(super) async fn see_that_it_can_be_removed(&self, key: &str) -> Result<(), String> {
        let versioning = self
            .client
            .get_bucket_versioning()
            .bucket(self.bucket())
            .send()
            .await;
        let is_versioned = versioning.is_ok_and(|output| {
            matches!(
                output.status(),
                Some(BucketVersioningStatus::Enabled | BucketVersioningStatus::Suspended)
            )
        });
        if is_versioned {
            let lock = self
                .client
                .get_object_lock_configuration()
                .bucket(self.bucket())
                .send()
                .await;
            let retains = lock.is_ok_and(|output| {
                output
                    .object_lock_configuration()
                    .is_some_and(|lock| lock.rule().is_some())
            });
            if retains {
                return Err("the bucket keeps objects for a time (Object Lock)".to_owned());
            }
        }
        // Without a version, such a bucket would get a delete marker.
        let version = is_versioned.then(|| "null".to_owned());
        let delete = self
            .client
            .delete_object()
            .bucket(self.bucket())
            .key(key)
            .set_version_id(version);
        match delete.send().await {
            Err(error) => {
                let problem = Problem::of_sdk(&error);
                let needed = if is_versioned {
                    "s3:DeleteObjectVersion"
                } else {
                    "s3:DeleteObject"
                };
                // Some stores mind that there is nothing to delete, or no such version.
                if matches!(problem.status(), Some(400 | 404)) && !problem.is(&["NoSuchBucket"]) {
                    return Ok(());
                }
                let why = problem.says();
                if problem.is_denied() {
                    return Err(format!(
                        "{why}; that takes {needed}, which the service itself does not need"
                    ));
                }
                Err(why)
            }
            Ok(output) if output.delete_marker() == Some(true) => {
                let version = output.version_id().map(str::to_owned);
                let marker = Marker::Object {
                    key: key.to_owned(),
                    version,
                };
                self.remove(&marker).await.map_err(|problem| {
                    self.markers().push(marker);
                    problem.says()
                })
            }
            Ok(_) => Ok(()),
        }
    }

    pub(super) async fn remove(&self, marker: &Marker) -> Result<(), Problem> {
        match marker {
            Marker::Object { key, version } => {
                let delete = self.client.delete_object().bucket(self.bucket()).key(key);
                let deleted = delete.set_version_id(version.clone()).send().await;
                deleted.map_err(|error| Problem::of_sdk(&error))?;
            }
            Marker::Upload { key, token } => {
                let (now, caller) = (SystemTime::now(), Caller::anonymous());
                let aborted = self
                    .uploads
                    .abort_multipart(&caller, &token.0, key, now)
                    .await;
                aborted.map_err(|error| Problem::of_upload(&error))?;
            }
        }
        Ok(())
    }
}
