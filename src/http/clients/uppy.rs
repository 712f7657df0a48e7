//! `/s3/…`: the protocol that Uppy's S3 plugin speaks with
//! [Companion](https://github.com/transloadit/uppy/blob/main/packages/%40uppy/companion/src/server/controllers/s3.js).
//!
//! Requests are read as leniently as Companion reads them. The `uploadId` that clients get is not
//! the store's, but a token that seals it together with the key: nobody can sign parts for another
//! upload.

pub(super) mod calls;
mod multipart;
mod sign;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::{Query, State};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::auth::Authenticated;
use crate::http::clients::{CHECKSUMS, CONTENT_TYPE, DEFAULT_TYPE, has_no_effect, whole_number};
use crate::http::openapi::{
    FilenameText, MediaTypeOrNothing, ParameterProblems, PolicyProblems, SigningProblems,
};
use crate::http::problem::{Dialect, FieldErrors, Problem};
use crate::http::uploads::as_map;
use crate::http::{AppState, in_dialect};
use crate::upload::{
    Caller, ContentType, File, Filename, Grant, GrantRequest, Invalid, UploadService,
};

pub(super) fn router() -> OpenApiRouter<AppState> {
    let routes = OpenApiRouter::new()
        .routes(routes!(params))
        .merge(multipart::router())
        .merge(sign::router());
    in_dialect(routes, Dialect::Uppy)
}

type Pairs = Query<Vec<(String, String)>>;

/// The first value of a parameter.
fn parameter<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs
        .iter()
        .find(|(n, _)| n == name)
        .map(|(_, value)| value.as_str())
}

/// The file that a client of Companion describes. `type_pointer` is where the request has its type.
fn file(
    uploads: &UploadService,
    caller: &Caller,
    filename: Option<&str>,
    (type_pointer, content_type): (&str, Option<&str>),
    size: Option<u64>,
    metadata: impl IntoIterator<Item = (String, String)>,
    policy: Option<&str>,
) -> Result<File, Problem> {
    let mut errors = FieldErrors::default();
    let filename = filename
        .ok_or(Invalid::new("required", "is required"))
        .and_then(Filename::parse);
    let filename = errors.check(|| "/filename".into(), filename);
    let content_type = content_type
        .filter(|t| !t.is_empty())
        .unwrap_or(DEFAULT_TYPE);
    let content_type = errors.check(|| type_pointer.into(), ContentType::parse(content_type));
    match (filename, content_type) {
        (Some(filename), Some(content_type)) => Ok(File {
            size,
            policy: policy.map(str::to_owned),
            metadata: uploads
                .allowed_metadata(caller, policy, metadata)
                .map_err(Problem::from_uppy)?,
            ..File::new(filename, content_type)
        }),
        _ => Err(errors.into_problem()),
    }
}

/// The value of the parameter `size`.
fn bytes(text: &str) -> Result<u64, Problem> {
    whole_number(text).ok_or_else(|| {
        let invalid = Invalid::new("out-of-range", "must be a whole number of bytes");
        Problem::for_field("/size", invalid)
    })
}

fn seconds_until(expiry: SystemTime, now: SystemTime) -> u64 {
    // A grant expires on a whole second, so the time left is rounded up.
    let left = expiry.duration_since(now).unwrap_or_default();
    left.as_secs() + u64::from(left.subsec_nanos() > 0)
}

/// A presigned request for Uppy: a form, or a PUT where a form cannot be used.
#[derive(Serialize, ToSchema)]
#[schema(as = UppyRequest)]
struct ParamsDto {
    /// `POST` for a form, `PUT` for a file.
    #[schema(value_type = UppyMethod)]
    method: &'static str,
    /// Where to send the form, or the file.
    #[schema(
        format = "uri",
        example = "https://my-bucket.s3.ap-northeast-2.amazonaws.com/"
    )]
    url: String,
    /// The fields of the form, exactly these. Empty for a PUT.
    fields: BTreeMap<String, String>,
    /// The headers of the PUT, exactly these. Empty for a form.
    #[serde(serialize_with = "as_map")]
    #[schema(value_type = BTreeMap<String, String>)]
    headers: Vec<(Cow<'static, str>, String)>,
    /// The name of the object in the bucket.
    #[schema(example = "uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/example.jpg")]
    key: String,
    /// Seconds until the request expires.
    #[schema(example = 600)]
    expires: u64,
}

/// The method of a request to S3.
//
// One for all of `/s3/…`: what openapi-generator writes for two such enums declares `PUT` twice, which Go refuses.
#[derive(ToSchema)]
#[schema(rename_all = "UPPERCASE")]
#[expect(dead_code, reason = "it describes members of other types")]
enum UppyMethod {
    Put,
    Post,
    Get,
    Delete,
}

/// Presign an upload for Uppy
///
/// The answer is a form, or a PUT if the store accepts no forms, or if a form cannot keep the policy or carry what
/// the request says of the file. Metadata is sent as parameters like `metadata[album]=7`.
#[utoipa::path(
    get,
    path = "/s3/params",
    tag = "uppy",
    operation_id = "presignForUppy",
    params(
        ("filename" = FilenameText, Query, description = "The name of the file", example = "example.jpg"),
        ("type" = Option<MediaTypeOrNothing>, Query, description = "Its media type; `application/octet-stream` if it is absent or empty", example = "image/jpeg"),
        ("size" = Option<u64>, Query, description = "The length of the file in bytes. If it is given, the store accepts only this length", maximum = 5_368_709_120_u64, example = 6),
        ("policy" = Option<String>, Query, description = "The name of the policy; `default` if it is absent"),
    ),
    responses(
        (status = 200, description = "A presigned request", body = ParamsDto),
        ParameterProblems,
        PolicyProblems,
        SigningProblems,
    )
)]
async fn params(
    State(uploads): State<Arc<UploadService>>,
    caller: Authenticated,
    Query(pairs): Pairs,
) -> Result<Json<ParamsDto>, Problem> {
    let is_given = |name: &&&str| parameter(&pairs, name).is_some();
    let mut of_others = CHECKSUMS.iter().chain([&CONTENT_TYPE]);
    if let Some(name) = of_others.find(is_given) {
        return Err(Problem::for_field(&format!("/{name}"), has_no_effect(name)));
    }
    let metadata = pairs.iter().filter_map(|(name, value)| {
        let name = name.strip_prefix("metadata[")?.strip_suffix(']')?;
        Some((name.to_owned(), value.clone()))
    });
    let file = file(
        &uploads,
        &caller,
        parameter(&pairs, "filename"),
        ("/type", parameter(&pairs, "type")),
        parameter(&pairs, "size").map(bytes).transpose()?,
        metadata,
        parameter(&pairs, "policy"),
    )?;
    drop(pairs);
    let now = SystemTime::now();
    let Grant { key, request, .. } = uploads
        .presign_single(GrantRequest::new(&caller, &file, now))
        .await
        .map_err(Problem::from_uppy)?;
    Ok(Json(ParamsDto {
        method: request.method,
        url: request.url,
        fields: request.fields,
        headers: request.headers,
        key: key.into_string(),
        expires: seconds_until(request.expires_at, now),
    }))
}
