//! The signed properties of an object, and how they are written in headers and forms.

use std::borrow::Cow;

pub use aws_sdk_s3::types::{ObjectCannedAcl, ServerSideEncryption, StorageClass};
use base64::prelude::{BASE64_STANDARD, Engine};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use quick_xml::escape::partial_escape;

/// The most bytes that S3 accepts in [one PUT](https://docs.aws.amazon.com/AmazonS3/latest/userguide/upload-objects.html).
pub const MAX_PUT_BYTES: u64 = 5 * 1024 * 1024 * 1024;

/// The most bytes of an object: [10,000 parts](https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html)
/// as large as one PUT.
pub const MAX_OBJECT_BYTES: u64 = super::MAX_PARTS as u64 * MAX_PUT_BYTES;

/// An object to be uploaded. Everything in it is part of the signature: the store accepts the object
/// with exactly these properties.
#[derive(Clone, Debug, Default)]
pub struct Object<'a> {
    pub key: &'a str,
    pub content_type: &'a str,
    pub content_disposition: Option<&'a str>,
    pub cache_control: Option<&'a str>,
    pub storage_class: Option<StorageClass>,
    pub server_side_encryption: Option<ServerSideEncryption>,
    pub kms_key_id: Option<&'a str>,
    pub acl: Option<ObjectCannedAcl>,
    /// Names and values of tags.
    pub tagging: &'a [(String, String)],
    /// Names, without `x-amz-meta-`, and values of user-defined metadata.
    pub metadata: &'a [(String, String)],
    /// SHA-256 of the bytes, in base64.
    pub checksum_sha256: Option<&'a str>,
    /// CRC-64/NVME of the bytes, in base64. S3 accepts one checksum of an object at most.
    pub checksum_crc64nvme: Option<&'a str>,
}

impl<'a> Object<'a> {
    /// The properties that have one value each and are sent as text, by the names of their headers in
    /// order.
    pub(super) fn properties(&'a self) -> impl Iterator<Item = (&'static str, &'a str)> {
        let Self {
            key: _,
            content_type,
            content_disposition,
            cache_control,
            storage_class,
            server_side_encryption,
            kms_key_id,
            acl,
            tagging: _,
            metadata: _,
            checksum_sha256,
            checksum_crc64nvme,
        } = self;
        let encryption = server_side_encryption.as_ref();
        let storage_class = storage_class.as_ref().map(StorageClass::as_str);
        let properties = [
            ("cache-control", *cache_control),
            ("content-disposition", *content_disposition),
            ("content-type", Some(*content_type)),
            (ACL, acl.as_ref().map(ObjectCannedAcl::as_str)),
            ("x-amz-checksum-crc64nvme", *checksum_crc64nvme),
            ("x-amz-checksum-sha256", *checksum_sha256),
            (ENCRYPTION, encryption.map(ServerSideEncryption::as_str)),
            ("x-amz-server-side-encryption-aws-kms-key-id", *kms_key_id),
            ("x-amz-storage-class", storage_class),
        ];
        let properties = properties.into_iter();
        properties.filter_map(|(name, value)| Some((name, value?)))
    }
}

pub(super) const ACL: &str = "x-amz-acl";
const ENCRYPTION: &str = "x-amz-server-side-encryption";

/// Sets the properties of an [`Object`] on one of the SDK's requests, whose types have nothing in common.
macro_rules! with_properties {
    ($request:expr, $object:expr) => {{
        let object: &$crate::s3::Object<'_> = $object;
        let mut request = $request
            .key(object.key)
            .content_type(object.content_type)
            .set_content_disposition(object.content_disposition.map(str::to_owned))
            .set_cache_control(object.cache_control.map(str::to_owned))
            .set_storage_class(object.storage_class.clone())
            .set_server_side_encryption(object.server_side_encryption.clone())
            .set_ssekms_key_id(object.kms_key_id.map(str::to_owned))
            .set_acl(object.acl.clone());
        if !object.tagging.is_empty() {
            request = request.tagging($crate::s3::object::tagging_header(object.tagging));
        }
        for (name, value) in object.metadata {
            request = request.metadata(name, $crate::s3::object::header_value(value));
        }
        request
    }};
}
pub(super) use with_properties;

/// Whether there are several spaces in a row, which signing would replace by one.
pub(crate) fn has_two_spaces(text: &str) -> bool {
    // Searching for a string has a setup that does not pay off for two bytes.
    text.as_bytes().windows(2).any(|pair| pair == b"  ")
}

/// A value of metadata as a header carries it: unchanged if it is ASCII that HTTP does not change,
/// otherwise as encoded words as in [RFC 2047](https://www.rfc-editor.org/rfc/rfc2047#section-2), which
/// [S3 decodes](https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html).
pub fn header_value(value: &str) -> Cow<'_, str> {
    /// An encoded word has at most 75 characters, of which `=?UTF-8?B?` and `?=` take 12.
    const WORD_BYTES: usize = (75 - 12) / 4 * 3;
    let is_plain = value.bytes().all(|b| matches!(b, b' '..=b'~'))
        && !has_two_spaces(value)
        && !value.contains("=?");
    if is_plain {
        return Cow::Borrowed(value);
    }
    let mut words = Vec::new();
    let mut rest = value;
    while !rest.is_empty() {
        let (word, after) = rest.split_at(rest.floor_char_boundary(WORD_BYTES));
        words.push(format!("=?UTF-8?B?{}?=", BASE64_STANDARD.encode(word)));
        rest = after;
    }
    Cow::Owned(words.join(" "))
}

/// The inverse of [`header_value`], also for the answers of stores, which may encode words in
/// [either way](https://www.rfc-editor.org/rfc/rfc2047#section-4). What cannot be decoded stays as
/// it is, and so does what would be control characters, which nobody can read in a header.
pub(super) fn header_text(value: &str) -> String {
    decode_words(value)
        .filter(|text| !text.contains(char::is_control))
        .unwrap_or_else(|| value.to_owned())
}

/// Whether a value would be decoded in the answer of a store, although it is what someone wrote.
pub(crate) fn is_encoded(value: &str) -> bool {
    decode_words(value).is_some()
}

fn decode_words(value: &str) -> Option<String> {
    let mut bytes = Vec::new();
    for word in value.split(' ') {
        let word = word.strip_prefix("=?")?.strip_suffix("?=")?;
        let (charset, word) = word.split_once('?')?;
        let (encoding, text) = word.split_once('?')?;
        if !charset.eq_ignore_ascii_case("utf-8") {
            return None;
        }
        match encoding {
            "B" | "b" => bytes.extend(BASE64_STANDARD.decode(text).ok()?),
            // Like percent-encoding, with another sign.
            "Q" | "q" if !text.contains('%') => {
                let text = text.replace('_', " ").replace('=', "%");
                bytes.extend(percent_decode_str(&text));
            }
            _ => return None,
        }
    }
    // A store may break words within a character.
    String::from_utf8(bytes).ok()
}

/// Tags as the header `x-amz-tagging` carries them: like a URL's query.
pub(super) fn tagging_header(tags: &[(String, String)]) -> String {
    let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
    let tags: Vec<String> = tags
        .iter()
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
        .collect();
    tags.join("&")
}

/// Tags as the form field `tagging` carries them: as the
/// [XML of a tag set](https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObjectTagging.html).
pub(super) fn tagging_xml(tags: &[(String, String)]) -> String {
    let mut xml = String::from("<Tagging><TagSet>");
    for (name, value) in tags {
        let (name, value) = (partial_escape(name), partial_escape(value));
        xml.extend([
            "<Tag><Key>",
            &*name,
            "</Key><Value>",
            &value,
            "</Value></Tag>",
        ]);
    }
    xml.push_str("</TagSet></Tagging>");
    xml
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_values_are_sent_as_they_are() {
        for value in ["7", "a b", "a=b?c", "\"quoted\""] {
            assert_eq!(header_value(value), value);
        }
    }

    #[test]
    fn other_values_are_sent_as_encoded_words() {
        assert_eq!(header_value("한글"), "=?UTF-8?B?7ZWc6riA?=");
        assert_eq!(header_value("a  b"), "=?UTF-8?B?YSAgYg==?=");
        assert_eq!(
            header_value("=?UTF-8?B?YQ==?="),
            "=?UTF-8?B?PT9VVEYtOD9CP1lRPT0/PQ==?="
        );
    }

    #[test]
    fn encoded_words_are_at_most_75_characters_and_no_shorter_than_they_have_to_be() {
        let value = header_value(&"한글🎉".repeat(20)).into_owned();
        assert!(value.split(' ').all(|word| word.len() <= 75), "{value}");
        assert_eq!(header_value(&"한".repeat(15)).split(' ').count(), 1);
        assert_eq!(header_value(&"한".repeat(16)).split(' ').count(), 2);
    }

    #[test]
    fn words_that_a_store_has_encoded_are_decoded() {
        for (value, text) in [
            ("=?UTF-8?B?w4RNw4Raw5XDkSBTMw==?=", "ÄMÄZÕÑ S3"),
            ("=?utf-8?q?caf=C3=A9_7=3D?=", "café 7="),
            ("=?UTF-8?Q?=ED=95?= =?UTF-8?Q?=9C?=", "한"),
        ] {
            assert_eq!(header_text(value), text);
        }
        for value in [
            "",
            "7",
            "a =?UTF-8?B?YQ==?=",
            "=?UTF-8?B?!?=",
            "=?latin1?Q?=E9?=",
            "=??=",
            "=?=",
            "=?UTF-8?B?/w==?=",
            "=?UTF-8?Q?100%25?=",
            "=?UTF-8?B?eA0KSW5qZWN0ZWQ6IDEABw==?=",
            "=?UTF-8?Q?=C2=85?=",
        ] {
            assert_eq!(header_text(value), value);
        }
    }

    proptest! {
        #[test]
        fn what_a_header_carries_is_what_was_put_in(value in "\\PC{0,120}|[=?UTF8BQ_ -]{0,30}") {
            prop_assert_eq!(header_text(&header_value(&value)), value);
        }
    }

    #[test]
    fn tags_are_written_for_headers_and_for_forms() {
        let tags = [("a b".to_owned(), "c&d=e+f/g".to_owned())];
        assert_eq!(tagging_header(&tags), "a%20b=c%26d%3De%2Bf%2Fg");
        let xml = "<Tagging><TagSet><Tag><Key>a b</Key><Value>c&amp;d=e+f/g</Value></Tag></TagSet></Tagging>";
        assert_eq!(tagging_xml(&tags), xml);
    }
}
