//! The description of the API. The types and routes say the most of it; here is the rest.

use serde_json::{Value, json};
use utoipa::OpenApi;
use utoipa::openapi::path::Operation;
use utoipa::openapi::{self, RefOr};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "presignd",
        description = "Hands out presigned S3 upload URLs: ask for one, then send the file straight to S3.\n\nEvery response carries `x-request-id` and `cache-control: no-store`. Every error is a problem document (RFC 9457).",
    ),
    tags(
        (name = "upload", description = "Leave to upload"),
        (name = "uppy", description = "The protocol of Uppy's S3 plugin: set its `companionEndpoint` (`endpoint` in newer versions) to this service"),
        (name = "operations", description = "For those who run the service"),
    ),
)]
struct ApiDoc;

/// The document before any route is in it.
pub(super) fn base() -> openapi::OpenApi {
    let mut document = ApiDoc::openapi();
    // It would say that the license has no name.
    document.info.license = None;
    document
}

/// Gives each problem in the document an example of its own status.
pub(super) fn add_examples(document: &mut openapi::OpenApi) {
    let operations = document.paths.paths.values_mut().flat_map(|item| {
        let methods: [&mut Option<Operation>; 3] =
            [&mut item.get, &mut item.post, &mut item.delete];
        methods.into_iter().flatten()
    });
    for operation in operations {
        for (status, response) in &mut operation.responses.responses {
            let RefOr::T(response) = response else {
                continue;
            };
            if let Some(RefOr::T(content)) = response.content.get_mut("application/problem+json") {
                content.example = example(status);
            }
        }
    }
}

fn example(status: &str) -> Option<Value> {
    let field =
        |pointer, code, detail| json!([{"pointer": pointer, "code": code, "detail": detail}]);
    let (title, code, detail, errors) = match status {
        "400" => (
            "Bad Request",
            "invalid-request",
            "filename must not be empty",
            Some(field("/filename", "empty", "must not be empty")),
        ),
        "404" => (
            "Not Found",
            "no-such-upload",
            "there is no such upload of this key, or not any more",
            None,
        ),
        "409" => (
            "Conflict",
            "object-exists",
            "there is an object of this key already, and the policy forbids to overwrite it",
            None,
        ),
        "413" => (
            "Payload Too Large",
            "body-too-large",
            "the body must not be longer than 65536 bytes",
            None,
        ),
        "415" => (
            "Unsupported Media Type",
            "unsupported-media-type",
            "the request must have the header `content-type: application/json`",
            None,
        ),
        "422" => (
            "Unprocessable Entity",
            "file-too-large",
            "size must be at most 5242880 bytes; it is 6000000",
            Some(field(
                "/size",
                "file-too-large",
                "must be at most 5242880 bytes; it is 6000000",
            )),
        ),
        "502" => (
            "Bad Gateway",
            "storage-error",
            "the store answered with an error; the log has it under this request id",
            None,
        ),
        "503" => (
            "Service Unavailable",
            "credentials-unavailable",
            "there are no credentials to sign with at the moment; try again later",
            None,
        ),
        "504" => (
            "Gateway Timeout",
            "storage-timeout",
            "the store did not answer in time; try again later",
            None,
        ),
        _ => return None,
    };
    let mut problem = json!({
        "type": "about:blank",
        "title": title,
        "status": status.parse::<u16>().ok()?,
        "detail": detail,
        "code": code,
        "requestId": "7f3c1f0e-3c58-4f0e-9a53-2d0f7f0f3b0a",
    });
    if let Some(errors) = errors {
        problem["errors"] = errors;
    }
    Some(problem)
}
