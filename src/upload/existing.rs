//! Finds files that are uploaded already, and that the store would therefore refuse.

use std::time::SystemTime;

use futures_util::future::join_all;
use uuid::Uuid;

use super::policy::Terms;
use super::service::GrantRequest;
use super::{Caller, Expected, File, ObjectKey, Result, UploadKind, UploadService, Verification};

impl UploadService {
    /// Whether a policy can give two files the same key, and has the store refuse the second one.
    pub fn refuses_repeated(&self, caller: &Caller, policy: Option<&str>) -> Result<bool> {
        let terms = self.policies.load().terms(policy, caller)?;
        Ok(refuses_repeated(&terms))
    }

    /// For each of `files`, its key if it need not be uploaded: the policy has the store refuse it,
    /// and the existing object has its size and type and is what the policy allows. All are `None`
    /// if any file is refused; one is `None` if the store cannot be asked about it.
    pub async fn already_uploaded(
        &self,
        caller: &Caller,
        files: &[File],
        in_parts: bool,
        now: SystemTime,
    ) -> Vec<Option<ObjectKey>> {
        let kind = if in_parts {
            UploadKind::Multipart
        } else {
            UploadKind::Put
        };
        let none = || files.iter().map(|_| None).collect();
        let Ok(terms) = self.all_checked(caller, files, kind) else {
            return none();
        };
        let Ok(_list) = self.store_calls.list(caller, files.len()).await else {
            return none();
        };
        let finds = files.iter().zip(&terms).map(|(file, terms)| {
            let asked = GrantRequest {
                id: Uuid::nil(),
                ..GrantRequest::new(caller, file, now)
            };
            self.find(asked, terms)
        });
        join_all(finds).await
    }

    async fn find(&self, asked: GrantRequest<'_>, terms: &Terms) -> Option<ObjectKey> {
        if !refuses_repeated(terms) {
            return None;
        }
        let GrantRequest { caller, file, .. } = asked;
        let key = asked.key(terms);
        let expected = Expected {
            size: file.size,
            ..Expected::for_key(key.as_str())
        };
        match self.verify_one(terms, caller, &expected).await {
            Ok(Verification::Uploaded(it)) if it.content_type == file.content_type => Some(key),
            _ => None,
        }
    }
}

fn refuses_repeated(terms: &Terms) -> bool {
    !terms.overwrite && !terms.key.is_unique()
}
