//! The tags of an object that exists.

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::types::{Tag, Tagging};

use super::error::{self, status};
use super::{Bucket, Error, StoreCause, StoreError};

impl Bucket {
    /// The names and values of the tags of an object, or of one version of it; `None` if it does
    /// not exist.
    pub async fn tags(
        &self,
        key: &str,
        version: Option<&str>,
    ) -> Result<Option<Vec<(String, String)>>, Error> {
        let client = self.client().await?;
        let request = client
            .get_object_tagging()
            .bucket(&self.name)
            .key(key)
            .set_version_id(version.map(str::to_owned));
        match request.send().await {
            Ok(answer) => {
                let tags = answer.tag_set.into_iter();
                Ok(Some(tags.map(|tag| (tag.key, tag.value)).collect()))
            }
            Err(error) if is_empty(&error) => Ok(Some(Vec::new())),
            Err(error) => Ok(absent(error, "s3:GetObjectTagging")?),
        }
    }

    /// Replaces all tags of an object, or of one version of it; `None` if it does not exist.
    pub async fn set_tags(
        &self,
        key: &str,
        version: Option<&str>,
        tags: &[(String, String)],
    ) -> Result<Option<()>, Error> {
        let tags = tags.iter().map(|(name, value)| {
            let tag = Tag::builder().key(name).value(value).build();
            tag.map_err(|error| StoreError::Failed(error.to_string().into()))
        });
        let tagging = Tagging::builder()
            .set_tag_set(Some(tags.collect::<Result<_, _>>()?))
            .build()
            .map_err(|error| StoreError::Failed(error.to_string().into()))?;
        let client = self.client().await?;
        let request = client
            .put_object_tagging()
            .bucket(&self.name)
            .key(key)
            .set_version_id(version.map(str::to_owned))
            .tagging(tagging);
        match request.send().await {
            Ok(_) => Ok(Some(())),
            Err(error) => Ok(absent(error, "s3:PutObjectTagging")?),
        }
    }
}

/// Whether the store answered with nothing at all, as some versions of Ceph do for tags that were
/// given to an upload in parts, and which they have lost.
fn is_empty<E>(error: &SdkError<E, HttpResponse>) -> bool {
    error.raw_response().is_some_and(|answer| {
        answer.status().is_success() && answer.body().bytes().is_some_and(<[u8]>::is_empty)
    })
}

fn absent<T, E>(error: SdkError<E, HttpResponse>, permission: &str) -> Result<Option<T>, StoreError>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match (status(&error), error.code()) {
        // In a bucket with versions it may be hidden by a delete marker.
        (Some(405), Some("MethodNotAllowed")) => Ok(None),
        (Some(501), _) => Err(StoreError::Failed(
            StoreCause::from_sdk(&error)
                .explained("the store has no tags, which policies with `pending` need"),
        )),
        _ => {
            let version = permission.replace("Object", "ObjectVersion");
            let needs = format!("{permission}, and {version} where the bucket has versions");
            error::absent(error, &needs)
        }
    }
}
