//! Whatever the name of the file and the caller are: the URL leads to the key of the grant, byte for byte, and
//! nothing on the way to the store reads another key.
//!
//! The first line of the input is the caller, the rest the file's name.

#![no_main]

use std::sync::LazyLock;

use icu_normalizer::ComposingNormalizerBorrowed;
use libfuzzer_sys::fuzz_target;
use percent_encoding::percent_decode_str;
use presignd::upload::{Caller, ContentType, Error, Filename, UploadService};
use presignd_fuzz::{Place, ask, block_on, bucket, file, service};
use url::Url;

/// Name, key and number of segments of each policy.
const TEMPLATES: [(&str, &str, usize); 6] = [
    ("plain", "uploads/{uuid}/{filename}", 3),
    ("dated", "{yyyy}/{mm}/{dd}/{uuid}.{ext}", 4),
    ("awkward", "a b+c%20/가~*'()!/{uuid}-{filename}", 3),
    ("named", "{filename}", 1),
    ("own", "u/{caller}/{filename}", 3),
    ("doubled", "{filename}/{filename}.{ext}", 2),
];

static SERVICES: LazyLock<Vec<(Place, UploadService)>> = LazyLock::new(|| {
    let policies: String = TEMPLATES
        .iter()
        .map(|(name, key, _)| format!("[policies.{name}]\nkey = \"{key}\"\noverwrite = true\n"))
        .collect();
    let services = Place::ALL.map(|place| (place, service(bucket(place, None), &policies)));
    services.into()
});

fuzz_target!(|input: &str| {
    let (caller, name) = input.split_once('\n').unwrap_or(("", input));
    let Ok(filename) = Filename::parse(name) else {
        return;
    };
    let caller = match caller {
        "" => Caller::anonymous(),
        name => Caller::named(name, None),
    };
    let nfc = ComposingNormalizerBorrowed::new_nfc();
    assert!(nfc.is_normalized(filename.as_str()));
    for (place, service) in &*SERVICES {
        for (policy, _, segments) in TEMPLATES {
            let content_type = ContentType::parse("text/plain").expect("a type");
            let file = file(filename.clone(), content_type, policy);
            match block_on(service.presign_put(ask(&caller, &file))) {
                Ok(grant) => check(*place, grant.key.as_str(), &grant.request.url, segments),
                // Its key would consist of spaces only.
                Err(Error::Refused(_))
                    if policy == "named" && filename.as_str().trim().is_empty() => {}
                Err(error) => panic!("{error:?}: {policy}"),
            }
        }
    }
});

fn check(place: Place, key: &str, url: &str, segments: usize) {
    assert!((1..=1024).contains(&key.len()), "{key}");
    assert_eq!(key.split('/').count(), segments, "{key}");
    assert!(
        !key.split('/').any(|it| matches!(it, "" | "." | "..")),
        "{key}"
    );

    let rest = url.strip_prefix(place.base()).expect(url);
    let (path, query) = rest.split_once('?').expect(url);
    let decoded: Vec<u8> = percent_decode_str(path).collect();
    assert_eq!(decoded, key.as_bytes(), "{url}");
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/%".contains(&b);
    assert!(path.bytes().all(is_plain), "{url}");
    assert!(
        query.bytes().all(|b| is_plain(b) || b"=&".contains(&b)),
        "{url}"
    );
    // As a browser reads it.
    assert_eq!(Url::parse(url).expect(url).as_str(), url);
}
