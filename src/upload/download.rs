//! Downloads: presigned GETs of uploads, under policies that allow them.
//!
//! The store is asked about an object only if the answer depends on it: on whether it is committed,
//! under policies with `pending`, or on its type, if a browser is to show it.

use std::time::SystemTime;

use futures_util::future::try_join_all;

use super::policy::Terms;
use super::{
    Caller, ContentType, Disposition, Error, Field, Filename, Invalid, Result, UploadService,
};
use crate::s3::{self, PresignedRequest, StoredObject};

/// What a caller wants to download, and how.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub keys: Vec<String>,
    /// Active content is always an attachment.
    pub disposition: Disposition,
    /// The name under which browsers save it; otherwise the last segment of the key.
    pub filename: Option<Filename>,
}

/// The result for one key.
#[derive(Debug)]
pub enum Download {
    Granted(PresignedRequest),
    /// The policy cannot have granted this key to the caller; or there is no object, if the store
    /// was asked.
    NotUploaded,
    /// The upload does not count until it is committed.
    Pending,
}

impl UploadService {
    /// Whether granting these downloads calls the store for each key.
    pub fn asks_store_for_downloads(
        &self,
        caller: &Caller,
        policy: Option<&str>,
        disposition: Disposition,
    ) -> bool {
        let terms = self.policies.load().terms(policy, caller);
        terms.is_ok_and(|terms| asks_store(&terms, disposition))
    }

    /// A grant to GET each of the wanted uploads under a policy, in their order.
    ///
    /// # Errors
    ///
    /// The caller may not use the policy, the policy allows no downloads, or the store fails for
    /// any of them.
    pub async fn presign_gets(
        &self,
        caller: &Caller,
        policy: Option<&str>,
        wanted: &Wanted,
        now: SystemTime,
    ) -> Result<Vec<Download>> {
        let result = self.downloads(caller, policy, wanted, now).await;
        let name = Some(caller.policy_name(policy));
        let count = |outcome, keys| {
            if keys > 0 {
                self.count(name, "download", outcome, keys);
            }
        };
        match &result {
            Ok(downloads) => {
                let is_granted = |it: &&Download| matches!(it, Download::Granted(_));
                let granted = downloads.iter().filter(is_granted).count();
                count("granted", granted);
                count("refused", downloads.len() - granted);
            }
            Err(error) if error.is_refusal() => count("refused", wanted.keys.len()),
            Err(_) => count("failed", wanted.keys.len()),
        }
        result
    }

    async fn downloads(
        &self,
        caller: &Caller,
        policy: Option<&str>,
        wanted: &Wanted,
        now: SystemTime,
    ) -> Result<Vec<Download>> {
        let terms = &self.policies.load().terms(policy, caller)?;
        if !terms.download {
            let detail = format!("`{}` does not allow downloads", terms.name);
            let invalid = Invalid::new("download-not-allowed", detail);
            return Err(Error::refused(Field::Policy, invalid));
        }
        let could_have = |key: &str| terms.key.could_have_made(caller, key);
        if asks_store(terms, wanted.disposition) {
            let _list = self.store_calls.list(caller, wanted.keys.len()).await?;
            let all = wanted.keys.iter().map(async |key| {
                if !could_have(key) {
                    return Ok(Download::NotUploaded);
                }
                let _turn = self.store_calls.turn(caller).await?;
                self.presign_seen(terms, key, wanted, now).await
            });
            return try_join_all(all).await;
        }
        let mut downloads = Vec::with_capacity(wanted.keys.len());
        for key in &wanted.keys {
            downloads.push(if could_have(key) {
                let content_disposition = &wanted.disposition.header(wanted.filename.as_ref());
                let get = s3::Get {
                    key,
                    content_disposition,
                    ..s3::Get::default()
                };
                let (get, expires_in) = (s3::Request::Get(&get), terms.download_expires_in);
                let request = self.bucket(terms).presign(get, expires_in, now);
                Download::Granted(request.await?)
            } else {
                Download::NotUploaded
            });
            // Signing never waits, so a long list would keep this thread from other requests.
            tokio::task::consume_budget().await;
        }
        Ok(downloads)
    }

    /// A grant for an object that the store is asked about.
    async fn presign_seen(
        &self,
        terms: &Terms,
        key: &str,
        wanted: &Wanted,
        now: SystemTime,
    ) -> Result<Download> {
        let Some(object) = self.head(terms, key).await? else {
            return Ok(Download::NotUploaded);
        };
        if terms.pending {
            match self.is_committed(terms, key, &object).await? {
                Some(true) => {}
                Some(false) => return Ok(Download::Pending),
                None => return Ok(Download::NotUploaded),
            }
        }
        let shown_as = match wanted.disposition {
            Disposition::Inline => harmless_type(&object),
            Disposition::Attachment => None,
        };
        let disposition = match &shown_as {
            Some(_) => Disposition::Inline,
            None => Disposition::Attachment,
        };
        let get = s3::Get {
            key,
            // The committed version, whatever is uploaded later.
            version_id: object.version_id.as_deref().filter(|_| terms.pending),
            content_disposition: &disposition.header(wanted.filename.as_ref()),
            // Signed, as the object may be replaced by one of another type.
            content_type: shown_as.as_ref().map(ContentType::as_str),
        };
        let (get, expires_in) = (s3::Request::Get(&get), terms.download_expires_in);
        let request = self.bucket(terms).presign(get, expires_in, now);
        Ok(Download::Granted(request.await?))
    }
}

fn asks_store(terms: &Terms, disposition: Disposition) -> bool {
    terms.pending || disposition == Disposition::Inline
}

/// The type of an object that a browser may show: one that is known to run no scripts.
fn harmless_type(object: &StoredObject) -> Option<ContentType> {
    let content_type = ContentType::parse(object.content_type.as_deref()?).ok()?;
    (!content_type.is_active()).then_some(content_type)
}
