//! Several uploads in parts that begin together.

use std::time::SystemTime;

use futures_util::stream::{self, StreamExt};
use uuid::Uuid;

use super::MultipartUpload;
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
        let uploads = async {
            let policies = self.all_checked(caller, files, |_| UploadKind::Multipart)?;
            let each = files.iter().zip(policies);
            let calls: Vec<_> = each
                .map(|(file, policy)| {
                    self.begin_multipart(caller, policy, file, Uuid::new_v4(), now)
                })
                .collect();
            let begun: Vec<_> = stream::iter(calls).buffered(IN_FLIGHT).collect().await;
            if begun.iter().all(Result::is_ok) {
                return begun.into_iter().collect();
            }
            let others = begun.iter().filter_map(|upload| upload.as_ref().ok());
            self.abort_multiparts(others).await;
            begun.into_iter().collect()
        }
        .await;
        self.counted(caller, |_| UploadKind::Multipart, files, uploads)
    }

    /// Aborts uploads that nobody will continue, as far as the store lets them.
    pub async fn abort_multiparts(&self, uploads: impl IntoIterator<Item = &MultipartUpload>) {
        let uploads = uploads.into_iter();
        let calls: Vec<_> = uploads.map(|it| self.free_parts(&it.open)).collect();
        let aborted = stream::iter(calls).buffer_unordered(IN_FLIGHT);
        aborted.for_each(async |_| ()).await; // best effort
    }
}
