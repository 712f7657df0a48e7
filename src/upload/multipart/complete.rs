//! Completes an upload in parts: from the store's list of its parts to an object that may be verified.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use tokio::time::timeout;

use super::CompletedUpload;
use crate::s3::{self, StoreError, StoredPart};
use crate::upload::policy::{Terms, check_size};
use crate::upload::session::Session;
use crate::upload::{
    Caller, Error, Expected, Field, Refusal, UploadService, Uploaded, Verification,
};

impl UploadService {
    /// Makes the object of the parts with these numbers and entity tags.
    ///
    /// An upload that is too large is aborted. The object is verified if `verify` says so, or if receipts
    /// are configured.
    pub async fn complete_multipart(
        &self,
        caller: &Caller,
        token: &str,
        key: &str,
        parts: &BTreeMap<u16, String>,
        verify: bool,
        now: SystemTime,
    ) -> Result<CompletedUpload, Error> {
        let (session, policy) = self.open(caller, token, Some(key), now)?;
        let begin = Instant::now();
        let made = match self.stored_parts(&session, &policy, now).await {
            Ok(stored) => {
                self.make_object(&session, &policy, stored, parts, now)
                    .await
            }
            Err(Error::NoSuchUpload) => Err(Error::NoSuchUpload),
            Err(error) => return Err(error),
        };
        if let Err(error) = made {
            let now = now + begin.elapsed();
            self.check_made(&session, &policy, error, now).await?;
        }
        let now = now + begin.elapsed();
        let upload = if verify || self.receipts.is_some() {
            self.just_made(&session, &policy, caller, now).await
        } else {
            None
        };
        Ok(CompletedUpload {
            upload,
            // This is not the address in the store's answer: the store may not know the one that
            // clients use.
            location: self.bucket(&policy).address(key),
            key: session.key,
            bucket: self.bucket(&policy).name().to_owned(),
        })
    }

    /// Verifies an object that was just made. Its upload is complete whatever this finds, so an error
    /// here is not a failure: the client can verify the upload itself.
    async fn just_made(
        &self,
        session: &Session,
        policy: &Terms,
        caller: &Caller,
        now: SystemTime,
    ) -> Option<Uploaded> {
        /// Short, because the client still waits for the answer to the completion.
        const LONGEST: Duration = Duration::from_secs(5);
        let expected = Expected::for_key(&session.key);
        let verified = self.verify_one(policy, caller, &expected, now);
        match timeout(LONGEST, Box::pin(verified)).await {
            Ok(Ok(Verification::Uploaded(upload))) => Some(upload),
            _ => None,
        }
    }

    async fn make_object(
        &self,
        session: &Session,
        policy: &Terms,
        stored: Vec<StoredPart>,
        parts: &BTreeMap<u16, String>,
        now: SystemTime,
    ) -> Result<(), Error> {
        let key = &session.key;
        // The completion sends the entity tags of this list, and the store compares them. So no
        // part can be replaced by a larger one in between.
        let chosen = choose(stored, parts)?;
        let size: u64 = chosen.iter().map(|part| part.size).sum();
        if let Err(invalid) = check_size(size, policy.max_size()) {
            self.end_multipart(session, policy, now).await?;
            return Err(Error::Refused(vec![Refusal::new(Field::Size, invalid)]));
        }
        let once = !policy.overwrite;
        let call =
            self.bucket(policy)
                .complete_multipart(key, &session.upload_id, &chosen, once, now);
        self.measured("CompleteMultipartUpload", call).await
    }

    /// Returns `error` unless the object exists: a lost answer does not mean that nothing happened, and
    /// the store does not know an upload any more once it is completed.
    async fn check_made(
        &self,
        session: &Session,
        policy: &Terms,
        error: Error,
        now: SystemTime,
    ) -> Result<(), Error> {
        use StoreError::{Busy, Failed, TimedOut, Unavailable};
        let may_be_made = matches!(
            error,
            Error::NoSuchUpload | Error::Store(Unavailable(_) | TimedOut(_) | Failed(_))
        );
        // An object under a key that is not unique may belong to another upload.
        if !may_be_made || !policy.key.is_unique() {
            return Err(error);
        }
        let head = self.bucket(policy).head(&session.key, now);
        match (self.measured("HeadObject", head).await, error) {
            (Ok(Some(_)), _) => Ok(()),
            // A client does not retry after `NoSuchUpload`, so this must not hide an outage.
            (
                Err(not_known @ Error::Store(Busy(_) | Unavailable(_) | TimedOut(_))),
                Error::NoSuchUpload,
            ) => Err(not_known),
            (_, error) => Err(error),
        }
    }
}

/// The `stored` parts that the client names.
fn choose(
    stored: Vec<StoredPart>,
    parts: &BTreeMap<u16, String>,
) -> Result<Vec<StoredPart>, Error> {
    let chosen: Vec<StoredPart> = stored
        .into_iter()
        .filter(|part| {
            // Some clients remove the quotes.
            parts
                .get(&part.number)
                .is_some_and(|etag| etag.trim_matches('"') == part.etag.trim_matches('"'))
        })
        .collect();
    if chosen.len() == parts.len() {
        Ok(chosen)
    } else {
        let cause = "the store has no such parts, or others under these numbers";
        Err(s3::Error::from(StoreError::InvalidParts(cause.into())).into())
    }
}
