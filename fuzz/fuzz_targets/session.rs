//! Whatever a client sends: only its token opens a multipart upload, only with its key, only for the caller who
//! created it, and only for 7 days.
//!
//! Each line of the input sets something: `caller`, `other` (a caller), `name`, `key`, `token`, `after` (seconds);
//! or tampers with the valid token: `cut AT`, `put AT BYTE`, `end TEXT`, `mix N`, which replaces the N-th of its
//! three parts by that of another upload's token.

#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use percent_encoding::percent_decode_str;
use presignd::s3::Bucket;
use presignd::upload::{
    Caller, ContentType, Error, Filename, MultipartUpload, Policies, UploadService,
};
use presignd_fuzz::{
    LIFETIME, Place, UPLOAD_ID, ask, block_on, bucket, file, lines, midnight, service_of,
    service_with_key,
};

const SEVEN_DAYS: u64 = 7 * 24 * 60 * 60;

static BUCKET: LazyLock<Bucket> = LazyLock::new(|| bucket(Place::Local, None));
static SERVICE: LazyLock<UploadService> =
    LazyLock::new(|| service_of(BUCKET.clone(), Policies::built_in(LIFETIME)));
/// A service with another secret.
static STRANGER: LazyLock<UploadService> =
    LazyLock::new(|| service_with_key(BUCKET.clone(), Policies::built_in(LIFETIME), &[8; 32]));

fuzz_target!(|input: &str| {
    let (mut name, mut caller, mut other) = ("a", "", "");
    for (word, value) in lines(input) {
        match word {
            "name" => name = value,
            "caller" => caller = value,
            "other" => other = value,
            _ => {}
        }
    }
    let Ok(filename) = Filename::parse(name) else {
        return;
    };
    let (begun_by, foreign) = (self::caller(caller), self::caller(other));
    let begin = |service: &UploadService, caller, name| {
        let content_type = ContentType::parse("a/b").expect("a type");
        let file = file(name, content_type, "default");
        block_on(service.create_multipart(ask(caller, &file))).expect("an upload")
    };
    let upload = begin(&SERVICE, &begun_by, filename.clone());

    check_parts(&begun_by, &upload);
    for (seconds, is_open) in [(0, true), (SEVEN_DAYS - 1, true), (SEVEN_DAYS, false)] {
        assert_eq!(
            opens(&begun_by, &upload.token, upload.open.key(), seconds),
            is_open
        );
    }
    assert_eq!(
        opens(&foreign, &upload.token, upload.open.key(), 0),
        caller == other
    );
    let strange = begin(&STRANGER, &begun_by, filename);
    assert!(!opens(&begun_by, &strange.token, strange.open.key(), 0));

    let other_name = Filename::parse("another").expect("a name");
    let second = begin(&SERVICE, &foreign, other_name);
    let mut tampered = upload.token.clone().into_bytes();
    for (word, value) in lines(input) {
        let number = |text: &str| text.parse::<usize>().ok();
        match word {
            "key" => assert_eq!(
                opens(&begun_by, &upload.token, value, 0),
                value == upload.open.key()
            ),
            "token" => {
                let is_good = value == upload.token;
                assert_eq!(
                    opens(&begun_by, value, upload.open.key(), 0),
                    is_good,
                    "{value}"
                );
            }
            "after" => {
                let seconds = u64::from(value.parse::<u32>().unwrap_or_default());
                let is_open = seconds < SEVEN_DAYS;
                assert_eq!(
                    opens(&begun_by, &upload.token, upload.open.key(), seconds),
                    is_open
                );
            }
            "cut" => {
                if let Some(at) = number(value).filter(|at| *at < tampered.len()) {
                    tampered.remove(at);
                }
            }
            "put" => {
                let (at, byte) = value.split_once(' ').unwrap_or_default();
                if let (Some(at), [byte]) = (
                    number(at).filter(|at| *at < tampered.len()),
                    byte.as_bytes(),
                ) {
                    tampered[at] = *byte;
                }
            }
            "end" => tampered.extend_from_slice(value.as_bytes()),
            "mix" => {
                let token = String::from_utf8_lossy(&tampered).into_owned();
                let mut parts: Vec<&str> = token.split('.').collect();
                let theirs: Vec<&str> = second.token.split('.').collect();
                if let Some(n) = number(value).filter(|n| *n < parts.len().min(theirs.len())) {
                    parts[n] = theirs[n];
                    tampered = parts.join(".").into_bytes();
                }
            }
            _ => {}
        }
    }
    let tampered = String::from_utf8_lossy(&tampered);
    assert_eq!(
        opens(&begun_by, &tampered, upload.open.key(), 0),
        tampered == upload.token,
        "{tampered}"
    );
    assert_eq!(
        opens(&foreign, &tampered, second.open.key(), 0),
        tampered == second.token,
        "{tampered}"
    );
});

fn caller(name: &str) -> Caller {
    match name {
        "" => Caller::anonymous(),
        name => Caller::named(name, None),
    }
}

fn opens(caller: &Caller, token: &str, key: &str, seconds: u64) -> bool {
    let now = midnight() + Duration::from_secs(seconds);
    match SERVICE.open_upload(caller, token, Some(key), now) {
        Ok(upload) => {
            assert_eq!(upload.key(), key);
            let parts = BTreeMap::from([(1, None)]);
            block_on(SERVICE.presign_parts(&upload, &parts, now)).expect("parts");
            true
        }
        Err(Error::NoSuchUpload(_)) => false,
        Err(error) => panic!("{error:?}"),
    }
}

/// URLs of parts have the key of the upload, and the store's own id of it.
fn check_parts(caller: &Caller, upload: &MultipartUpload) {
    let parts = BTreeMap::from([(1, None), (10_000, None)]);
    let open = SERVICE.open_upload(caller, &upload.token, None, midnight());
    let open = open.expect("an open upload");
    let parts = SERVICE.presign_parts(&open, &parts, midnight());
    for (number, url) in block_on(parts).expect("parts") {
        let url = url.strip_prefix(Place::Local.base()).expect(&url);
        let (path, query) = url.split_once('?').expect(url);
        let decoded = |text| percent_decode_str(text).decode_utf8().expect("UTF-8");
        assert_eq!(decoded(path), upload.open.key());
        let parameter = |name| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs
                .find(|(it, _)| *it == name)
                .map(|(_, value)| decoded(value))
        };
        assert_eq!(parameter("uploadId").as_deref(), Some(UPLOAD_ID));
        assert_eq!(parameter("partNumber"), Some(number.to_string().into()));
    }
}
