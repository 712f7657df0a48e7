//! What differs between a stored object and what was granted or is expected. Pure.

use super::Expected;
use crate::s3::StoredObject;
use crate::upload::checksum::Checksum;
use crate::upload::metadata::check_size as check_metadata_size;
use crate::upload::policy::{Terms, check_size};
use crate::upload::{ContentType, Field, Invalid, Metadata, Refusal};

/// Everything in which an object differs from what it should be.
pub(super) fn differences(
    terms: &Terms,
    expected: &Expected,
    object: &StoredObject,
    content_type: &Result<ContentType, Invalid>,
) -> Vec<Refusal> {
    if !object.is_readable {
        let detail =
            "cannot be read: the object has more than 100 headers, or more than 400 KB of them";
        let invalid = Invalid::new("metadata-too-large", detail);
        return vec![Refusal::new(Field::Metadata, invalid)];
    }
    let content_type = match content_type {
        Ok(content_type) => terms.check_type(content_type),
        Err(invalid) => Err(invalid.clone()),
    };
    let size = check_size(object.size, terms.max_size()).and_then(|()| match expected.size {
        Some(size) if size != object.size => {
            let detail = format!("must be {size} bytes; it is {}", object.size);
            Err(Invalid::new("size-differs", detail))
        }
        _ => Ok(()),
    });
    let sha256 = compare(
        expected.checksum_sha256.as_ref().map(Checksum::as_base64),
        object.checksum_sha256.as_deref(),
        "SHA-256",
    );
    let crc64nvme = compare(
        expected
            .checksum_crc64nvme
            .as_ref()
            .map(Checksum::as_base64),
        object.checksum_crc64nvme.as_deref(),
        "CRC64NVME",
    );
    [
        (Field::ContentType, content_type),
        (Field::Size, size),
        (Field::ChecksumSha256, sha256),
        (Field::ChecksumCrc64nvme, crc64nvme),
    ]
    .into_iter()
    .filter_map(|(field, result)| Some(Refusal::new(field, result.err()?)))
    .chain(metadata_differences(terms, &object.metadata))
    .chain(property_differences(terms, object))
    .collect()
}

/// Compares a checksum of this `kind` with the one that the store has, if one is expected.
fn compare(expected: Option<&str>, stored: Option<&str>, kind: &str) -> Result<(), Invalid> {
    match (expected, stored) {
        (Some(expected), Some(stored)) if expected != stored => Err(Invalid::new(
            "checksum-differs",
            "is not that of the stored file",
        )),
        (Some(_), None) => {
            let detail = format!("cannot be compared: the store keeps no {kind} of the whole file");
            Err(Invalid::new("checksum-unknown", detail))
        }
        _ => Ok(()),
    }
}

/// Metadata that the policy or the ticket fixes and the object lacks, and metadata that nobody may
/// set. More than S3 stores is not compared, so that the answer is never long.
fn metadata_differences(terms: &Terms, stored: &Metadata) -> Vec<Refusal> {
    let refusal = |name: &String, code, detail: &'static str| {
        Refusal::new(Field::MetadataOf(name.clone()), Invalid::new(code, detail))
    };
    if let Err(invalid) = check_metadata_size(stored) {
        return vec![Refusal::new(Field::Metadata, invalid)];
    }
    let fixed: Metadata = terms.metadata_with(&Metadata::new()).into_iter().collect();
    let missing = fixed
        .iter()
        .filter(|(name, value)| stored.get(*name) != Some(value))
        .map(|(name, _)| refusal(name, "metadata-differs", "is not what was granted"));
    let foreign = stored
        .keys()
        .filter(|name| !fixed.contains_key(*name) && !terms.allows_metadata(name))
        .map(|name| {
            let detail = "is not metadata that the policy lets clients set";
            refusal(name, "metadata-not-allowed", detail)
        });
    missing.chain(foreign).collect()
}

/// The other properties that the store reports and the policy did not grant. Signatures bind them,
/// but not every store checks all of a signature, and anyone may send headers that are not signed.
fn property_differences(terms: &Terms, object: &StoredObject) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let mut refuse = |name, code, detail: String| {
        refusals.push(Refusal::new(
            Field::Stored(name),
            Invalid::new(code, detail),
        ));
    };
    let must_be_attachment =
        ContentType::parse(object.content_type()).is_ok_and(|it| terms.is_attachment(&it));
    let disposition = object.content_disposition.as_deref().unwrap_or_default();
    if !is_whole_text(disposition) {
        let detail = UNREADABLE.to_owned();
        refuse("contentDisposition", "disposition-differs", detail);
    } else if must_be_attachment && !is_attachment(disposition) {
        let detail = "must be `attachment` for this content type".to_owned();
        refuse("contentDisposition", "disposition-differs", detail);
    }
    let encoding = object.content_encoding.as_deref().unwrap_or_default();
    // Some stores keep the coding that the SDKs send a body in.
    if !matches!(encoding, "" | "identity" | "aws-chunked") {
        let detail =
            "must not be set: what is served would not be the bytes that were sent".to_owned();
        refuse("contentEncoding", "encoding-not-allowed", detail);
    }
    let cache_control = object.cache_control.as_deref().unwrap_or_default();
    if let Some(granted) = &terms.cache_control
        && cache_control != granted
    {
        let detail = format!("must be `{granted}`");
        refuse("cacheControl", "cache-control-differs", detail);
    } else if !is_whole_text(cache_control) {
        refuse("cacheControl", "cache-control-differs", UNREADABLE.into());
    }
    if let (Some(granted), Some(stored)) = (
        &terms.server_side_encryption,
        &object.server_side_encryption,
    ) && granted != stored
    {
        let detail = format!("must be `{granted}`");
        refuse("serverSideEncryption", "encryption-differs", detail);
    }
    if let (Some(granted), Some(stored)) = (&terms.storage_class, &object.storage_class)
        && granted != stored
    {
        let detail = format!("must be `{granted}`");
        refuse("storageClass", "storage-class-differs", detail);
    }
    refusals
}

const UNREADABLE: &str = "must be text in UTF-8 of at most 2,048 bytes";

/// Whether a value is what the store has, and all of it, which [`StoredObject`] says with U+FFFD.
fn is_whole_text(value: &str) -> bool {
    !value.contains(char::REPLACEMENT_CHARACTER)
}

/// Whether the value of a `Content-Disposition` makes a download of every file.
fn is_attachment(disposition: &str) -> bool {
    let kind = disposition.split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("attachment")
}
