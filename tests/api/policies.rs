//! The store enforces what a policy says.

use base64::prelude::{BASE64_STANDARD, Engine};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::helpers::{App, Grant, fields, is, spawn_app, spawn_app_with_policies};

const URL: &str = "/upload/presigned-url";

pub(crate) fn sha256(bytes: impl AsRef<[u8]>) -> String {
    BASE64_STANDARD.encode(Sha256::digest(bytes))
}

async fn put(app: &App, grant: &Grant, body: &str) -> StatusCode {
    app.upload(grant, body.to_owned()).await.status()
}

#[tokio::test]
async fn the_store_refuses_a_byte_more_and_a_byte_less_than_the_size() {
    let app = spawn_app().await;
    let body = json!({"filename": "a.txt", "contentType": "text/plain", "size": 5});
    let grant: Grant = app.granted(URL, &body).await;
    // `content-length` is bound, but set by every client itself.
    assert_eq!(grant.headers.keys().collect::<Vec<_>>(), ["content-type"]);
    assert_eq!(put(&app, &grant, "1234").await, 403);
    assert_eq!(put(&app, &grant, "123456").await, 403);
    assert_eq!(app.stored(&grant.key).await, None);
    assert_eq!(put(&app, &grant, "12345").await, 200);
}

#[tokio::test]
async fn a_file_over_the_limit_is_refused_before_it_is_signed() {
    let app = spawn_app_with_policies("[policies.default]\nmax_size = '5 B'").await;
    let ask = |size: Value| json!({"filename": "a", "contentType": "a/b", "size": size});
    let problem = app.refused(URL, &ask(json!(6))).await;
    is(&problem, 422, "file-too-large");
    assert_eq!(fields(&problem), [("/size", "file-too-large")]);
    assert_eq!(problem["detail"], "size must be at most 5 bytes; it is 6");
    let problem = app
        .refused(URL, &json!({"filename": "a", "contentType": "a/b"}))
        .await;
    assert_eq!(fields(&problem), [("/size", "size-required")]);
    assert_eq!(problem["detail"], "size is required by the policy");
    let grant: Grant = app.granted(URL, &ask(json!(5))).await;
    assert_eq!(put(&app, &grant, "12345").await, 200);
    // These are not sizes at all.
    for size in [json!(-1), json!(1.5), json!("5"), json!(1e30)] {
        let problem = app.refused(URL, &ask(size.clone())).await;
        assert_eq!(problem["status"], 400, "{size}");
        assert_eq!(fields(&problem)[0].0, "/size", "{size}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("a whole number"), "{detail}");
    }
}

#[tokio::test]
async fn a_checksum_is_checked_before_it_is_signed_and_can_be_required() {
    let app = spawn_app_with_policies("[policies.default]\nrequire_checksum = true").await;
    for checksum in ["", "AAAA", "not base64", &"0".repeat(64)] {
        let body = json!({"filename": "a", "contentType": "a/b", "checksumSha256": checksum});
        let problem = app.refused(URL, &body).await;
        assert_eq!(problem["status"], 400);
        assert_eq!(fields(&problem), [("/checksumSha256", "not-a-checksum")]);
    }
    let problem = app
        .refused(URL, &json!({"filename": "a", "contentType": "a/b"}))
        .await;
    assert_eq!(fields(&problem), [("/checksumSha256", "checksum-required")]);
    assert_eq!(problem["status"], 422);
}

#[tokio::test]
async fn the_store_refuses_a_second_write() {
    let app = spawn_app_with_policies("[policies.default]\noverwrite = false").await;
    let grant = app.grant("a", "a/b").await;
    assert_eq!(grant.headers["if-none-match"], "*");
    assert_eq!(put(&app, &grant, "first").await, 200);
    assert_eq!(put(&app, &grant, "second").await, 412);
    let mut without = grant.clone();
    without.headers.remove("if-none-match");
    assert!(put(&app, &without, "second").await.is_client_error());
    assert_eq!(app.stored(&grant.key).await.unwrap().0, b"first");
}

#[tokio::test]
async fn types_outside_the_policy_are_refused() {
    let app = spawn_app_with_policies(
        "[policies.default]\ncontent_types = ['image/*', 'text/plain']\nactive_content = 'reject'",
    )
    .await;
    for (content_type, code) in [
        ("image/png", None),
        ("text/plain; charset=utf-8", None),
        ("text/html", Some("type-not-allowed")),
        ("application/pdf; a=\"image/png\"", Some("type-not-allowed")),
        ("image/svg+xml", Some("active-content")),
        ("IMAGE/SVG+XML; charset=utf-8", Some("active-content")),
    ] {
        let body = json!({"filename": "a", "contentType": content_type});
        match code {
            None => drop(app.granted::<Grant>(URL, &body).await),
            Some(code) => {
                let problem = app.refused(URL, &body).await;
                assert_eq!(problem["status"], 422);
                assert_eq!(fields(&problem), [("/contentType", code)]);
            }
        }
    }
}

/// No S3 client can send such a key.
#[tokio::test]
async fn no_key_is_made_or_looked_for_that_is_nothing_but_spaces() {
    let app = spawn_app_with_policies(
        "[policies.default]
        key = '{filename}'
        overwrite = true",
    )
    .await;
    for (path, name) in [
        (URL, " "),
        (URL, "\u{3000}"),
        ("/upload/presigned-post", " "),
    ] {
        let body = json!({"filename": name, "contentType": "a/b"});
        let problem = app.refused(path, &body).await;
        assert_eq!(problem["status"], 422, "{path}");
        assert_eq!(fields(&problem), [("/filename", "blank")], "{path}");
    }
    app.grant(" a", "a/b").await;
    let missing = app.refused("/upload/verify", &json!({"key": " "})).await;
    assert_eq!(missing["status"], 404);
}

#[tokio::test]
async fn active_content_is_stored_as_an_attachment() {
    let app = spawn_app_with_policies("[policies.default]").await;
    for (name, encoded) in [
        ("a.html", "a.html"),
        ("say \"hi\"; it's.svg", "say%20%22hi%22%3B%20it%27s.svg"),
        ("100%*(1).html", "100%25%2A%281%29.html"),
        ("한글 🎉.html", "%ED%95%9C%EA%B8%80%20%F0%9F%8E%89.html"),
    ] {
        let grant = app.grant(name, "text/html").await;
        let expected = format!("attachment; filename*=UTF-8''{encoded}");
        assert_eq!(grant.headers["content-disposition"], expected);
        let mut inline = grant.clone();
        inline
            .headers
            .insert("content-disposition".into(), "inline".into());
        assert_eq!(put(&app, &inline, "x").await, 403);
        inline.headers.remove("content-disposition");
        assert!(put(&app, &inline, "x").await.is_client_error());
        assert_eq!(put(&app, &grant, "x").await, 200);
        let head = app.head(&grant.key).await;
        assert_eq!(head.content_disposition.unwrap(), expected);
    }
    let grant = app.grant("a.png", "image/png").await;
    assert!(!grant.headers.contains_key("content-disposition"));
}

#[tokio::test]
async fn the_properties_of_a_policy_are_signed_and_stored() {
    let app = spawn_app_with_policies(
        "[policies.default]
        cache_control = 'public, max-age=60'
        storage_class = 'REDUCED_REDUNDANCY'
        server_side_encryption = 'aws:kms'
        kms_key_id = 'arn:aws:kms:us-east-1:111122223333:key/a'
        acl = 'bucket-owner-full-control'
        tagging = { 'a b' = 'c/d' }
        metadata = { source = 'web' }",
    )
    .await;
    let grant = app.grant("a", "image/x").await;
    let headers: Vec<(&str, &str)> = grant
        .headers
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    let expected = [
        ("cache-control", "public, max-age=60"),
        ("content-type", "image/x"),
        ("x-amz-acl", "bucket-owner-full-control"),
        ("x-amz-meta-source", "web"),
        ("x-amz-server-side-encryption", "aws:kms"),
        (
            "x-amz-server-side-encryption-aws-kms-key-id",
            "arn:aws:kms:us-east-1:111122223333:key/a",
        ),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ("x-amz-tagging", "a%20b=c%2Fd"),
    ];
    assert_eq!(headers, expected);
    assert_eq!(put(&app, &grant, "x").await, 200);
    let head = app.head(&grant.key).await;
    assert_eq!(head.cache_control.unwrap(), "public, max-age=60");
    assert_eq!(head.metadata.unwrap()["source"], "web");
    for (name, _) in expected {
        let mut other = grant.clone();
        other.headers.remove(name);
        assert!(!put(&app, &other, "x").await.is_success(), "without {name}");
        other.headers.insert(name.to_owned(), "STANDARD".to_owned());
        assert!(!put(&app, &other, "x").await.is_success(), "another {name}");
    }
}

#[tokio::test]
async fn clients_set_the_metadata_that_the_policy_allows_and_no_other() {
    let app = spawn_app_with_policies(
        "[policies.default]\nmetadata = { source = 'web' }\nallowed_metadata = ['album', 'title']",
    )
    .await;
    let ask =
        |metadata: Value| json!({"filename": "a", "contentType": "a/b", "metadata": metadata});
    let grant: Grant = app
        .granted(URL, &ask(json!({"album": "앨범 7", "title": "a  b"})))
        .await;
    assert_eq!(put(&app, &grant, "x").await, 200);
    let stored = app.head(&grant.key).await.metadata.unwrap();
    assert_eq!(stored["source"], "web");
    // As AWS does it, the store gives back encoded words for what is not ASCII.
    assert_eq!(stored["album"], "=?UTF-8?B?7JWo67KUIDc=?=");
    assert_eq!(stored["title"], "a  b");
    for (metadata, status, expected) in [
        (
            json!({"owner": "x"}),
            422,
            ("/metadata/owner", "metadata-not-allowed"),
        ),
        (
            json!({"source": "x"}),
            422,
            ("/metadata/source", "metadata-not-allowed"),
        ),
        (
            json!({"album": "x".repeat(2048)}),
            422,
            ("/metadata", "metadata-too-large"),
        ),
        (
            json!({"album": "a\r\nx-amz-acl: public-read"}),
            400,
            ("/metadata/album", "control-character"),
        ),
        (
            json!({"album": "=?UTF-8?B?eA0KSW5qZWN0ZWQ6IDEABw==?="}),
            400,
            ("/metadata/album", "encoded-word"),
        ),
        (json!({"album": ""}), 400, ("/metadata/album", "empty")),
        (
            json!({"album": " x"}),
            400,
            ("/metadata/album", "outer-space"),
        ),
        (
            json!({"Album": "x"}),
            400,
            ("/metadata/Album", "invalid-name"),
        ),
        (json!({"a/b": "x"}), 400, ("/metadata/a~1b", "invalid-name")),
        (
            json!({"snowball-auto-extract": "true"}),
            400,
            ("/metadata/snowball-auto-extract", "reserved-name"),
        ),
        (json!({"album": 7}), 400, ("/metadata/album", "wrong-type")),
        (json!(["album"]), 400, ("/metadata", "wrong-type")),
    ] {
        let problem = app.refused(URL, &ask(metadata.clone())).await;
        assert_eq!(problem["status"], status, "{metadata}");
        assert_eq!(fields(&problem), [expected], "{metadata}");
    }
}

#[tokio::test]
async fn metadata_that_is_given_twice_is_refused() {
    let app = spawn_app_with_policies("[policies.default]\nallowed_metadata = ['a']").await;
    let body = r#"{"filename":"a","contentType":"a/b","metadata":{"a":"1","a":"2"}}"#;
    let problem = crate::helpers::problem(app.post_text(URL, body).await).await;
    assert_eq!(fields(&problem), [("/metadata/a", "duplicate-field")]);
}

#[tokio::test]
async fn a_request_chooses_its_policy() {
    let app = spawn_app_with_policies(
        "[policies.default]
        [policies.avatar]
        key = 'avatars/{yyyy}/{uuid}.{ext}'
        expires_in = '1m'",
    )
    .await;
    let ask =
        |policy: &str| json!({"filename": "me.PNG", "contentType": "image/png", "policy": policy});
    let grant: Grant = app.granted(URL, &ask("avatar")).await;
    let parts: Vec<&str> = grant.key.split('/').collect();
    assert_eq!(parts[0], "avatars");
    let year = time::OffsetDateTime::now_utc().year();
    assert_eq!(parts[1], year.to_string());
    let id = parts[2].strip_suffix(".png").unwrap();
    assert!(uuid::Uuid::parse_str(id).is_ok(), "{id}");
    assert!(grant.url.contains("X-Amz-Expires=60&"), "{}", grant.url);
    let grant: Grant = app.granted(URL, &ask("default")).await;
    assert!(grant.key.starts_with("uploads/"), "{}", grant.key);
    for policy in ["", "Avatar", "nope", "../avatar"] {
        let problem = app.refused(URL, &ask(policy)).await;
        assert_eq!(problem["status"], 422);
        assert_eq!(fields(&problem), [("/policy", "unknown-policy")]);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.ends_with("there is none of that name"), "{detail}");
    }
}

#[tokio::test]
async fn all_reasons_are_given_at_once() {
    let app = spawn_app_with_policies(
        "[policies.default]\ncontent_types = ['image/*']\nmax_size = '1 KiB'\nrequire_checksum = true",
    )
    .await;
    let body =
        json!({"filename": "a", "contentType": "text/plain", "size": 2000, "metadata": {"x": "y"}});
    let problem = app.refused(URL, &body).await;
    assert_eq!(problem["code"], "type-not-allowed");
    let expected = [
        ("/checksumSha256", "checksum-required"),
        ("/contentType", "type-not-allowed"),
        ("/metadata/x", "metadata-not-allowed"),
        ("/size", "file-too-large"),
    ];
    assert_eq!(fields(&problem), expected);
}
