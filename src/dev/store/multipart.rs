//! Uploads in parts.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use s3s::crypto::{Checksum, Md5};
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput,
    CompleteMultipartUploadOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput, ETag,
    ListPartsInput, ListPartsOutput, PutObjectInput, UploadPartInput, UploadPartOutput,
};
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use uuid::Uuid;

use super::files::{
    CRC64NVME, Conditions, Staged, blocking, crc64nvme, remove_if_there, requested_key,
};
use super::tags;
use super::{Answer, BucketStore, DEFAULT_TYPE};

/// All parts but the last have at least this many bytes.
const MIN_PART_BYTES: u64 = 5 * 1024 * 1024;

/// The entity tags of the last completed uploads. A client that has lost the answer completes an
/// upload again, and S3 then repeats the answer.
#[derive(Default)]
pub(super) struct Completed(Mutex<VecDeque<(String, String, String)>>);

impl Completed {
    const MAX: usize = 1000;

    fn remember(&self, upload: &str, key: &str, etag: &str) {
        let mut completed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        completed.truncate(Self::MAX - 1);
        completed.push_front((upload.to_owned(), key.to_owned(), etag.to_owned()));
    }

    fn etag(&self, upload: &str, key: &str) -> Option<String> {
        let completed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut completed = completed.iter();
        let (_, _, etag) = completed.find(|(id, of, _)| id == upload && of == key)?;
        Some(etag.clone())
    }
}

impl BucketStore {
    /// The file with the properties that the object of an upload in parts will have.
    fn metadata_of(&self, upload: Uuid, key: &str) -> PathBuf {
        let [bucket, key] = [&self.name, key].map(|name| BASE64_URL_SAFE_NO_PAD.encode(name));
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

    /// The upload of this id and key, if it is in progress.
    fn upload(&self, id: &str, key: &str) -> S3Result<Uuid> {
        Uuid::parse_str(id)
            .ok()
            .filter(|id| self.root.join(format!(".upload-{id}.json")).exists())
            .filter(|id| self.metadata_of(*id, key).exists())
            .ok_or_else(|| s3_error!(NoSuchUpload))
    }

    pub(super) async fn create_upload(
        &self,
        mut request: S3Request<CreateMultipartUploadInput>,
    ) -> Answer<CreateMultipartUploadOutput> {
        let key = request.input.key.clone();
        self.check_has_room(&key)?;
        let content_type = &mut request.input.content_type;
        content_type.get_or_insert_with(|| DEFAULT_TYPE.into());
        let tags = tags::from_header(request.input.tagging.as_deref())?;
        let requested_key = requested_key(&request);
        let mut response = self.files.create_multipart_upload(request).await?;
        let id = response.output.upload_id.as_deref().unwrap_or_default();
        let headers = self.metadata_of(self.upload(id, &key)?, &key);
        tags::write(&headers, tags, &headers)?;
        response.output.key = Some(requested_key);
        Ok(response)
    }

    pub(super) async fn put_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> Answer<UploadPartOutput> {
        let (upload_id, key) = (request.input.upload_id.clone(), request.input.key.clone());
        let part_number = request.input.part_number;
        self.upload(&upload_id, &key)?;
        if !(1..=10_000).contains(&part_number) {
            return Err(s3_error!(
                InvalidArgument,
                "Part number must be an integer between 1 and 10000, inclusive"
            ));
        }
        // The part is staged like an object, so that it replaces an earlier one only after its
        // digests are checked.
        let staged = Staged::new(&self.root);
        let name = staged.name.clone();
        let put = request.map_input(|part| PutObjectInput {
            body: part.body,
            key: name,
            checksum_algorithm: part.checksum_algorithm,
            checksum_crc32: part.checksum_crc32,
            checksum_crc32c: part.checksum_crc32c,
            checksum_crc64nvme: part.checksum_crc64nvme,
            checksum_sha1: part.checksum_sha1,
            checksum_sha256: part.checksum_sha256,
            content_length: part.content_length,
            content_md5: part.content_md5,
            ..PutObjectInput::default()
        });
        let part = self.files.put_object(put).await?.output;
        let etag = part.e_tag.as_ref().map(ETag::value).unwrap_or_default();
        let [file, ..] = staged.files();
        // Without the lock, the file and the tag could be those of two attempts that overlap.
        let _one_at_a_time = self.replacing.lock().await;
        let upload = self.upload(&upload_id, &key)?;
        let tag_file = self.etag_file(upload, part_number);
        let replace = || {
            remove_if_there(&tag_file)?;
            fs::rename(file, self.part_file(upload, part_number))?;
            fs::write(&tag_file, etag)
        };
        if let Err(error) = replace() {
            // A tag that was not completely written must not count as the tag of this part.
            remove_if_there(&tag_file).ok(); // best effort
            return Err(S3Error::internal_error(error));
        }
        Ok(S3Response::new(UploadPartOutput {
            e_tag: part.e_tag,
            ..UploadPartOutput::default()
        }))
    }

    pub(super) async fn parts(
        &self,
        request: S3Request<ListPartsInput>,
    ) -> Answer<ListPartsOutput> {
        const PAGE: i32 = 1000;
        let upload = self.upload(&request.input.upload_id, &request.input.key)?;
        let after = request.input.part_number_marker.unwrap_or(0);
        let max = request.input.max_parts.unwrap_or(PAGE).clamp(1, PAGE);
        let key = requested_key(&request);
        let mut response = self.files.list_parts(request).await?;
        response.output.key = Some(key);
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
            let etag = fs::read_to_string(file);
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
    ) -> Answer<CompleteMultipartUploadOutput> {
        let input = request.input.clone();
        let key = requested_key(&request);
        let location = self.address(&request.headers, &key);
        let answer = |input: CompleteMultipartUploadInput, etag| {
            Ok(S3Response::new(CompleteMultipartUploadOutput {
                bucket: Some(input.bucket),
                key: Some(key),
                e_tag: Some(ETag::Strong(etag)),
                location: Some(location),
                ..CompleteMultipartUploadOutput::default()
            }))
        };
        if let Some(etag) = self.completed.etag(&input.upload_id, &input.key) {
            return answer(input, etag);
        }
        let upload = self.upload(&input.upload_id, &input.key)?;
        let staged = Staged::new(&self.root);
        let [object, metadata, internal] = staged.files();
        let (etag, checksum) = {
            let _one_at_a_time = self.replacing.lock().await;
            self.join_parts(&input, upload, object).await?
        };
        fs::copy(self.metadata_of(upload, &input.key), metadata)
            .map_err(S3Error::internal_error)?;
        let info = serde_json::json!({ "e_tag": etag, CRC64NVME: checksum });
        fs::write(internal, info.to_string()).map_err(S3Error::internal_error)?;
        let conditions = Conditions {
            if_match: input.if_match.clone(),
            if_none_match: input.if_none_match.clone(),
        };
        self.move_into_place(&staged, &input.key, &conditions)
            .await?;
        self.completed.remember(&input.upload_id, &input.key, &etag);
        let abort = request.map_input(|input| AbortMultipartUploadInput {
            bucket: input.bucket,
            key: input.key,
            upload_id: input.upload_id,
            ..AbortMultipartUploadInput::default()
        });
        // If the same upload was completed twice at once, the other one may have removed the parts.
        match self.abort(abort).await {
            Err(error) if *error.code() != S3ErrorCode::NoSuchUpload => Err(error),
            _ => answer(input, etag),
        }
    }

    /// Writes the chosen parts to `object`, one after the other. Returns its entity tag, which is the
    /// MD5 of the MD5s of its parts and their number, and its CRC64NVME.
    async fn join_parts(
        &self,
        input: &CompleteMultipartUploadInput,
        upload: Uuid,
        object: PathBuf,
    ) -> S3Result<(String, String)> {
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
            let etag = fs::read_to_string(self.etag_file(upload, number));
            let etag = etag
                .ok()
                .filter(|etag| Some(&**etag) == part.e_tag.as_ref().map(ETag::value));
            let md5 = etag.and_then(|etag| md5_of(&etag));
            digest.update(&md5.ok_or_else(|| s3_error!(InvalidPart))?);
            let file = self.part_file(upload, number);
            let size = fs::metadata(&file).map_err(S3Error::internal_error)?;
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
        let count = files.len();
        let checksum = blocking(move || {
            let whole = File::create(object)?;
            let checksum = crc64nvme(&files, &whole)?;
            whole.sync_data()?;
            Ok(checksum)
        });
        let checksum = checksum.await?;
        let digest = base16ct::lower::encode_string(&digest.finalize());
        Ok((format!("{digest}-{count}"), checksum))
    }

    pub(super) async fn abort(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> Answer<AbortMultipartUploadOutput> {
        // A part that arrives meanwhile is either removed with the others or refused.
        let _one_at_a_time = self.replacing.lock().await;
        self.upload(&request.input.upload_id, &request.input.key)?;
        self.files.abort_multipart_upload(request).await
    }
}

fn md5_of(etag: &str) -> Option<[u8; 16]> {
    let number = u128::from_str_radix(etag, 16).ok()?;
    (etag.len() == 32).then_some(number.to_be_bytes())
}
