//! A store without a network: it answers immediately, with the selected behavior.

use std::sync::Mutex;

use aws_sdk_s3::config::SharedHttpClient;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;

/// The store's id of every multipart upload.
pub const UPLOAD_ID: &str = "an/upload+id=";

/// How the store answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Behavior {
    /// Every object exists, and every upload has three parts of 5 MiB.
    #[default]
    Normal,
    /// Nothing exists.
    Empty,
    /// It refuses to complete uploads.
    Strict,
    /// Every key is taken when an upload is completed.
    Taken,
    /// It refuses everything.
    Closed,
}

static BEHAVIOR: Mutex<Behavior> = Mutex::new(Behavior::Normal);

pub fn set_behavior(behavior: Behavior) {
    *BEHAVIOR.lock().expect("a behavior") = behavior;
}

pub(crate) fn client() -> SharedHttpClient {
    http_client_fn(|_, _| SharedHttpConnector::new(Store))
}

#[derive(Debug)]
struct Store;

impl HttpConnector for Store {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let behavior = *BEHAVIOR.lock().expect("a behavior");
        HttpConnectorFuture::ready(Ok(answer(behavior, &request)))
    }
}

fn answer(behavior: Behavior, request: &HttpRequest) -> HttpResponse {
    let (path, query) = request.uri().split_once('?').unwrap_or_default();
    let is_upload = query.contains("uploadId=");
    let (status, body) = match (behavior, request.method()) {
        (Behavior::Closed, _) => (403, error("AccessDenied")),
        (Behavior::Empty, "HEAD") => (404, String::new()),
        (Behavior::Empty, "GET" | "DELETE") if is_upload => (404, error("NoSuchUpload")),
        (Behavior::Empty, "GET") => (404, error("NoSuchKey")),
        (Behavior::Strict, "POST") if is_upload => (400, error("InvalidPart")),
        (Behavior::Taken, "POST") if is_upload => (412, error("PreconditionFailed")),
        (_, "POST") if is_upload => (200, completed()),
        (_, "POST") => (200, begun()),
        (_, "GET") if is_upload => (200, parts()),
        (_, "DELETE") => (204, String::new()),
        (_, "GET" | "HEAD") => return object(request.method() == "GET", path),
        _ => (400, error("InvalidRequest")),
    };
    response(status, body)
}

fn response(status: u16, body: String) -> HttpResponse {
    let status = status.try_into().expect("a status");
    HttpResponse::new(status, SdkBody::from(body))
}

/// An object whose content is of the type that its name ends with.
fn object(with_body: bool, path: &str) -> HttpResponse {
    let (content_type, body) = match path.rsplit('.').next() {
        Some("png") => ("image/png", "\u{89}PNG"),
        Some("html") => ("text/html", "<html>"),
        _ => ("text/plain", "text"),
    };
    let mut response = response(
        200,
        if with_body {
            body.to_owned()
        } else {
            String::new()
        },
    );
    let length = body.len().to_string();
    for (name, value) in [
        ("content-type", content_type),
        ("content-length", &length),
        ("etag", "\"e\""),
        ("last-modified", "Fri, 01 Mar 2024 00:00:00 GMT"),
        ("x-amz-meta-album", "=?UTF-8?B?7ZWc?="),
    ] {
        response.headers_mut().insert(name, value.to_owned());
    }
    response
}

fn error(code: &str) -> String {
    format!("<Error><Code>{code}</Code><Message>simulated</Message></Error>")
}

fn begun() -> String {
    format!(
        "<InitiateMultipartUploadResult><UploadId>{UPLOAD_ID}</UploadId></InitiateMultipartUploadResult>"
    )
}

fn completed() -> String {
    "<CompleteMultipartUploadResult><ETag>\"e\"</ETag></CompleteMultipartUploadResult>".to_owned()
}

fn parts() -> String {
    let part = |number| {
        format!(
            "<Part><PartNumber>{number}</PartNumber><ETag>\"e{number}\"</ETag><Size>5242880</Size></Part>"
        )
    };
    let parts: String = (1..=3).map(part).collect();
    format!("<ListPartsResult><IsTruncated>false</IsTruncated>{parts}</ListPartsResult>")
}
