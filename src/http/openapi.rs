//! The description of the API. The types and routes say the most of it; here is what they share.

use std::collections::BTreeMap;

use serde_json::json;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    self, ContentBuilder, Header, HeaderBuilder, Object, ObjectBuilder, Ref, RefOr, Response,
    ResponseBuilder, Schema, Type,
};
use utoipa::{IntoResponses, OpenApi, PartialSchema, ToSchema};

use super::auth::{API_KEY as API_KEY_HEADER, Auth};
use super::middleware::{ON_ALL, REQUEST_ID};
use super::problem::Problem;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "presignd",
        description = "Hands out presigned S3 upload URLs: ask for one, then send the file straight to S3.\n\nEvery response carries `x-request-id` and `cache-control: no-store`. Every error is a problem document (RFC 9457).",
    ),
    tags(
        (name = "upload", description = "Leave to upload"),
        (name = "uppy", description = "The protocol of Uppy's S3 plugin: let its `companionEndpoint` (`endpoint` up to version 5) be this service"),
        (name = "operations", description = "For those who run the service"),
    ),
    components(schemas(Problem)),
)]
struct ApiDoc;

/// Names the texts that requests are made of, for `value_type`s.
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
        "Any text but `.` and `..`, without `/`, `\\`, and control characters",
        r"^(?!\.{1,2}$)[^/\\\u0000-\u001F\u007F-\u009F]+$",
    )
    .min_length(Some(1))
    .examples(["example.jpg"]);

    MediaTypeText: text("A media type, with or without parameters", MEDIA_TYPE)
        .min_length(Some(3))
        .max_length(Some(255))
        .examples(["image/jpeg"]);

    /// For Uppy, which sends an empty one when it does not know.
    MediaTypeOrNothing: text(
        "A media type, with or without parameters; or nothing",
        &format!("^$|{MEDIA_TYPE}"),
    )
    .examples(["image/jpeg"]);

    Sha256Text: text(
        "The SHA-256 of a file, in base64: 32 bytes, with padding",
        "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$",
    )
    .min_length(Some(44))
    .max_length(Some(44))
    .examples(["WJG1tSLV3whtD/CxEPvZ0hu0/HFjrzTQgoai6Eb2vgM="]);

    MetadataName: text("Becomes a part of a header's name", "^[a-z0-9._-]+$")
        .min_length(Some(1))
        .max_length(Some(128));

    MetadataValue: text(
        "Any text without control characters, and without spaces at its ends",
        r"^[^\u0000-\u0020\u007F-\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000]([^\u0000-\u001F\u007F-\u009F]*[^\u0000-\u0020\u007F-\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000])?$",
    )
    .min_length(Some(1));
}

/// What [`ContentType`](crate::upload::ContentType) accepts, in ECMA-262's syntax: type, subtype and
/// anything after a semicolon, without two spaces in a row and without a `/` after a comma.
const MEDIA_TYPE: &str = r"^(?!.*  )(?![^,]*,.*/)[A-Za-z0-9!#$%&'+.^_`|~-]{1,127}/[A-Za-z0-9!#$%&'+.^_`|~-]{1,127}( ?;([ -~]*[!-~])?)?$";

fn text(description: &str, pattern: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(description))
        .pattern(Some(pattern))
}

/// The document before any route is in it.
pub(super) fn base() -> openapi::OpenApi {
    let mut document = ApiDoc::openapi();
    // It would say that the license has no name.
    document.info.license = None;
    let components = document.components.get_or_insert_default();
    for status in STATUSES {
        let response = problem(status).into();
        components.responses.insert(response_name(status), response);
    }
    document
}

/// Says what only a document with all routes can: the headers of all answers, and how callers say who
/// they are.
pub(super) fn complete(document: &mut openapi::OpenApi, auth: Option<&Auth>) {
    name_headers(document);
    secure(document, auth);
}

/// Every response has the headers that every answer has.
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
            "What our log has for this request. The request's own, if it has a harmless one",
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

/// Says how callers say who they are: in any of the ways that there are, or as `auth` has it.
fn secure(document: &mut openapi::OpenApi, auth: Option<&Auth>) {
    const BEARER: &str = "bearer";
    const API_KEY: &str = "apiKey";
    let of_none: [String; 0] = [];
    let [bearer, api_key] =
        [BEARER, API_KEY].map(|scheme| SecurityRequirement::new(scheme, of_none.clone()));
    let (requirements, token) = match auth {
        None => (
            vec![SecurityRequirement::default(), bearer, api_key],
            "An API key or a JWT, as the service is set up (`AUTH_MODE`)",
        ),
        Some(Auth::None) => return,
        Some(Auth::ApiKeys(_)) => (vec![bearer, api_key], "An API key"),
        Some(Auth::Jwt(_)) => (vec![bearer], "A JWT of the issuer that the service trusts"),
    };
    let components = document.components.get_or_insert_default();
    let is_jwt = matches!(auth, Some(Auth::Jwt(_)));
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(token));
    components.add_security_scheme(BEARER, SecurityScheme::Http(scheme.build()));
    if !is_jwt {
        let header = ApiKeyValue::with_description(API_KEY_HEADER.as_str(), "An API key");
        components.add_security_scheme(API_KEY, SecurityScheme::ApiKey(ApiKey::Header(header)));
    }
    for path in document.paths.paths.values_mut() {
        for operation in operations(path) {
            if operation.responses.responses.contains_key("401") {
                operation.security = Some(requirements.clone());
            }
        }
    }
}

fn operations(path: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut path.get, &mut path.post, &mut path.delete]
        .into_iter()
        .flatten()
}

/// Names the problems that a route can answer with, for `responses(…)`.
macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident: $($status:literal),+;)*) => {$(
        $(#[$doc])*
        pub(super) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                [$($status),+].map(|status| (status.to_string(), reference(status).into())).into()
            }
        }
    )*};
}

problems! {
    /// Of a route that reads a JSON body.
    BodyProblems: 400, 408, 413, 415;
    /// Of a route that reads parameters.
    ParameterProblems: 400;
    /// Of a route that is for known callers.
    CallerProblems: 401, 429;
    /// Of a route that asks a policy.
    PolicyProblems: 403, 422;
    /// Of a route that goes on with an upload.
    SessionProblems: 404;
    /// Of a route that makes an object.
    ObjectProblems: 409;
    /// Of a route that signs.
    SigningProblems: 503;
    /// Of a route that asks the store.
    StoreProblems: 502, 503, 504;
    /// Of the one that tells whether the service can work.
    ReadinessProblems: 503;
}

/// What there are problems of.
const STATUSES: [u16; 13] = [
    400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 502, 503, 504,
];

/// The name that the response with this status has in the document.
fn response_name(status: u16) -> String {
    let (title, ..) = wording(status);
    title.replace(' ', "")
}

fn reference(status: u16) -> Ref {
    Ref::from_response_name(response_name(status))
}

/// The title of the problem with this status, what the status means, and a code and a detail that go
/// with it.
fn wording(status: u16) -> (&'static str, &'static str, &'static str, &'static str) {
    match status {
        400 => (
            "Bad Request",
            "The request cannot be read, or parts of it are missing, unknown or wrong; `errors` names them all",
            "invalid-request",
            "filename must not be empty",
        ),
        401 => (
            "Unauthorized",
            "There are no credentials, or not valid ones. Only where callers have to say who they are",
            "unauthorized",
            "the request must carry valid credentials; /docs says which",
        ),
        403 => (
            "Forbidden",
            "The caller may not upload under this policy",
            "policy-not-allowed",
            "policy is not one that you may upload under",
        ),
        404 => (
            "Not Found",
            "There is no such upload of this key, or not any more",
            "no-such-upload",
            "there is no such upload of this key, or not any more",
        ),
        408 => (
            "Request Timeout",
            "The body did not arrive in time",
            "body-timeout",
            "the body did not arrive within 20s",
        ),
        409 => (
            "Conflict",
            "There is an object of this key already, and the policy forbids to overwrite it",
            "object-exists",
            "there is an object of this key already, and the policy forbids to overwrite it",
        ),
        413 => (
            "Payload Too Large",
            "The body is too long",
            "body-too-large",
            "the body must not be longer than 65536 bytes",
        ),
        415 => (
            "Unsupported Media Type",
            "The body is not `application/json`",
            "unsupported-media-type",
            "the request must have the header `content-type: application/json`, and no `content-encoding`",
        ),
        422 => (
            "Unprocessable Entity",
            "The policy refuses, or the store cannot do it; `errors` names all reasons",
            "file-too-large",
            "size must be at most 5242880 bytes; it is 6000000",
        ),
        429 => (
            "Too Many Requests",
            "There were too many requests of this caller or from this address. Only where there is a limit",
            "rate-limited",
            "there were too many requests; the `retry-after` header says how many seconds to wait",
        ),
        502 => (
            "Bad Gateway",
            "The store answered with an error",
            "storage-error",
            "the store answered with an error; the log has it under this request id",
        ),
        503 => (
            "Service Unavailable",
            "The store, the credentials to sign with or the issuer of tokens are not available at the moment",
            "credentials-unavailable",
            "there are no credentials to sign with at the moment; try again later",
        ),
        504 => (
            "Gateway Timeout",
            "The store did not answer in time",
            "storage-timeout",
            "the store did not answer in time; try again later",
        ),
        _ => unreachable!("{status} has no example"),
    }
}

/// The response with this status, with an example of its own.
fn problem(status: u16) -> Response {
    let (title, description, code, detail) = wording(status);
    let mut example = json!({
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "requestId": "7f3c1f0e-3c58-4f0e-9a53-2d0f7f0f3b0a",
    });
    // These name a field: the first word of their detail.
    if let (400 | 403 | 422, Some((field, rest))) = (status, detail.split_once(' ')) {
        let code = if status == 400 { "empty" } else { code };
        example["errors"] = json!([{"pointer": format!("/{field}"), "code": code, "detail": rest}]);
    }
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Problem")))
        .example(Some(example))
        .build();
    let mut response = ResponseBuilder::new()
        .description(description)
        .content("application/problem+json", content);
    if status == 401 {
        let challenge = HeaderBuilder::new()
            .schema(Some(Object::with_type(Type::String)))
            .description(Some("How to say who you are (RFC 9110)"));
        response = response.header("www-authenticate", challenge.build());
    }
    if matches!(status, 429 | 503) {
        let seconds = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(0));
        let retry_after = HeaderBuilder::new()
            .schema(Some(seconds))
            .description(Some("Seconds to wait before asking again"));
        response = response.header("retry-after", retry_after.build());
    }
    response.build()
}
