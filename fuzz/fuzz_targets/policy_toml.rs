//! Whatever an operator writes into the policies file: either one line that says what is wrong and where, or
//! policies that can be enforced.
//!
//! The input is the file.

#![no_main]

use std::sync::LazyLock;

use axum::http::{HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use presignd::s3::Bucket;
use presignd::upload::{
    Caller, ContentType, Error, File, Filename, Policies, Sample, UploadService,
};
use presignd_fuzz::{LIFETIME, Place, ask, block_on, bucket, file, service_of};

static BUCKET: LazyLock<Bucket> = LazyLock::new(|| bucket(Place::Local, None));

fuzz_target!(|text: &str| {
    let policies = match Policies::parse(text, LIFETIME) {
        Ok(policies) => policies,
        Err(error) => {
            let error = error.to_string();
            let has_place = error.starts_with("line ") || error.starts_with("policies");
            assert!(has_place && error.contains(' '), "{error}");
            assert!(!error.contains(char::is_control), "{error:?}");
            return;
        }
    };
    if policies.buckets().iter().any(Option::is_some) {
        return; // The service knows the default bucket only.
    }
    let samples = policies.samples();
    let service = service_of(BUCKET.clone(), policies);
    for sample in &samples {
        takes_its_sample(&service, sample);
        for (filename, content_type) in [("a.txt", "text/plain"), (&"가".repeat(85), "text/html")]
        {
            let filename = Filename::parse(filename).expect("a name");
            let content_type = ContentType::parse(content_type).expect("a type");
            let file = file(filename, content_type, &sample.policy);
            put(&service, &sample.caller, &file);
        }
    }
});

fn takes_its_sample(service: &UploadService, sample: &Sample) {
    let caller = &sample.caller;
    assert!(put(service, caller, &sample.file), "{}", sample.policy);
    if sample.fits_form {
        match block_on(service.presign_post(ask(caller, &sample.file))) {
            Ok(_) => {}
            Err(Error::NoForm(why)) if why.contains("larger") => {}
            Err(error) => panic!("{error}: {}", sample.policy),
        }
    }
    if sample.fits_multipart {
        let upload = block_on(service.create_multipart(ask(caller, &sample.file)));
        upload.expect("an upload");
    }
}

/// Whether the file is granted. If not, the policy must have refused it.
fn put(service: &UploadService, caller: &Caller, file: &File) -> bool {
    match block_on(service.presign_put(ask(caller, file))) {
        Ok(grant) => {
            assert!(
                (1..=1024).contains(&grant.key.as_str().len()),
                "{:?}",
                grant.key
            );
            for (name, value) in &grant.request.headers {
                HeaderName::from_bytes(name.as_bytes()).expect(name);
                let header = HeaderValue::from_str(value).expect(value);
                // HTTP would remove it.
                assert_eq!(header.to_str().expect(value).trim(), value);
            }
            true
        }
        Err(Error::Refused(refusals)) => {
            assert!(!refusals.is_empty());
            false
        }
        Err(error) => panic!("{error:?}"),
    }
}
