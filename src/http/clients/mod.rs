//! The protocols of third-party upload clients. Each module translates one protocol; none of
//! them decides what may be uploaded.

mod better_upload;
mod uppy;

use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;

use super::AppState;
use crate::s3::MAX_PARTS;
use crate::upload::Invalid;

/// The type of a file whose client sends none.
const DEFAULT_TYPE: &str = "application/octet-stream";
/// The most parts that one request can sign.
const MAX_BATCH: usize = 200;
/// This many parts count as one request in the rate limit.
const PARTS_PER_REQUEST: usize = 20;
/// How many bytes of memory the URL of a part takes until it is in the answer.
const PART_URL_BYTES: usize = 8 * 1024;

/// Fields of a file in requests of `/upload`. Upload clients send none of them, and an application that
/// adds one must not believe that it has an effect.
const CHECKSUMS: [&str; 3] = ["checksumSha256", "checksumCrc64nvme", "contentMd5"];
/// Another such field, where `type` has the media type.
const CONTENT_TYPE: &str = "contentType";

fn has_no_effect(field: &str) -> Invalid {
    let detail = match field {
        CONTENT_TYPE => "has no effect here: the media type is in `type`",
        _ => "has no effect here: checksums are for requests of `/upload`",
    };
    Invalid::new("unknown-field", detail)
}

/// The routes of clients that cannot name a policy, to be nested below a path that does.
pub(super) fn router_of_policies() -> OpenApiRouter<AppState> {
    uppy::router()
}

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .merge(uppy::router())
        .merge(better_upload::router())
}

/// The calls that are sealed into URLs, which need no other credentials.
pub(super) fn router_of_calls() -> OpenApiRouter<AppState> {
    uppy::calls::router()
}

/// A number in a parameter or in XML, which has no sign.
fn whole_number(text: &str) -> Option<u64> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_digits)
}

/// The numbers and sizes of a file's parts. An empty file has an empty part.
fn parts_of(size: u64, part_size: u64) -> impl Iterator<Item = (u16, Option<u64>)> {
    (1..=MAX_PARTS).map_while(move |number| {
        let before = part_size.saturating_mul(u64::from(number) - 1);
        let is_part = number == 1 || before < size;
        is_part.then(|| (number, Some(part_size.min(size - before))))
    })
}

/// Like JavaScript's `String(value)`, which Uppy sends with small files, and which Companion
/// applies to what Uppy sends with large ones.
fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Object(_) => "[object Object]".into(),
        Value::Array(elements) => {
            let texts = elements.iter().map(|element| match element {
                Value::Null => String::new(),
                element => as_text(element),
            });
            texts.collect::<Vec<_>>().join(",")
        }
    }
}
