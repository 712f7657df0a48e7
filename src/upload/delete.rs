//! Deleting uploads, under policies that allow it.

use super::{Caller, Error, Field, Invalid, Result, UploadService};

/// An upload that does not exist any more, or never did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// The version of the delete marker, in a bucket that keeps versions.
    pub version_id: Option<String>,
}

impl UploadService {
    /// Deletes an upload of a policy, if it exists; `None` if the policy cannot have granted this
    /// key to the caller.
    ///
    /// # Errors
    ///
    /// The caller may not use the policy, the policy does not allow it, or the store fails.
    pub async fn delete(
        &self,
        caller: &Caller,
        policy: Option<&str>,
        key: &str,
    ) -> Result<Option<Deleted>> {
        let terms = self.policies.load().terms(policy, caller)?;
        if !terms.delete {
            let detail = format!("`{}` does not allow deleting", terms.name);
            let invalid = Invalid::new("delete-not-allowed", detail);
            return Err(Error::refused(Field::Policy, invalid));
        }
        if !terms.key.could_have_made(caller, key) {
            self.metrics.delete(terms.name, "not_uploaded");
            return Ok(None);
        }
        let _turn = self.store_calls.turn(caller).await?;
        let delete = self.bucket(&terms).delete(key);
        let result = self.measured("DeleteObject", delete).await;
        let outcome = if result.is_ok() { "deleted" } else { "failed" };
        self.metrics.delete(terms.name, outcome);
        Ok(Some(Deleted {
            version_id: result?,
        }))
    }
}
