//! What the operations of the OpenAPI document share: texts, headers, problems and security.

mod security;

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::json;
use utoipa::openapi::link::{Link, LinkBuilder};
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::{
    self, ContentBuilder, Header, HeaderBuilder, Object, ObjectBuilder, Ref, RefOr, Response,
    ResponseBuilder, Schema, Type,
};
use utoipa::{IntoResponses, OpenApi, PartialSchema, ToSchema};

use super::auth::Auth;
use super::head::REQUEST_ID;
use super::middleware::ON_ALL;
use super::problem::Problem;
use super::problem::catalogue::{self, Kind};
use crate::upload::name_pattern;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "presignd",
        description = "Issues presigned S3 upload URLs: ask for one, then send the file straight to S3.\n\nEvery response has the headers `x-request-id` and `cache-control: no-store`. Every error is a problem document (RFC 9457) of at most 64 KiB. The exceptions are a bare 400 or 431, without these headers, for a head that is not HTTP or is too large, and the errors of the URLs under `/s3/upload/`, which are S3's XML.\n\nWith JWTs, a token that carries a ticket (the claim `upload`) and lives at most 24 hours may stand in the path instead of a header: `/t/{ticket}` before the path of any route that authenticates.\n\n`/p/{policy}` before the path of a route of Uppy names its policy.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
        contact(name = "The maintainers of presignd"),
    ),
    servers((url = "/", description = "The service that serves this document")),
    tags(
        (name = "upload", description = "Presign and verify uploads"),
        (name = "download", description = "Presign downloads of uploads"),
        (name = "uppy", description = "The protocol of Uppy's S3 plugin: set its `companionEndpoint` (`endpoint` up to version 5) to this service"),
        (name = "better-upload", description = "The protocol of better-upload's client: set its `api` to `/better-upload` of this service"),
        (name = "events", description = "For the store, where `EVENTS_TOKEN` is set"),
        (name = "operations", description = "Probes for operators"),
    ),
    components(schemas(Problem)),
)]
struct ApiDoc;

/// Defines schemas of texts, for `value_type`.
///
/// Their patterns are for the regular expressions of many languages, and name only characters of ASCII: PCRE has no
/// `\u`, and PHP compares bytes. What they cannot express is in the descriptions. Nor do they contain an asterisk and
/// a slash in a row, which openapi-generator takes for the end of a comment.
macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident: $schema:expr;)*) => {$(
        $(#[$doc])*
        pub(super) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                $schema.into()
            }
        }

        impl ToSchema for $name {}
    )*};
}

texts! {
    FilenameText: text(
        "Any text of up to 4,096 bytes except `.` and `..`, without `/`, `\\`, control characters and characters that are not for \
            the names of files, such as those that reverse the direction of text",
        r"^(?!\.{1,2}$)[^/\\\x00-\x1F\x7F]+$",
    )
    .min_length(Some(1))
    .max_length(Some(4096))
    .examples(["example.jpg"]);

    MediaTypeText: text("A media type, with or without parameters", MEDIA_TYPE)
        .min_length(Some(3))
        .max_length(Some(255))
        .examples(["image/jpeg"]);

    /// For Uppy, which sends an empty one for a file whose type it does not know.
    MediaTypeOrNothing: text(
        "A media type, with or without parameters, or an empty string",
        &format!("^$|{MEDIA_TYPE}"),
    )
    .max_length(Some(255))
    .examples(["image/jpeg"]);

    Sha256Text: checksum(("SHA-256", 32), "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$", "WJG1tSLV3whtD/CxEPvZ0hu0/HFjrzTQgoai6Eb2vgM=");
    Crc64NvmeText: checksum(("CRC-64/NVME", 8), "^[A-Za-z0-9+/]{10}[AEIMQUYcgkosw048]=$", "akP7S61aVgc=");
    Md5Text: checksum(("MD5", 16), "^[A-Za-z0-9+/]{21}[AQgw]==$", "sZRqySSS0jR8YjW00mERhA==");

    MetadataName: text(
        "Part of the name of a header, and none on which stores act",
        &name_pattern(),
    )
    .min_length(Some(1))
    .max_length(Some(128));

    MetadataValue: text(
        "Any text without control characters, and without spaces at the beginning and the end, that is no encoded word (`=?UTF-8?B?…?=`)",
        r"^[^\x00-\x20\x7F]([^\x00-\x1F\x7F]*[^\x00-\x20\x7F])?$",
    )
    .min_length(Some(1));
}

/// What [`ContentType`](crate::upload::ContentType) accepts, in ECMA-262's syntax: type, subtype and
/// anything after a semicolon, without two spaces in a row and without a `/` after a comma.
const MEDIA_TYPE: &str = r"^(?!.*  )(?![^,]*,.*[/])[A-Za-z0-9!#$%&'+.^_`|~-]{1,127}/[A-Za-z0-9!#$%&'+.^_`|~-]{1,127}( ?;([ -~]*[!-~])?)?$";

/// The checksum of a file in base64, of this name and as many bytes.
fn checksum((name, bytes): (&str, usize), pattern: &str, example: &str) -> ObjectBuilder {
    let description = format!("The {name} of a file, in base64: {bytes} bytes, with padding");
    text(&description, pattern)
        .min_length(Some(example.len()))
        .max_length(Some(example.len()))
        .examples([example])
}

fn text(description: &str, pattern: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(description))
        .pattern(Some(pattern))
}

/// The document before any route is in it.
pub(super) fn base() -> openapi::OpenApi {
    let mut document = ApiDoc::openapi();
    let components = document.components.get_or_insert_default();
    for status in STATUSES {
        let response = problem(&kinds(status)).into();
        components.responses.insert(response_name(status), response);
    }
    document
}

/// Adds what needs a document with all routes: the headers of all answers, and the security of
/// each operation.
pub(super) fn complete(document: &mut openapi::OpenApi, auth: Option<&Auth>) {
    name_headers(document);
    security::add(document, auth);
}

/// Adds the headers of every answer to every response.
fn name_headers(document: &mut openapi::OpenApi) {
    let constant = |value: &str| {
        let schema = ObjectBuilder::new().schema_type(Type::String);
        schema.enum_values(Some([value.to_owned()])).build()
    };
    let mut headers: BTreeMap<String, Header> = ON_ALL
        .iter()
        .map(|(name, value)| {
            let schema = constant(value.to_str().unwrap_or_default());
            (name.to_string(), Header::new(schema))
        })
        .collect();
    let request_id = HeaderBuilder::new()
        .schema(Some(Object::with_type(Type::String)))
        .description(Some(
            "The id of this request in the log. A trusted proxy may set it",
        ));
    headers.insert(REQUEST_ID.to_string(), request_id.build());

    let components = document.components.get_or_insert_default();
    let of_components = components.responses.values_mut();
    let of_operations = document
        .paths
        .paths
        .values_mut()
        .flat_map(operations)
        .flat_map(|operation| operation.responses.responses.values_mut());
    for response in of_components.chain(of_operations) {
        let RefOr::T(response) = response else {
            continue;
        };
        for name in headers.keys() {
            let header = Ref::new(format!("#/components/headers/{name}"));
            response.headers.insert(name.clone(), RefOr::Ref(header));
        }
    }
    let headers = headers
        .into_iter()
        .map(|(name, header)| (name, RefOr::T(header)));
    components.headers.extend(headers);
}

fn operations(path: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut path.get, &mut path.post, &mut path.delete]
        .into_iter()
        .flatten()
}

/// The statuses of problems that operations share.
const STATUSES: [u16; 13] = [
    400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 502, 503, 504,
];

/// Defines sets of problems for `responses(…)`: those that operations share by their statuses, and
/// others as lists of kinds with one status.
macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident: $($problem:tt),+;)*) => {$(
        $(#[$doc])*
        pub(super) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                [$(response!($problem)),+].into()
            }
        }
    )*};
}

/// A status and its response.
macro_rules! response {
    ($status:literal) => {
        ($status.to_string(), Ref::from_response_name(response_name($status)).into())
    };
    ([$($kind:ident),+]) => {{
        let kinds = [$(&catalogue::$kind),+];
        (kinds[0].status.as_u16().to_string(), problem(&kinds).into())
    }};
}

problems! {
    /// For operations of a caller that read a JSON body and check a policy.
    BodyProblems: 400, 401, 403, 408, 413, 415, 422, 429;
    /// For operations of a caller that read parameters.
    ParameterProblems: 400, 401, 403, 429;
    /// For operations that check a policy.
    PolicyProblems: 403, 422;
    /// For operations on a multipart upload.
    SessionProblems: 404;
    /// For the operation that creates an object.
    ObjectProblems: 409;
    /// For operations that sign.
    SigningProblems: 503;
    /// For operations that call the store.
    StoreProblems: 502, 503, 504;
    /// For the readiness probe.
    ReadinessProblems: 503;
    /// For operations on one key that do no more than find it.
    KeyProblems: [NOT_UPLOADED];
    VerifyProblems: [NOT_UPLOADED], [MISMATCH, CONTENT_MISMATCH, REPLACED];
    DownloadProblems: [NOT_UPLOADED], [PENDING];
    /// For the notification of a store.
    EventProblems:
        [NOT_AN_EVENT, INCOMPLETE_BODY], [UNAUTHORIZED], [BODY_TIMEOUT], [BODY_TOO_LARGE], [RATE_LIMITED], [EVENT_NOT_DELIVERED];
}

/// The kinds of problems with this status that all operations may have which can answer with it.
fn kinds(status: u16) -> Vec<&'static Kind> {
    let shared = catalogue::ALL.iter().filter(|kind| kind.is_shared);
    shared
        .filter(|kind| kind.status.as_u16() == status)
        .collect()
}

/// The name that the response with this status has in the document.
fn response_name(status: u16) -> String {
    let title = kinds(status)[0].status.canonical_reason();
    title.unwrap_or_default().replace(' ', "")
}

/// The response for these kinds of problems, with the first one as its example.
fn problem(kinds: &[&Kind]) -> Response {
    let kind = kinds[0];
    let mut example = json!({
        "type": "about:blank",
        "title": kind.status.canonical_reason(),
        "status": kind.status.as_u16(),
        "detail": kind.text,
        "code": kind.code,
        "requestId": "7f3c1f0e-3c58-4f0e-9a53-2d0f7f0f3b0a",
    });
    // The detail of these begins with the name of a field.
    let code = match kind.code {
        "invalid-request" => Some("empty"),
        "mismatch" => Some("file-too-large"),
        code @ ("policy-not-allowed" | "file-too-large") => Some(code),
        _ => None,
    };
    if let (Some(code), Some((field, rest))) = (code, kind.text.split_once(' ')) {
        example["errors"] = json!([{"pointer": format!("/{field}"), "code": code, "detail": rest}]);
    }
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Problem")))
        .example(Some(example))
        .build();
    let whens: Vec<String> = kinds
        .iter()
        .map(|kind| format!("- `{}`: {}", kind.code, kind.when))
        .collect();
    let mut response = ResponseBuilder::new()
        .description(whens.join("\n"))
        .content("application/problem+json", content);
    if kind.status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderBuilder::new()
            .schema(Some(Object::with_type(Type::String)))
            .description(Some("How to authenticate (RFC 9110)"));
        response = response.header("www-authenticate", challenge.build());
    }
    if let StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE = kind.status {
        let seconds = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(0));
        let retry_after = HeaderBuilder::new()
            .schema(Some(seconds))
            .description(Some("Seconds to wait before the next attempt"));
        response = response.header("retry-after", retry_after.build());
    }
    response.build()
}

/// Links the answer of an operation with those that continue what it began: a name and an operation
/// for each.
pub(super) fn link(
    document: &mut openapi::OpenApi,
    path: &str,
    operations: &[(&str, &str)],
    with: impl Fn(LinkBuilder) -> LinkBuilder,
) {
    let path = document.paths.paths.get_mut(path);
    let answer = path.and_then(|path| path.post.as_mut()?.responses.responses.values_mut().next());
    let Some(RefOr::T(answer)) = answer else {
        return;
    };
    for (name, operation) in operations {
        let link = with(Link::builder().operation_id(*operation)).build();
        answer.links.insert((*name).to_owned(), RefOr::T(link));
    }
}
