//! Did it arrive? The answer is what the store has, and reveals nothing about the uploads of others.

mod properties;
mod requests;
mod stand_ins;
mod unreadable;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use presignd::dev::BUCKET;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::checksums::HELLO;
use crate::helpers::{App, Grant, fields, is, spawn_app, spawn_app_with_policies};
use crate::policies::sha256;

const VERIFY: &str = "/upload/verify";
const URL: &str = "/upload/presigned-url";

/// What a client gets, read strictly.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Verified {
    key: String,
    size: u64,
    content_type: String,
    etag: String,
    last_modified: String,
    checksum_sha256: Option<String>,
    checksum_crc64nvme: Option<String>,
    metadata: BTreeMap<String, String>,
    policy: String,
}

async fn verified(app: &App, body: Value) -> Verified {
    app.accepted(VERIFY, &body).await
}

async fn refused(app: &App, body: Value) -> Value {
    app.refused(VERIFY, &body).await
}

/// Uploads a file as granted; its key.
async fn upload(app: &App, request: Value, body: &'static [u8]) -> String {
    app.sent(&request, body).await.key
}

/// Puts an object into the store with the store's own keys.
async fn replace(app: &App, key: &str, content_type: &str, body: &'static [u8]) {
    let put = app.store.put_object().bucket(BUCKET).key(key);
    let put = put.content_type(content_type).body(body.to_vec().into());
    put.send().await.unwrap();
}

fn text_file() -> Value {
    json!({"filename": "메모 +1.txt", "contentType": "text/plain"})
}

#[tokio::test]
async fn an_upload_is_there_once_it_was_sent() {
    let app = spawn_app().await;
    let request = json!({
        "filename": "메모 +1.txt",
        "contentType": "text/plain; charset=utf-8",
        "checksumSha256": sha256("hello"),
        "metadata": {"album": "앨범 7", "plain": "a b"},
    });
    let grant: Grant = app.granted(URL, &request).await;
    let absent = refused(&app, json!({"key": grant.key})).await;
    is(&absent, 404, "not-uploaded");

    assert_eq!(app.upload(&grant, "hello").await.status(), 200);
    let upload = verified(
        &app,
        json!({"key": grant.key, "size": 5, "checksumSha256": sha256("hello"), "policy": "default"}),
    )
    .await;
    assert_eq!(upload.key, grant.key);
    assert_eq!(upload.size, 5);
    assert_eq!(upload.content_type, "text/plain; charset=utf-8");
    // MD5 of the bytes.
    assert_eq!(upload.etag, "\"5d41402abc4b2a76b9719d911017c592\"");
    assert_eq!(upload.checksum_sha256, Some(sha256("hello")));
    assert_eq!(upload.policy, "default");
    let metadata = [("album", "앨범 7"), ("plain", "a b")];
    let metadata = metadata.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(upload.metadata, BTreeMap::from(metadata));
    let format = &time::format_description::well_known::Rfc3339;
    let modified = time::OffsetDateTime::parse(&upload.last_modified, format).unwrap();
    let age = time::OffsetDateTime::now_utc() - modified;
    assert!((0..60).contains(&age.whole_seconds()), "{age}");
}

#[tokio::test]
async fn parts_are_verified_when_they_are_one_object() {
    /// The CRC64NVME of all bytes, as another implementation computes it.
    const WHOLE: &str = "7wMGXtAbf1s=";
    let app = spawn_app().await;
    let upload = crate::uppy::video(&app).await;
    let key = upload.key.clone();
    let first = upload.put(1, vec![1; 5 * 1024 * 1024]).await;
    let second = upload.put(2, vec![2; 10]).await;
    let absent = refused(&app, json!({"key": key})).await;
    is(&absent, 404, "not-uploaded");
    let parts = json!([{"PartNumber": 1, "ETag": first}, {"PartNumber": 2, "ETag": second}]);
    assert_eq!(upload.complete(parts).await.status(), 200);
    let size = 5 * 1024 * 1024 + 10;
    let expected = json!({"key": key, "size": size, "checksumCrc64nvme": WHOLE});
    let upload = verified(&app, expected).await;
    assert_eq!(
        (upload.size, upload.content_type.as_str()),
        (size, "video/mp4")
    );
    assert_eq!(upload.checksum_sha256, None);
    assert_eq!(upload.checksum_crc64nvme.as_deref(), Some(WHOLE));
    for (name, wrong, code) in [
        ("checksumSha256", sha256("x"), "checksum-unknown"),
        ("checksumCrc64nvme", HELLO.to_owned(), "checksum-differs"),
    ] {
        let mismatch = refused(&app, json!({"key": key, name: wrong})).await;
        is(&mismatch, 409, "mismatch");
        assert_eq!(fields(&mismatch), [(&*format!("/{name}"), code)]);
    }
}

#[tokio::test]
async fn what_was_replaced_by_something_else_is_a_mismatch_that_names_all_that_differs() {
    let app = spawn_app_with_policies(
        "[policies.default]
        content_types = ['text/*']
        max_size = '5 B'
        active_content = 'reject'",
    )
    .await;
    let sum = sha256("hello");
    let request =
        json!({"filename": "a.txt", "contentType": "text/plain", "size": 5, "checksumSha256": sum});
    let key = upload(&app, request, b"hello").await;
    let ask = json!({"key": key, "size": 5, "checksumSha256": sum});
    verified(&app, ask.clone()).await;

    let unknown = ("/checksumSha256", "checksum-unknown");
    let too_large = ("/size", "file-too-large");
    let forbidden = ("/contentType", "type-not-allowed");
    for (content_type, body, expected) in [
        ("text/plain", &b"hello!"[..], &[unknown, too_large][..]),
        ("text/plain", b"four", &[unknown, ("/size", "size-differs")]),
        ("image/png", b"hello", &[unknown, forbidden]),
        (
            "text/html",
            b"hello",
            &[unknown, ("/contentType", "active-content")],
        ),
        (
            "nonsense",
            b"hello",
            &[unknown, ("/contentType", "not-a-media-type")],
        ),
        ("image/png", b"hello!", &[unknown, forbidden, too_large]),
    ] {
        replace(&app, &key, content_type, body).await;
        let problem = refused(&app, ask.clone()).await;
        is(&problem, 409, "mismatch");
        assert_eq!(fields(&problem), expected, "{content_type} {body:?}");
    }
    // Other bytes of the same length and type, of which the store knows the checksum.
    let put = app.store.put_object().bucket(BUCKET).key(&key);
    let put = put
        .content_type("text/plain")
        .body(b"jello".to_vec().into());
    put.checksum_sha256(sha256("jello")).send().await.unwrap();
    let problem = refused(&app, ask.clone()).await;
    is(&problem, 409, "mismatch");
    assert_eq!(fields(&problem), [("/checksumSha256", "checksum-differs")]);
    assert_eq!(
        problem["detail"],
        "checksumSha256 is not that of the stored file"
    );
    // Without expectations, the answer says what it is.
    let upload = verified(&app, json!({"key": key})).await;
    assert_eq!(upload.checksum_sha256, Some(sha256("jello")));
    // And what is gone is gone.
    let delete = app.store.delete_object().bucket(BUCKET).key(&key);
    delete.send().await.unwrap();
    is(&refused(&app, ask).await, 404, "not-uploaded");
}

#[tokio::test]
async fn keys_that_the_policy_cannot_have_granted_look_the_same_whether_or_not_they_exist() {
    let app = spawn_app_with_policies(
        "[policies.default]
        [policies.avatar]
        key = 'avatars/{caller}/{uuid}.{ext}'",
    )
    .await;
    let id = "5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e";
    let keys = [
        "secret.txt".to_owned(),
        "backups/db.sql".to_owned(),
        format!("avatars/=anonymous/{id}.png"), // of another policy
        format!("uploads/{}/a.txt", id.to_uppercase()),
        format!("uploads/{id}/b/a.txt"),
        "uploads/00000000-0000-0000-0000-000000000000/a.txt".to_owned(),
    ];
    let mut answers = Vec::new();
    for exists in [false, true] {
        for key in &keys {
            if exists {
                replace(&app, key, "text/plain", b"x").await;
                assert!(app.stored(key).await.is_some());
            }
            let mut problem = refused(&app, json!({"key": key})).await;
            is(&problem, 404, "not-uploaded");
            problem["requestId"].take();
            answers.push(problem);
        }
    }
    // The answer is that for a key which was granted and never used.
    let grant: Grant = app.granted(URL, &text_file()).await;
    let mut absent = refused(&app, json!({"key": grant.key})).await;
    absent["requestId"].take();
    assert!(answers.iter().all(|answer| *answer == absent));
    // Under its own policy the same key is found.
    let avatar = verified(&app, json!({"key": keys[2], "policy": "avatar"})).await;
    assert_eq!(avatar.policy, "avatar");
}

#[tokio::test]
async fn waiting_ends_when_the_upload_arrives() {
    let app = spawn_app().await;
    let grants: [Grant; 2] = [
        app.granted(URL, &text_file()).await,
        app.granted(URL, &text_file()).await,
    ];
    let sent = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(app.upload(&grants[0], "1").await.status(), 200);
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(app.upload(&grants[1], "22").await.status(), 200);
    };
    let keys = grants.each_ref().map(|grant| &grant.key);
    let both = json!({"keys": keys, "wait": 20});
    let (first, both, ()) = tokio::join!(
        verified(&app, json!({"key": keys[0], "wait": 20})),
        app.post(VERIFY, &both),
        sent
    );
    assert_eq!(first.size, 1);
    let both: Value = both.json().await.unwrap();
    let sizes = [0, 1].map(|n| both["results"][n]["upload"]["size"].as_u64());
    assert_eq!(sizes, [Some(1), Some(2)]);
}

#[tokio::test]
async fn a_thousand_verifications_at_once_are_all_answered() {
    let app = Arc::new(spawn_app().await);
    let key = upload(&app, text_file(), b"hello").await;
    let mut answers = tokio::task::JoinSet::new();
    for n in 0..1000 {
        let (app, key) = (Arc::clone(&app), key.clone());
        // Every second one is not there.
        let key = if n % 2 == 0 {
            key
        } else {
            key.replace("메모", "none")
        };
        answers.spawn(async move {
            let status = app.post(VERIFY, &json!({"key": key})).await.status();
            (n, status)
        });
    }
    while let Some(answer) = answers.join_next().await {
        let (n, status) = answer.unwrap();
        assert_eq!(status.as_u16(), if n % 2 == 0 { 200 } else { 404 }, "{n}");
    }
}

const SNIFF: &str = "[policies.default]\nsniff = true";

const JPEG: &[u8] = b"\xFF\xD8\xFF\xE0\0\x10JFIF\0";

#[tokio::test]
async fn a_picture_that_is_html_is_a_content_mismatch() {
    let app = spawn_app_with_policies(SNIFF).await;
    let request = json!({"filename": "a.jpg", "contentType": "image/jpeg"});
    let good = upload(&app, request.clone(), JPEG).await;
    assert_eq!(
        verified(&app, json!({"key": good})).await.content_type,
        "image/jpeg"
    );
    for body in [
        &b"<html><script>alert(1)</script>"[..],
        b"<svg onload='alert(1)'>",
        b"#!/bin/sh",
        b"alert(1)",
        b"",
    ] {
        let grant: Grant = app.granted(URL, &request).await;
        replace(&app, &grant.key, "image/jpeg", body).await;
        let problem = refused(&app, json!({"key": grant.key})).await;
        is(&problem, 409, "content-mismatch");
        assert_eq!(fields(&problem), [("/contentType", "content-mismatch")]);
        let keys = json!({"keys": [grant.key, good]});
        let answer: Value = app.accepted(VERIFY, &keys).await;
        assert_eq!(answer["results"][0]["problem"]["code"], "content-mismatch");
        assert_eq!(answer["results"][1]["status"], 200);
    }
    // Text may begin with anything, and a short or an empty one is one, too.
    for body in [&b"BMW"[..], b"x", b""] {
        let grant: Grant = app.granted(URL, &text_file()).await;
        replace(&app, &grant.key, "text/plain", body).await;
        assert_eq!(
            verified(&app, json!({"key": grant.key})).await.size,
            body.len() as u64
        );
    }
}
