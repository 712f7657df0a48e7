//! The bodies of `/upload/presigned-…`: what clients say about their files.

use serde::Serialize;
use utoipa::ToSchema;
use validator::Validate;

use crate::http::body::Dto;
use crate::http::json::{Fields, Json as JsonText};
use crate::http::memory::Work;
use crate::http::openapi::{
    Crc64NvmeText, FilenameText, Md5Text, MediaTypeText, MetadataName, MetadataValue, Sha256Text,
};
use crate::http::problem::{FieldErrors, push_segment};
use crate::upload::{
    self, ContentType, Crc64NvmeChecksum, File, Filename, Invalid, Md5Checksum, Metadata,
    Sha256Checksum,
};

/// The file that the client wants to upload.
//
// `validator` requires `Serialize` of what it checks.
#[derive(Debug, Default, Serialize, Validate, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = FileRequest, example = json!({"filename": "example.jpg", "contentType": "image/jpeg"}))]
pub(super) struct FileDto {
    /// The name of the file, without a folder. It becomes part of the key: normalised to Unicode NFC,
    /// without invisible characters that have no meaning, and shortened in the middle to 255 bytes of
    /// UTF-8. No `/`, `\`, control characters or directional overrides.
    #[validate(required(message = "is required"))]
    #[schema(value_type = FilenameText, required = true)]
    filename: Option<String>,

    /// The media type that the upload must have, parameters included.
    #[validate(required(message = "is required"))]
    #[schema(value_type = MediaTypeText, required = true)]
    content_type: Option<String>,

    /// The length of the file in bytes. If it is given, the store accepts only this length.
    #[schema(value_type = Option<u64>, required = false, maximum = 5_368_709_120_u64, example = 6)]
    size: Option<u64>,

    /// The SHA-256 of the file, in base64. If it is given, the store accepts no other bytes.
    #[schema(value_type = Option<Sha256Text>, required = false)]
    checksum_sha256: Option<String>,

    /// The CRC-64/NVME of the file, in base64, instead of `checksumSha256`. If it is given, the store
    /// accepts no other bytes.
    #[schema(value_type = Option<Crc64NvmeText>, required = false)]
    checksum_crc64nvme: Option<String>,

    /// The MD5 of the file, in base64, to be sent as `content-md5`. If it is given, the store accepts
    /// no other bytes. Only a PUT can be bound to it.
    #[schema(value_type = Option<Md5Text>, required = false)]
    content_md5: Option<String>,

    /// The name of the policy; `default` if it is not given.
    #[validate(length(max = 255, message = "must not be longer than 255 characters"))]
    #[schema(value_type = Option<String>, required = false, max_length = 255, example = "default")]
    policy: Option<String>,

    /// Names and values that the store keeps with the object, as far as the policy lets clients set
    /// them. Less than 2 KB and at most 50 names in all.
    #[schema(value_type = Option<BTreeMap<MetadataName, MetadataValue>>, required = false, example = json!({"album": "7"}))]
    metadata: Option<Metadata>,
}

impl FileDto {
    /// `at` is the pointer to this file in the request.
    fn into_file(self, at: &str, errors: &mut FieldErrors) -> Option<File> {
        let filename = errors.parse(at, "filename", self.filename, Filename::parse);
        let content_type = errors.parse(at, "contentType", self.content_type, ContentType::parse);
        let sha256 = self.checksum_sha256;
        let checksum_sha256 = errors.parse(at, "checksumSha256", sha256, Sha256Checksum::parse);
        let crc64nvme = self.checksum_crc64nvme;
        let checksum_crc64nvme =
            errors.parse(at, "checksumCrc64nvme", crc64nvme, Crc64NvmeChecksum::parse);
        if checksum_sha256.is_some() && checksum_crc64nvme.is_some() {
            let detail = "must not be given together with `checksumSha256`: S3 accepts one of them";
            let invalid = Invalid::new("two-checksums", detail);
            errors.push(format!("{at}/checksumCrc64nvme"), invalid);
        }
        let content_md5 = errors.parse(at, "contentMd5", self.content_md5, Md5Checksum::parse);
        let metadata = self.metadata.unwrap_or_default();
        for (name, value) in &metadata {
            let pointer = || {
                let mut pointer = format!("{at}/metadata");
                push_segment(&mut pointer, name);
                pointer
            };
            errors.check(pointer, upload::check_metadata(name, value));
        }
        Some(File {
            filename: filename?,
            content_type: content_type?,
            size: self.size,
            checksum_sha256,
            checksum_crc64nvme,
            content_md5,
            policy: self.policy,
            metadata,
        })
    }
}

impl Dto for FileDto {
    type Value = File;

    fn read(fields: &mut Fields<'_, '_, '_>) -> Self {
        let file = Self {
            filename: fields.field("filename", JsonText::text),
            content_type: fields.field("contentType", JsonText::text),
            size: fields.optional("size", JsonText::whole_number),
            checksum_sha256: fields.optional("checksumSha256", JsonText::text),
            checksum_crc64nvme: fields.optional("checksumCrc64nvme", JsonText::text),
            content_md5: fields.optional("contentMd5", JsonText::text),
            policy: fields.optional("policy", JsonText::text),
            metadata: fields.map("metadata", JsonText::text),
        };
        fields.refuse_others();
        file
    }

    fn into_value(self, errors: &mut FieldErrors) -> Option<File> {
        self.into_file("", errors)
    }
}

/// The files that the client wants to upload.
#[derive(Debug, Default, Serialize, Validate, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = FilesRequest, example = json!({"files": [
    {"filename": "example.jpg", "contentType": "image/jpeg"},
    {"filename": "notes.txt", "contentType": "text/plain", "size": 6},
]}))]
pub(super) struct FilesDto {
    /// 1 to 1,000 files.
    #[validate(
        required(message = "is required"),
        length(min = 1, max = 1000, message = "must have 1 to 1,000 files"),
        nested
    )]
    #[schema(value_type = Vec<FileDto>, required = true, min_items = 1, max_items = 1000)]
    files: Option<Vec<FileDto>>,

    /// Whether the client can send forms (`multipart/form-data`), too. Then a file gets a form where the
    /// store accepts forms and one can keep the policy, and a PUT if the file has a checksum, which several
    /// stores do not compare in forms. A browser sends a form without a CORS preflight.
    /// A list with `forms` has 250 files at most.
    #[schema(value_type = Option<bool>, required = false, example = false)]
    forms: Option<bool>,
}

/// Each form may be three times as long as a URL.
const MAX_FORMS: usize = 250;

/// What a request for several grants says.
pub(super) struct Files {
    pub(super) files: Vec<File>,
    pub(super) forms: bool,
}

impl Dto for FilesDto {
    type Value = Files;

    /// Enough for 1,000 files with long names and some metadata each.
    const MAX_BYTES: usize = 2 * 1024 * 1024;

    /// Memory for the files and for a grant for each, of which there are three copies while the
    /// answer is written. No file takes less than 36 bytes of the body.
    fn work(body_bytes: usize) -> Work {
        let files = (1 + body_bytes / 36).min(1000);
        Work::Sign(4 * body_bytes + files * 9 * 1024)
    }

    fn read(fields: &mut Fields<'_, '_, '_>) -> Self {
        let files = Self {
            files: fields.list("files", 1000, |reader, json| {
                reader.object(json.members(), FileDto::read)
            }),
            forms: fields.optional("forms", JsonText::boolean),
        };
        fields.refuse_others();
        files
    }

    fn into_value(self, errors: &mut FieldErrors) -> Option<Files> {
        let files = self.files.unwrap_or_default().into_iter().enumerate();
        let files: Vec<Option<File>> = files
            .map(|(index, file)| file.into_file(&format!("/files/{index}"), errors))
            .collect();
        let forms = self.forms.unwrap_or_default();
        if forms && files.len() > MAX_FORMS {
            let detail = format!("must have at most {MAX_FORMS} files with `forms`");
            errors.push("/files".to_owned(), Invalid::new("length", detail));
        }
        Some(Files {
            files: files.into_iter().collect::<Option<_>>()?,
            forms,
        })
    }
}
