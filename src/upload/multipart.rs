//! Uploads in parts, under the same policies.
//!
//! The type is checked when an upload begins, and its size when it is completed: by the store's own
//! list of its parts, before there is an object.

mod complete;
mod several;

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::policy::{Terms, check_size};
use super::service::{ComputedProperties, GrantRequest};
use super::session::{EXPIRED, NOT_SEALED, Session};
use super::{Caller, Error, Field, Invalid, Result, UploadKind, UploadService, Uploaded};
use crate::s3::{self, PresignedRequest, StoredPart};

/// An upload that has begun.
///
/// Without authentication, whoever has the token can continue the upload, so `Debug` leaves it out.
pub struct MultipartUpload {
    pub open: OpenUpload,
    pub bucket: String,
    /// All further calls have to send it.
    pub token: String,
}

debug_name!(MultipartUpload);

/// An upload that its caller may continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenUpload {
    pub(super) session: Session,
    /// Those of now, within the limits of the ticket with which the upload was begun.
    pub(super) terms: Terms,
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
    /// Begins an upload of `file`. No other upload has the same key if the keys of its policy have `{uuid}`.
    pub async fn create_multipart(&self, asked: GrantRequest<'_>) -> Result<MultipartUpload> {
        let GrantRequest { caller, file, .. } = asked;
        let upload = async {
            let terms = self.checked(caller, file, UploadKind::Multipart)?;
            self.begin_multipart(asked, terms).await
        }
        .await;
        self.counted(caller, &[(file, UploadKind::Multipart)], upload)
    }

    async fn begin_multipart(
        &self,
        asked: GrantRequest<'_>,
        terms: Terms,
    ) -> Result<MultipartUpload> {
        let GrantRequest { caller, file, .. } = asked;
        let key = asked.key(&terms);
        let properties = ComputedProperties::new(&terms, file);
        let object = properties.object(&terms, file, &key);
        let _turn = self.store_calls.turn(caller).await?;
        let call = self.bucket(&terms).create_multipart(&object);
        let upload_id = self.measured("CreateMultipartUpload", call).await?;
        let session = Session::new(
            upload_id,
            (terms.bucket.clone(), key.into_string()),
            caller.policy_name(file.policy.as_deref()).to_owned(),
            file.size,
            caller,
            asked.now,
        );
        let open = OpenUpload { session, terms };
        Ok(MultipartUpload {
            bucket: self.bucket(&open.terms).name().to_owned(),
            token: self.session_key.seal(&open.session),
            open,
        })
    }

    /// The upload of `token`, if it belongs to `caller`, and to `key` if there is one.
    ///
    /// # Errors
    ///
    /// The caller may not continue it, or it has expired. The error does not reveal what is wrong.
    pub fn open_upload(
        &self,
        caller: &Caller,
        token: &str,
        key: Option<&str>,
        now: SystemTime,
    ) -> Result<OpenUpload> {
        let session: Option<Session> = self.session_key.open(token);
        let session = session.ok_or(Error::NoSuchUpload(NOT_SEALED))?;
        let why = if session.has_expired(now) {
            EXPIRED
        } else if key.is_some_and(|key| session.key != key) {
            "the upload has another key"
        } else if !session.belongs_to(caller) {
            "the upload belongs to another caller"
        } else {
            return self.open_session(caller, session);
        };
        Err(Error::NoSuchUpload(why))
    }

    pub(super) fn open_session(&self, caller: &Caller, session: Session) -> Result<OpenUpload> {
        let policies = self.policies.load();
        let terms = policies
            .terms_for_known_key(session.policy.as_deref(), caller)
            .map_err(|_| Error::NoSuchUpload("the caller may not use the policy of the upload"))?
            .limited_to(session.max_size);
        // The policy may have moved to another bucket, which has no such upload.
        if session.bucket != terms.bucket {
            return Err(Error::NoSuchUpload(
                "the policy of the upload has another bucket now",
            ));
        }
        Ok(OpenUpload { session, terms })
    }

    /// A grant to PUT one part, which has exactly `size` bytes if that is given.
    pub async fn presign_part(
        &self,
        upload: &OpenUpload,
        part: (u16, Option<u64>),
        now: SystemTime,
    ) -> Result<PresignedRequest> {
        self.refuse_if_forms_only()?;
        upload.check_parts([part])?;
        let request = self.sign_part(upload, part, now).await?;
        self.count(upload.session.policy.as_deref(), "part", "granted", 1);
        Ok(request)
    }

    /// URLs to PUT each of the parts, by their numbers. One has exactly this number of bytes if it is given.
    pub async fn presign_parts(
        &self,
        upload: &OpenUpload,
        parts: &BTreeMap<u16, Option<u64>>,
        now: SystemTime,
    ) -> Result<BTreeMap<u16, String>> {
        self.refuse_if_forms_only()?;
        let parts = parts.iter().map(|(&number, &size)| (number, size));
        upload.check_parts(parts.clone())?;
        let mut urls = BTreeMap::new();
        for part in parts {
            urls.insert(part.0, self.sign_part(upload, part, now).await?.url);
            // Signing never waits, so a long list would keep this thread from other requests.
            tokio::task::consume_budget().await;
        }
        let policy = upload.session.policy.as_deref();
        self.count(policy, "part", "granted", urls.len());
        Ok(urls)
    }

    async fn sign_part(
        &self,
        OpenUpload { session, terms }: &OpenUpload,
        (number, size): (u16, Option<u64>),
        now: SystemTime,
    ) -> Result<PresignedRequest> {
        let part = s3::Request::Part {
            key: &session.key,
            upload_id: &session.upload_id,
            number,
            size,
        };
        let bucket = self.bucket(terms);
        Ok(bucket.presign(part, terms.expires_in, now).await?)
    }

    /// The parts that the store has.
    pub async fn list_parts(
        &self,
        OpenUpload { session, terms }: &OpenUpload,
    ) -> Result<Vec<StoredPart>> {
        let Session { key, upload_id, .. } = session;
        let call = self.bucket(terms).list_parts(key, upload_id);
        self.measured("ListParts", call).await
    }

    /// Aborts an upload for `caller`, which frees its parts.
    pub async fn abort_multipart(&self, caller: &Caller, upload: &OpenUpload) -> Result<()> {
        let _turn = self.store_calls.turn(caller).await?;
        self.free_parts(upload).await
    }

    pub(super) async fn free_parts(
        &self,
        OpenUpload { session, terms }: &OpenUpload,
    ) -> Result<()> {
        let Session { key, upload_id, .. } = session;
        let call = self.bucket(terms).abort_multipart(key, upload_id);
        self.measured("AbortMultipartUpload", call).await
    }
}

impl OpenUpload {
    pub fn key(&self) -> &str {
        &self.session.key
    }

    /// The store's id of the upload.
    pub(crate) fn id(&self) -> &str {
        &self.session.upload_id
    }

    /// Refuses part numbers beyond those that the upload can need, as all parts but the last one have at least
    /// [`s3::MIN_PART_BYTES`]; and parts that are too large.
    fn check_parts(&self, parts: impl IntoIterator<Item = (u16, Option<u64>)>) -> Result<()> {
        // The policy's limit, or what the client announced.
        let max_size = self.terms.max_size();
        let max_size = self
            .session
            .size
            .map_or(max_size, |size| size.min(max_size));
        let last = (max_size / s3::MIN_PART_BYTES + 1).min(s3::MAX_PARTS.into());
        for (number, size) in parts {
            if u64::from(number) > last {
                let detail =
                    format!("must be at most {last}: the upload has at most {max_size} bytes");
                let invalid = Invalid::new("part-number-too-high", detail);
                return Err(Error::refused(Field::PartNumber, invalid));
            }
            let largest = max_size.min(s3::MAX_PUT_BYTES);
            if let Some(Err(invalid)) = size.map(|size| check_size(size, largest)) {
                return Err(Error::refused(Field::Size, invalid));
            }
        }
        Ok(())
    }
}
