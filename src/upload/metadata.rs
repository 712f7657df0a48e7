//! User-defined metadata: names and values that S3 keeps with an object. Pure.

use std::collections::BTreeMap;

use super::Invalid;
use super::grants::check_form;
use crate::s3;

/// Names and values that S3 and HTTP can carry.
///
/// - Names are made of ASCII lower-case letters, digits, `-`, `_` and `.`: they become names of
///   headers, whose case does not count.
/// - No store acts on a name (see [`check_name`]).
/// - Values are any text but the empty one, without control characters and without spaces at the
///   ends, which HTTP would drop. The signer encodes what is not ASCII, so a value that looks
///   encoded would be read as another one.
/// - All together they are shorter than
///   [S3's 2 KB](https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html), and have at
///   most 50 names.
pub type Metadata = BTreeMap<String, String>;

/// S3's limit on all names and values of one object, in bytes. Names count with their
/// `x-amz-meta-`, and values as they are sent.
const MAX_BYTES: usize = 2048;
/// The most names of one object. HTTP libraries, also the one that asks the store, accept 100 headers in
/// an answer, others included.
const MAX_NAMES: usize = 50;

/// Checks one name and its value, without regard to any policy.
pub fn check_metadata(name: &str, value: &str) -> Result<(), Invalid> {
    check_name(name).and_then(|()| check_value(value))
}

/// Checks metadata that a policy or a ticket fixes.
///
/// # Errors
///
/// Which member is wrong, such as `metadata.a`, and why.
pub(super) fn check_fixed(metadata: &Metadata) -> Result<(), (String, String)> {
    for (name, value) in metadata {
        check_metadata(name, value)
            .and_then(|()| check_form(value))
            .map_err(|invalid| (format!("metadata.{name}"), invalid.detail.into_owned()))?;
    }
    check_size(metadata).map_err(|invalid| ("metadata".to_owned(), invalid.detail.into_owned()))
}

/// Names on which a store acts, although they are metadata:
///
/// - RustFS 1.0.0-beta.8 and -beta.9 store these as the properties of the object.
/// - `mdonly` makes [Scality's CloudServer](https://github.com/scality/cloudserver) believe a size that
///   other metadata claims.
const RESERVED: [&str; 8] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "etag",
    "expires",
    "mdonly",
];
/// Beginnings of names that stores keep for themselves: `scal-location-constraint` chooses where
/// `CloudServer` stores the object.
const RESERVED_PREFIXES: [&str; 6] = [
    "minio-",
    "scal-",
    "x-amz-",
    "x-minio-",
    "x-rustfs-",
    "x-scal-",
];
/// `snowball-auto-extract` makes
/// [MinIO](https://github.com/minio/minio/blob/7aac2a2c5/cmd/api-router.go#L389) and
/// [RustFS](https://github.com/rustfs/rustfs) unpack the file, an archive, into keys that the archive
/// names. Other names with this word say how.
const UNPACKS: &str = "snowball";

/// Matches the names that [`check_name`] accepts, of any length.
pub(crate) fn name_pattern() -> String {
    let (names, prefixes) = (RESERVED.join("|"), RESERVED_PREFIXES.join("|"));
    format!("^(?!({names})$)(?!{prefixes})(?!.*{UNPACKS})[a-z0-9._-]+$")
}

/// Refuses what is no name, and names on which a store acts, whoever signed them.
pub(super) fn check_name(name: &str) -> Result<(), Invalid> {
    let is_name = (1..=128).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b));
    if !is_name {
        return Err(Invalid::new(
            "invalid-name",
            "must have a name of 1 to 128 lower-case letters, digits, `-`, `_` and `.`",
        ));
    }
    if RESERVED.contains(&name)
        || RESERVED_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
        || name.contains(UNPACKS)
    {
        return Err(Invalid::new(
            "reserved-name",
            "must not have a name on which stores act: see docs/stores.md",
        ));
    }
    Ok(())
}

pub(super) fn check_value(value: &str) -> Result<(), Invalid> {
    if value.trim().is_empty() {
        return Err(Invalid::new("empty", "must not be empty"));
    }
    if value.trim() != value {
        return Err(Invalid::new(
            "outer-space",
            "must not begin or end with a space",
        ));
    }
    if s3::is_encoded(value) {
        return Err(Invalid::new(
            "encoded-word",
            "must not be an encoded word such as `=?UTF-8?Q?a?=`: send the text itself",
        ));
    }
    match value.chars().find(|c| c.is_control()) {
        None => Ok(()),
        Some(c) => Err(Invalid::new(
            "control-character",
            format!(
                "must not contain U+{:04X}, a control character",
                u32::from(c)
            ),
        )),
    }
}

pub(super) fn check_size<'a>(
    metadata: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Result<(), Invalid> {
    let (mut names, mut bytes) = (0, 0);
    for (name, value) in metadata {
        names += 1;
        bytes += "x-amz-meta-".len() + name.len() + s3::header_value(value).len();
    }
    let detail = if bytes >= MAX_BYTES {
        format!("must be shorter than {MAX_BYTES} bytes, headers' names included; it has {bytes}")
    } else if names > MAX_NAMES {
        format!("must have at most {MAX_NAMES} names; it has {names}")
    } else {
        return Ok(());
    };
    Err(Invalid::new("metadata-too-large", detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_headers_can_be_called() {
        for name in ["album", "a-b_c.1"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in ["", "Album", "a b", "a:b", "é", "a\nb", &"a".repeat(129)] {
            assert_eq!(check_name(name).unwrap_err().code, "invalid-name", "{name}");
        }
    }

    #[test]
    fn no_store_acts_on_a_name() {
        for name in [
            "snowball-auto-extract",
            "minio-snowball-prefix",
            "acme-snowball-prefix",
            "scal-location-constraint",
            "content-type",
            "mdonly",
            "x-rustfs-encryption-original-size",
            "minio-object-perf",
        ] {
            let invalid = check_name(name).unwrap_err();
            assert_eq!(invalid.code, "reserved-name", "{name}");
        }
        for name in [
            "snow-ball",
            "fiscal-year",
            "scalar",
            "content-types",
            "x-am",
        ] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn an_object_has_at_most_50_names() {
        for (count, is_allowed) in [(50, true), (51, false)] {
            let names = (0..count).map(|number| (number.to_string(), "x".to_owned()));
            let metadata: Metadata = names.collect();
            assert_eq!(check_size(&metadata).is_ok(), is_allowed, "{count}");
        }
    }

    #[test]
    fn values_are_any_visible_text() {
        for value in [
            "7",
            "a  b",
            "앨범 7",
            "🎉",
            "=?x",
            "a =?UTF-8?B?YQ==?=",
            "\u{a0}x\"'`",
        ] {
            let trimmed = value.trim();
            assert_eq!(check_value(trimmed), Ok(()), "{value}");
        }
        for value in [
            "",
            " ",
            " a",
            "a ",
            "a\r\nx-amz-acl: public-read",
            "a\0",
            "\u{85}a",
            "=?UTF-8?B?YQ==?=",
            "=?utf-8?q?a?= =?UTF-8?B?YQ==?=",
        ] {
            assert!(check_value(value).is_err(), "{value:?}");
        }
    }

    #[test]
    fn all_together_stay_below_2_kb_as_they_are_sent() {
        let with = |value: String| BTreeMap::from([("a".to_owned(), value)]);
        assert_eq!(check_size(&with("x".repeat(2035))), Ok(()));
        assert!(check_size(&with("x".repeat(2036))).is_err());
        assert!(check_size(&with("한".repeat(600))).is_err());
    }
}
