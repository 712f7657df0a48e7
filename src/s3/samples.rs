//! Awkward requests, on which our signature is compared with the presigner's at start.

use std::time::Duration;

use super::object::{Object, ObjectCannedAcl, ServerSideEncryption, StorageClass};
use super::presign::{Get, MAX_EXPIRES_IN, Put, Request};

pub(super) const PLAIN: &str = "k";
/// All printable ASCII, some of which is encoded, and more.
const AWKWARD: &str = " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~\u{7f}\u{80}\u{e9}가🎉";
/// Slashes, dots and encoded characters that a presigner could normalise.
const UNTIDY: &str = "/a//b/../c/./%2F%2e%41+//";

/// The shortest, a usual and the longest lifetime, in turn.
pub(super) fn lifetime(index: usize) -> Duration {
    [
        Duration::from_secs(1),
        Duration::from_mins(10),
        MAX_EXPIRES_IN,
    ][index % 3]
}

/// Metadata or tags.
pub(super) fn pairs() -> [(String, String); 2] {
    [("album", "7 & 8"), ("b.c_d-e", "가 나")].map(|(a, b)| (a.into(), b.into()))
}

/// PUTs in which each property is set in one and missing in another.
pub(super) fn puts(pairs: &[(String, String)]) -> [Put<'_>; 4] {
    let plain = |key| Object {
        key,
        content_type: "text/plain; charset=\"utf-8\"",
        ..Object::default()
    };
    let full = |key| Object {
        content_disposition: Some("attachment; filename*=UTF-8''a%20b"),
        cache_control: Some("public, max-age=31536000"),
        storage_class: Some(StorageClass::Standard),
        server_side_encryption: Some(ServerSideEncryption::AwsKms),
        kms_key_id: Some("arn:aws:kms:us-east-1:1:key/k"),
        acl: Some(ObjectCannedAcl::Private),
        tagging: pairs,
        metadata: pairs,
        checksum_crc64nvme: Some("rosUhgp5mIg="),
        checksum_sha256: Some("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="),
        ..plain(key)
    };
    let put = |object, size, if_none_match| Put {
        object,
        size,
        if_none_match,
        content_md5: size.map(|_| "1B2M2Y8AsgTpgAmY7PhCfg=="),
    };
    [
        put(full(AWKWARD), Some(0), true),
        put(plain(AWKWARD), Some(u64::MAX), false),
        put(plain(UNTIDY), None, true),
        put(full(UNTIDY), None, false),
    ]
}

/// GETs with every property, each of which is also missing once.
pub(super) const GETS: [Get<'static>; 2] = [
    Get {
        key: AWKWARD,
        version_id: Some(AWKWARD),
        content_disposition: AWKWARD,
        content_type: Some(AWKWARD),
    },
    Get {
        key: UNTIDY,
        version_id: None,
        content_disposition: "attachment; filename*=UTF-8''a%20b",
        content_type: None,
    },
];

pub(super) fn parts() -> [Request<'static>; 3] {
    [
        (PLAIN, PLAIN, 1, None),
        (AWKWARD, AWKWARD, 10_000, Some(u64::MAX)),
        (UNTIDY, UNTIDY, 12, Some(0)),
    ]
    .map(|(key, upload_id, number, size)| Request::Part {
        key,
        upload_id,
        number,
        size,
    })
}
