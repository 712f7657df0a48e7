//! The body and the answers of `/better-upload`.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use validator::Validate;

use crate::http::body::Dto;
use crate::http::clients::{CHECKSUMS, CONTENT_TYPE, has_no_effect};
use crate::http::json::{Fields, Json as JsonText};
use crate::http::openapi::{FilenameText, MediaTypeOrNothing};
use crate::http::problem::FieldErrors;
use crate::upload::{ContentType, Filename, Grant, Invalid, ObjectKey};

/// The most files of one request.
const MAX_FILES: usize = 100;

/// The files that a user has chosen.
#[derive(Debug, Default, Serialize, Validate, ToSchema)]
#[schema(as = BetterUploadRequest, example = json!({"route": "default", "files": [{"name": "example.jpg", "size": 6, "type": "image/jpeg"}]}))]
pub(super) struct RequestDto {
    /// The name of the policy; `default` if it is absent.
    #[schema(required = false, example = "default")]
    route: Option<String>,
    /// 1 to 100 files, of which no two have the same name, size and type.
    #[validate(
        required(message = "is required"),
        length(min = 1, message = "must have 1 to 100 files")
    )]
    #[schema(value_type = Vec<FileDto>, required = true, min_items = 1, max_items = 100)]
    files: Option<Vec<FileDto>>,
    /// An object: names and values that the store keeps with each of the objects, as far as the policy lets clients
    /// set them. Whatever else an application sends here is ignored.
    #[schema(value_type = Option<Value>, required = false, example = json!({"album": "7"}))]
    metadata: Option<Value>,
}

/// One of the files. The answer repeats it, because the client finds it by these members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[schema(as = BetterUploadFile)]
pub(super) struct FileDto {
    /// The name of the file.
    #[schema(value_type = FilenameText, required = true)]
    name: Option<String>,
    /// Its length in bytes. The store accepts only this length.
    #[schema(value_type = u64, required = true, maximum = 1_073_741_824_000_u64, example = 6)]
    size: Option<u64>,
    /// Its media type. A file whose type the browser does not know has an empty one; it is stored as
    /// `application/octet-stream`, and in parts, because only they can be bound to a type that the client does not send.
    #[serde(rename = "type")]
    #[schema(value_type = MediaTypeOrNothing, required = true)]
    content_type: Option<String>,
}

/// A valid request.
#[derive(Debug)]
pub(super) struct UploadRequest {
    pub(super) route: Option<String>,
    pub(super) files: Vec<RequestedFile>,
    pub(super) metadata: serde_json::Map<String, Value>,
}

#[derive(Debug)]
pub(super) struct RequestedFile {
    /// As the client sent it.
    pub(super) sent: FileDto,
    pub(super) filename: Filename,
    pub(super) size: u64,
    pub(super) content_type: Option<ContentType>,
}

impl FileDto {
    fn read(fields: &mut Fields<'_, '_, '_>) -> Self {
        fields.refuse(&CHECKSUMS, has_no_effect);
        fields.refuse(&[CONTENT_TYPE], has_no_effect);
        Self {
            name: fields.field("name", JsonText::text),
            size: fields.field("size", JsonText::whole_number),
            content_type: fields.field("type", JsonText::text),
        }
    }

    /// `at` is the pointer to this file in the request.
    fn into_requested(self, at: &str, errors: &mut FieldErrors) -> Option<RequestedFile> {
        // Checked here, because `validator` does not know the names in the JSON.
        let required = || Invalid::new("required", "is required");
        let sent = self.clone();
        let filename = self.name.ok_or_else(required).and_then(Filename::parse);
        let content_type = match self.content_type {
            None => Err(required()),
            Some(text) if text.is_empty() => Ok(None),
            Some(text) => ContentType::parse(text).map(Some),
        };
        let filename = errors.check(|| format!("{at}/name"), filename);
        let size = errors.check(|| format!("{at}/size"), self.size.ok_or_else(required));
        let content_type = errors.check(|| format!("{at}/type"), content_type);
        Some(RequestedFile {
            sent,
            filename: filename?,
            size: size?,
            content_type: content_type?,
        })
    }
}

impl Dto for RequestDto {
    type Value = UploadRequest;

    // Other fields are ignored, as better-upload's own server ignores them.
    fn read(fields: &mut Fields<'_, '_, '_>) -> Self {
        Self {
            route: fields.optional("route", JsonText::text),
            files: fields.list("files", MAX_FILES, |reader, json| {
                reader.object(json.members(), FileDto::read)
            }),
            metadata: fields.optional("metadata", JsonText::value),
        }
    }

    fn into_value(self, errors: &mut FieldErrors) -> Option<UploadRequest> {
        let files = self.files?;
        if files.len() > MAX_FILES {
            let detail = format!("must be at most {MAX_FILES} files");
            errors.push("/files".into(), Invalid::new("too-many-files", detail));
            return None;
        }
        let mut seen = HashSet::new();
        for (index, file) in files.iter().enumerate() {
            if !seen.insert(file) {
                let detail = "must differ from the other files in its name, its size or its type; \
                    the client cannot distinguish them";
                let invalid = Invalid::new("duplicate-file", detail);
                errors.push(format!("/files/{index}"), invalid);
            }
        }
        let files = files.into_iter().enumerate();
        let files: Vec<Option<RequestedFile>> = files
            .map(|(index, file)| file.into_requested(&format!("/files/{index}"), errors))
            .collect();
        Some(UploadRequest {
            route: self.route,
            files: files.into_iter().collect::<Option<_>>()?,
            metadata: match self.metadata {
                Some(Value::Object(members)) => members,
                _ => serde_json::Map::new(),
            },
        })
    }
}

/// Presigned requests for the files: one for each of them, or uploads in parts.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = BetterUpload)]
pub(super) enum AnswerDto {
    Single(SinglesDto),
    Multipart(MultipartsDto),
}

/// A presigned PUT for each file.
#[derive(Serialize, ToSchema)]
#[schema(as = BetterUploadSingles)]
pub(super) struct SinglesDto {
    pub(super) files: Vec<SingleDto>,
    pub(super) metadata: NoMetadata,
}

/// An upload in parts for each file.
#[derive(Serialize, ToSchema)]
#[schema(as = BetterUploadMultiparts)]
pub(super) struct MultipartsDto {
    pub(super) multipart: MultipartDto,
    pub(super) metadata: NoMetadata,
}

/// What better-upload's own server can send to the application; presignd has nothing to send.
#[derive(Serialize, ToSchema)]
#[schema(as = BetterUploadMetadata)]
pub(super) struct NoMetadata {}

/// A file and its object.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = BetterUploadObject)]
pub(super) struct ObjectDto {
    /// As in the request.
    #[schema(value_type = String, required = true)]
    name: Option<String>,
    /// As in the request.
    #[schema(value_type = u64, required = true, example = 6)]
    size: Option<u64>,
    /// As in the request.
    #[serde(rename = "type")]
    #[schema(value_type = String, required = true)]
    content_type: Option<String>,
    object_info: ObjectInfoDto,
}

/// What better-upload calls the object of a file.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = BetterUploadObjectInfo)]
struct ObjectInfoDto {
    /// The name of the object in the bucket.
    #[schema(example = "uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/example.jpg")]
    key: String,
    /// The metadata that the client sends with a PUT, without `x-amz-meta-` before its names.
    metadata: BTreeMap<String, String>,
    /// The `cache-control` that the client sends with a PUT.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    cache_control: Option<String>,
}

/// A presigned PUT.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = BetterUploadSingle)]
pub(super) struct SingleDto {
    /// Where to send the file. Whoever has this URL can upload, so treat it as a secret. It is empty if there is
    /// nothing to send.
    #[schema(
        format = "uri-reference",
        example = "https://my-bucket.s3.ap-northeast-2.amazonaws.com/uploads/x?X-Amz-Expires=600"
    )]
    signed_url: String,
    file: ObjectDto,
    /// The headers of the PUT besides `content-type` and those of `objectInfo`: the client sends all of them, and
    /// one that it sends twice would not be what was signed.
    headers: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Skip, inline, required = false)]
    skip: Option<Skip>,
}

impl SingleDto {
    pub(super) fn new(file: FileDto, Grant { key, request, .. }: Grant) -> Self {
        let mut headers: BTreeMap<String, String> = request
            .headers
            .into_iter()
            .map(|(name, value)| (name.into_owned(), value))
            .collect();
        headers.remove("content-type");
        let cache_control = headers.remove("cache-control");
        let mut metadata = BTreeMap::new();
        headers.retain(|name, value| match name.strip_prefix("x-amz-meta-") {
            Some(name) => {
                metadata.insert(name.to_owned(), std::mem::take(value));
                false
            }
            None => true,
        });
        let mut file = ObjectDto::new(file, key.into_string());
        file.object_info.metadata = metadata;
        file.object_info.cache_control = cache_control;
        Self {
            signed_url: request.url,
            file,
            headers,
            skip: None,
        }
    }

    /// For a file that is uploaded already.
    pub(super) fn skipped(file: FileDto, key: ObjectKey) -> Self {
        Self {
            signed_url: String::new(),
            file: ObjectDto::new(file, key.into_string()),
            headers: BTreeMap::new(),
            skip: Some(Skip::Completed),
        }
    }
}

/// Why the client sends nothing.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum Skip {
    /// The policy has `overwrite = false` and a key without `{uuid}`, and the object that is there has the size and
    /// the type of this file. Nothing compares the bytes.
    Completed,
}

/// Uploads in parts of the same size.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = BetterUploadMultipart)]
pub(super) struct MultipartDto {
    pub(super) files: Vec<InPartsDto>,
    /// The length of all parts but the last one of a file, in bytes.
    #[schema(example = 16_777_216)]
    pub(super) part_size: u64,
}

/// An upload in parts.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = BetterUploadInParts)]
pub(super) struct InPartsDto {
    pub(super) file: ObjectDto,
    /// Empty if there is nothing to send.
    pub(super) parts: Vec<PartDto>,
    /// Empty: the URLs contain it.
    pub(super) upload_id: &'static str,
    /// Where to POST the list of parts that completes the upload, in S3's XML. Empty if there is nothing to send.
    #[schema(
        format = "uri-reference",
        example = "https://uploads.example.com/s3/upload/eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl"
    )]
    pub(super) complete_signed_url: String,
    /// Where to send the DELETE that aborts the upload. Empty if there is nothing to send.
    #[schema(
        format = "uri-reference",
        example = "https://uploads.example.com/s3/upload/eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl"
    )]
    pub(super) abort_signed_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Skip, inline, required = false)]
    pub(super) skip: Option<Skip>,
}

impl InPartsDto {
    /// For a file that is uploaded already.
    pub(super) fn skipped(file: FileDto, key: ObjectKey) -> Self {
        Self {
            file: ObjectDto::new(file, key.into_string()),
            parts: Vec::new(),
            upload_id: "",
            complete_signed_url: String::new(),
            abort_signed_url: String::new(),
            skip: Some(Skip::Completed),
        }
    }
}

impl ObjectDto {
    /// For an object that the client uploads without further headers.
    pub(super) fn new(file: FileDto, key: String) -> Self {
        Self {
            name: file.name,
            size: file.size,
            content_type: file.content_type,
            object_info: ObjectInfoDto {
                key,
                metadata: BTreeMap::new(),
                cache_control: None,
            },
        }
    }
}

/// A presigned PUT for one part.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = BetterUploadPart)]
pub(super) struct PartDto {
    #[schema(
        format = "uri",
        example = "https://my-bucket.s3.ap-northeast-2.amazonaws.com/uploads/x?partNumber=1&uploadId=x&X-Amz-Expires=600"
    )]
    pub(super) signed_url: String,
    #[schema(example = 1)]
    pub(super) part_number: u16,
    /// In bytes. The store accepts only this length.
    #[schema(example = 16_777_216)]
    pub(super) size: u64,
}
