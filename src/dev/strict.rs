//! A middleware in front of the store. It refuses what S3 refuses and `s3s` accepts, and gives
//! every refusal a reason.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::prelude::{BASE64_STANDARD, Engine};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use quick_xml::escape::partial_escape;

use super::grants::{Grants, parameter, target};
use super::{form, log};
use crate::http;
use crate::xml::text_of;

/// The longest refusal to which a reason is added.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;

/// Passes a request on to the store unless S3 would refuse it, and logs it.
pub(super) async fn guard(State(grants): State<Grants>, request: Request, next: Next) -> Response {
    let begin = Instant::now();
    let (head, body) = request.into_parts();
    let is_cut_off = Arc::new(AtomicBool::new(false));
    let note = Arc::clone(&is_cut_off);
    let body = body.map_err(move |error| {
        note.store(true, Ordering::Relaxed);
        error
    });
    let request = Request::from_parts(head.clone(), Body::new(body));
    let answer = match refuse(&request) {
        Some(refusal) => refusal,
        None => match AssertUnwindSafe(next.run(form::readable(request)))
            .catch_unwind()
            .await
        {
            Ok(_) if is_cut_off.load(Ordering::Relaxed) => refusal(
                StatusCode::BAD_REQUEST,
                "IncompleteBody",
                "The connection was closed before the whole body had arrived.",
            ),
            Ok(response) => response,
            Err(_panic) => refusal(
                StatusCode::INTERNAL_SERVER_ERROR,
                "InternalError",
                "The store has a defect: it panicked.",
            ),
        },
    };
    let (answer, reason) = explain(answer, &head, &grants).await;
    log::line(
        "store ",
        &head.method,
        &target(head.uri.path()),
        answer.status(),
        begin.elapsed(),
        &reason.unwrap_or_default(),
    );
    answer
}

/// Logs a preflight of a page that may not call. The layer for CORS answers it before [`guard`].
pub(super) async fn log_refused_preflight(request: Request, next: Next) -> Response {
    let origin = http::preflight_origin(&request);
    let response = next.run(request).await;
    let is_allowed = response
        .headers()
        .contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN);
    if let Some(origin) = origin.filter(|_| !is_allowed) {
        tracing::warn!(
            origin = origin.to_str().unwrap_or_default(),
            "a page of this origin may not send to the store; add the origin to CORS_ALLOWED_ORIGINS"
        );
    }
    response
}

/// A refusal in S3's form.
fn refusal(status: StatusCode, code: &str, message: &str) -> Response {
    let content_type = [(header::CONTENT_TYPE, "application/xml")];
    (status, content_type, error_xml(code, message)).into_response()
}

/// The refusal of a request whose head S3 does not accept.
fn refuse(request: &Request) -> Option<Response> {
    let headers = request.headers();
    let query = request.uri().query().unwrap_or_default();
    let has = |name: HeaderName| headers.contains_key(name);
    let is_presigned = parameter(query, "X-Amz-Signature").is_some();

    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    if !host.is_some_and(http::is_loopback) {
        // With DNS rebinding, a page's own host name could lead here, and the page would be of the
        // same origin.
        let message = "The Host header names another host; this store answers for loopback addresses and localhost.";
        return Some(refusal(StatusCode::FORBIDDEN, "AccessDenied", message));
    }
    if is_presigned && has(header::AUTHORIZATION) {
        let message = "Only one auth mechanism allowed; the request has both the query parameter X-Amz-Signature and an Authorization header.";
        return Some(refusal(StatusCode::BAD_REQUEST, "InvalidArgument", message));
    }
    let expires = parameter(query, "X-Amz-Expires");
    if expires.is_some_and(|seconds| seconds.parse().is_ok_and(|it: u64| it > 604_800)) {
        let message = "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than 604800 seconds";
        let code = "AuthorizationQueryParametersError";
        return Some(refusal(StatusCode::BAD_REQUEST, code, message));
    }
    let has_file = *request.method() == Method::PUT || form::is_form(headers);
    if has_file && !has(header::CONTENT_LENGTH) {
        return Some(if has(header::TRANSFER_ENCODING) {
            let message = "A header you provided implies functionality that is not implemented: Transfer-Encoding. Send the body with a Content-Length.";
            refusal(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message)
        } else {
            let message = "You must provide the Content-Length HTTP header.";
            refusal(StatusCode::LENGTH_REQUIRED, "MissingContentLength", message)
        });
    }
    refuse_invalid_md5(headers).or_else(|| refuse_unsigned_headers(headers, query))
}

fn refuse_invalid_md5(headers: &HeaderMap) -> Option<Response> {
    let digest = BASE64_STANDARD.decode(headers.get("content-md5")?);
    if digest.is_ok_and(|digest| digest.len() == 16) {
        return None;
    }
    let message = "The Content-MD5 you specified is not valid: it must be 16 bytes in base64.";
    Some(refusal(StatusCode::BAD_REQUEST, "InvalidDigest", message))
}

/// See [the documentation of S3](https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html).
fn refuse_unsigned_headers(headers: &HeaderMap, query: &str) -> Option<Response> {
    let signed = parameter(query, "X-Amz-SignedHeaders")?;
    let names = headers.keys().map(HeaderName::as_str);
    let unsigned = names.filter(|name| {
        name.starts_with("x-amz-") && signed.split(';').all(|signed| signed != *name)
    });
    let unsigned: Vec<&str> = unsigned.collect();
    if unsigned.is_empty() {
        return None;
    }
    let message = format!(
        "There were headers present in the request which were not signed: {}",
        unsigned.join(", ")
    );
    Some(refusal(StatusCode::FORBIDDEN, "AccessDenied", &message))
}

fn is_refusal(answer: &Response) -> bool {
    answer.status().is_client_error() || answer.status().is_server_error()
}

/// The answer, with a reason if it is a refusal, and that reason for the log.
async fn explain(answer: Response, head: &Parts, grants: &Grants) -> (Response, Option<String>) {
    if !is_refusal(&answer) || head.method == Method::HEAD {
        return (answer, None);
    }
    let (mut parts, body) = answer.into_parts();
    let body = to_bytes(body, MAX_REFUSAL_BYTES).await.unwrap_or_default();
    let xml = String::from_utf8_lossy(&body);
    let code = text_of(&xml, "Code").unwrap_or_default();
    let given = text_of(&xml, "Message");
    // S3 has other codes for these.
    let code = match (code.as_str(), &given) {
        ("NotSignedUp", _) => "InvalidAccessKeyId",
        ("InvalidPolicyDocument", Some(why)) if why.starts_with("Policy condition") => {
            parts.status = StatusCode::FORBIDDEN;
            "AccessDenied"
        }
        (code, _) => code,
    };
    let message = match (code, given) {
        ("SignatureDoesNotMatch", _) => Some(grants.mismatch(head)),
        (_, given) => reason(code, given.as_deref(), head).or(given),
    };
    let Some(message) = message else {
        return (Response::from_parts(parts, Body::from(body)), None);
    };
    let body = error_xml(code, &message);
    parts.headers.remove(header::CONTENT_LENGTH);
    let query = head.uri.query().unwrap_or_default();
    let logged = match parameter(query, "X-Amz-Date") {
        // The answer has S3's message alone: Uppy 4 and 5 then sign a part again.
        Some(date) if message == "Request has expired" => {
            let seconds = parameter(query, "X-Amz-Expires").unwrap_or_default();
            format!("{code}: {message}: the URL was valid for {seconds} seconds from {date}")
        }
        _ => format!("{code}: {message}"),
    };
    (Response::from_parts(parts, Body::from(body)), Some(logged))
}

/// A better reason than the one that `s3s` gives, if it gives any.
fn reason(code: &str, given: Option<&str>, head: &Parts) -> Option<String> {
    Some(match (code, given) {
        ("NoSuchKey", None) => "The specified key does not exist.".into(),
        ("NoSuchUpload", None) => "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.".into(),
        ("InvalidPart", None) => "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.".into(),
        ("InvalidPartOrder", None) => "The list of parts was not in ascending order. Parts must be ordered by part number.".into(),
        ("EntityTooSmall", None) => "Your proposed upload is smaller than the minimum allowed size: all parts but the last must have 5 MiB.".into(),
        ("BadDigest", _) => "The checksum or Content-MD5 you specified did not match what was received.".into(),
        ("InvalidAccessKeyId", _) => "The AWS Access Key Id you provided does not exist in our records; `presignd dev` printed the one of this store.".into(),
        ("AccessDenied", Some(why)) if why.starts_with("Policy condition") => format!("Invalid according to Policy: {why}"),
        ("AccessDenied", Some("Signature is required")) if form::is_form(&head.headers) => "Access Denied: the form is not signed, or its fields come after the file.".into(),
        ("AccessDenied", Some("Signature is required")) => "Access Denied: the request is not signed.".into(),
        ("MethodNotAllowed", _) if form::is_form(&head.headers) => "The specified method is not allowed against this resource: this URL is for a PUT, and not for a form.".into(),
        ("MalformedPOSTRequest", _) => "The body of your POST request is not well-formed multipart/form-data: after the fields of the grant comes one file, in the field `file`.".into(),
        ("NotImplemented", Some("Unknown operation")) if head.method == Method::POST => "The store does not know this operation. A form must be sent as multipart/form-data.".into(),
        (_, None) => format!("The store refuses the request: {code}."),
        _ => return None,
    })
}

fn error_xml(code: &str, message: &str) -> String {
    let message = partial_escape(message);
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    )
}
