//! Lists of objects.

use percent_encoding::utf8_percent_encode;
use s3s::dto::{
    CommonPrefix, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output,
    Object, ObjectStorageClass,
};
use s3s::{S3, S3Request};

use super::files::{etag_in, files_of};
use super::{Answer, BucketStore};
use crate::s3::IN_PATH;

impl BucketStore {
    pub(super) async fn list(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> Answer<ListObjectsV2Output> {
        let mut response = self.files.list_objects_v2(request).await?;
        let list = &mut response.output;
        self.complete_entries(&mut list.contents);
        if list.encoding_type.is_some() {
            encode([&mut list.prefix, &mut list.delimiter, &mut list.start_after]);
            encode_entries(&mut list.contents, &mut list.common_prefixes);
        }
        Ok(response)
    }

    pub(super) async fn list_v1(
        &self,
        request: S3Request<ListObjectsInput>,
    ) -> Answer<ListObjectsOutput> {
        let mut response = self.files.list_objects(request).await?;
        let list = &mut response.output;
        self.complete_entries(&mut list.contents);
        if list.encoding_type.is_some() {
            encode([&mut list.prefix, &mut list.delimiter, &mut list.next_marker]);
            encode_entries(&mut list.contents, &mut list.common_prefixes);
        }
        Ok(response)
    }

    /// Omits symbolic links, none of which is followed, and adds what [`FileSystem`] leaves out.
    ///
    /// [`FileSystem`]: s3s_fs::FileSystem
    fn complete_entries(&self, objects: &mut Option<Vec<Object>>) {
        let objects = objects.get_or_insert_default();
        objects.retain_mut(|object| {
            let key = object.key.as_deref().unwrap_or_default();
            let [file, _, internal] = files_of(&self.root, &self.name, key);
            object.e_tag = etag_in(&internal);
            object.storage_class = Some(ObjectStorageClass::from_static(
                ObjectStorageClass::STANDARD,
            ));
            !file.is_symlink()
        });
    }
}

fn encode_entries(objects: &mut Option<Vec<Object>>, prefixes: &mut Option<Vec<CommonPrefix>>) {
    encode(objects.iter_mut().flatten().map(|object| &mut object.key));
    encode(prefixes.iter_mut().flatten().map(|it| &mut it.prefix));
}

/// Percent-encodes texts, as clients ask because XML cannot hold every character.
fn encode<'a>(texts: impl IntoIterator<Item = &'a mut Option<String>>) {
    for text in texts.into_iter().flatten() {
        *text = utf8_percent_encode(text, IN_PATH).to_string();
    }
}
