//! What a webhook says of an upload: its body, which is described for the OpenAPI document, and its id.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::records::Created;
use crate::http::problem::{FieldError, Problem, catalogue};
use crate::http::uploads::rfc3339;
use crate::upload::{Arrived, Caller, Metadata, Verification};

/// What is posted to the application about one upload, by [Standard Webhooks](https://www.standardwebhooks.com).
#[derive(Serialize, ToSchema)]
#[schema(as = UploadMessage)]
pub(super) struct Message<'a> {
    #[serde(rename = "type")]
    pub(super) kind: Kind,
    /// When the store created the object (RFC 3339, UTC), by its event.
    #[schema(format = "date-time", example = "2026-01-01T00:01:00Z")]
    timestamp: String,
    data: Data<'a>,
}

/// What presignd found.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[schema(as = UploadMessageType)]
pub(super) enum Kind {
    #[serde(rename = "upload.arrived")]
    Arrived,
    #[serde(rename = "upload.refused")]
    Refused,
}

/// The object that is there now, and the policy that it was verified with.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = UploadMessageData)]
struct Data<'a> {
    #[schema(example = "uploads")]
    bucket: &'a str,
    #[schema(example = "uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/example.jpg")]
    key: &'a str,
    /// In bytes.
    #[schema(example = 6)]
    size: u64,
    #[schema(example = "image/jpeg")]
    content_type: &'a str,
    /// The store's entity tag, with its quotes.
    #[schema(example = "\"9a0364b9e99bb480dd25e1f0284c8555\"")]
    etag: &'a str,
    /// Only if the bucket keeps versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    version_id: Option<&'a str>,
    /// When the object was created (RFC 3339, UTC), by its own date.
    #[schema(format = "date-time", example = "2026-01-01T00:01:00Z")]
    last_modified: String,
    /// The SHA-256 of the file, in base64. Absent if the store has none for the whole file.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    checksum_sha256: Option<&'a str>,
    /// The CRC-64/NVME of the file, in base64. Absent if the store has none for the whole file.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    checksum_crc64nvme: Option<&'a str>,
    #[schema(example = "default")]
    policy: &'a str,
    /// Whom the key names, as `{caller}` is written in keys. Absent if the policy's keys name nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    caller: Option<&'a str>,
    /// The metadata that the store keeps with the object.
    #[schema(value_type = BTreeMap<String, String>, example = json!({"album": "7"}))]
    metadata: &'a Metadata,
    /// A JWT that states all this, if receipts are configured. Never in `upload.refused`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false)]
    receipt: Option<&'a str>,
    /// In `upload.refused`: how the object differs from what the policy allows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<FieldError>,
}

impl<'a> Message<'a> {
    pub(super) fn new(created: &'a Created, arrived: &'a Arrived) -> Self {
        let Arrived {
            policy,
            caller,
            object,
            verification,
        } = arrived;
        let refusals = match verification {
            Verification::Uploaded(_) | Verification::NotUploaded | Verification::Replaced => &[],
            Verification::Mismatch(refusals) => &refusals[..],
            Verification::ContentMismatch(refusal) => std::slice::from_ref(refusal),
        };
        let (kind, receipt) = match verification {
            Verification::Uploaded(upload) => (Kind::Arrived, upload.receipt.as_deref()),
            _ => (Kind::Refused, None),
        };
        Self {
            kind,
            timestamp: rfc3339(created.at),
            data: Data {
                bucket: &created.bucket,
                key: &created.key,
                size: object.size,
                content_type: object.content_type(),
                etag: &object.etag,
                version_id: object.version_id.as_deref(),
                last_modified: rfc3339(object.last_modified),
                checksum_sha256: object.checksum_sha256.as_deref(),
                checksum_crc64nvme: object.checksum_crc64nvme.as_deref(),
                policy,
                caller: caller.as_ref().map(Caller::segment),
                metadata: &object.metadata,
                receipt,
                errors: Problem::for_differences(&catalogue::MISMATCH, refusals).errors,
            },
        }
    }

    /// Its id. Messages that say the same of the same object have the same id, whichever event caused
    /// them, and in every release. An application ignores a message whose id it knows.
    pub(super) fn id(&self) -> String {
        let Data {
            bucket,
            key,
            version_id,
            etag,
            last_modified,
            content_type,
            metadata,
            errors,
            ..
        } = &self.data;
        let errors = errors.iter().map(|error| (&error.pointer, error.code));
        let errors: Vec<_> = errors.collect();
        let object = (bucket, key, version_id, etag, last_modified);
        // A tuple of texts always becomes JSON.
        let said = serde_json::to_vec(&(self.kind, object, content_type, metadata, errors));
        let hash = Sha256::digest(said.unwrap_or_default());
        format!("msg_{}", BASE64_URL_SAFE_NO_PAD.encode(&hash[..24]))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::s3::StoredObject;
    use crate::upload::{ContentType, Field, Invalid, Refusal, Uploaded};

    /// The id of the message about an upload, with this receipt, that `change` makes of a usual one.
    fn id_of(receipt: &str, change: impl FnOnce(&mut Created, &mut Arrived)) -> String {
        let mut created = Created {
            bucket: "uploads".to_owned(),
            key: "a.txt".to_owned(),
            at: SystemTime::UNIX_EPOCH,
        };
        let upload = Uploaded {
            key: created.key.clone(),
            content_type: ContentType::parse("text/plain").unwrap(),
            object: StoredObject::sample(),
            policy: "default".to_owned(),
            receipt: Some(receipt.to_owned()),
        };
        let mut arrived = Arrived {
            policy: "default".to_owned(),
            caller: None,
            object: StoredObject::sample(),
            verification: Verification::Uploaded(upload.into()),
        };
        change(&mut created, &mut arrived);
        Message::new(&created, &arrived).id()
    }

    fn refused(arrived: &mut Arrived, code: &'static str) {
        arrived.verification = Verification::Mismatch(vec![Refusal {
            file: 0,
            field: Field::Size,
            invalid: Invalid::new(code, String::new()),
        }]);
    }

    #[test]
    fn only_the_same_object_has_the_same_id() {
        let usual = id_of("first", |_, _| {});
        let again = id_of("second", |created, _| created.at += Duration::from_mins(1));
        assert_eq!(again, usual, "another event reports the same object");
        let others = [
            id_of("first", |created, _| created.bucket.push('x')),
            id_of("first", |created, _| created.key.push('x')),
            id_of("first", |_, it| {
                it.object.version_id = Some("v2".to_owned());
            }),
            id_of("first", |_, it| it.object.etag.push('x')),
            id_of("first", |_, it| {
                it.object.last_modified += Duration::from_secs(1);
            }),
            id_of("first", |_, it| {
                it.object.content_type = Some("text/html".to_owned());
            }),
            id_of("first", |_, it| {
                it.object
                    .metadata
                    .insert("album".to_owned(), "7".to_owned());
            }),
            id_of("first", |_, it| refused(it, "file-too-large")),
            id_of("first", |_, it| refused(it, "size-differs")),
            usual,
        ];
        let different: std::collections::BTreeSet<&String> = others.iter().collect();
        assert_eq!(different.len(), others.len());
    }

    /// Otherwise applications process again what is sent again across an upgrade.
    #[test]
    fn an_id_is_the_same_in_every_release() {
        assert_eq!(
            id_of("first", |_, _| {}),
            "msg_gyl47a8YfEcu9Gy_l3N9Sg948jZceCHI"
        );
    }
}
