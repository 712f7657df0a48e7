//! Completes an upload in parts: from the store's list of its parts to an object that may be verified.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::timeout;

use super::{CompletedUpload, OpenUpload};
use crate::error_chain::causes;
use crate::s3::{self, StoreError, StoredPart};
use crate::upload::policy::check_size;
use crate::upload::{
    Caller, Error, Expected, Field, Invalid, Result, UploadService, Uploaded, Verification,
};

impl UploadService {
    /// Makes the object of the parts with these numbers and entity tags.
    ///
    /// An upload that is too large is aborted. With `verify` the object is verified, too.
    pub async fn complete_multipart(
        &self,
        caller: &Caller,
        upload: &OpenUpload,
        parts: &BTreeMap<u16, String>,
        verify: bool,
    ) -> Result<CompletedUpload> {
        let made = match self.list_parts(upload).await {
            Ok(stored) => self.make_object(upload, stored, parts).await,
            Err(error @ Error::NoSuchUpload(_)) => Err(error),
            Err(error) => return Err(error),
        };
        if let Err(error) = made {
            self.check_made(upload, error).await?;
        }
        let verified = if verify {
            self.just_made(upload, caller).await
        } else {
            None
        };
        let bucket = self.bucket(&upload.terms);
        Ok(CompletedUpload {
            upload: verified,
            // This is not the address in the store's answer: the store may not know the one that
            // clients use.
            location: bucket.address(upload.key()),
            key: upload.key().to_owned(),
            bucket: bucket.name().to_owned(),
        })
    }

    /// Verifies an object that was just made. Its upload is complete whatever this finds, so an error
    /// here is not a failure: the client can verify the upload itself.
    async fn just_made(&self, upload: &OpenUpload, caller: &Caller) -> Option<Uploaded> {
        /// Short, because the client still waits for the answer to the completion.
        const LONGEST: Duration = Duration::from_secs(5);
        let expected = Expected::for_key(upload.key());
        let verified = self.verify_one(&upload.terms, caller, &expected);
        let cause = match timeout(LONGEST, Box::pin(verified)).await {
            Ok(Ok(Verification::Uploaded(upload))) => return Some(*upload),
            // Verifying tells the client what is wrong.
            Ok(Ok(_)) => return None,
            Ok(Err(error)) => causes(&error),
            Err(_elapsed) => format!("the store did not answer within {LONGEST:?}"),
        };
        let policy = &*upload.terms.name;
        tracing::warn!(
            policy,
            cause,
            "an upload in parts is complete, but could not be verified"
        );
        None
    }

    async fn make_object(
        &self,
        upload: &OpenUpload,
        stored: Vec<StoredPart>,
        parts: &BTreeMap<u16, String>,
    ) -> Result<()> {
        let OpenUpload { session, terms } = upload;
        // The completion sends the entity tags of this list, and the store compares them. So no
        // part can be replaced by a larger one in between.
        let chosen = choose(stored, parts)?;
        let size: u64 = chosen.iter().map(|part| part.size).sum();
        if let Err(invalid) = check_size(size, terms.max_size()) {
            self.free_parts(upload).await?;
            return Err(Error::refused(Field::Size, invalid));
        }
        if let Some(announced) = session.size.filter(|announced| *announced != size) {
            let detail = format!(
                "must be {announced} bytes, as it was announced; these parts have {size} together"
            );
            return Err(Error::refused(
                Field::Size,
                Invalid::new("invalid-parts", detail),
            ));
        }
        let once = !terms.overwrite;
        let bucket = self.bucket(terms);
        let call = bucket.complete_multipart(&session.key, &session.upload_id, &chosen, once);
        self.measured("CompleteMultipartUpload", call).await
    }

    /// Returns `error` unless the object exists: a lost answer does not mean that nothing happened, the
    /// store does not know an upload any more once it is completed, and it may be completing it for an
    /// earlier request.
    async fn check_made(
        &self,
        OpenUpload { session, terms }: &OpenUpload,
        error: Error,
    ) -> Result<()> {
        use StoreError::{Busy, Failed, ObjectExists, TimedOut, Unavailable};
        let may_be_made = matches!(
            error,
            Error::NoSuchUpload(_)
                | Error::Store(
                    Busy(_) | ObjectExists(_) | Unavailable(_) | TimedOut(_) | Failed(_)
                )
        );
        // An object under a key that is not unique may belong to another upload.
        if !may_be_made || !terms.key.is_unique() {
            return Err(error);
        }
        match (self.head(terms, &session.key).await, error) {
            (Ok(Some(_)), _) => Ok(()),
            // A client does not retry after `NoSuchUpload`, so this must not hide an outage.
            (
                Err(not_known @ Error::Store(Busy(_) | Unavailable(_) | TimedOut(_))),
                Error::NoSuchUpload(_),
            ) => Err(not_known),
            (_, error) => Err(error),
        }
    }
}

/// The `stored` parts that the client names.
fn choose(stored: Vec<StoredPart>, parts: &BTreeMap<u16, String>) -> Result<Vec<StoredPart>> {
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
