//! Whatever the body of a completion is: the answer is a documented one, and its pointers lead into the body.
//!
//! The first line of the input says how the store answers, the rest is the body.

#![no_main]

use std::sync::LazyLock;

use axum::http::StatusCode;
use libfuzzer_sys::fuzz_target;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use presignd_fuzz::{Behavior, begun, first_line, problem, set_behavior};

const ROUTE: &str = "/s3/multipart/{uploadId}/complete";

/// The service, and where an upload of it is completed.
static SERVICE: LazyLock<(axum::Router, String)> = LazyLock::new(|| {
    let (service, upload) = begun();
    let key = utf8_percent_encode(upload.open.key(), NON_ALPHANUMERIC);
    let uri = format!("/s3/multipart/{}/complete?key={key}", upload.token);
    (problem::router(service), uri)
});

fuzz_target!(|input: &[u8]| {
    let (behavior, body) = first_line(input);
    let behavior = match behavior {
        b"empty" => Behavior::Empty,
        b"strict" => Behavior::Strict,
        b"taken" => Behavior::Taken,
        b"closed" => Behavior::Closed,
        _ => Behavior::Normal,
    };
    let (router, uri) = &*SERVICE;
    set_behavior(behavior);
    let status = problem::post(router, ROUTE, uri, body);
    set_behavior(Behavior::Normal);
    assert!(
        !status.is_server_error() || behavior == Behavior::Closed,
        "{status}"
    );
    assert!(
        status != StatusCode::NOT_FOUND || behavior == Behavior::Empty,
        "{status}"
    );
    assert!(
        status != StatusCode::CONFLICT || behavior == Behavior::Taken,
        "{status}"
    );
});
