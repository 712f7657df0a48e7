//! Bodies and answers of `/s3/multipart…`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use validator::Validate;

use super::{PARTS_BYTES, part_number};
use crate::http::body::Dto;
use crate::http::clients::{CHECKSUMS, CONTENT_TYPE, PARTS_PER_REQUEST, has_no_effect, parts_of};
use crate::http::json::{Fields, Json as JsonText};
use crate::http::memory::Work;
use crate::http::openapi::{FilenameText, MediaTypeOrNothing};
use crate::http::problem::FieldErrors;
use crate::http::verify::VerifiedDto;
use crate::s3::{MAX_PARTS, MAX_PUT_BYTES, MIN_PART_BYTES};
use crate::upload::Invalid;

/// The file to upload in parts.
#[derive(Debug, Default, Serialize, Validate, ToSchema)]
#[schema(as = CreateMultipartUpload)]
pub(super) struct CreateDto {
    /// The name of the file.
    #[validate(required(message = "is required"))]
    #[schema(value_type = FilenameText, required = true)]
    pub(super) filename: Option<String>,
    /// Its media type; `application/octet-stream` if it is absent or empty.
    #[serde(rename = "type")]
    #[schema(value_type = Option<MediaTypeOrNothing>, required = false)]
    pub(super) content_type: Option<String>,
    /// Names and values that the store keeps with the object, as far as the policy lets clients set
    /// them. Others are ignored.
    #[schema(value_type = Option<BTreeMap<String, Value>>, required = false, example = json!({"album": "7"}))]
    pub(super) metadata: Option<BTreeMap<String, Value>>,
    /// The name of the policy; `default` if it is absent.
    #[schema(required = false, example = "default")]
    pub(super) policy: Option<String>,
    /// The length of the file in bytes, if the client knows it: a file that is too large is then refused now
    /// instead of at completion, and the upload is only completed with parts of this length together.
    #[schema(value_type = Option<u64>, required = false, maximum = 53_687_091_200_000_u64, example = 104_857_600)]
    pub(super) size: Option<u64>,
    /// The length of each part but the last one, 5 MiB to 5 GiB. If it is given, `size` is required, and the answer
    /// has the URLs of the first 20 parts, so that the client need not ask for each.
    #[serde(rename = "partSize")]
    #[schema(value_type = Option<u64>, required = false, minimum = 5_242_880, maximum = 5_368_709_120_u64, example = 16_777_216)]
    pub(super) part_size: Option<u64>,
}

impl CreateDto {
    /// The parts whose URLs the answer has, and their sizes.
    pub(super) fn first_parts(&self) -> BTreeMap<u16, Option<u64>> {
        match (self.size, self.part_size) {
            (Some(size), Some(part_size)) => {
                parts_of(size, part_size).take(PARTS_PER_REQUEST).collect()
            }
            _ => BTreeMap::new(),
        }
    }
}

impl Dto for CreateDto {
    type Value = Self;

    // Fields of Uppy's users are ignored, as Companion ignores them.
    fn read(fields: &mut Fields<'_, '_, '_>) -> Self {
        fields.refuse(&CHECKSUMS, has_no_effect);
        fields.refuse(&[CONTENT_TYPE], has_no_effect);
        Self {
            filename: fields.field("filename", JsonText::text),
            content_type: fields.optional("type", JsonText::text),
            metadata: fields.map("metadata", JsonText::value),
            policy: fields.optional("policy", JsonText::text),
            size: fields.optional("size", JsonText::whole_number),
            part_size: fields.optional("partSize", JsonText::whole_number),
        }
    }

    fn into_value(self, errors: &mut FieldErrors) -> Option<Self> {
        if let Some(part_size) = self.part_size {
            if self.size.is_none() {
                let detail = "is required beside `partSize`";
                errors.push("/size".into(), Invalid::new("size-required", detail));
            }
            let size = self.size.unwrap_or_default();
            let invalid = if !(MIN_PART_BYTES..=MAX_PUT_BYTES).contains(&part_size) {
                Some(("out-of-range", "must be from 5 MiB to 5 GiB"))
            } else if size.div_ceil(part_size) > MAX_PARTS.into() {
                let detail = "must be larger: the file would have more than 10,000 parts";
                Some(("too-many-parts", detail))
            } else {
                None
            };
            if let Some((code, detail)) = invalid {
                errors.push("/partSize".into(), Invalid::new(code, detail));
            }
        }
        Some(self)
    }
}

/// A multipart upload.
#[derive(Serialize, ToSchema)]
#[schema(as = MultipartUpload)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreatedDto {
    /// The name of the object in the bucket.
    #[schema(example = "uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/example.mp4")]
    pub(super) key: String,
    /// All further calls need this id and the key. It is valid for 7 days.
    #[schema(example = "eyJhbGciOiJIUzI1NiJ9.eyJ1cGxvYWRfaWQiOiJ4In0.c2lnbmF0dXJl")]
    pub(super) upload_id: String,
    #[schema(example = "my-bucket")]
    pub(super) bucket: String,
    /// If the request has `partSize`: a URL for each of the first 20 part numbers, with which the store accepts only a
    /// part of that length. It is absent if they could not be signed; then each can be asked for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, String>, required = false, example = json!({"1": "https://my-bucket.s3.ap-northeast-2.amazonaws.com/uploads/x?partNumber=1"}))]
    pub(super) presigned_urls: BTreeMap<u16, String>,
}

/// A part that the store has.
#[derive(Serialize, ToSchema)]
#[schema(as = UploadedPart)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PartDto {
    #[schema(example = 1)]
    pub(super) part_number: u16,
    #[serde(rename = "ETag")]
    #[schema(example = "\"d41d8cd98f00b204e9800998ecf8427e\"")]
    pub(super) e_tag: String,
    /// In bytes.
    #[schema(example = 5_242_880)]
    pub(super) size: u64,
}

/// A presigned PUT for one part.
#[derive(Serialize, ToSchema)]
#[schema(as = PartUrl)]
pub(super) struct PartUrlDto {
    #[schema(
        format = "uri",
        example = "https://my-bucket.s3.ap-northeast-2.amazonaws.com/uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/example.mp4?partNumber=1&uploadId=x&X-Amz-Expires=600"
    )]
    pub(super) url: String,
    /// Seconds until the URL expires.
    #[schema(example = 600)]
    pub(super) expires: u64,
}

/// Presigned PUTs for several parts.
#[derive(Serialize, ToSchema)]
#[schema(as = PartUrls)]
#[serde(rename_all = "camelCase")]
pub(super) struct PartUrlsDto {
    /// A URL for each part number.
    #[schema(value_type = BTreeMap<String, String>, example = json!({"1": "https://my-bucket.s3.ap-northeast-2.amazonaws.com/uploads/x?partNumber=1"}))]
    pub(super) presigned_urls: BTreeMap<u16, String>,
}

/// The parts of the object.
#[derive(Debug, Default, Serialize, Validate, ToSchema)]
#[schema(as = CompleteMultipartUpload)]
pub(in crate::http::clients::uppy) struct CompleteDto {
    /// 1 to 10,000 parts.
    #[validate(
        required(message = "is required"),
        length(min = 1, max = 10_000, message = "must have 1 to 10,000 parts")
    )]
    #[schema(value_type = Vec<CompletedPartDto>, required = true, min_items = 1, max_items = 10_000)]
    pub(in crate::http::clients::uppy) parts: Option<Vec<CompletedPartDto>>,
    /// Whether the answer should have what `/upload/verify` would answer, so that this call can be saved.
    #[schema(value_type = bool, required = false, example = true)]
    pub(in crate::http::clients::uppy) verify: Option<bool>,
}

/// The parts of an object, and whether it should be verified.
pub(in crate::http::clients::uppy) struct Completion {
    /// Entity tags by the parts' numbers.
    pub(in crate::http::clients::uppy) parts: BTreeMap<u16, String>,
    pub(in crate::http::clients::uppy) verify: bool,
}

/// A part as the store acknowledged it.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
#[schema(as = CompletedPart)]
pub(in crate::http::clients::uppy) struct CompletedPartDto {
    /// 1 to 10,000.
    #[schema(value_type = u16, required = true, minimum = 1, maximum = 10_000, example = 1)]
    pub(in crate::http::clients::uppy) part_number: Option<u64>,
    /// The `ETag` header of the store's answer to the PUT.
    #[serde(rename = "ETag")]
    #[schema(value_type = String, required = true, example = "\"d41d8cd98f00b204e9800998ecf8427e\"")]
    pub(in crate::http::clients::uppy) e_tag: Option<String>,
}

impl CompletedPartDto {
    fn read(fields: &mut Fields<'_, '_, '_>) -> Self {
        Self {
            part_number: fields.field("PartNumber", JsonText::whole_number),
            e_tag: fields.field("ETag", JsonText::text),
        }
    }
}

impl Dto for CompleteDto {
    type Value = Completion;

    /// Enough for 10,000 parts.
    const MAX_BYTES: usize = 2 * 1024 * 1024;

    /// Room for the parts that the store lists, up to 10,000, and for those that the body names, as they
    /// are read and as they are sent to the store.
    fn work(body_bytes: usize) -> Work {
        Work::AskStore(PARTS_BYTES + 4 * body_bytes)
    }

    fn read(fields: &mut Fields<'_, '_, '_>) -> Self {
        let parts = fields.list("parts", usize::from(MAX_PARTS), |reader, json| {
            reader.object(json.members(), CompletedPartDto::read)
        });
        Self {
            parts,
            verify: fields.optional("verify", JsonText::boolean),
        }
    }

    fn into_value(self, errors: &mut FieldErrors) -> Option<Self::Value> {
        let mut parts = BTreeMap::new();
        for (index, part) in self.parts?.into_iter().enumerate() {
            let pointer = |name| format!("/parts/{index}/{name}");
            // Checked here, because `validator` does not know the names in the JSON.
            let required = || Invalid::new("required", "is required");
            let etag = errors.check(|| pointer("ETag"), part.e_tag.ok_or_else(required));
            let number = part.part_number.ok_or_else(required).and_then(part_number);
            let number = number.and_then(|number| {
                if parts.contains_key(&number) {
                    let detail = "must not be given more than once";
                    return Err(Invalid::new("duplicate-part", detail));
                }
                Ok(number)
            });
            let number = errors.check(|| pointer("PartNumber"), number);
            if let (Some(number), Some(etag)) = (number, etag) {
                parts.insert(number, etag);
            }
        }
        Some(Completion {
            parts,
            verify: self.verify.unwrap_or_default(),
        })
    }
}

/// The object that was made of the parts.
#[derive(Serialize, ToSchema)]
#[schema(as = CompletedUpload)]
pub(super) struct CompletedDto {
    /// The address of the object.
    #[schema(
        format = "uri",
        example = "https://my-bucket.s3.ap-northeast-2.amazonaws.com/uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/example.mp4"
    )]
    pub(super) location: String,
    #[schema(example = "uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/example.mp4")]
    pub(super) key: String,
    #[schema(example = "my-bucket")]
    pub(super) bucket: String,
    /// A JWT that states what the store has, as `/upload/verify` returns it. It is absent if receipts are not
    /// configured, if the file is not what the policy allows, and if the object could not be read from the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    pub(super) receipt: Option<String>,
    /// What `/upload/verify` answers, if the request asked for it. It is absent if `/upload/verify` would
    /// answer with a problem, which says what is wrong, and if the object could not be read from the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = VerifiedDto, required = false)]
    pub(super) upload: Option<VerifiedDto>,
}

/// An empty object: Uppy reads a body after every success.
#[derive(Serialize, ToSchema)]
#[schema(as = AbortedUpload)]
pub(super) struct AbortedDto {}
