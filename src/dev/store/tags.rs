//! Tags of objects. [`FileSystem`](s3s_fs::FileSystem) drops them; they are kept here in the file
//! that holds an object's headers, so that they are replaced and removed together with the object.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use percent_encoding::percent_decode_str;
use s3s::dto::{
    DeleteObjectTaggingInput, DeleteObjectTaggingOutput, GetObjectTaggingInput,
    GetObjectTaggingOutput, PutObjectInput, PutObjectTaggingInput, PutObjectTaggingOutput, Tag,
    Tagging,
};
use s3s::xml::{Deserialize, Deserializer};
use s3s::{S3Error, S3Request, S3Response, S3Result, s3_error};
use serde_json::{Map, Value};

use super::files::{Staged, files_of};
use super::{Answer, BucketStore};
use crate::dev::form::FormFields;

/// The member of the file that `FileSystem` neither writes nor reads.
const TAGS: &str = "tags";

const COUNT: HeaderName = HeaderName::from_static("x-amz-tagging-count");

/// The names of an object's tags, and their values.
pub(super) type Tags = BTreeMap<String, String>;

/// The tags of an object that is uploaded: of a form's field, or of a PUT's header.
pub(super) fn from_upload(request: &S3Request<PutObjectInput>) -> S3Result<Tags> {
    if request.method != Method::POST {
        return from_header(request.input.tagging.as_deref());
    }
    let fields = request.extensions.get::<FormFields>();
    let Some(xml) = fields.and_then(|fields| fields.get("tagging")) else {
        return Ok(Tags::new());
    };
    let mut xml = Deserializer::new(xml.as_bytes());
    let tagging = Tagging::deserialize(&mut xml).map_err(|_| s3_error!(MalformedXML))?;
    from_set(tagging)
}

/// The tags of the header `x-amz-tagging`, which is like the query of a URL.
pub(super) fn from_header(header: Option<&str>) -> S3Result<Tags> {
    let pairs = header.unwrap_or_default().split('&');
    let tags = pairs.filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let [name, value] = [name, value].map(|text| {
            let text = text.replace('+', " ");
            let text = percent_decode_str(&text).decode_utf8();
            text.map(Cow::into_owned)
        });
        name.and_then(|name| Ok((name, value?)))
            .map_err(|_| s3_error!(InvalidArgument, "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates."))
    });
    checked(tags.collect::<S3Result<Vec<_>>>()?)
}

fn from_set(tagging: Tagging) -> S3Result<Tags> {
    let tags = tagging.tag_set.into_iter();
    checked(
        tags.map(|tag| (tag.key.unwrap_or_default(), tag.value.unwrap_or_default()))
            .collect(),
    )
}

/// Refuses
/// [what S3 refuses](https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html).
fn checked(tags: Vec<(String, String)>) -> S3Result<Tags> {
    const MAX_TAGS: usize = 10;
    let count = tags.len();
    if count > MAX_TAGS {
        return Err(s3_error!(
            InvalidTag,
            "Object tags cannot be greater than {}",
            MAX_TAGS
        ));
    }
    let has_length = |(name, value): &(String, String)| {
        (1..=128).contains(&name.chars().count()) && value.chars().count() <= 256
    };
    if !tags.iter().all(has_length) {
        return Err(s3_error!(
            InvalidTag,
            "A tag's name has 1 to 128 characters, and its value at most 256."
        ));
    }
    let tags: Tags = tags.into_iter().collect();
    if tags.len() < count {
        return Err(s3_error!(
            InvalidTag,
            "Cannot provide multiple Tags with the same key"
        ));
    }
    Ok(tags)
}

/// Reads the headers of an object; an object that was put into the folder by hand has none.
fn headers_in(file: &Path) -> io::Result<Map<String, Value>> {
    match fs::read(file) {
        Ok(json) => Ok(serde_json::from_slice(&json)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Map::new()),
        Err(error) => Err(error),
    }
}

/// Writes the headers in the file `from`, with these tags instead of their own, to the file `to`.
pub(super) fn write(from: &Path, tags: Tags, to: &Path) -> S3Result<()> {
    let write = || {
        let mut headers = headers_in(from)?;
        headers.insert(TAGS.to_owned(), serde_json::to_value(tags)?);
        fs::write(to, serde_json::to_vec(&headers)?)
    };
    write().map_err(S3Error::internal_error)
}

impl BucketStore {
    fn tags(&self, key: &str) -> S3Result<Tags> {
        let [_, headers, _] = files_of(&self.root, &self.name, key);
        let mut headers = headers_in(&headers).map_err(S3Error::internal_error)?;
        let tags = headers.remove(TAGS).map(serde_json::from_value);
        let tags = tags.transpose().map_err(S3Error::internal_error)?;
        Ok(tags.unwrap_or_default())
    }

    /// Adds the header that says how many tags the object has, if it has any.
    pub(super) fn count_tags(&self, key: &str, headers: &mut HeaderMap) -> S3Result<()> {
        let count = self.tags(key)?.len();
        if count > 0 {
            headers.insert(COUNT, HeaderValue::from(count));
        }
        Ok(())
    }

    async fn replace_tags(&self, key: &str, tags: Tags) -> S3Result<()> {
        let staged = Staged::new(&self.root);
        let [_, new, _] = staged.files();
        // Without the lock, these could become the tags of an object that replaces this one
        // meanwhile.
        let _one_at_a_time = self.replacing.lock().await;
        self.check_is_object(key)?;
        let [_, headers, _] = files_of(&self.root, &self.name, key);
        write(&headers, tags, &new)?;
        fs::rename(new, headers).map_err(S3Error::internal_error)
    }

    #[expect(clippy::unused_async, reason = "all operations are called alike")]
    pub(super) async fn get_tags(
        &self,
        request: S3Request<GetObjectTaggingInput>,
    ) -> Answer<GetObjectTaggingOutput> {
        let key = request.input.key;
        self.check_is_object(&key)?;
        let tags = self.tags(&key)?.into_iter();
        let tag = |(name, value)| Tag {
            key: Some(name),
            value: Some(value),
        };
        Ok(S3Response::new(GetObjectTaggingOutput {
            tag_set: tags.map(tag).collect(),
            version_id: None,
        }))
    }

    pub(super) async fn put_tags(
        &self,
        request: S3Request<PutObjectTaggingInput>,
    ) -> Answer<PutObjectTaggingOutput> {
        let tags = from_set(request.input.tagging)?;
        self.replace_tags(&request.input.key, tags).await?;
        Ok(S3Response::new(PutObjectTaggingOutput::default()))
    }

    pub(super) async fn delete_tags(
        &self,
        request: S3Request<DeleteObjectTaggingInput>,
    ) -> Answer<DeleteObjectTaggingOutput> {
        self.replace_tags(&request.input.key, Tags::new()).await?;
        Ok(S3Response::new(DeleteObjectTaggingOutput::default()))
    }
}
