//! Grants of requests that each upload a whole file: PUTs and forms.

use std::time::SystemTime;

use super::checksum::Checksum;
use super::policy::Terms;
use super::service::{ComputedProperties, GrantRequest};
use super::{
    Caller, Error, Field, File, Grant, Invalid, ObjectKey, Refusal, Result, UploadKind,
    UploadService,
};
use crate::s3;

impl UploadService {
    /// A grant to PUT `file`, once or more often until it expires. No other grant has the same key if the
    /// keys of its policy have `{uuid}`.
    pub async fn presign_put(&self, asked: GrantRequest<'_>) -> Result<Grant> {
        let GrantRequest { caller, file, .. } = asked;
        let grant = async {
            let terms = self.checked(caller, file, UploadKind::Put)?;
            self.sign_put(asked, &terms).await
        }
        .await;
        self.counted(caller, &[(file, UploadKind::Put)], grant)
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
        let checked = files.iter().map(|file| {
            let (kind, terms) = if forms {
                self.checked_single(caller, file)
            } else {
                let kind = UploadKind::Put;
                (kind, self.checked(caller, file, kind))
            };
            ((file, kind), terms)
        });
        let (files, checked): (Vec<_>, Vec<_>) = checked.unzip();
        let grants = async {
            let terms = all(checked)?;
            let mut grants = Vec::with_capacity(files.len());
            for (&(file, kind), terms) in files.iter().zip(terms) {
                let asked = GrantRequest::new(caller, file, now);
                grants.push(self.sign_single(asked, kind, terms).await);
                if let Some(Err(error)) = grants.last()
                    && !matches!(error, Error::Refused(_))
                {
                    // It is not about this file, so it would come again for each of the others.
                    break;
                }
                // Signing never waits, so a long list would keep this thread from other requests.
                tokio::task::consume_budget().await;
            }
            all(grants)
        }
        .await;
        self.counted(caller, &files, grants)
    }

    /// A grant to upload `file` with a form.
    pub async fn presign_post(&self, asked: GrantRequest<'_>) -> Result<Grant> {
        let GrantRequest { caller, file, .. } = asked;
        let grant = async {
            if !self.supports_post {
                return Err(Error::NoForm("this store does not support presigned POST"));
            }
            let terms = self.checked(caller, file, UploadKind::Post)?;
            if !terms.overwrite {
                let why = "the policy forbids overwriting, which a form cannot enforce";
                return Err(Error::NoForm(why));
            }
            self.sign_post(asked, &terms).await
        }
        .await;
        self.counted(caller, &[(file, UploadKind::Post)], grant)
    }

    /// A grant to upload `file` with one request: with a form, which binds a range of sizes, where
    /// one can be used; otherwise with a PUT.
    pub async fn presign_single(&self, asked: GrantRequest<'_>) -> Result<Grant> {
        let GrantRequest { caller, file, .. } = asked;
        let (kind, checked) = self.checked_single(caller, file);
        let grant = async { self.sign_single(asked, kind, checked?).await }.await;
        self.counted(caller, &[(file, kind)], grant)
    }

    /// The way to upload `file` with one request, and the terms that allow it. It is a form if the
    /// store accepts forms and one can keep the policy. With a checksum it is a PUT: Garage, RustFS and
    /// Ceph do not compare that of a form.
    fn checked_single(&self, caller: &Caller, file: &File) -> (UploadKind, Result<Terms>) {
        let terms = self.policies.load().terms(file.policy.as_deref(), caller);
        let wants_put = file.has_checksum() && !self.forms_only;
        let kind = match &terms {
            Ok(terms) if self.supports_post && terms.overwrite && !wants_put => UploadKind::Post,
            _ => UploadKind::Put,
        };
        (
            kind,
            terms.and_then(|terms| self.allowed(terms, file, kind)),
        )
    }

    /// The terms of each file, or all reasons why any of them is refused.
    pub(super) fn all_checked(
        &self,
        caller: &Caller,
        files: &[File],
        kind: UploadKind,
    ) -> Result<Vec<Terms>> {
        all(files.iter().map(|file| self.checked(caller, file, kind)))
    }

    /// A grant of this kind, or a PUT if a form cannot carry what the client says about the file.
    async fn sign_single(
        &self,
        asked: GrantRequest<'_>,
        kind: UploadKind,
        terms: Terms,
    ) -> Result<Grant> {
        match kind {
            UploadKind::Put => self.sign_put(asked, &terms).await,
            // Its future is larger, and would be a part of that of each PUT.
            _ => Box::pin(self.sign_post_or_put(asked, terms)).await,
        }
    }

    async fn sign_post_or_put(&self, asked: GrantRequest<'_>, terms: Terms) -> Result<Grant> {
        match self.sign_post(asked, &terms).await {
            Err(no_form @ (Error::Refused(_) | Error::NoForm(_))) if !self.forms_only => {
                // Clients may be unable to send what only a PUT needs, such as the size.
                let Ok(terms) = self.allowed(terms, asked.file, UploadKind::Put) else {
                    return Err(no_form);
                };
                self.sign_put(asked, &terms).await
            }
            form => form,
        }
    }

    async fn sign_put(&self, asked: GrantRequest<'_>, terms: &Terms) -> Result<Grant> {
        let (file, key) = (asked.file, asked.key(terms));
        let properties = ComputedProperties::new(terms, file);
        let put = s3::Put {
            object: properties.object(terms, file, &key),
            size: file.size,
            if_none_match: !terms.overwrite,
            content_md5: file.content_md5.as_ref().map(Checksum::as_base64),
        };
        let request = self
            .bucket(terms)
            .presign(s3::Request::Put(&put), terms.expires_in, asked.now)
            .await?;
        Ok(Grant {
            key,
            request,
            max_size: None,
        })
    }

    async fn sign_post(&self, asked: GrantRequest<'_>, terms: &Terms) -> Result<Grant> {
        let (file, key) = (asked.file, asked.key(terms));
        let refusals = replaced_in_forms(file, &key);
        if !refusals.is_empty() {
            return Err(Error::Refused(refusals));
        }
        let properties = ComputedProperties::new(terms, file);
        let post = s3::Post {
            object: properties.object(terms, file, &key),
            size: match file.size {
                Some(size) => size..=size,
                None => 0..=terms.max_size().min(s3::MAX_PUT_BYTES),
            },
        };
        let request = self
            .bucket(terms)
            .presign_post(&post, terms.expires_in, asked.now)
            .await?;
        let max_size = Some(*post.size.end());
        Ok(Grant {
            key,
            request,
            max_size,
        })
    }
}

/// The results of all files, or all reasons why any of them is refused.
fn all<T>(results: impl IntoIterator<Item = Result<T>>) -> Result<Vec<T>> {
    let (mut allowed, mut refused) = (Vec::new(), Vec::new());
    for (index, result) in results.into_iter().enumerate() {
        match result.map_err(|error| error.for_file(index)) {
            Ok(value) => allowed.push(value),
            Err(Error::Refused(refusals)) => refused.extend(refusals),
            Err(error) => return Err(error),
        }
    }
    if refused.is_empty() {
        Ok(allowed)
    } else {
        Err(Error::Refused(refused))
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
