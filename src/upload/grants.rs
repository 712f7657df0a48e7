//! Grants of requests that each upload a whole file: PUTs and forms.

use std::time::SystemTime;

use uuid::Uuid;

use super::checksum::Checksum;
use super::policy::Terms;
use super::service::{ComputedProperties, day};
use super::{
    Caller, Error, Field, File, Grant, Invalid, ObjectKey, Refusal, Result, UploadKind,
    UploadService,
};
use crate::s3;

impl UploadService {
    /// A grant to PUT `file`, once or more until it expires, under a key that `id` makes unique.
    pub async fn presign_put(
        &self,
        caller: &Caller,
        file: &File,
        id: Uuid,
        now: SystemTime,
    ) -> Result<Grant> {
        let grant = async {
            let policy = self.checked(caller, file, UploadKind::Put)?;
            self.sign_put(caller, &policy, file, id, now).await
        }
        .await;
        let files = std::slice::from_ref(file);
        self.counted(caller, |_| UploadKind::Put, files, grant)
    }

    /// A grant to upload each of `files` with one request, in their order, or none of them. With
    /// `forms`, it is a form where one can be used; otherwise it is a PUT.
    pub async fn presign_list(
        &self,
        caller: &Caller,
        files: &[File],
        forms: bool,
        now: SystemTime,
    ) -> Result<Vec<Grant>> {
        let kind = |file: &File| {
            if forms {
                self.single_kind(caller, file)
            } else {
                UploadKind::Put
            }
        };
        let grants = async {
            let policies = self.all_checked(caller, files, kind)?;
            let mut grants = Vec::with_capacity(files.len());
            for (index, (file, policy)) in files.iter().zip(policies).enumerate() {
                let id = Uuid::new_v4();
                let grant = if forms {
                    self.sign_single(caller, &policy, file, id, now).await
                } else {
                    self.sign_put(caller, &policy, file, id, now).await
                };
                grants.push(grant.map_err(|error| error.for_file(index))?);
                // Signing never waits, so a long list would keep this thread from other requests.
                tokio::task::consume_budget().await;
            }
            Ok(grants)
        }
        .await;
        self.counted(caller, kind, files, grants)
    }

    /// A grant to upload `file` with a form.
    pub async fn presign_post(
        &self,
        caller: &Caller,
        file: &File,
        id: Uuid,
        now: SystemTime,
    ) -> Result<Grant> {
        let grant = async {
            if !self.supports_post {
                return Err(Error::NoForm("this store does not support presigned POST"));
            }
            let policy = self.checked(caller, file, UploadKind::Post)?;
            if !policy.overwrite {
                let why = "the policy forbids overwriting, which a form cannot";
                return Err(Error::NoForm(why));
            }
            self.sign_post(caller, &policy, file, id, now).await
        }
        .await;
        let files = std::slice::from_ref(file);
        self.counted(caller, |_| UploadKind::Post, files, grant)
    }

    /// A grant to upload `file` with one request: with a form, which binds a range of sizes, where
    /// one can be used; otherwise with a PUT.
    pub async fn presign_single(
        &self,
        caller: &Caller,
        file: &File,
        id: Uuid,
        now: SystemTime,
    ) -> Result<Grant> {
        let kind = self.single_kind(caller, file);
        let grant = async {
            let policy = self.checked(caller, file, kind)?;
            self.sign_single(caller, &policy, file, id, now).await
        }
        .await;
        self.counted(caller, |_| kind, std::slice::from_ref(file), grant)
    }

    /// A form, if the store accepts forms and one can keep the policy of `file`.
    fn single_kind(&self, caller: &Caller, file: &File) -> UploadKind {
        let terms = self.policies.load().terms(file.policy.as_deref(), caller);
        if terms.is_ok_and(|terms| self.has_forms_under(&terms)) {
            UploadKind::Post
        } else {
            UploadKind::Put
        }
    }

    fn has_forms_under(&self, terms: &Terms) -> bool {
        self.supports_post && terms.overwrite
    }

    /// The policy of each file, or all reasons why any of them is refused.
    pub(super) fn all_checked(
        &self,
        caller: &Caller,
        files: &[File],
        kind: impl Fn(&File) -> UploadKind,
    ) -> Result<Vec<Terms>> {
        let mut policies = Vec::with_capacity(files.len());
        let mut refused = Vec::new();
        for (index, file) in files.iter().enumerate() {
            let checked = self.checked(caller, file, kind(file));
            match checked.map_err(|error| error.for_file(index)) {
                Ok(policy) => policies.push(policy),
                Err(Error::Refused(refusals)) => refused.extend(refusals),
                Err(error) => return Err(error),
            }
        }
        if refused.is_empty() {
            Ok(policies)
        } else {
            Err(Error::Refused(refused))
        }
    }

    /// A form, or a PUT if there are none under the policy, or if one cannot carry what the client
    /// says about `file`.
    async fn sign_single(
        &self,
        caller: &Caller,
        policy: &Terms,
        file: &File,
        id: Uuid,
        now: SystemTime,
    ) -> Result<Grant> {
        if !self.has_forms_under(policy) {
            // It was checked for a form if the policies were replaced in between.
            let policy = self.checked(caller, file, UploadKind::Put)?;
            return self.sign_put(caller, &policy, file, id, now).await;
        }
        match self.sign_post(caller, policy, file, id, now).await {
            Err(no_form @ (Error::Refused(_) | Error::NoForm(_))) if !self.forms_only => {
                // Clients may be unable to send what only a PUT needs, such as the size.
                let Ok(policy) = self.checked(caller, file, UploadKind::Put) else {
                    return Err(no_form);
                };
                self.sign_put(caller, &policy, file, id, now).await
            }
            form => form,
        }
    }

    async fn sign_put(
        &self,
        caller: &Caller,
        policy: &Terms,
        file: &File,
        id: Uuid,
        now: SystemTime,
    ) -> Result<Grant> {
        let key = policy.key.key(caller, &file.filename, id, day(now));
        let properties = ComputedProperties::new(policy, file);
        let put = s3::Put {
            object: properties.object(policy, file, &key),
            size: file.size,
            if_none_match: !policy.overwrite,
            content_md5: file.content_md5.as_ref().map(Checksum::as_base64),
        };
        let request = self
            .bucket(policy)
            .presign(s3::Request::Put(&put), policy.expires_in, now)
            .await?;
        Ok(Grant {
            key,
            request,
            max_size: None,
        })
    }

    async fn sign_post(
        &self,
        caller: &Caller,
        policy: &Terms,
        file: &File,
        id: Uuid,
        now: SystemTime,
    ) -> Result<Grant> {
        let key = policy.key.key(caller, &file.filename, id, day(now));
        let refusals = replaced_in_forms(file, &key);
        if !refusals.is_empty() {
            return Err(Error::Refused(refusals));
        }
        let properties = ComputedProperties::new(policy, file);
        let post = s3::Post {
            object: properties.object(policy, file, &key),
            size: match file.size {
                Some(size) => size..=size,
                None => 0..=policy.max_size().min(s3::MAX_PUT_BYTES),
            },
        };
        let request = self
            .bucket(policy)
            .presign_post(&post, policy.expires_in, now)
            .await?;
        let max_size = Some(*post.size.end());
        Ok(Grant {
            key,
            request,
            max_size,
        })
    }
}

/// S3 replaces this with the name of the file that is sent,
/// [in any field of a form](https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTForms.html).
const REPLACED_IN_FORMS: &str = "${filename}";

/// Refuses a value that a store would replace in a form.
pub(super) fn check_form(value: &str) -> Result<(), Invalid> {
    if !value.contains(REPLACED_IN_FORMS) {
        return Ok(());
    }
    let detail = "must not contain `${filename}`, which has a meaning of its own in a form";
    Err(Invalid::new("reserved", detail))
}

/// The parts of `file` that a form cannot carry. The key is checked, too: the template `${filename}` makes
/// the key `${filename}` of a file that is named `{filename}`.
fn replaced_in_forms(file: &File, key: &ObjectKey) -> Vec<Refusal> {
    let texts = [
        (Field::Filename, file.filename.as_str()),
        (Field::Filename, key.as_str()),
        (Field::ContentType, file.content_type.as_str()),
    ];
    let metadata = file.metadata.iter();
    texts
        .into_iter()
        .chain(metadata.map(|(name, value)| (Field::MetadataOf(name.clone()), value.as_str())))
        .filter_map(|(field, text)| Some(Refusal::new(field, check_form(text).err()?)))
        .collect()
}
