//! Several uploads in parts that begin together.

use std::time::SystemTime;

use futures_util::stream::{self, StreamExt};

use super::MultipartUpload;
use crate::upload::service::GrantRequest;
use crate::upload::{Caller, File, Result, UploadKind, UploadService};

/// How many calls of one request the store gets at the same time.
const IN_FLIGHT: usize = 8;

impl UploadService {
    /// Whether the policy of this name lets `caller` upload in parts.
    ///
    /// # Errors
    ///
    /// There is no such policy, or the caller may not use it.
    pub fn allows_parts(&self, caller: &Caller, policy: Option<&str>) -> Result<bool> {
        let terms = self.policies.load().terms(policy, caller)?;
        Ok(terms.allows_parts())
    }

    /// Begins an upload of each of `files`, in their order, or of none of them.
    pub async fn create_multiparts(
        &self,
        caller: &Caller,
        files: &[File],
        now: SystemTime,
    ) -> Result<Vec<MultipartUpload>> {
        let kind = UploadKind::Multipart;
        let uploads = async {
            let all_terms = self.all_checked(caller, files, kind)?;
            let calls = files.iter().zip(all_terms).map(|(file, terms)| {
                let asked = GrantRequest::new(caller, file, now);
                self.begin_multipart(asked, terms)
            });
            let calls: Vec<_> = calls.collect();
            let begun: Vec<_> = stream::iter(calls).buffered(IN_FLIGHT).collect().await;
            if begun.iter().any(Result::is_err) {
                let others = begun.iter().filter_map(|upload| upload.as_ref().ok());
                self.abort_multiparts(others).await;
            }
            begun.into_iter().collect()
        }
        .await;
        let files: Vec<_> = files.iter().map(|file| (file, kind)).collect();
        self.counted(caller, &files, uploads)
    }

    /// Aborts uploads that nobody will continue, as far as the store lets them.
    pub async fn abort_multiparts(&self, uploads: impl IntoIterator<Item = &MultipartUpload>) {
        let uploads = uploads.into_iter();
        let calls: Vec<_> = uploads.map(|it| self.free_parts(&it.open)).collect();
        let aborted = stream::iter(calls).buffer_unordered(IN_FLIGHT);
        aborted.for_each(async |_| ()).await; // best effort
    }
}
