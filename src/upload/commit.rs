//! Uploads that do not count until someone commits them.
//!
//! Under a policy with `pending`, an upload is signed with the tag [`TAG`]`=`[`PENDING`].
//! Committing verifies the object and replaces that value by its [`mark`], which names what was
//! verified. An object counts as committed only while its tag is its own mark.
//!
//! The order is always *verify, tag, verify again*, because a URL may be used again while an object
//! is committed, and no store writes a tag under a condition. So the tag can end up on another
//! object than the verified one. The second verification detects this. If it does not happen,
//! because this process dies or the store fails, the mark does not match the object, which then
//! still counts as pending. In a bucket with versions, the tag is written to the version that was
//! verified; where objects are written once, there is no other object.
//!
//! A process commits an object once at a time: of two commits, one could undo the tag of the other.

use std::collections::HashSet;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::policy::Terms;
use super::store_calls::QUEUE_TIMEOUT;
use super::verify::{MAX_ROUNDS, each};
use super::{Caller, Error, Expected, Result, UploadService, Verification};
use crate::error_chain::causes;
use crate::s3::StoredObject;
use crate::turns::Turn;

/// The name of the tag.
pub(super) const TAG: &str = "presignd";

/// Its value until the upload is committed.
pub(super) const PENDING: &str = "pending";

/// The name and the value of the tag of an upload that is not committed.
pub const PENDING_TAG: (&str, &str) = (TAG, PENDING);

type Tags = Vec<(String, String)>;

/// The value of the tag of an object that was verified: a digest of everything that verifying
/// compares.
///
/// It leaves out the time of the upload, which some stores change when they write a tag, and the
/// encryption and the storage class, which rules of the bucket change later.
fn mark(object: &StoredObject) -> String {
    let StoredObject {
        size,
        content_type,
        etag,
        last_modified: _,
        version_id: _,
        checksum_sha256,
        checksum_crc64nvme,
        metadata,
        content_disposition,
        content_encoding,
        cache_control,
        server_side_encryption: _,
        storage_class: _,
        is_readable: _, // Others are not committed.
    } = object;
    let properties = (
        (size, content_type, etag, metadata),
        (checksum_sha256, checksum_crc64nvme),
        (content_disposition, content_encoding, cache_control),
    );
    // Texts, numbers and maps of texts always become JSON.
    let digest = Sha256::digest(serde_json::to_vec(&properties).unwrap_or_default());
    format!(
        "committed-{}",
        base16ct::lower::encode_string(&digest[..16])
    )
}

fn value(tags: &Tags) -> Option<&str> {
    let (_, value) = tags.iter().find(|(name, _)| name == TAG)?;
    Some(value)
}

impl UploadService {
    /// Whether this object is committed: its tag is its own mark. `None` if it does not exist any
    /// more.
    pub(super) async fn is_committed(
        &self,
        terms: &Terms,
        key: &str,
        object: &StoredObject,
    ) -> Result<Option<bool>> {
        let version = object.version_id.as_deref();
        let tags = self.tags(terms, key, version).await?;
        Ok(tags.map(|tags| value(&tags) == Some(&mark(object))))
    }

    async fn tags(&self, terms: &Terms, key: &str, version: Option<&str>) -> Result<Option<Tags>> {
        let call = Box::pin(self.bucket(terms).tags(key, version));
        self.measured("GetObjectTagging", call).await
    }

    /// Verifies the `expected` uploads as [`verify`](Self::verify) does, and commits those that are
    /// what they should be. Under a policy without `pending` it only verifies. It can be repeated.
    ///
    /// # Errors
    ///
    /// The same as those of `verify`. Some of the uploads may be committed nevertheless.
    pub async fn commit(
        self: &Arc<Self>,
        caller: &Caller,
        policy: Option<&str>,
        expected: &[Expected],
        wait: Duration,
    ) -> Result<Vec<Verification>> {
        let terms = &self.policies.load().terms(policy, caller)?;
        if !terms.pending {
            return self.verify_under(terms, caller, expected, wait).await;
        }
        let _list = self.store_calls.list(caller, expected.len()).await?;
        let tasks = TaskTracker::new();
        let commit = |expected| self.commit_one(terms, caller, expected, &tasks);
        let committed = each(terms, caller, expected, wait, commit).await;
        // After a failure, tasks of other keys may still run. In a Lambda function they would stop with the
        // answer, so the answer waits for them.
        tasks.close();
        tasks.wait().await;
        committed
    }

    async fn commit_one(
        self: &Arc<Self>,
        terms: &Terms,
        caller: &Caller,
        expected: &Expected,
        tasks: &TaskTracker,
    ) -> Result<Verification> {
        let object = (self.bucket(terms).name().to_owned(), expected.key.clone());
        let begun = timeout(QUEUE_TIMEOUT, self.begin_commit(caller, object)).await;
        let (begun, turn) = begun.map_err(|_elapsed| Error::TooMuchAtOnce)??;
        let commit = Commit {
            service: Arc::clone(self),
            terms: terms.clone(),
            caller: caller.clone(),
            expected: expected.clone(),
            _begun: begun,
            _turn: turn,
        };
        // A task of its own, so that nothing stops it between writing a tag and verifying again:
        // neither a client that hangs up, nor a timeout, nor the failure of another key.
        let task = tasks.spawn(commit.run());
        let committed = task.await;
        // Nothing aborts the task, so it can only have panicked.
        committed.unwrap_or_else(|error| resume_unwind(error.into_panic()))
    }

    /// Waits until the caller may ask the store and no other commit of this object is in progress. While it
    /// waits for one of them it does not hold the other, so no caller delays the commits of another one.
    async fn begin_commit(&self, caller: &Caller, object: Object) -> Result<(Begun, Turn)> {
        loop {
            self.commits.none_of(&object).await;
            let turn = self.store_calls.turn(caller).await?;
            if let Some(begun) = self.commits.begin(&object) {
                return Ok((begun, turn));
            }
        }
    }
}

/// The bucket and the key of an object.
type Object = (String, String);

/// The commits in progress. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Commits(Arc<InProgress>);

#[derive(Debug, Default)]
struct InProgress {
    objects: Mutex<HashSet<Object>>,
    one_ended: Notify,
}

/// An object that is being committed, until this is dropped.
struct Begun(Commits, Object);

impl Commits {
    /// Waits until no commit of this object is in progress.
    async fn none_of(&self, object: &Object) {
        loop {
            let one_ended = self.0.one_ended.notified();
            if !self.objects().contains(object) {
                return;
            }
            one_ended.await;
        }
    }

    /// `None` if a commit of this object is in progress.
    fn begin(&self, object: &Object) -> Option<Begun> {
        let is_first = self.objects().insert(object.clone());
        is_first.then(|| Begun(self.clone(), object.clone()))
    }

    fn objects(&self) -> MutexGuard<'_, HashSet<Object>> {
        let objects = self.0.objects.lock();
        objects.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let Self(commits, object) = self;
        commits.objects().remove(object);
        commits.0.one_ended.notify_waiters();
    }
}

/// One upload that is being committed.
struct Commit {
    service: Arc<UploadService>,
    terms: Terms,
    caller: Caller,
    expected: Expected,
    _begun: Begun,
    _turn: Turn,
}

impl Commit {
    async fn run(self) -> Result<Verification> {
        let mut has_written = false;
        let result = self.rounds(&mut has_written).await;
        let outcome = match &result {
            Ok(Verification::Uploaded(_)) if has_written => "committed",
            Ok(Verification::Uploaded(_)) => "repeated",
            Ok(Verification::NotUploaded) => "not_uploaded",
            Ok(Verification::Mismatch(_) | Verification::ContentMismatch(_)) => "mismatch",
            Ok(Verification::Replaced) => "replaced",
            Err(_) => "failed",
        };
        let policy = Arc::clone(&self.terms.name);
        self.service.metrics.commit(policy, outcome);
        let is_committed = matches!(result, Ok(Verification::Uploaded(_)));
        if has_written && !is_committed {
            tracing::warn!(
                policy = &*self.terms.name,
                outcome,
                "an upload was replaced while it was committed, or could not be verified again"
            );
            match self.undo().await {
                Err(error) if result.is_ok() => return Err(error),
                Err(error) => tracing::warn!(
                    policy = &*self.terms.name,
                    cause = causes(&error),
                    "the tag of an upload that is not committed could not be removed"
                ),
                Ok(()) => {}
            }
        }
        result
    }

    /// Verifies and tags until the tag is the mark of the verified object.
    async fn rounds(&self, has_written: &mut bool) -> Result<Verification> {
        let (service, terms) = (&self.service, &self.terms);
        for _ in 0..MAX_ROUNDS {
            let Some(object) = service.head(terms, &self.expected.key).await? else {
                return Ok(Verification::NotUploaded);
            };
            let (mark, version) = (mark(&object), object.version_id.clone());
            let judged = service.judge(terms, &self.caller, &self.expected, object);
            let verification = judged.await?;
            if verification == Verification::Replaced {
                continue;
            }
            if !matches!(verification, Verification::Uploaded(_)) {
                return Ok(verification);
            }
            let version = version.as_deref();
            let Some(tags) = service.tags(terms, &self.expected.key, version).await? else {
                return Ok(Verification::NotUploaded);
            };
            if value(&tags) == Some(&mark) {
                return Ok(verification);
            }
            // Set before the call, because the call may succeed even if no answer arrives.
            *has_written = true;
            if self.tag(tags, &mark, version).await?.is_none() {
                return Ok(Verification::NotUploaded);
            }
        }
        Ok(Verification::Replaced)
    }

    /// Makes the object pending again if its tag is the mark of another object. An object with its
    /// own mark stays committed: someone else may have verified it.
    async fn undo(&self) -> Result<()> {
        let (service, terms, key) = (&self.service, &self.terms, &self.expected.key);
        let Some(object) = service.head(terms, key).await? else {
            return Ok(());
        };
        let version = object.version_id.as_deref();
        let Some(tags) = service.tags(terms, key, version).await? else {
            return Ok(());
        };
        if value(&tags).is_some_and(|value| value != PENDING && value != mark(&object)) {
            self.tag(tags, PENDING, version).await?;
        }
        Ok(())
    }

    /// Sets the tag to `value`, and keeps the others.
    async fn tag(&self, mut tags: Tags, value: &str, version: Option<&str>) -> Result<Option<()>> {
        if tags.is_empty() {
            // The store has lost the tags, as some stores do for some ways of uploading.
            tags.clone_from(&self.terms.tagging);
        }
        tags.retain(|(name, _)| name != TAG);
        tags.push((TAG.to_owned(), value.to_owned()));
        let bucket = self.service.bucket(&self.terms);
        let call = Box::pin(bucket.set_tags(&self.expected.key, version, &tags));
        self.service.measured("PutObjectTagging", call).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Marks are kept in buckets. If this changes, no upload is committed any more.
    #[test]
    fn a_mark_is_the_same_in_every_release() {
        let object = StoredObject {
            checksum_crc64nvme: Some("M3eFcAZSQlc=".to_owned()),
            metadata: [("album".to_owned(), "앨범 7".to_owned())].into(),
            ..StoredObject::sample()
        };
        assert_eq!(mark(&object), "committed-e84d325e2467d40e11795a8dbe88fc79");
    }

    /// Whoever replaces a committed object by another one gets nothing committed.
    #[test]
    fn an_object_that_differs_in_anything_that_is_verified_has_another_mark() {
        let usual = StoredObject::sample();
        let text = || Some("other".to_owned());
        let changes: [fn(&mut StoredObject, Option<String>); 9] = [
            |it, _| it.size += 1,
            |it, text| it.content_type = text,
            |it, _| it.etag.push('x'),
            |it, text| it.checksum_sha256 = text,
            |it, text| it.checksum_crc64nvme = text,
            |it, _| it.metadata.extend([("a".to_owned(), "b".to_owned())]),
            |it, text| it.content_disposition = text,
            |it, text| it.content_encoding = text,
            |it, text| it.cache_control = text,
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut other = usual.clone();
            change(&mut other, text());
            assert_ne!(mark(&other), mark(&usual), "change {index}");
        }
    }

    #[test]
    fn what_the_store_and_its_rules_change_later_leaves_an_object_committed() {
        let usual = StoredObject::sample();
        let mut later = usual.clone();
        later.last_modified += Duration::from_secs(1);
        later.storage_class = Some("GLACIER".into());
        later.server_side_encryption = Some("aws:kms".into());
        assert_eq!(mark(&later), mark(&usual));
    }
}
