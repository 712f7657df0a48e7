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
}

/// The id of a message. Messages that say the same of the same object have the same, whichever event
/// caused them. A receipt has its own time.
pub(super) fn id(mut message: Message<'_>) -> String {
    message.timestamp.clear();
    message.data.receipt = None;
    // A struct of texts and numbers always becomes JSON.
    let hash = Sha256::digest(serde_json::to_vec(&message).unwrap_or_default());
    format!("msg_{}", BASE64_URL_SAFE_NO_PAD.encode(&hash[..24]))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::s3::StoredObject;
    use crate::upload::{Field, Invalid, Refusal};

    /// The id of the message about an object that `change` makes of a usual one, which is allowed or not.
    fn id_of(is_allowed: bool, change: impl FnOnce(&mut Created, &mut StoredObject)) -> String {
        let mut created = Created {
            bucket: "uploads".to_owned(),
            key: "a.txt".to_owned(),
            at: SystemTime::UNIX_EPOCH,
        };
        let mut object = StoredObject::sample();
        change(&mut created, &mut object);
        let refusal = Refusal {
            file: 0,
            field: Field::Size,
            invalid: Invalid::new("file-too-large", String::new()),
        };
        let refusals = if is_allowed { vec![] } else { vec![refusal] };
        let arrived = Arrived {
            policy: "default".to_owned(),
            caller: None,
            object,
            verification: Verification::Mismatch(refusals),
        };
        id(Message::new(&created, &arrived))
    }

    /// An application ignores a message whose id it knows.
    #[test]
    fn only_the_same_object_has_the_same_id() {
        let usual = id_of(true, |_, _| {});
        let again = id_of(true, |created, _| created.at += Duration::from_mins(1));
        assert_eq!(again, usual, "another event reports the same object");
        for other in [
            id_of(false, |_, _| {}),
            id_of(true, |created, _| created.bucket.push('x')),
            id_of(true, |created, _| created.key.push('x')),
            id_of(true, |_, object| object.version_id = Some("v2".to_owned())),
            id_of(true, |_, object| object.etag.push('x')),
            id_of(true, |_, object| {
                object.last_modified += Duration::from_secs(1);
            }),
            id_of(true, |_, object| {
                object.content_type = Some("text/html".to_owned());
            }),
            id_of(true, |_, object| {
                object.metadata.insert("album".to_owned(), "7".to_owned());
            }),
        ] {
            assert_ne!(other, usual);
        }
    }
}
