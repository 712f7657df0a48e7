//! Uploads in parts.

use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use s3s::crypto::{Checksum, Md5};
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput,
    CompleteMultipartUploadOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput, ETag,
    ListPartsInput, ListPartsOutput, UploadPartInput, UploadPartOutput,
};
use s3s::{S3, S3Error, S3Request, S3Response, S3Result, s3_error};
use tokio::fs;
use uuid::Uuid;

use super::files::{Conditions, Staged, hex};
use super::{BUCKET, Store, address};

/// All parts but the last have at least this many bytes.
const MIN_PART_BYTES: u64 = 5 * 1024 * 1024;

impl Store {
    /// The file of an upload in parts that holds what its object will have.
    fn metadata_of(&self, upload: Uuid, key: &str) -> PathBuf {
        let [bucket, key] = [BUCKET, key].map(|name| BASE64_URL_SAFE_NO_PAD.encode(name));
        let name = format!(".bucket-{bucket}.object-{key}.upload-{upload}.metadata.json");
        self.root.join(name)
    }

    // `FileSystem` removes files with this prefix when an upload is aborted.
    fn part_file(&self, upload: Uuid, part: i32) -> PathBuf {
        self.root.join(format!(".upload_id-{upload}.part-{part}"))
    }

    fn etag_file(&self, upload: Uuid, part: i32) -> PathBuf {
        self.root.join(format!(".upload_id-{upload}.etag-{part}"))
    }

    /// The upload of this id and key, if it is under way.
    fn upload(&self, id: &str, key: &str) -> S3Result<Uuid> {
        Uuid::parse_str(id)
            .ok()
            .filter(|id| self.root.join(format!(".upload-{id}.json")).exists())
            .filter(|id| self.metadata_of(*id, key).exists())
            .ok_or_else(|| s3_error!(NoSuchUpload))
    }

    pub(super) async fn create_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.check_has_room(&request.input.key)?;
        self.files.create_multipart_upload(request).await
    }

    pub(super) async fn put_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let UploadPartInput {
            upload_id,
            key,
            part_number,
            ..
        } = &request.input;
        let upload = self.upload(upload_id, key)?;
        if !(1..=10_000).contains(part_number) {
            return Err(s3_error!(
                InvalidArgument,
                "Part number must be an integer between 1 and 10000, inclusive"
            ));
        }
        let file = self.etag_file(upload, *part_number);
        let response = self.files.upload_part(request).await?;
        let etag = response.output.e_tag.as_ref().map(ETag::value);
        if let Err(error) = fs::write(&file, etag.unwrap_or_default()).await {
            // Half of a tag, or that of the part before, must not pass for this part's.
            fs::remove_file(file).await.ok(); // best effort
            return Err(S3Error::internal_error(error));
        }
        Ok(response)
    }

    pub(super) async fn parts(
        &self,
        request: S3Request<ListPartsInput>,
    ) -> S3Result<S3Response<ListPartsOutput>> {
        const PAGE: i32 = 1000;
        let upload = self.upload(&request.input.upload_id, &request.input.key)?;
        let after = request.input.part_number_marker.unwrap_or(0);
        let max = request.input.max_parts.unwrap_or(PAGE).clamp(1, PAGE);
        let mut response = self.files.list_parts(request).await?;
        let mut parts = response.output.parts.take().unwrap_or_default();
        // A part without a tag was not acknowledged.
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
            let etag = fs::read_to_string(file).await;
            part.e_tag = Some(ETag::Strong(etag.map_err(S3Error::internal_error)?));
        }
        let last = parts.last().and_then(|part| part.part_number);
        response.output.next_part_number_marker = last;
        response.output.is_truncated = Some(is_truncated);
        response.output.parts = Some(parts);
        Ok(response)
    }

    pub(super) async fn complete(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input.clone();
        let upload = self.upload(&input.upload_id, &input.key)?;
        let staged = Staged::new(&self.root);
        let [object, metadata, internal] = staged.files();
        let etag = self.join_parts(&input, upload, &object).await?;
        fs::copy(self.metadata_of(upload, &input.key), metadata)
            .await
            .map_err(S3Error::internal_error)?;
        let info = serde_json::json!({ "e_tag": etag });
        fs::write(internal, info.to_string())
            .await
            .map_err(S3Error::internal_error)?;
        let conditions = Conditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
        };
        self.move_into_place(&staged, &input.key, &conditions)
            .await?;
        let location = address(&request.headers, &input.key);
        let abort = request.map_input(|input| AbortMultipartUploadInput {
            bucket: input.bucket,
            key: input.key,
            upload_id: input.upload_id,
            ..AbortMultipartUploadInput::default()
        });
        self.files.abort_multipart_upload(abort).await?;
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(ETag::Strong(etag)),
            location: Some(location),
            ..CompleteMultipartUploadOutput::default()
        }))
    }

    /// Writes the chosen parts to `object`, one after the other, and returns its entity tag: the MD5
    /// of the MD5s of its parts, and how many they are.
    async fn join_parts(
        &self,
        input: &CompleteMultipartUploadInput,
        upload: Uuid,
        object: &Path,
    ) -> S3Result<String> {
        let chosen = input.multipart_upload.as_ref();
        let chosen = chosen.and_then(|chosen| chosen.parts.as_deref());
        let chosen = chosen.unwrap_or_default();
        let mut files = Vec::new();
        let mut digest = Md5::new();
        let mut previous = 0;
        for (index, part) in chosen.iter().enumerate() {
            let number = part.part_number.unwrap_or_default();
            if number <= previous {
                return Err(s3_error!(InvalidPartOrder));
            }
            previous = number;
            let etag = fs::read_to_string(self.etag_file(upload, number)).await;
            let etag = etag
                .ok()
                .filter(|etag| Some(&**etag) == part.e_tag.as_ref().map(ETag::value));
            let md5 = etag.and_then(|etag| md5_of(&etag));
            digest.update(&md5.ok_or_else(|| s3_error!(InvalidPart))?);
            let file = self.part_file(upload, number);
            let size = fs::metadata(&file).await.map_err(S3Error::internal_error)?;
            if size.len() < MIN_PART_BYTES && index + 1 < chosen.len() {
                return Err(s3_error!(EntityTooSmall));
            }
            files.push(file);
        }
        if files.is_empty() {
            return Err(s3_error!(
                InvalidPart,
                "You must specify at least one part."
            ));
        }
        let join = async {
            let mut whole = fs::File::create(object).await?;
            for file in &files {
                tokio::io::copy(&mut fs::File::open(file).await?, &mut whole).await?;
            }
            whole.sync_data().await
        };
        join.await.map_err(S3Error::internal_error)?;
        Ok(format!("{}-{}", hex(&digest.finalize()), files.len()))
    }

    pub(super) async fn abort(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.upload(&request.input.upload_id, &request.input.key)?;
        self.files.abort_multipart_upload(request).await
    }
}

fn md5_of(etag: &str) -> Option<[u8; 16]> {
    let number = u128::from_str_radix(etag, 16).ok()?;
    (etag.len() == 32).then_some(number.to_be_bytes())
}
