//! Arbitrary requests and signatures, and a usual object.

use base64::prelude::{BASE64_STANDARD, Engine};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// The values that a [`Put`] borrows.
#[derive(Clone, Debug)]
pub(super) struct OwnedPut {
    key: String,
    content_type: String,
    content_disposition: Option<String>,
    cache_control: Option<String>,
    storage_class: Option<StorageClass>,
    encryption: Option<(ServerSideEncryption, Option<String>)>,
    acl: Option<ObjectCannedAcl>,
    tagging: Vec<(String, String)>,
    metadata: Vec<(String, String)>,
    checksum: Option<[u8; 32]>,
    size: Option<u64>,
    if_none_match: bool,
}

impl OwnedPut {
    pub(super) async fn with<T>(&self, use_it: impl AsyncFnOnce(&Put<'_>) -> T) -> T {
        let checksum = self.checksum.map(|bytes| BASE64_STANDARD.encode(bytes));
        let md5 = self
            .checksum
            .map(|bytes| BASE64_STANDARD.encode(&bytes[..16]));
        let crc64nvme = self
            .checksum
            .map(|bytes| BASE64_STANDARD.encode(&bytes[..8]));
        let put = Put {
            object: Object {
                key: &self.key,
                content_type: &self.content_type,
                content_disposition: self.content_disposition.as_deref(),
                cache_control: self.cache_control.as_deref(),
                storage_class: self.storage_class.clone(),
                server_side_encryption: self.encryption.clone().map(|(it, _)| it),
                kms_key_id: self.encryption.as_ref().and_then(|(_, key)| key.as_deref()),
                acl: self.acl.clone(),
                tagging: &self.tagging,
                metadata: &self.metadata,
                checksum_sha256: checksum.as_deref(),
                checksum_crc64nvme: crc64nvme.as_deref(),
            },
            size: self.size,
            if_none_match: self.if_none_match,
            content_md5: md5.as_deref(),
        };
        use_it(&put).await
    }
}

pub(super) fn keys() -> impl Strategy<Value = String> {
    let any_text = prop::collection::vec(any::<char>(), 0..20).prop_map(String::from_iter);
    prop_oneof![
        12 => "[ -~\u{e9}가🎉/.%+]{1,80}",
        4 => any_text,
        1 => "[ \t\u{85}]{0,2}",
    ]
}

/// Values that policies and clients set, and values that no header should have.
pub(super) fn values() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => "[!-~]([ -~]{0,40}[!-~])?",
        2 => "[a ]{0,8}",
        1 => "[ \t\r\n\u{7f}\u{e9}가]{0,5}",
    ]
}

fn metadata() -> impl Strategy<Value = Vec<(String, String)>> {
    let names = prop_oneof![8 => "[a-z0-9._-]{1,12}", 1 => "[A-Za-z: ]{0,4}"];
    // The SDK defines no order for names that differ only in their case.
    let distinct = prop::collection::btree_map(names, values(), 0..4);
    distinct.prop_map(|map| {
        let mut seen = Vec::new();
        let mut is_new = |name: &str| {
            let name = name.to_lowercase();
            let is_new = !seen.contains(&name);
            seen.push(name);
            is_new
        };
        map.into_iter().filter(|(name, _)| is_new(name)).collect()
    })
}

pub(super) fn puts() -> impl Strategy<Value = OwnedPut> {
    let size = option::of(prop_oneof![0..10_000_000_000_u64, Just(u64::MAX)]);
    let texts = (keys(), values(), option::of(values()), option::of(values()));
    let classes = option::of(select(vec![
        StorageClass::Standard,
        StorageClass::GlacierIr,
    ]));
    let acls = option::of(select(vec![
        ObjectCannedAcl::Private,
        ObjectCannedAcl::PublicRead,
    ]));
    let encryption = option::of(prop_oneof![
        Just((ServerSideEncryption::Aes256, None)),
        option::of(values()).prop_map(|key| (ServerSideEncryption::AwsKms, key)),
    ]);
    let tags = prop::collection::vec(("[a-z]{1,9}", "[a-z0-9]{0,9}"), 0..3);
    let rest = (
        tags,
        metadata(),
        option::of(any::<[u8; 32]>()),
        size,
        any::<bool>(),
    );
    (texts, classes, encryption, acls, rest).prop_map(
        |(
            (key, content_type, content_disposition, cache_control),
            storage_class,
            encryption,
            acl,
            (tagging, metadata, checksum, size, if_none_match),
        )| OwnedPut {
            key,
            content_type,
            content_disposition,
            cache_control,
            storage_class,
            encryption,
            acl,
            tagging,
            metadata,
            checksum,
            size,
            if_none_match,
        },
    )
}

/// Awkward credentials, the days around a midnight, and a lifetime.
pub(super) fn signings() -> impl Strategy<Value = Signing> {
    let tokens = select(vec![
        None,
        Some("IQoJb3JpZ2luX2VjEJ//+=="),
        Some("another token&?"),
        Some(""),
    ]);
    let seconds = prop_oneof![4 => -3..3_i64, 1 => -200_000..200_000_i64];
    let lifetimes = prop_oneof![Just(0), Just(1), Just(600), 0..700_000_u64];
    let names = select(vec!["AKID", "a key/with+odd=letters"]);
    (names, tokens, seconds, lifetimes).prop_map(|(name, token, seconds, lifetime)| {
        let from_midnight = Duration::from_secs(seconds.unsigned_abs());
        let secret = format!("secret of {name}");
        Signing {
            credentials: Credentials::new(name, secret, token.map(str::to_owned), None, "").into(),
            expires_in: Duration::from_secs(lifetime),
            now: if seconds < 0 {
                midnight() - from_midnight
            } else {
                midnight() + from_midnight
            },
        }
    })
}

impl StoredObject {
    /// A usual object.
    pub(crate) fn sample() -> Self {
        Self {
            size: 5,
            content_type: Some("text/plain".to_owned()),
            etag: "\"e\"".to_owned(),
            is_readable: true,
            ..Self::unreadable()
        }
    }
}
