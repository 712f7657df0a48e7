//! The S3 operations that an upload needs, on a folder: [`FileSystem`] and what it lacks to behave
//! as S3 does. Signatures and HTTP are checked before a request arrives here.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, Method, header};
use percent_encoding::utf8_percent_encode;
use s3s::dto::{
    Bucket, ChecksumMode, DeleteObjectInput, DeleteObjectOutput, ETag, ETagCondition,
    GetObjectInput, GetObjectOutput, HeadBucketInput, HeadBucketOutput, HeadObjectInput,
    HeadObjectOutput, ListBucketsInput, ListBucketsOutput, PutObjectInput, PutObjectOutput, Range,
};
use s3s::{S3, S3Error, S3Request, S3Response, S3Result, dto, s3_error};
use s3s_fs::FileSystem;

mod files;
mod lifecycle;
mod lists;
mod multipart;
mod tags;

use self::files::{
    Conditions, RequestedKey, Staged, files_of, remove_if_there, requested_key, short_key,
    windows_refuses,
};
use self::multipart::Completed;
use crate::s3::IN_PATH;

/// The answer to an operation.
type Answer<Output> = S3Result<S3Response<Output>>;

/// S3's content type for objects that are uploaded without one.
const DEFAULT_TYPE: &str = "binary/octet-stream";

/// All buckets, by their names.
pub(super) struct Store(BTreeMap<String, BucketStore>);

/// The objects and parts of one bucket, as files.
///
/// What [`FileSystem`] gets wrong, and what happens here instead:
/// - It replaces an object before it has checked the new one. Here an object is written under
///   another name, checked, and moved into its place.
/// - Its files beside an object are named after the whole key, in base64, which is too long for a
///   file system from some 130 bytes on, where S3 accepts 1,024. Longer keys get a [`short_key`].
/// - It keeps those files, and the folders of the key, when the object is deleted.
/// - Its answers to forms lack the headers `ETag` and `Location`. Uppy 5 waits for the first.
/// - It checks no digests of parts, and replaces a part before it has arrived.
/// - It lists parts in any order, without entity tags, on one page, and for unknown uploads. Here
///   the tags are kept in files beside the parts.
/// - It answers 403 for uploads that do not exist, ignores the tags of parts when it completes an
///   upload, insists on the part numbers 1 to n, and loses an upload that it cannot complete.
/// - It follows keys and symbolic links out of the bucket.
/// - It drops tags, and knows no lifecycle rules. It refuses most storage classes.
/// - It fails if a range of the last bytes is longer than the object.
/// - Its lists lack entity tags, and their keys are not in the encoding that they name.
/// - It computes no checksum that a client did not send, and gives no object a content type.
///
/// Small files are read, written and moved at once, which takes microseconds; tokio would have
/// another thread do each of these. Whole objects and parts go through such threads.
pub(super) struct BucketStore {
    root: PathBuf,
    name: String,
    files: Arc<FileSystem>,
    /// Locked while an object or a part is moved into its place or removed, so that one of two
    /// uploads with `If-None-Match` is refused.
    replacing: tokio::sync::Mutex<()>,
    completed: Completed,
}

impl Store {
    pub(super) fn new(root: &Path, files: FileSystem, buckets: &[String]) -> io::Result<Self> {
        // A crash leaves staged files behind.
        for entry in fs::read_dir(root)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(Staged::PREFIX) || name.starts_with(".bucket-.object-") {
                fs::remove_file(entry.path())?;
            }
        }
        let files = Arc::new(files);
        let buckets = buckets.iter().map(|name| {
            let bucket = BucketStore {
                root: root.to_owned(),
                name: name.clone(),
                files: Arc::clone(&files),
                replacing: tokio::sync::Mutex::default(),
                completed: Completed::default(),
            };
            (name.clone(), bucket)
        });
        Ok(Self(buckets.collect()))
    }

    fn bucket(&self, name: &str) -> S3Result<&BucketStore> {
        self.0.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.0.keys().map(String::as_str).collect();
            s3_error!(
                NoSuchBucket,
                "This store has the bucket {} and no other.",
                names.join(", ")
            )
        })
    }

    fn buckets(&self) -> Answer<ListBucketsOutput> {
        let mut buckets = Vec::new();
        for (name, bucket) in &self.0 {
            let folder = fs::metadata(bucket.folder());
            let date = folder.and_then(|folder| folder.modified());
            buckets.push(Bucket {
                name: Some(name.clone()),
                creation_date: Some(date.map_err(S3Error::internal_error)?.into()),
                ..Bucket::default()
            });
        }
        Ok(S3Response::new(ListBucketsOutput {
            buckets: Some(buckets),
            ..ListBucketsOutput::default()
        }))
    }
}

impl BucketStore {
    fn folder(&self) -> PathBuf {
        self.root.join(&self.name)
    }

    /// The key under which [`FileSystem`] keeps the object of this key.
    ///
    /// # Errors
    ///
    /// If the key, or a symbolic link on its way, could lead out of the bucket.
    fn key(&self, key: String) -> S3Result<String> {
        if key.contains('\0') || key.split('/').any(|name| matches!(name, "" | "." | "..")) {
            return Err(s3_error!(
                InvalidArgument,
                "The key has an empty, `.` or `..` segment or a NUL; this store keeps objects as files and can keep no such key."
            ));
        }
        if cfg!(windows) && key.split('/').any(windows_refuses) {
            return Err(s3_error!(
                InvalidArgument,
                "Windows refuses a file of this name, so this store cannot keep it here. Other stores can."
            ));
        }
        let key = short_key(key);
        let mut path = self.folder();
        for name in key.split('/') {
            path.push(name);
            if path.is_symlink() {
                return Err(s3_error!(
                    AccessDenied,
                    "There is a symbolic link in the place of this key; this store follows none."
                ));
            }
        }
        Ok(key)
    }

    async fn get(&self, mut request: S3Request<GetObjectInput>) -> Answer<GetObjectOutput> {
        let key = request.input.key.clone();
        let if_match = request.input.if_match.clone();
        self.check_is_object(&key)?;
        if let Some(Range::Suffix { length }) = &mut request.input.range {
            let object = fs::metadata(self.folder().join(&key)).map_err(S3Error::internal_error)?;
            *length = object.len().min(*length);
        }
        let mut response = self.files.get_object(request).await?;
        if let Some(ETagCondition::ETag(expected)) = if_match
            && response.output.e_tag != Some(expected)
        {
            return Err(s3_error!(
                PreconditionFailed,
                "At least one of the pre-conditions you specified did not hold: the object is another one than `If-Match` names."
            ));
        }
        self.count_tags(&key, &mut response.headers)?;
        Ok(response)
    }

    async fn head(&self, request: S3Request<HeadObjectInput>) -> Answer<HeadObjectOutput> {
        let key = request.input.key.clone();
        self.check_is_object(&key)?;
        let mode = request.input.checksum_mode.as_ref();
        let wants_checksums = mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED);
        let mut response = self.files.head_object(request).await?;
        if !wants_checksums {
            let head = &mut response.output;
            head.checksum_crc32 = None;
            head.checksum_crc32c = None;
            head.checksum_crc64nvme = None;
            head.checksum_sha1 = None;
            head.checksum_sha256 = None;
        }
        self.count_tags(&key, &mut response.headers)?;
        Ok(response)
    }

    fn check_is_object(&self, key: &str) -> S3Result<()> {
        let is_object = self.folder().join(key).is_file();
        is_object.then_some(()).ok_or_else(|| s3_error!(NoSuchKey))
    }

    async fn put(&self, mut request: S3Request<PutObjectInput>) -> Answer<PutObjectOutput> {
        let staged = Staged::new(&self.root);
        let key = std::mem::replace(&mut request.input.key, staged.name.clone());
        request.input.bucket.clear();
        request.input.storage_class = None;
        let content_type = &mut request.input.content_type;
        content_type.get_or_insert_with(|| DEFAULT_TYPE.into());
        let conditions = Conditions {
            if_match: request.input.if_match.take(),
            if_none_match: request.input.if_none_match.take(),
        };
        self.check_has_room(&key)?;
        let is_form = request.method == Method::POST;
        let location = is_form.then(|| self.address(&request.headers, &requested_key(&request)));
        // All fields of a form have arrived before its file.
        let tags = tags::from_upload(&request)?;
        let mut response = self.files.put_object(request).await?;
        let sent = &response.output;
        let checksums = [
            &sent.checksum_crc32,
            &sent.checksum_crc32c,
            &sent.checksum_crc64nvme,
            &sent.checksum_sha1,
            &sent.checksum_sha256,
        ];
        if checksums.into_iter().all(Option::is_none) {
            staged.add_crc64nvme().await?;
        }
        let [_, headers, _] = staged.files();
        tags::write(&headers, tags, &headers)?;
        self.move_into_place(&staged, &key, &conditions).await?;
        if let Some(location) = location {
            let etag = response.output.e_tag.as_ref().map(ETag::value);
            let etag = format!("\"{}\"", etag.unwrap_or_default());
            for (name, value) in [(header::ETAG, etag), (header::LOCATION, location)] {
                let value = HeaderValue::from_str(&value).map_err(S3Error::internal_error)?;
                response.headers.insert(name, value);
            }
        }
        Ok(response)
    }

    async fn delete(&self, request: S3Request<DeleteObjectInput>) -> Answer<DeleteObjectOutput> {
        let key = request.input.key;
        // Without the lock, the folder of an object that is moved into it could be removed.
        let _one_at_a_time = self.replacing.lock().await;
        if self.folder().join(&key).is_file() {
            for file in files_of(&self.root, &self.name, &key) {
                remove_if_there(&file).map_err(S3Error::internal_error)?;
            }
            let folders = Path::new(&key).ancestors().skip(1);
            for folder in folders.take_while(|folder| !folder.as_os_str().is_empty()) {
                if fs::remove_dir(self.folder().join(folder)).is_err() {
                    break; // It holds other objects.
                }
            }
        }
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    /// Moves a staged object to the place of its key, if the conditions hold.
    async fn move_into_place(
        &self,
        staged: &Staged,
        key: &str,
        conditions: &Conditions,
    ) -> S3Result<()> {
        let _one_at_a_time = self.replacing.lock().await;
        let places = files_of(&self.root, &self.name, key);
        let [object, _, internal] = &places;
        conditions.check(object, internal)?;
        self.check_has_room(key)?;
        let folder = object.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).map_err(S3Error::internal_error)?;
        // The bytes are moved last, so that nobody who reads in between finds new bytes with old
        // tags.
        for (from, to) in staged.files().iter().zip(&places).rev() {
            fs::rename(from, to).map_err(S3Error::internal_error)?;
        }
        Ok(())
    }

    /// Refuses keys that cannot be files beside the existing objects: a folder holds either `a` or
    /// `a/b`.
    fn check_has_room(&self, key: &str) -> S3Result<()> {
        let bucket = self.folder();
        if !bucket.is_dir() {
            return Err(s3_error!(NoSuchBucket));
        }
        let mut above = Path::new(key).ancestors().skip(1);
        if bucket.join(key).is_dir() || above.any(|above| bucket.join(above).is_file()) {
            return Err(s3_error!(
                InvalidRequest,
                "This store keeps objects as files, and so cannot keep an object under this key: an object `a` and an object `a/b` exclude each other."
            ));
        }
        Ok(())
    }

    fn address(&self, headers: &HeaderMap, key: &str) -> String {
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        format!(
            "http://{}/{}/{}",
            host.unwrap_or_default(),
            self.name,
            utf8_percent_encode(key, IN_PATH)
        )
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> Answer<HeadBucketOutput> {
        self.files.head_bucket(request).await
    }
}

/// Implements [`S3`]: each operation checks the bucket and, where there is one, the key, and then
/// calls the function of [`BucketStore`].
macro_rules! operations {
    (
        of_objects { $($of_object:ident by $ours:ident: $ObjectInput:ident => $ObjectOutput:ident;)* }
        of_buckets { $($of_bucket:ident by $our:ident: $BucketInput:ident => $BucketOutput:ident;)* }
    ) => {
        #[async_trait::async_trait]
        impl S3 for Store {
            async fn list_buckets(&self, _: S3Request<ListBucketsInput>) -> Answer<ListBucketsOutput> {
                self.buckets()
            }

            $(async fn $of_object(&self, mut request: S3Request<dto::$ObjectInput>) -> Answer<dto::$ObjectOutput> {
                let bucket = self.bucket(&request.input.bucket)?;
                request.extensions.insert(RequestedKey(request.input.key.clone()));
                request.input.key = bucket.key(request.input.key)?;
                bucket.$ours(request).await
            })*

            $(async fn $of_bucket(&self, request: S3Request<dto::$BucketInput>) -> Answer<dto::$BucketOutput> {
                self.bucket(&request.input.bucket)?.$our(request).await
            })*
        }
    };
}

operations! {
    of_objects {
        get_object by get: GetObjectInput => GetObjectOutput;
        head_object by head: HeadObjectInput => HeadObjectOutput;
        put_object by put: PutObjectInput => PutObjectOutput;
        delete_object by delete: DeleteObjectInput => DeleteObjectOutput;
        get_object_tagging by get_tags: GetObjectTaggingInput => GetObjectTaggingOutput;
        put_object_tagging by put_tags: PutObjectTaggingInput => PutObjectTaggingOutput;
        delete_object_tagging by delete_tags: DeleteObjectTaggingInput => DeleteObjectTaggingOutput;
        create_multipart_upload by create_upload: CreateMultipartUploadInput => CreateMultipartUploadOutput;
        upload_part by put_part: UploadPartInput => UploadPartOutput;
        list_parts by parts: ListPartsInput => ListPartsOutput;
        complete_multipart_upload by complete: CompleteMultipartUploadInput => CompleteMultipartUploadOutput;
        abort_multipart_upload by abort: AbortMultipartUploadInput => AbortMultipartUploadOutput;
    }
    of_buckets {
        head_bucket by head_bucket: HeadBucketInput => HeadBucketOutput;
        list_objects by list_v1: ListObjectsInput => ListObjectsOutput;
        list_objects_v2 by list: ListObjectsV2Input => ListObjectsV2Output;
        get_bucket_lifecycle_configuration by get_rules: GetBucketLifecycleConfigurationInput => GetBucketLifecycleConfigurationOutput;
        put_bucket_lifecycle_configuration by put_rules: PutBucketLifecycleConfigurationInput => PutBucketLifecycleConfigurationOutput;
        delete_bucket_lifecycle by delete_rules: DeleteBucketLifecycleInput => DeleteBucketLifecycleOutput;
    }
}
