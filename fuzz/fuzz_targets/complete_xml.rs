//! Whatever the XML of a completion is: the answer is S3's XML with a status that the protocol has, and never a fault
//! of the service.

#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use libfuzzer_sys::fuzz_target;
use tower::ServiceExt;

use presignd::upload::{Caller, Operation};
use presignd_fuzz::{begun, block_on, problem};

/// The service, and where an upload of it is completed.
static SERVICE: LazyLock<(axum::Router, String)> = LazyLock::new(|| {
    let (service, upload) = begun();
    // The fuzzer may run for long.
    let lifetime = Duration::from_hours(24);
    let (caller, now) = (Caller::anonymous(), SystemTime::now());
    let call = service.seal_call(&caller, &upload.open, Operation::Complete, lifetime, now);
    let uri = format!("/s3/upload/{}", call.token);
    (problem::router(service), uri)
});

fuzz_target!(|body: &[u8]| {
    let (router, uri) = &*SERVICE;
    let request = Request::post(uri)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/xml")
        .body(Body::from(body.to_vec()))
        .expect("a request");
    let (parts, answer) = block_on(async {
        let response = router.clone().oneshot(request).await.expect("an answer");
        let (parts, answer) = response.into_parts();
        (parts, to_bytes(answer, usize::MAX).await.expect("a body"))
    });
    let status = parts.status.as_u16();
    assert!([200, 400, 413, 422].contains(&status), "{status}");
    assert_eq!(parts.headers[header::CONTENT_TYPE], "application/xml");
    let answer = str::from_utf8(&answer).expect("UTF-8");
    let root = if status == 200 {
        "<CompleteMultipartUploadResult "
    } else {
        "<Error><Code>"
    };
    assert!(answer.contains(root), "{answer}");
});
