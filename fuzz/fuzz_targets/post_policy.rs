//! Whatever form is requested: its policy document binds each field to its value, and allows no other field.
//!
//! Each line of the input sets something: `policy`, `caller`, `type`, `size`, `sum`, `meta NAME VALUE`, `name`.

#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use base64::prelude::{BASE64_STANDARD, Engine};
use libfuzzer_sys::fuzz_target;
use presignd::upload::{
    Caller, ContentType, Error, File, Filename, Grant, Sha256Checksum, UploadService,
    check_metadata,
};
use presignd_fuzz::{BUCKET, Place, ask, block_on, bucket, file, lines, midnight, service};
use serde_json::{Value, json};

/// S3's limit on a form without its file.
const MAX_FORM_BYTES: usize = 20_000;

/// With credentials that have no token, a usual token, and one that leaves little room for other fields.
static SERVICES: LazyLock<Vec<UploadService>> = LazyLock::new(|| {
    let policies = "
        [policies.default]
        allowed_metadata = ['*']
        [policies.dollar]
        key = '$/${filename}{filename}'
        overwrite = true
        [policies.full]
        key = 'a b+c/$key/{caller}/{uuid}.{ext}'
        max_size = '5 MiB'
        expires_in = '7d'
        cache_control = 'public, max-age=31536000'
        storage_class = 'STANDARD_IA'
        server_side_encryption = 'aws:kms'
        kms_key_id = 'arn:aws:kms:us-west-2:1:key/$x'
        acl = 'public-read'
        tagging = { 'a b' = 'c/d', '한' = '' }
        metadata = { source = '\"}, {\"x\": \"$key' }
        allowed_metadata = ['*']
    ";
    [None, Some(1500), Some(14_000)]
        .map(|bytes| bytes.map(|bytes| "t/+=".repeat(bytes / 4)))
        .map(|token| service(bucket(Place::Aws, token), policies))
        .into()
});

fuzz_target!(|input: &str| {
    let Some((caller, file)) = read(input) else {
        return;
    };
    for service in &*SERVICES {
        match block_on(service.presign_post(ask(&caller, &file))) {
            Ok(grant) => check(&file, &grant),
            Err(Error::Refused(_) | Error::NoForm(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
});

fn read(input: &str) -> Option<(Caller, File)> {
    let mut caller = Caller::anonymous();
    let filename = Filename::parse("a").ok()?;
    let mut file = file(filename, ContentType::parse("a/b").ok()?, "default");
    for (word, value) in lines(input) {
        match word {
            "policy" => file.policy = Some(value.to_owned()),
            "caller" if !value.is_empty() => caller = Caller::named(value, None),
            "type" => file.content_type = ContentType::parse(value).ok()?,
            "size" => file.size = value.parse().ok(),
            "sum" => file.checksum_sha256 = Sha256Checksum::parse(value).ok(),
            "name" => file.filename = Filename::parse(value).ok()?,
            "meta" => {
                let (name, value) = value.split_once(' ')?;
                check_metadata(name, value).ok()?;
                file.metadata.insert(name.to_owned(), value.to_owned());
            }
            _ => {}
        }
    }
    Some((caller, file))
}

fn check(file: &File, grant: &Grant) {
    let fields: BTreeMap<&str, &str> = grant
        .request
        .fields
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let bytes: usize = fields
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    assert!(bytes <= MAX_FORM_BYTES, "{bytes}");
    assert!(
        !fields.values().any(|value| value.contains("${filename}")),
        "{fields:?}"
    );
    assert_eq!(fields["key"], grant.key.as_str());
    assert_eq!(fields["bucket"], BUCKET);
    assert_eq!(fields["content-type"], file.content_type.as_str());
    for (name, value) in &file.metadata {
        assert_eq!(fields[format!("x-amz-meta-{name}").as_str()], value);
    }

    let document = BASE64_STANDARD.decode(fields["policy"]).expect("base64");
    // A `$` could begin a variable.
    assert!(!document.contains(&b'$'));
    let document: Value = serde_json::from_slice(&document).expect("JSON");
    assert_eq!(document.as_object().expect("an object").len(), 2);

    let max_size = grant.max_size.expect("a limit");
    let size = file.size.unwrap_or_default()..=max_size;
    assert!(file.size.is_none_or(|size| size == max_size));
    let mut expected = vec![json!(["content-length-range", size.start(), size.end()])];
    let unbound = ["policy", "x-amz-signature"];
    let bound = fields.iter().filter(|(name, _)| !unbound.contains(*name));
    expected.extend(bound.map(|(name, value)| json!({(*name): value})));
    let mut conditions = document["conditions"].as_array().expect("a list").clone();
    for conditions in [&mut expected, &mut conditions] {
        conditions.sort_by_key(Value::to_string);
    }
    assert_eq!(conditions, expected);

    let lifetime = grant
        .request
        .expires_at
        .duration_since(midnight())
        .expect("a lifetime");
    assert!(matches!(lifetime.as_secs(), 600 | 604_800));
    let day = if lifetime.as_secs() == 600 {
        "2024-03-01T00:10:00Z"
    } else {
        "2024-03-08T00:00:00Z"
    };
    assert_eq!(document["expiration"], day);
    let signature = fields["x-amz-signature"];
    assert!(signature.len() == 64 && signature.bytes().all(|b| b.is_ascii_hexdigit()));
}
