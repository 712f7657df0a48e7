//! The body and the answer of `/s3/sign`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;
use validator::Validate;

use crate::http::body::Dto;
use crate::http::clients::uppy::multipart::part_number;
use crate::http::clients::uppy::{UppyMethod, seconds_until};
use crate::http::clients::{CHECKSUMS, has_no_effect};
use crate::http::json::{Fields, Json as JsonText};
use crate::http::openapi::{FilenameText, MediaTypeOrNothing};
use crate::http::problem::FieldErrors;
use crate::http::uploads::as_map;
use crate::s3::PresignedRequest;
use crate::upload::{Grant, Invalid};

/// The request that Uppy is about to send to S3. The members that Uppy does not know are for applications that add
/// them in `signRequest`.
#[derive(Debug, Default, Serialize, Validate, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SignRequest, example = json!({"method": "PUT", "key": "example.jpg", "contentType": "image/jpeg"}))]
pub(super) struct SignDto {
    /// With a `key` alone, `PUT` sends a file and `POST` begins an upload in parts. With an `uploadId`, `PUT` sends
    /// a part, `GET` lists the parts, `POST` completes the upload and `DELETE` aborts it.
    #[validate(required(message = "is required"))]
    #[schema(value_type = UppyMethod, required = true)]
    method: Option<String>,
    /// The key that Uppy proposes. Its last segment, without a leading UUID and hyphen, is the name of the file.
    /// The rest is ignored; with an `uploadId`, all of it is.
    #[validate(required(message = "is required"))]
    #[schema(
        value_type = String,
        required = true,
        min_length = 1,
        max_length = 4096,
        pattern = r"^([^\x00-\x1F\x7F]*[/])?(?!\.{1,2}$)[^/\\\x00-\x1F\x7F]+$",
        example = "example.jpg"
    )]
    key: Option<String>,
    /// From the answer that began the upload.
    #[schema(value_type = Option<String>, required = false)]
    upload_id: Option<String>,
    /// 1 to 10,000.
    #[schema(value_type = Option<u16>, required = false, minimum = 1, maximum = 10_000)]
    part_number: Option<u64>,
    /// The media type of the file. Without it, a file has `application/octet-stream`, and the request that begins
    /// an upload in parts has the type.
    #[schema(value_type = Option<MediaTypeOrNothing>, required = false)]
    content_type: Option<String>,
    /// The name of the file, instead of that in `key`.
    #[schema(value_type = Option<FilenameText>, required = false)]
    filename: Option<String>,
    /// The length of the file, or of the part, in bytes. If it is given, the store accepts only this length.
    #[schema(value_type = Option<u64>, required = false, maximum = 53_687_091_200_000_u64, example = 6)]
    size: Option<u64>,
    /// Names and values that the store keeps with the object, as far as the policy lets clients set
    /// them. Others are ignored.
    #[schema(value_type = Option<BTreeMap<String, Value>>, required = false, example = json!({"album": "7"}))]
    metadata: Option<BTreeMap<String, Value>>,
    /// The name of the policy; `default` if it is absent.
    #[schema(required = false, example = "default")]
    policy: Option<String>,
}

/// A request to sign.
#[derive(Debug)]
pub(super) struct Signing {
    pub(super) wanted: Wanted,
    pub(super) filename: String,
    pub(super) content_type: Option<String>,
    pub(super) size: Option<u64>,
    pub(super) metadata: BTreeMap<String, Value>,
    pub(super) policy: Option<String>,
}

/// The purpose of the request. All but the first two have the sealed id of an upload.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    File,
    Create,
    Part(String, u16),
    List(String),
    Complete(String),
    Abort(String),
}

impl Wanted {
    fn new(
        method: &str,
        upload_id: Option<String>,
        part_number: Option<u16>,
    ) -> Result<Self, (&'static str, Invalid)> {
        let required = |pointer, code| (pointer, Invalid::new(code, "is required by the method"));
        match (method, upload_id) {
            ("PUT", None) => Ok(Self::File),
            ("POST", None) => Ok(Self::Create),
            ("PUT", Some(id)) => match part_number {
                Some(number) => Ok(Self::Part(id, number)),
                None => Err(required("/partNumber", "part-number-required")),
            },
            ("POST", Some(id)) => Ok(Self::Complete(id)),
            ("GET", Some(id)) => Ok(Self::List(id)),
            ("DELETE", Some(id)) => Ok(Self::Abort(id)),
            ("GET" | "DELETE", None) => Err(required("/uploadId", "upload-id-required")),
            _ => {
                let detail = "must be PUT, POST, GET or DELETE";
                Err(("/method", Invalid::new("unknown-method", detail)))
            }
        }
    }
}

/// The filename in the key that Uppy proposes: `{uuid}-{name}`, or a key that the application
/// chose.
fn filename_of_key(key: &str) -> &str {
    /// The length of a UUID with its hyphens.
    const UUID_BYTES: usize = 36;
    let name = key.rsplit('/').next().unwrap_or(key);
    let after_id = || {
        let (id, rest) = name.split_at_checked(UUID_BYTES)?;
        let rest = rest.strip_prefix('-').filter(|rest| !rest.is_empty());
        rest.filter(|_| Uuid::try_parse(id).is_ok())
    };
    after_id().unwrap_or(name)
}

impl Dto for SignDto {
    type Value = Signing;

    // Other fields are ignored: Uppy may send more of them one day.
    fn read(fields: &mut Fields<'_, '_, '_>) -> Self {
        fields.refuse(&CHECKSUMS, has_no_effect);
        Self {
            method: fields.field("method", JsonText::text),
            key: fields.field("key", JsonText::text),
            upload_id: fields.optional("uploadId", JsonText::text),
            part_number: fields.optional("partNumber", JsonText::whole_number),
            content_type: fields.optional("contentType", JsonText::text),
            filename: fields.optional("filename", JsonText::text),
            size: fields.optional("size", JsonText::whole_number),
            metadata: fields.map("metadata", JsonText::value),
            policy: fields.optional("policy", JsonText::text),
        }
    }

    fn into_value(self, errors: &mut FieldErrors) -> Option<Signing> {
        // Checked even if the number is not needed: an invalid one is a mistake of the client.
        let number = self.part_number.map(part_number).transpose();
        let number = number.unwrap_or_else(|invalid| {
            errors.push("/partNumber".to_owned(), invalid);
            Some(1) // any number, so that it is not missing, too
        });
        let wanted = Wanted::new(&self.method?, self.upload_id, number);
        let wanted = wanted.map_err(|(pointer, invalid)| errors.push(pointer.to_owned(), invalid));
        let of_key = |key: String| filename_of_key(&key).to_owned();
        Some(Signing {
            wanted: wanted.ok()?,
            filename: self.filename.or_else(|| self.key.map(of_key))?,
            content_type: self.content_type.filter(|text| !text.is_empty()),
            size: self.size,
            metadata: self.metadata.unwrap_or_default(),
            policy: self.policy,
        })
    }
}

/// What Uppy's `signRequest` returns.
#[derive(Serialize, ToSchema)]
#[schema(as = SignedRequest)]
pub(super) struct SignedDto {
    /// The method of the request; `POST` beside `fields`.
    #[schema(value_type = UppyMethod)]
    method: &'static str,
    /// Where to send the request. Whoever has this URL can send it, so treat it as a secret.
    #[schema(
        format = "uri",
        example = "https://my-bucket.s3.ap-northeast-2.amazonaws.com/"
    )]
    url: String,
    /// The name of the object in the bucket, for a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    key: Option<String>,
    /// The headers of the request, exactly these.
    #[serde(serialize_with = "as_map")]
    #[schema(value_type = BTreeMap<String, String>)]
    headers: Vec<(Cow<'static, str>, String)>,
    /// The fields of a form, exactly these. The file follows them, in a field named `file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = BTreeMap<String, String>, required = false)]
    fields: Option<BTreeMap<String, String>>,
    /// Seconds until the URL expires.
    #[schema(example = 600)]
    expires: u64,
}

impl SignedDto {
    pub(super) fn for_file(grant: Grant, now: SystemTime) -> Self {
        Self {
            key: Some(grant.key.into_string()),
            ..Self::for_request(grant.request, now)
        }
    }

    pub(super) fn for_request(request: PresignedRequest, now: SystemTime) -> Self {
        Self {
            headers: request.headers,
            fields: Some(request.fields).filter(|fields| !fields.is_empty()),
            ..Self::for_call(request.method, request.url, request.expires_at, now)
        }
    }

    /// A call that comes back to this service.
    pub(super) fn for_call(
        method: &'static str,
        url: String,
        expires_at: SystemTime,
        now: SystemTime,
    ) -> Self {
        Self {
            method,
            url,
            key: None,
            headers: Vec::new(),
            fields: None,
            expires: seconds_until(expires_at, now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_file_is_found_in_the_keys_that_uppy_proposes() {
        let id = Uuid::new_v4();
        for (key, name) in [
            (format!("{id}-a-b.jpg"), "a-b.jpg"),
            (format!("folder/{id}-한.jpg"), "한.jpg"),
            (format!("{id}"), &*id.to_string()),
            (format!("{id}-"), &*format!("{id}-")),
            ("a.jpg".to_owned(), "a.jpg"),
            ("a/b/c-d.jpg".to_owned(), "c-d.jpg"),
            ("a/".to_owned(), ""),
            ("한".repeat(12), &*"한".repeat(12)),
        ] {
            assert_eq!(filename_of_key(&key), name);
        }
    }
}
