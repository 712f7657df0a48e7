//! Stores that drop what was signed, and stores with parsers of forms that are not S3's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::Request;
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::Response;

use super::prove::{failed, prove_with};
use crate::stand_in::{StandIn, error, xml};

const PLAIN: &str = "[policies.default]\nkey = '{uuid}'\n";

pub(super) fn is_form(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE);
    content_type.is_some_and(|it| it.as_bytes().starts_with(b"multipart/form-data"))
}

/// The ACL of an object that everyone may read, or its owner alone.
pub(super) fn acl(is_public: bool) -> Response {
    let everyone = "<Grant><Grantee xmlns:xsi='http://www.w3.org/2001/XMLSchema-instance' xsi:type='Group'>\
        <URI>http://acs.amazonaws.com/groups/global/AllUsers</URI></Grantee>\
        <Permission>READ</Permission></Grant>";
    let grants = if is_public { everyone } else { "" };
    xml(&format!(
        "<AccessControlPolicy><AccessControlList>{grants}</AccessControlList></AccessControlPolicy>"
    ))
}

#[tokio::test]
async fn a_store_that_drops_what_was_signed_fails() {
    const POLICY: &str = "
        [policies.default]
        key = '{uuid}'
        tagging = { kind = 'test', team = 'web' }
        server_side_encryption = 'AES256'
        storage_class = 'STANDARD'
        acl = 'public-read'
        cache_control = 'no-store'
        metadata = { source = 'web' }
    ";
    let properties = [
        ("x-amz-server-side-encryption", "AES256", "is not encrypted"),
        (
            "x-amz-storage-class",
            "STANDARD",
            "is in another storage class",
        ),
    ];
    for (dropped, consequence) in [
        ("nothing", ""),
        ("cache-control", "is cached for another time"),
        ("x-amz-meta-source", "lacks metadata"),
        ("content-disposition", "which HEAD shows and GET does not"),
        ("tagging", "has none or other tags"),
        ("acl", "has another ACL"),
        (properties[0].0, properties[0].2),
        (properties[1].0, properties[1].2),
    ] {
        let stand = StandIn::changing(move |method, uri, response| {
            if method == Method::GET && uri.contains("?acl") {
                *response = acl(dropped != "acl");
            }
            if method == Method::GET && uri.contains("?tagging") && dropped == "tagging" {
                // One of two.
                *response = xml(
                    "<Tagging><TagSet><Tag><Key>kind</Key><Value>test</Value></Tag></TagSet></Tagging>",
                );
            }
            let headers = response.headers_mut();
            if method == Method::HEAD {
                for (name, value, _) in properties {
                    let value = if name == dropped { "OTHER" } else { value };
                    headers.insert(name, value.parse().unwrap());
                }
            }
            let is_removed = match dropped {
                "content-disposition" => method == Method::GET,
                "cache-control" | "x-amz-meta-source" => method == Method::HEAD,
                _ => false,
            };
            if is_removed {
                headers.remove(dropped);
            }
        })
        .await;
        let run = prove_with(&stand, POLICY).await;
        if dropped == "nothing" {
            assert_eq!(failed(&run), [""; 0], "{:#}", run.report);
            continue;
        }
        let lines = ["kept", "kept-of-forms", "kept-of-parts"];
        assert_eq!(failed(&run), lines, "{dropped}: {:#}", run.report);
        for line in lines {
            run.says(line, "failed", &[dropped, consequence, "policy"]);
        }
        stand.is_as_it_was();
    }
}

/// As Ceph does.
#[tokio::test]
async fn a_store_that_keeps_no_checksum_fails_where_one_is_required() {
    const POLICY: &str = "[policies.default]\nkey = '{uuid}'\nrequire_checksum = true";
    for keeps in [true, false] {
        let stand = StandIn::changing(move |method, _, response| {
            if method == Method::HEAD && !keeps {
                response.headers_mut().remove("x-amz-checksum-sha256");
            }
        })
        .await;
        let run = prove_with(&stand, POLICY).await;
        if keeps {
            assert_eq!(failed(&run), [""; 0], "{:#}", run.report);
            continue;
        }
        assert_eq!(failed(&run), ["kept", "kept-of-forms"], "{:#}", run.report);
        run.says("kept", "failed", &["cannot be verified by its checksum"]);
    }
}

/// As RustFS does.
#[tokio::test]
async fn a_store_that_obeys_the_http_headers_of_a_form_fails() {
    const METADATA: &str = "x-amz-meta-presignd-unsigned";
    let obeyed = Arc::new(AtomicBool::new(false));
    let stand = StandIn::between(move |request: Request, next: Next| {
        let obeyed = Arc::clone(&obeyed);
        async move {
            let is_head = request.method() == Method::HEAD;
            if is_form(request.headers()) {
                let is_sent = request.headers().contains_key(METADATA);
                obeyed.store(is_sent, Ordering::SeqCst);
            } else if request.method() == Method::DELETE {
                obeyed.store(false, Ordering::SeqCst);
            }
            let mut response: Response = next.run(request).await;
            if is_head && obeyed.load(Ordering::SeqCst) {
                response
                    .headers_mut()
                    .insert(METADATA, "1".parse().unwrap());
            }
            response
        }
    })
    .await;
    let run = prove_with(&stand, PLAIN).await;
    assert_eq!(failed(&run), ["form-headers"], "{:#}", run.report);
    run.says(
        "form-headers",
        "failed",
        &["accepted", "verify each upload"],
    );
    stand.is_as_it_was();
}

/// As RustFS does, too.
#[tokio::test]
async fn a_store_that_loses_its_place_among_carriage_returns_fails() {
    let stand = StandIn::reading(|head, body| {
        let has_run = body.windows(1024).any(|run| run == [b'\r'; 1024]);
        let is_lost = is_form(&head.headers) && has_run;
        is_lost.then(|| error(400, "InvalidRequest"))
    })
    .await;
    let run = prove_with(&stand, PLAIN).await;
    assert_eq!(failed(&run), ["form-of-returns"], "{:#}", run.report);
    let words = ["carriage returns", "S3_SUPPORTS_POST_POLICY=false"];
    run.says("form-of-returns", "failed", &words);
    stand.is_as_it_was();
}

#[tokio::test]
async fn what_cannot_be_read_is_neither_kept_nor_dropped() {
    let stand = StandIn::denying(|method, uri| {
        let is_head = method == Method::HEAD && uri.starts_with("/uploads/file/");
        is_head || uri.contains("?acl")
    })
    .await;
    for (policy, line) in [
        ("key = '{uuid}'\nacl = 'public-read'", "kept"),
        ("key = 'file/{uuid}'", "kept"),
        ("key = 'file/{uuid}'", "form-headers"),
    ] {
        let run = prove_with(&stand, &format!("[policies.default]\n{policy}")).await;
        run.says(line, "warning", &["403"]);
        assert_eq!(failed(&run), [""; 0], "{policy}: {:#}", run.report);
        stand.is_as_it_was();
    }
}
