//! Whatever the body of a request is: the answer is a documented one and no 5xx, and its pointers lead into the
//! body.
//!
//! The first line of the input says which route, the rest is the body.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use presignd_fuzz::{Behavior, Place, bucket, first_line, problem, service, set_behavior};
use serde_json::Value;

const ROUTES: [&str; 5] = [
    "/upload/presigned-url",
    "/upload/presigned-urls",
    "/upload/presigned-post",
    "/upload/verify",
    "/s3/multipart",
];

static ROUTER: LazyLock<axum::Router> = LazyLock::new(|| {
    let policies = "
        [policies.default]
        allowed_metadata = ['*']
        sniff = true
        [policies.strict]
        key = '{uuid}.{ext}'
        content_types = ['image/*']
        max_size = '1 MiB'
        overwrite = false
        require_checksum = true
        active_content = 'reject'
        metadata = { source = 'web' }
        allowed_metadata = ['album']
    ";
    let service = service(bucket(Place::Local, None), policies);
    problem::router(service)
});

fuzz_target!(|input: &[u8]| {
    let (route, body) = first_line(input);
    let route = ROUTES.into_iter().find(|it| it.as_bytes() == route);
    let route = route.unwrap_or(ROUTES[0]);
    // A request with `wait` would really wait for an upload that never arrives.
    let json = serde_json::from_slice::<Value>(body).unwrap_or_default();
    let waits = json["wait"].as_u64().is_some_and(|seconds| seconds > 0);
    let is_empty = json["size"].as_u64().is_some_and(|size| size % 2 == 1) && !waits;
    set_behavior(if is_empty {
        Behavior::Empty
    } else {
        Behavior::Normal
    });
    let status = problem::post(&ROUTER, route, route, body);
    assert!(!status.is_server_error(), "{status}");
});
