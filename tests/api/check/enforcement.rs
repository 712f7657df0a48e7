//! Stores that honour headers which were not signed.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use axum::extract::Request;
use axum::http::{HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

use super::kept::acl;
use super::{check_fails, check_passes, check_with};
use crate::stand_in::{StandIn, empty, error, xml};

const METADATA: &str = "x-amz-meta-presignd-unsigned";
const ACL: &str = "x-amz-acl";
const COPY: &str = "x-amz-copy-source";
const TAGGING: &str = "x-amz-tagging";
const DISPOSITION: &str = "response-content-disposition";

fn is_signed(query: &str, name: &str) -> bool {
    let parameters = query.split('&');
    let signed = parameters.filter_map(|parameter| parameter.strip_prefix("X-Amz-SignedHeaders="));
    signed
        .flat_map(|names| names.split("%3B"))
        .any(|signed| signed == name)
}

/// A store that accepts these headers though they were not signed, and acts on them if `honours`.
async fn accepting(names: &'static [&'static str], honours: bool) -> StandIn {
    let honoured: Arc<Mutex<BTreeSet<(String, &str)>>> = Arc::default();
    StandIn::between(move |mut request: Request, next: Next| {
        let honoured = Arc::clone(&honoured);
        async move {
            let path = request.uri().path().to_owned();
            let query = request.uri().query().unwrap_or_default().to_owned();
            let has = |name| honoured.lock().unwrap().contains(&(path.clone(), name));
            if request.method() == Method::GET && query.starts_with("acl") {
                return acl(has(ACL));
            }
            if request.method() == Method::GET && query.starts_with("tagging") {
                let tag = if has(TAGGING) {
                    "<Tag><Key>presignd-unsigned</Key><Value>1</Value></Tag>"
                } else {
                    ""
                };
                return xml(&format!("<Tagging><TagSet>{tag}</TagSet></Tagging>"));
            }
            let mut copied = false;
            for name in names {
                if !is_signed(&query, name)
                    && request.headers_mut().remove(*name).is_some()
                    && honours
                {
                    honoured.lock().unwrap().insert((path.clone(), name));
                    copied |= *name == COPY;
                }
            }
            let is_head = request.method() == Method::HEAD;
            let length = request.headers().get(header::CONTENT_LENGTH);
            let is_empty = length.is_some_and(|length| length == "0");
            let mut response: Response = next.run(request).await;
            if is_head
                && names
                    .iter()
                    .any(|name| name.contains("-meta-") && has(name))
            {
                let one = HeaderValue::from_static("1");
                response.headers_mut().insert(METADATA, one);
            }
            if is_head && has(DISPOSITION) {
                let shown = HeaderValue::from_static("inline; filename=presignd");
                response
                    .headers_mut()
                    .insert(header::CONTENT_DISPOSITION, shown);
            }
            if copied && query.contains("partNumber=") {
                // As Ceph does.
                if !is_empty {
                    return error(400, "RequestTimeout");
                }
                return "<CopyPartResult><ETag>e</ETag></CopyPartResult>".into_response();
            }
            if copied {
                return "<CopyObjectResult><ETag>e</ETag></CopyObjectResult>".into_response();
            }
            response
        }
    })
    .await
}

#[tokio::test]
async fn a_store_that_honours_unsigned_headers_fails_with_what_to_do() {
    for (names, consequences) in [
        (&[METADATA], &["add metadata"][..]),
        (&["x-rustfs-meta-presignd-unsigned"], &["add metadata"]),
        (&["x-minio-meta-presignd-unsigned"], &["add metadata"]),
        (&["x-goog-meta-presignd-unsigned"], &["add metadata"]),
        (&["x-object-meta-presignd-unsigned"], &["add metadata"]),
        (&[ACL], &["make the upload public"]),
        // As MinIO and Ceph do.
        (&[TAGGING], &["add tags"]),
        // As SeaweedFS does.
        (&[DISPOSITION], &["have browsers show a file"]),
        (
            &[COPY],
            &[
                "read every object",
                "x-amz-copy-source on a PUT",
                "x-amz-copy-source on a part",
            ],
        ),
    ] as [(&'static [&str], _); 9]
    {
        let stand = accepting(names, true).await;
        let run = check_fails(&stand.url(), &[]).await;
        run.says("unsigned-headers", "failed", consequences);
        run.says("unsigned-headers", "failed", names);
        let todo = [
            "S3_FORMS_ONLY=true",
            "proxy",
            "s3:GetObject and s3:PutObject",
        ];
        run.says("unsigned-headers", "failed", &todo);
        let detail = run.line("unsigned-headers")["detail"].as_str().unwrap();
        for other in [METADATA, ACL, COPY] {
            assert_eq!(detail.contains(other), names == [other], "{detail}");
        }
        stand.is_as_it_was();
    }
}

/// As MinIO does: it looks up the key of the credentials, and nothing else.
#[tokio::test]
async fn a_store_that_checks_no_signature_of_a_streamed_put_fails() {
    for variables in [&[][..], &[("S3_FORMS_ONLY", "true")]] {
        let streamed: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&streamed);
        let stand = StandIn::reading(move |head, body| {
            let hash = head.headers.get("x-amz-content-sha256");
            if hash.is_none_or(|hash| hash != "STREAMING-UNSIGNED-PAYLOAD-TRAILER") {
                return None;
            }
            assert_eq!(head.method, Method::PUT);
            seen.lock().unwrap().push(head.uri.to_string());
            let (size, rest) = body.split_at(body.iter().position(|b| *b == b'\r').unwrap());
            let size = usize::from_str_radix(str::from_utf8(size).unwrap(), 16).unwrap();
            let announced = &head.headers["x-amz-decoded-content-length"];
            assert_eq!(announced, &size.to_string());
            // MinIO reads the trailer that is named here, and refuses a body without one.
            assert_eq!(head.headers["x-amz-trailer"], "x-amz-checksum-sha256");
            let end = str::from_utf8(&rest[2 + size..]).unwrap();
            let end = end.strip_prefix("\r\n0\r\nx-amz-checksum-sha256:").unwrap();
            let sum = BASE64_STANDARD.encode(Sha256::digest(&rest[2..2 + size]));
            assert_eq!(end, format!("{sum}\r\n\r\n"));
            Some(empty(200))
        })
        .await;
        let run = check_fails(&stand.url(), variables).await;
        run.says(
            "unsigned-stream",
            "failed",
            &["any object", "CVE-2026-41145"],
        );
        stand.is_as_it_was();
        let [url] = &streamed.lock().unwrap()[..] else {
            panic!("one request")
        };
        assert!(url.starts_with("/uploads/uploads/"), "{url}");
        let signature = format!("&X-Amz-Signature={}", "0".repeat(64));
        assert!(
            url.contains("X-Amz-Credential=") && url.ends_with(&signature),
            "{url}"
        );
        // Garage looks at no signature that leaves one of them out.
        for name in ["content-sha256", "decoded-content-length", "trailer"] {
            assert!(is_signed(url, &format!("x-amz-{name}")), "{name}: {url}");
        }
    }
}

#[tokio::test]
async fn the_source_of_a_copy_is_a_key_that_the_store_can_decode() {
    let sources: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&sources);
    let stand = StandIn::between(move |mut request: Request, next: Next| {
        let source = request.headers_mut().remove(COPY);
        let source = source.map(|source| source.to_str().unwrap().to_owned());
        seen.lock().unwrap().extend(source);
        next.run(request)
    })
    .await;
    let policies = "[policies.default]\nkey = 'a+b/{uuid}-{filename}'";
    let run = check_with(&stand, policies, &[]).await;
    assert_eq!(run.code, Some(0), "{:#}", run.report);
    let sources = sources.lock().unwrap();
    assert_eq!(sources.len(), 2, "of a PUT, and of a part");
    for source in sources.iter() {
        assert!(source.starts_with("/uploads/a%2Bb/"), "{source}");
    }
}

#[tokio::test]
async fn a_store_that_ignores_unsigned_headers_is_fine() {
    let stand = accepting(&[METADATA, ACL, COPY], false).await;
    let run = check_passes(&stand.url(), &[]).await;
    run.says("unsigned-headers", "ok", &[]);
    run.says("unsigned-stream", "ok", &["wrong signature"]);
    stand.is_as_it_was();
}

#[tokio::test]
async fn with_forms_only_nothing_else_is_tried() {
    let stand = accepting(&[METADATA, ACL, COPY], true).await;
    let run = check_passes(&stand.url(), &[("S3_FORMS_ONLY", "true")]).await;
    for skipped in ["put", "multipart", "unsigned-headers"] {
        run.says(skipped, "skipped", &["S3_FORMS_ONLY"]);
    }
    run.says("post", "ok", &[]);
    stand.is_as_it_was();
}

#[tokio::test]
async fn a_store_that_is_busy_has_refused_nothing() {
    let stand = StandIn::reading(|head, _| {
        let tries = |name: &&str| head.headers.contains_key(*name);
        let is_tried = [METADATA, ACL, COPY].iter().any(tries);
        is_tried.then(|| error(503, "SlowDown"))
    })
    .await;
    let run = check_passes(&stand.url(), &[]).await;
    run.says("unsigned-headers", "warning", &["503 SlowDown"]);
    stand.is_as_it_was();
}

#[tokio::test]
async fn an_acl_that_cannot_be_read_is_neither_public_nor_private() {
    for (status, code, expected, words) in [
        (403, "AccessDenied", "warning", "s3:GetObjectAcl"),
        // It has no ACLs.
        (501, "NotImplemented", "ok", ""),
    ] {
        let stand = StandIn::between(move |mut request: Request, next: Next| async move {
            let query = request.uri().query().unwrap_or_default().to_owned();
            if request.method() == Method::GET && query.starts_with("acl") {
                return error(status, code);
            }
            if !is_signed(&query, ACL) {
                request.headers_mut().remove(ACL);
            }
            next.run(request).await
        })
        .await;
        let run = check_passes(&stand.url(), &[]).await;
        run.says("unsigned-headers", expected, &[words]);
        stand.is_as_it_was();
    }
}
