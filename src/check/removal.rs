//! Removes from the bucket what the checks put there.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use aws_sdk_s3::types::BucketVersioningStatus;

use super::Check;
use super::marker::Unable;
use super::problem::Problem;
use crate::upload::Caller;

/// The version of objects that were stored while the bucket had no versions, or they were suspended.
const NULL_VERSION: &str = "null";

/// Something in the bucket that must not stay.
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

/// The token of a multipart upload.
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
    /// Tries to remove an object that does not exist, in the way in which one that exists would be.
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
                return Err("the bucket retains objects (Object Lock)".to_owned());
            }
        }
        self.is_versioned.store(is_versioned, Ordering::Relaxed);
        // Without a version, such a bucket would get a delete marker.
        let version = is_versioned.then(|| NULL_VERSION.to_owned());
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
                // Some stores refuse to delete what does not exist, or a version that does not.
                if matches!(problem.status(), Some(400 | 404)) && !problem.is(&["NoSuchBucket"]) {
                    return Ok(());
                }
                let why = problem.says();
                if problem.is_denied() {
                    return Err(format!(
                        "{why}; the credentials need {needed}, which the service itself does not need"
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

    /// The version to delete in a bucket with versions, where the answer to the upload did not say: a form's
    /// answer and those of buckets whose versioning is suspended do not.
    async fn current_version(&self, key: &str) -> Option<String> {
        if !self.is_versioned.load(Ordering::Relaxed) {
            return None;
        }
        let head = self.client.head_object().bucket(self.bucket()).key(key);
        let object = head.send().await.ok();
        let version = object.and_then(|object| object.version_id);
        version.or_else(|| Some(NULL_VERSION.to_owned()))
    }

    /// Tries to abort a multipart upload that does not exist.
    pub(super) async fn see_that_parts_can_be_removed(&self, key: &str) -> Result<(), Unable> {
        let abort = self.client.abort_multipart_upload().bucket(self.bucket());
        let aborted = abort.key(key).upload_id("presignd-check").send().await;
        match aborted.map_err(|error| Problem::of_sdk(&error)) {
            Err(problem) if problem.is_denied() => Err(Unable::WouldStay(problem.says())),
            _ => Ok(()),
        }
    }

    pub(super) async fn remove(&self, marker: &Marker) -> Result<(), Problem> {
        match marker {
            Marker::Object { key, version } => {
                let version = match version {
                    Some(version) => Some(version.clone()),
                    None => self.current_version(key).await,
                };
                let delete = || self.client.delete_object().bucket(self.bucket()).key(key);
                let deleted = delete().set_version_id(version.clone()).send().await;
                let deleted = deleted.map_err(|error| Problem::of_sdk(&error))?;
                // Whatever was known of versions: a marker that hides the object must not stay either.
                if version.is_none() && deleted.delete_marker() == Some(true) {
                    let marker = delete().set_version_id(deleted.version_id);
                    let removed = marker.send().await;
                    removed.map_err(|error| Problem::of_sdk(&error))?;
                }
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
