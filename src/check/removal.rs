//! Removes from the bucket what the checks put there.

use aws_sdk_s3::types::BucketVersioningStatus;

use super::marker::{MarkerError, Result, Way};
use super::problem::Problem;
use super::{Check, Line};
use crate::upload::Sample;

/// The version of objects that were stored while the versioning of the bucket was off or suspended.
const NULL_VERSION: &str = "null";

/// Something in the bucket that must not stay: an object, or an upload in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    pub(super) key: String,
    /// The version of the object, if it is known.
    pub(super) version: Option<String>,
    /// The id of an upload in parts.
    pub(super) upload: Option<String>,
}

impl Marker {
    pub(super) fn object(key: &str, version: Option<String>) -> Self {
        Self {
            key: key.to_owned(),
            version,
            upload: None,
        }
    }

    pub(super) fn parts(key: &str, upload: String) -> Self {
        Self {
            upload: Some(upload),
            ..Self::object(key, None)
        }
    }
}

impl Check {
    /// Whether uploads can be deleted, if a policy lets callers do that.
    pub(super) async fn delete(&self) -> Option<Line> {
        const CHECK: &str = "delete";
        let sample = self.unique_samples().find(|sample| sample.may_delete)?;
        let line = match self.delete_nothing(sample).await {
            Ok(()) => Line::ok(CHECK, "the credentials may delete objects"),
            Err(MarkerError::Refused(problem)) => problem.failed(CHECK, "s3:DeleteObject"),
            Err(error) => error.line(CHECK, sample),
        };
        Some(line.for_policy(&sample.policy))
    }

    /// Deletes an object that does not exist, as the service deletes one: without a version.
    async fn delete_nothing(&self, sample: &Sample) -> Result<()> {
        let key = &self.granted(Way::Put, sample, &sample.file).await?.key;
        let removable = self.ensure_removable(key).await;
        if self.keeps_versions.get() != Some(&Ok(false)) {
            // The delete marker must not stay.
            removable?;
        }
        let delete = self.client.delete_object().bucket(&self.bucket).key(key);
        match delete.send().await.map_err(Problem::from) {
            Ok(output) if output.delete_marker() == Some(true) => {
                self.discard_delete_marker(key, output.version_id).await
            }
            Err(problem) if problem.is_denied() => Err(problem.into()),
            // Some stores refuse to delete what does not exist.
            _ => Ok(()),
        }
    }

    /// Tries to remove an object that does not exist, in the same way as an existing one.
    pub(super) async fn ensure_removable(&self, key: &str) -> Result<()> {
        let would_stay = |why: String| Err(MarkerError::NotSent(why));
        let keeps_versions = self.keeps_versions.get_or_init(|| self.read_versioning());
        let keeps_versions = keeps_versions.await.clone().map_err(MarkerError::NotSent)?;
        // Without a version, such a bucket would get a delete marker.
        let version = keeps_versions.then(|| NULL_VERSION.to_owned());
        let delete = self.client.delete_object().bucket(&self.bucket).key(key);
        let delete = delete.set_version_id(version).send().await;
        match delete.map_err(Problem::from) {
            // Some stores refuse to delete an object or a version that does not exist.
            Err(problem)
                if matches!(problem.status(), Some(400 | 404))
                    && !problem.is(&["NoSuchBucket"]) =>
            {
                Ok(())
            }
            Err(problem) if problem.is_denied() => {
                let version = if keeps_versions { "Version" } else { "" };
                would_stay(format!(
                    "{problem}; the check needs s3:DeleteObject{version}"
                ))
            }
            Err(problem) => would_stay(problem.to_string()),
            Ok(output) if output.delete_marker() == Some(true) => {
                self.discard_delete_marker(key, output.version_id).await?;
                if keeps_versions {
                    return Ok(());
                }
                would_stay("the bucket keeps versions, and it may retain them; the check needs s3:GetBucketVersioning".to_owned())
            }
            Ok(_) => Ok(()),
        }
    }

    /// Whether the bucket keeps versions. The error says why nothing may be uploaded: a bucket with
    /// versions may retain objects, so that the check could not remove its own. If the store does not
    /// report whether it keeps versions, its answer to the trial removal shows that.
    async fn read_versioning(&self) -> Result<bool, String> {
        use BucketVersioningStatus::{Enabled, Suspended};
        let versioning = self.client.get_bucket_versioning().bucket(&self.bucket);
        let versioning = versioning.send().await;
        if !versioning.is_ok_and(|it| matches!(it.status(), Some(Enabled | Suspended))) {
            return Ok(false);
        }
        let lock = self.client.get_object_lock_configuration();
        let lock = lock.bucket(&self.bucket).send().await;
        match lock.map_err(Problem::from) {
            Ok(output) => {
                let lock = output.object_lock_configuration;
                if lock.is_some_and(|lock| lock.rule.is_some()) {
                    return Err("the bucket retains objects (Object Lock)".to_owned());
                }
                Ok(true)
            }
            Err(problem) if problem.is_denied() => Err(format!(
                "whether the bucket retains objects is unknown ({problem}): the check needs s3:GetBucketObjectLockConfiguration"
            )),
            // Stores without Object Lock, and buckets without it, answer in several ways.
            Err(problem) if problem.is_refusal() => Ok(true),
            Err(problem) => Err(format!(
                "whether the bucket retains objects is unknown: {problem}"
            )),
        }
    }

    /// Removes the marker that a bucket with versions has put in place of a deleted object.
    async fn discard_delete_marker(&self, key: &str, version: Option<String>) -> Result<()> {
        let marker = Marker::object(key, version);
        self.markers().push(marker.clone());
        self.discard(&marker).await
    }

    /// The version to delete in a bucket with versions, for uploads whose answer did not name it:
    /// forms, and buckets whose versioning is suspended.
    async fn current_version(&self, key: &str) -> Result<Option<String>, Problem> {
        if self.keeps_versions.get() != Some(&Ok(true)) {
            return Ok(None);
        }
        let version = match self.head_object(key).await {
            Ok(object) => object.version_id,
            Err(problem) if problem.status() == Some(404) => None,
            // Another version would be deleted in vain, and without an error.
            Err(problem) => return Err(problem),
        };
        Ok(Some(version.unwrap_or_else(|| NULL_VERSION.to_owned())))
    }

    /// Tries to abort a multipart upload that does not exist.
    pub(super) async fn ensure_parts_removable(&self, key: &str) -> Result<()> {
        let abort = self.client.abort_multipart_upload().bucket(&self.bucket);
        let aborted = abort.key(key).upload_id("presignd-check").send().await;
        match aborted.map_err(Problem::from) {
            Err(problem) if problem.is_denied() => Err(MarkerError::NotSent(problem.to_string())),
            _ => Ok(()),
        }
    }

    /// Removes a marker, and forgets it.
    pub(super) async fn discard(&self, marker: &Marker) -> Result<()> {
        let removed = self.remove(marker).await;
        removed.map_err(|problem| MarkerError::NotRemoved(marker.key.clone(), problem))?;
        self.markers().retain(|kept| kept != marker);
        Ok(())
    }

    pub(super) async fn remove(&self, marker: &Marker) -> Result<(), Problem> {
        let key = &marker.key;
        if let Some(upload) = &marker.upload {
            let abort = self.client.abort_multipart_upload().bucket(&self.bucket);
            let aborted = abort.key(key).upload_id(upload).send().await;
            return match aborted.map_err(Problem::from) {
                // Most stores drop a completed upload. Garage also drops those of a key that is
                // deleted.
                Err(problem) if !problem.is(&["NoSuchUpload"]) => Err(problem),
                _ => Ok(()),
            };
        }
        let version = match &marker.version {
            Some(version) => Some(version.clone()),
            None => self.current_version(key).await?,
        };
        let delete = || self.client.delete_object().bucket(&self.bucket).key(key);
        let deleted = delete().set_version_id(version.clone()).send().await?;
        // The bucket may keep versions nevertheless, and a delete marker must not stay either.
        if version.is_none() && deleted.delete_marker() == Some(true) {
            delete().set_version_id(deleted.version_id).send().await?;
        }
        Ok(())
    }
}
