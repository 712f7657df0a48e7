//! An object has the properties that its policy grants, and no others. Stores that accept headers which
//! are not signed would let others through.

use aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder;
use presignd::dev::BUCKET;
use serde_json::json;

use super::{refused, upload, verified};
use crate::helpers::{fields, is, post, problem, spawn_app_with_policies};
use crate::stand_in::{StandIn, object};

const STRICT: &str = "
[policies.default]
cache_control = 'private, max-age=60'
metadata = { scanned = 'pending' }
allowed_metadata = ['album']
";

type Put = PutObjectFluentBuilder;
/// Where a change is a mismatch, the code of it, and the change.
type Change = (&'static str, &'static str, fn(Put) -> Put);

#[tokio::test]
async fn a_property_that_was_not_granted_is_a_mismatch() {
    let app = spawn_app_with_policies(STRICT).await;
    let request =
        json!({"filename": "a.html", "contentType": "text/html", "metadata": {"album": "7"}});
    let key = upload(&app, request, b"hello").await;
    verified(&app, json!({"key": key})).await;
    let changes: [Change; 8] = [
        ("/metadata/scanned", "metadata-differs", |put| {
            put.metadata("scanned", "clean")
        }),
        ("/metadata/owner", "metadata-not-allowed", |put| {
            put.metadata("owner", "eve")
        }),
        ("/contentDisposition", "disposition-differs", |put| {
            put.content_disposition("inline; attachment")
        }),
        ("/contentDisposition", "disposition-differs", |put| {
            put.set_content_disposition(None)
        }),
        ("/contentEncoding", "encoding-not-allowed", |put| {
            put.content_encoding("gzip")
        }),
        ("/cacheControl", "cache-control-differs", |put| {
            put.cache_control("max-age=31536000")
        }),
        ("/cacheControl", "cache-control-differs", |put| {
            put.set_cache_control(None)
        }),
        ("", "", |put| {
            put.content_disposition("Attachment; filename=b")
        }),
    ];
    for (pointer, code, change) in changes {
        let put = app.store.put_object().bucket(BUCKET).key(&key);
        let put = put
            .content_type("text/html")
            .content_disposition("attachment; filename*=UTF-8''a.html")
            .cache_control("private, max-age=60")
            .metadata("scanned", "pending")
            .metadata("album", "8")
            .body(b"hello".to_vec().into());
        change(put).send().await.unwrap();
        if code.is_empty() {
            verified(&app, json!({"key": key})).await;
            continue;
        }
        let problem = refused(&app, json!({"key": key})).await;
        is(&problem, 409, "mismatch");
        assert_eq!(fields(&problem), [(pointer, code)], "{problem}");
    }
}

#[tokio::test]
async fn another_policy_with_the_same_keys_does_not_vouch_for_an_object() {
    let policies =
        format!("{STRICT}\n[policies.loose]\nactive_content = 'allow'\nallowed_metadata = ['*']");
    let app = spawn_app_with_policies(&policies).await;
    let request = json!({
        "filename": "a.html",
        "contentType": "text/html",
        "policy": "loose",
        "metadata": {"scanned": "clean"},
    });
    let key = upload(&app, request, b"<script>").await;
    let problem = refused(&app, json!({"key": key})).await;
    is(&problem, 409, "mismatch");
    let expected = [
        ("/cacheControl", "cache-control-differs"),
        ("/contentDisposition", "disposition-differs"),
        ("/metadata/scanned", "metadata-differs"),
    ];
    assert_eq!(fields(&problem), expected, "{problem}");
}

#[tokio::test]
async fn another_encryption_or_storage_class_is_a_mismatch_where_the_store_reports_it() {
    let policy =
        "[policies.default]\nserver_side_encryption = 'aws:kms'\nstorage_class = 'STANDARD_IA'";
    let key = "uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/a.txt";
    for (encryption, class, expected) in [
        (
            "AES256",
            "GLACIER",
            &["/serverSideEncryption", "/storageClass"][..],
        ),
        ("aws:kms", "STANDARD_IA", &[]),
    ] {
        let headers = [
            ("x-amz-server-side-encryption", encryption),
            ("x-amz-storage-class", class),
        ];
        let store = StandIn::answering(move |_| std::future::ready(object(&headers))).await;
        let base = store.service(policy).await;
        let answer = post(&base, "/upload/verify", &json!({"key": key})).await;
        if expected.is_empty() {
            assert_eq!(answer.status(), 200);
            continue;
        }
        let problem = problem(answer).await;
        is(&problem, 409, "mismatch");
        let pointers: Vec<&str> = fields(&problem)
            .into_iter()
            .map(|(pointer, _)| pointer)
            .collect();
        assert_eq!(pointers, expected, "{problem}");
    }
}
