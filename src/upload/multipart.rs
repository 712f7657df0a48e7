//! Uploads in parts, under the same policies.
//!
//! The type is checked when an upload begins, and its size when it is completed: by the store's own
//! list of its parts, before there is an object.

mod complete;
mod several;

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use uuid::Uuid;

use super::policy::{Terms, check_size};
use super::service::{ComputedProperties, day};
use super::session::Session;
use super::{Caller, Error, Field, File, Invalid, Refusal, UploadKind, UploadService, Uploaded};
use crate::s3::{self, PresignedRequest, StoredPart};

/// An upload that has begun.
///
/// The token lets anyone continue the upload, so [`Debug`](fmt::Debug) leaves it out.
pub struct MultipartUpload {
    pub key: String,
    pub bucket: String,
    /// All further calls have to send it.
    pub token: String,
}

impl fmt::Debug for MultipartUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MultipartUpload")
            .field("key", &self.key)
            .field("bucket", &self.bucket)
            .finish_non_exhaustive()
    }
}

/// An object that was made of parts.
#[derive(Debug)]
pub struct CompletedUpload {
    pub key: String,
    pub bucket: String,
    /// The object's address.
    pub location: String,
    /// What the store has, if it was verified and is what the policy allows.
    pub upload: Option<Uploaded>,
}

impl UploadService {
    /// Begins an upload of `file` under a key that `id` makes unique.
    pub async fn create_multipart(
        &self,
        caller: &Caller,
        file: &File,
        id: Uuid,
        now: SystemTime,
    ) -> Result<MultipartUpload, Error> {
        let upload = async {
            let policy = self.checked(caller, file, UploadKind::Multipart)?;
            self.begin_multipart(caller, &policy, file, id, now).await
        }
        .await;
        let files = std::slice::from_ref(file);
        self.counted(caller, |_| UploadKind::Multipart, files, upload)
    }

    async fn begin_multipart(
        &self,
        caller: &Caller,
        policy: &Terms,
        file: &File,
        id: Uuid,
        now: SystemTime,
    ) -> Result<MultipartUpload, Error> {
        let key = policy.key.key(caller, &file.filename, id, day(now));
        let properties = ComputedProperties::new(policy, file);
        let object = properties.object(policy, file, &key);
        let call = self.bucket(policy).create_multipart(&object, now);
        let upload_id = self.measured("CreateMultipartUpload", call).await?;
        let key = key.as_str().to_owned();
        let session = Session::new(
            upload_id,
            (policy.bucket.clone(), key.clone()),
            caller.policy_name(file.policy.as_deref()).to_owned(),
            file.size,
            caller,
            now,
        );
        Ok(MultipartUpload {
            key,
            bucket: self.bucket(policy).name().to_owned(),
            token: self.session_key.seal(&session)?,
        })
    }

    /// A grant to PUT one part, which has exactly `size` bytes if that is given.
    pub async fn presign_part(
        &self,
        caller: &Caller,
        token: &str,
        key: &str,
        part: (u16, Option<u64>),
        now: SystemTime,
    ) -> Result<PresignedRequest, Error> {
        self.refuse_if_forms_only()?;
        let (session, policy) = self.open(caller, token, Some(key), now)?;
        check_parts(&session, &policy, [part])?;
        let request = self
            .bucket(&policy)
            .presign_part(key, &session.upload_id, part, policy.expires_in, now)
            .await?;
        self.count(session.policy.as_deref(), "part", "granted", 1);
        Ok(request)
    }

    /// A grant to PUT each of the parts, by their numbers. One has exactly this number of bytes if it is given.
    pub async fn presign_parts(
        &self,
        caller: &Caller,
        token: &str,
        key: &str,
        parts: &BTreeMap<u16, Option<u64>>,
        now: SystemTime,
    ) -> Result<BTreeMap<u16, PresignedRequest>, Error> {
        self.refuse_if_forms_only()?;
        let (session, policy) = self.open(caller, token, Some(key), now)?;
        let parts = parts.iter().map(|(&number, &size)| (number, size));
        check_parts(&session, &policy, parts.clone())?;
        let mut requests = BTreeMap::new();
        for part in parts {
            let request = self
                .bucket(&policy)
                .presign_part(key, &session.upload_id, part, policy.expires_in, now)
                .await?;
            requests.insert(part.0, request);
            // Signing never waits, so a long list would keep this thread from other requests.
            tokio::task::consume_budget().await;
        }
        self.count(session.policy.as_deref(), "part", "granted", requests.len());
        Ok(requests)
    }

    /// The parts that the store has.
    pub async fn list_parts(
        &self,
        caller: &Caller,
        token: &str,
        key: &str,
        now: SystemTime,
    ) -> Result<Vec<StoredPart>, Error> {
        let (session, policy) = self.open(caller, token, Some(key), now)?;
        self.stored_parts(&session, &policy, now).await
    }

    /// Aborts an upload, which frees its parts.
    pub async fn abort_multipart(
        &self,
        caller: &Caller,
        token: &str,
        key: &str,
        now: SystemTime,
    ) -> Result<(), Error> {
        let (session, policy) = self.open(caller, token, Some(key), now)?;
        self.end_multipart(&session, &policy, now).await
    }

    async fn stored_parts(
        &self,
        session: &Session,
        policy: &Terms,
        now: SystemTime,
    ) -> Result<Vec<StoredPart>, Error> {
        let Session { key, upload_id, .. } = session;
        let call = self.bucket(policy).list_parts(key, upload_id, now);
        self.measured("ListParts", call).await
    }

    async fn end_multipart(
        &self,
        session: &Session,
        policy: &Terms,
        now: SystemTime,
    ) -> Result<(), Error> {
        let Session { key, upload_id, .. } = session;
        let call = self.bucket(policy).abort_multipart(key, upload_id, now);
        self.measured("AbortMultipartUpload", call).await
    }

    /// Checks that the caller may continue the upload of this token and key, before more is done for it.
    ///
    /// # Errors
    ///
    /// The same as those of all further calls.
    pub fn check_multipart(
        &self,
        caller: &Caller,
        token: &str,
        key: &str,
        now: SystemTime,
    ) -> Result<(), Error> {
        self.open(caller, token, Some(key), now).map(|_| ())
    }

    /// The session of `token` and its policy, if it belongs to `caller`, and to `key` if there is one. Does not
    /// reveal what is wrong.
    pub(super) fn open(
        &self,
        caller: &Caller,
        token: &str,
        key: Option<&str>,
        now: SystemTime,
    ) -> Result<(Session, Terms), Error> {
        let session = self
            .session_key
            .open(token, now)
            .filter(|session| key.is_none_or(|key| session.key == key))
            .filter(|session| session.belongs_to(caller))
            .ok_or(Error::NoSuchUpload)?;
        let policies = self.policies.load();
        let terms = policies
            .terms_for_known_key(session.policy.as_deref(), caller)
            .map_err(|_| Error::NoSuchUpload)?
            .limited_to(session.max_size);
        // The policy may have moved to another bucket, which has no such upload.
        if session.bucket != terms.bucket {
            return Err(Error::NoSuchUpload);
        }
        Ok((session, terms))
    }
}

/// The largest size that the upload may have: the policy's, or what the client announced.
fn max_size(session: &Session, policy: &Terms) -> u64 {
    session
        .size
        .map_or(policy.max_size(), |size| size.min(policy.max_size()))
}

/// Refuses part numbers beyond those that the upload can need, as all parts but the last one have at least
/// [`s3::MIN_PART_BYTES`]; and parts that are too large.
fn check_parts(
    session: &Session,
    policy: &Terms,
    parts: impl IntoIterator<Item = (u16, Option<u64>)>,
) -> Result<(), Error> {
    let max_size = max_size(session, policy);
    let last = (max_size / s3::MIN_PART_BYTES + 1).min(s3::MAX_PARTS.into());
    for (number, size) in parts {
        let refusal = if u64::from(number) > last {
            let detail = format!("must be at most {last}: the upload has at most {max_size} bytes");
            let invalid = Invalid::new("part-number-too-high", detail);
            Refusal::new(Field::PartNumber, invalid)
        } else if let Some(Err(invalid)) =
            size.map(|size| check_size(size, max_size.min(s3::MAX_PUT_BYTES)))
        {
            Refusal::new(Field::Size, invalid)
        } else {
            continue;
        };
        return Err(Error::Refused(vec![refusal]));
    }
    Ok(())
}
