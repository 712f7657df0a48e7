//! [`FileSystem`], with what it lacks to be a truthful stand-in for S3.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use axum::http::{Extensions, HeaderMap, HeaderValue, Method, Uri, header};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::crypto::{Checksum, Sha256};
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput,
    CompleteMultipartUploadOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput,
    DeleteObjectInput, DeleteObjectOutput, ETag, GetObjectInput, GetObjectOutput, HeadBucketInput,
    HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListObjectsV2Input, ListObjectsV2Output,
    ListPartsInput, ListPartsOutput, PutObjectInput, PutObjectOutput, UploadPartInput,
    UploadPartOutput,
};
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use uuid::Uuid;

/// Objects and parts as files.
///
/// What is mended here:
/// - Files that go with an object are named after its whole key, in base64, which is too long a name
///   from some 130 bytes on, where S3 takes 1,024. Longer keys get a [`short_key`].
/// - What goes with an object stays when it is removed, and so do the folders of its key.
/// - An upload that is refused for a wrong checksum, or for want of room for what goes with it, leaves its bytes
///   behind. They are removed.
/// - Answers to forms lack the headers `ETag` and `Location`. Uppy 5 never ends without the first.
/// - Parts are listed in any order, without their entity tags, on one page, and for uploads that
///   there never were. Tags are kept in files of their own, beside the parts.
/// - Uploads that are gone are called forbidden instead of gone, and are completed whatever the entity
///   tags of their parts. One whose completion fails is gone, too: it is kept.
pub(super) struct Store {
    root: PathBuf,
    files: FileSystem,
}

impl Store {
    pub(super) fn new(root: &Path, files: FileSystem) -> Self {
        Self {
            root: root.to_owned(),
            files,
        }
    }

    fn etag_file(&self, upload: Uuid, part: i32) -> PathBuf {
        // `FileSystem` takes files that begin like this away with the upload.
        self.root.join(format!(".upload_id-{upload}.etag-{part}"))
    }

    /// The id of an upload that is under way.
    fn upload(&self, id: &str) -> S3Result<Uuid> {
        Uuid::parse_str(id)
            .ok()
            .filter(|id| self.root.join(format!(".upload-{id}.json")).exists())
            .ok_or_else(|| s3_error!(NoSuchUpload))
    }

    async fn put(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let delete = delete_of(&request.input);
        let host = request
            .headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        let location = (request.method == Method::POST).then(|| {
            address(
                host.unwrap_or_default(),
                &request.input.bucket,
                &request.input.key,
            )
        });
        let object = self.root.join(&delete.input.bucket).join(&delete.input.key);
        let was_there = object.exists();
        let mut result = self.files.put_object(request).await;
        match (&mut result, location) {
            (Err(error), _)
                if *error.code() == S3ErrorCode::BadDigest || (!was_there && object.exists()) =>
            {
                self.delete(delete).await?;
            }
            (Ok(response), Some(location)) => {
                let etag = response.output.e_tag.as_ref().map(ETag::value);
                let etag = format!("\"{}\"", etag.unwrap_or_default());
                for (name, value) in [(header::ETAG, etag), (header::LOCATION, location)] {
                    let value = HeaderValue::from_str(&value).map_err(S3Error::internal_error)?;
                    response.headers.insert(name, value);
                }
            }
            _ => {}
        }
        result
    }

    async fn delete(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let DeleteObjectInput { bucket, key, .. } = request.input.clone();
        let response = self.files.delete_object(request).await?;
        let [of_bucket, of_key] = [&bucket, &key].map(|name| BASE64_URL_SAFE_NO_PAD.encode(name));
        for kind in ["metadata", "internal"] {
            let file = format!(".bucket-{of_bucket}.object-{of_key}.{kind}.json");
            let _not_all_have_it = tokio::fs::remove_file(self.root.join(file)).await;
        }
        let folders = Path::new(&key).ancestors().skip(1);
        for folder in folders.take_while(|folder| !folder.as_os_str().is_empty()) {
            let folder = self.root.join(&bucket).join(folder);
            if tokio::fs::remove_dir(folder).await.is_err() {
                break; // there is more in it
            }
        }
        Ok(response)
    }

    async fn put_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let upload = self.upload(&request.input.upload_id)?;
        let file = self.etag_file(upload, request.input.part_number);
        let response = self.files.upload_part(request).await?;
        let etag = response.output.e_tag.as_ref().map(ETag::value);
        if let Err(error) = tokio::fs::write(&file, etag.unwrap_or_default()).await {
            // With half of its tag, or that of the part that was there before, it could be taken for good.
            let _not_made = tokio::fs::remove_file(file).await;
            return Err(S3Error::internal_error(error));
        }
        Ok(response)
    }

    async fn parts(
        &self,
        request: S3Request<ListPartsInput>,
    ) -> S3Result<S3Response<ListPartsOutput>> {
        const PAGE: i32 = 1000;
        let upload = self.upload(&request.input.upload_id)?;
        let after = request.input.part_number_marker.unwrap_or(0);
        let max = request.input.max_parts.unwrap_or(PAGE).clamp(1, PAGE);
        let mut response = self.files.list_parts(request).await?;
        let mut parts = response.output.parts.take().unwrap_or_default();
        // One without a tag was not acknowledged.
        parts.retain(|part| {
            part.part_number > Some(after)
                && self
                    .etag_file(upload, part.part_number.unwrap_or_default())
                    .exists()
        });
        parts.sort_by_key(|part| part.part_number);
        let is_truncated = parts.len() > max.unsigned_abs() as usize;
        parts.truncate(max.unsigned_abs() as usize);
        for part in &mut parts {
            let file = self.etag_file(upload, part.part_number.unwrap_or_default());
            let etag = tokio::fs::read_to_string(file).await;
            part.e_tag = Some(ETag::Strong(etag.map_err(S3Error::internal_error)?));
        }
        let last = parts.last().and_then(|part| part.part_number);
        response.output.next_part_number_marker = last;
        response.output.is_truncated = Some(is_truncated);
        response.output.parts = Some(parts);
        Ok(response)
    }

    async fn complete(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let upload = self.upload(&request.input.upload_id)?;
        let chosen = request.input.multipart_upload.as_ref();
        let chosen = chosen.and_then(|upload| upload.parts.clone());
        let mut files = Vec::new();
        for part in chosen.unwrap_or_default() {
            let file = self.etag_file(upload, part.part_number.unwrap_or_default());
            let stored = tokio::fs::read_to_string(&file).await.ok();
            if stored.as_deref() != part.e_tag.as_ref().map(ETag::value) {
                return Err(s3_error!(InvalidPart));
            }
            files.push(file);
        }
        let kept = self.keep(&request.input, upload).await?;
        let result = self.files.complete_multipart_upload(request).await;
        for (file, copy) in kept {
            let put_back = match result {
                Ok(_) => tokio::fs::remove_file(copy).await,
                Err(_) => tokio::fs::rename(copy, file).await,
            };
            put_back.map_err(S3Error::internal_error)?;
        }
        let response = result?;
        for file in files {
            tokio::fs::remove_file(file)
                .await
                .map_err(S3Error::internal_error)?;
        }
        Ok(response)
    }

    /// Links to what makes an upload one, beside its parts: they take no room, which there may be none of.
    async fn keep(
        &self,
        input: &CompleteMultipartUploadInput,
        upload: Uuid,
    ) -> S3Result<Vec<(PathBuf, PathBuf)>> {
        let [bucket, key] =
            [&input.bucket, &input.key].map(|name| BASE64_URL_SAFE_NO_PAD.encode(name));
        let mut kept = Vec::new();
        for name in [
            format!(".upload-{upload}.json"),
            format!(".bucket-{bucket}.object-{key}.upload-{upload}.metadata.json"),
        ] {
            let (file, copy) = (
                self.root.join(&name),
                self.root.join(format!(".kept{name}")),
            );
            tokio::fs::hard_link(&file, &copy)
                .await
                .map_err(S3Error::internal_error)?;
            kept.push((file, copy));
        }
        Ok(kept)
    }

    async fn abort(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.upload(&request.input.upload_id)?;
        self.files.abort_multipart_upload(request).await
    }
}

/// Implements the operations that we need. Those of an object have its key shortened.
macro_rules! operations {
    (
        mended { $($mended:ident by $ours:ident: $MendedInput:ty => $MendedOutput:ty;)* }
        of_objects { $($of_object:ident: $ObjectInput:ty => $ObjectOutput:ty;)* }
        of_buckets { $($of_bucket:ident: $BucketInput:ty => $BucketOutput:ty;)* }
    ) => {
        #[async_trait::async_trait]
        impl S3 for Store {
            $(async fn $mended(&self, mut request: S3Request<$MendedInput>) -> S3Result<S3Response<$MendedOutput>> {
                request.input.key = short_key(request.input.key);
                self.$ours(request).await
            })*

            $(async fn $of_object(&self, mut request: S3Request<$ObjectInput>) -> S3Result<S3Response<$ObjectOutput>> {
                request.input.key = short_key(request.input.key);
                self.files.$of_object(request).await
            })*

            $(async fn $of_bucket(&self, request: S3Request<$BucketInput>) -> S3Result<S3Response<$BucketOutput>> {
                self.files.$of_bucket(request).await
            })*
        }
    };
}

operations! {
    mended {
        put_object by put: PutObjectInput => PutObjectOutput;
        delete_object by delete: DeleteObjectInput => DeleteObjectOutput;
        upload_part by put_part: UploadPartInput => UploadPartOutput;
        list_parts by parts: ListPartsInput => ListPartsOutput;
        complete_multipart_upload by complete: CompleteMultipartUploadInput => CompleteMultipartUploadOutput;
        abort_multipart_upload by abort: AbortMultipartUploadInput => AbortMultipartUploadOutput;
    }
    of_objects {
        get_object: GetObjectInput => GetObjectOutput;
        head_object: HeadObjectInput => HeadObjectOutput;
        create_multipart_upload: CreateMultipartUploadInput => CreateMultipartUploadOutput;
    }
    of_buckets {
        head_bucket: HeadBucketInput => HeadBucketOutput;
        list_objects_v2: ListObjectsV2Input => ListObjectsV2Output;
    }
}

fn address(host: &str, bucket: &str, key: &str) -> String {
    let encode = |segment| utf8_percent_encode(segment, NON_ALPHANUMERIC).to_string();
    let segments: Vec<String> = key.split('/').map(encode).collect();
    format!("http://{host}/{bucket}/{}", segments.join("/"))
}

fn delete_of(put: &PutObjectInput) -> S3Request<DeleteObjectInput> {
    S3Request {
        input: DeleteObjectInput {
            bucket: put.bucket.clone(),
            key: put.key.clone(),
            ..DeleteObjectInput::default()
        },
        method: Method::DELETE,
        uri: Uri::default(),
        headers: HeaderMap::default(),
        extensions: Extensions::default(),
        credentials: None,
        region: None,
        service: None,
        trailing_headers: None,
    }
}

/// The key itself if [`FileSystem`] can hold it; otherwise its beginning, a digest of all of it, and
/// its end.
fn short_key(key: String) -> String {
    const LONGEST: usize = 128;
    if key.len() <= LONGEST {
        return key;
    }
    let mut digest = Sha256::new();
    digest.update(key.as_bytes());
    let digest = digest.finalize();
    let mut short = key[..key.floor_char_boundary(80)].to_owned();
    short.push('~');
    for byte in &digest[..12] {
        let _infallible = write!(short, "{byte:02x}");
    }
    short.push_str(&key[key.ceil_char_boundary(key.len() - 16)..]);
    short
}
