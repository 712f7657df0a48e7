//! Files of all sizes and contents arrive as they were sent, however the network cuts them.

use std::time::Duration;

use aws_sdk_s3::presigning::{PresignedRequest, PresigningConfig};
use axum::body::{Body as AxumBody, Bytes};
use axum::extract::Request;
use axum::http::Uri;
use futures_util::stream;
use presignd::dev::BUCKET;
use reqwest::Body;
use serde_json::json;
use tower::Service;

use super::refused;
use crate::helpers::{App, Grant, spawn_app, spawn_app_with_policies};
use crate::presigned_post::PostGrant;
use crate::uppy::create_at;

/// Bytes of a generator with a fixed seed, in which every value is as likely as any other.
fn random(size: usize, mut seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        bytes.extend_from_slice(&(seed ^ (seed >> 29)).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// A body of this length that is sent in frames of `frame` bytes.
fn in_frames(bytes: Vec<u8>, frame: usize) -> Body {
    let mut rest = Bytes::from(bytes);
    let frames = std::iter::from_fn(move || {
        let next = rest.split_to(frame.min(rest.len()));
        (!next.is_empty()).then_some(Ok::<_, std::io::Error>(next))
    });
    Body::wrap_stream(stream::iter(frames))
}

async fn by_form(app: &App, file: &[u8], frame: usize) -> String {
    let request = json!({"filename": "a.bin", "contentType": "application/octet-stream"});
    let form: PostGrant = app.granted("/upload/presigned-post", &request).await;
    let boundary = "----a-boundary-as-browsers-make-them";
    let body = form.bytes(boundary, file);
    let response = app
        .client
        .post(&form.url)
        .header(
            "content-type",
            format!("multipart/form-data; boundary={boundary}"),
        )
        .header("content-length", body.len())
        .body(in_frames(body, frame))
        .send()
        .await
        .unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    assert!(
        status.is_success(),
        "{} bytes in frames of {frame}: {text}",
        file.len()
    );
    form.key
}

async fn by_put(app: &App, file: &[u8], frame: usize) -> String {
    let grant = app.grant("a.bin", "application/octet-stream").await;
    let response = app
        .client
        .put(&grant.url)
        .header("content-type", "application/octet-stream")
        .header("content-length", file.len())
        .body(in_frames(file.to_vec(), frame))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200, "{} bytes", file.len());
    grant.key
}

/// Uploads the file in the parts of these numbers, of 5 MiB and more but for the last.
async fn by_parts(app: &App, file: &[u8], numbers: &[u16]) -> String {
    let body = json!({"filename": "a.bin", "type": "application/octet-stream"});
    let upload = create_at(&app.base, body).await;
    let mut parts = Vec::new();
    let size = file.len().div_ceil(numbers.len()).max(1);
    for (number, part) in numbers.iter().zip(file.chunks(size)) {
        let etag = upload.put(*number, part.to_vec()).await;
        parts.push(json!({"PartNumber": number, "ETag": etag}));
    }
    let complete = upload.complete(json!(parts)).await;
    let status = complete.status();
    assert_eq!(status, 200, "{}", complete.text().await.unwrap());
    upload.key
}

async fn arrived(app: &App, key: &str, file: &[u8]) {
    let (stored, _) = app.stored(key).await.expect(key);
    assert!(
        stored == file,
        "{} bytes arrived as {}",
        file.len(),
        stored.len()
    );
}

fn csv(size: usize) -> Vec<u8> {
    let mut text = "1,2;3\r\nfour,\"five\r\n\",6\r\n"
        .repeat(size / 23 + 1)
        .into_bytes();
    text.truncate(size);
    text
}

#[tokio::test]
async fn a_form_accepts_every_file_in_frames_of_every_size() {
    const MIB: usize = 1024 * 1024;
    let app = spawn_app().await;
    let files = [
        Vec::new(),
        b"\r".to_vec(),
        b"\r\n--".to_vec(),
        vec![b'\r'; MIB],
        b"\r\n".repeat(MIB / 2),
        csv(3 * MIB),
        random(MIB, 1),
        random(20 * MIB + 1, 2),
    ];
    for file in files {
        for frame in [MIB * 8, 65_536, 65_537, 8192] {
            let key = by_form(&app, &file, frame).await;
            arrived(&app, &key, &file).await;
        }
    }
    // Small frames take long with large files.
    for frame in [1, 2, 3, 7, 1000] {
        let file = b"a\r\r\n\r\n--\r\n----a-boundary-as-browsers-make-the\r".repeat(8);
        let key = by_form(&app, &file, frame).await;
        arrived(&app, &key, &file).await;
    }
}

#[tokio::test]
async fn a_put_and_parts_accept_every_file() {
    let app = spawn_app().await;
    for (size, frame) in [(0, 1), (1, 1), (65_537, 1000), (3_000_000, 65_536)] {
        for file in [vec![b'\r'; size], csv(size), random(size, 3)] {
            let key = by_put(&app, &file, frame).await;
            arrived(&app, &key, &file).await;
        }
    }
    let file = random(11 * 1024 * 1024, 4);
    for numbers in [&[1][..], &[1, 2], &[2, 7], &[9999, 10_000]] {
        let key = by_parts(&app, &file, numbers).await;
        arrived(&app, &key, &file).await;
    }
}

#[tokio::test]
async fn a_failed_overwrite_keeps_the_old_object() {
    let app =
        spawn_app_with_policies("[policies.default]\nkey = 'fixed/{filename}'\noverwrite = true")
            .await;
    let old = app.grant("a.txt", "text/plain").await;
    assert_eq!(app.upload(&old, "old").await.status(), 200);

    let checksum = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="; // of no bytes at all
    let body = json!({"filename": "a.txt", "contentType": "text/csv", "checksumSha256": checksum});
    let grant: Grant = app.granted("/upload/presigned-url", &body).await;
    let message = refused(app.upload(&grant, "new").await, 400, "BadDigest").await;
    assert!(message.contains("checksum"), "{message}");

    // The client hangs up in the middle.
    let frames = stream::iter([Ok(Bytes::from("ne")), Err(std::io::Error::other("gone"))]);
    let put = app
        .client
        .put(&old.url)
        .header("content-type", "text/plain");
    let put = put
        .header("content-length", 3)
        .body(Body::wrap_stream(frames));
    assert!(put.send().await.is_err());

    assert_eq!(
        app.stored("fixed/a.txt").await,
        Some((b"old".to_vec(), "text/plain".into()))
    );
    let left: Vec<_> = std::fs::read_dir(app.data())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(
        left.len(),
        3,
        "the object's folder and its two files alone: {left:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_uploaded_and_deleted_at_the_same_time() {
    let app = spawn_app().await;
    // Without connections, more of the requests coincide.
    let store = crate::helpers::store(app.data());
    let hour = PresigningConfig::expires_in(Duration::from_hours(1)).unwrap();
    let mut tasks = Vec::new();
    // Both objects are in a folder that is removed with its last object.
    for key in ["a/b/1", "a/b/2"] {
        let put = app.store.put_object().bucket(BUCKET).key(key);
        let put = put.presigned(hour.clone()).await.unwrap();
        let delete = app.store.delete_object().bucket(BUCKET).key(key);
        let delete = delete.presigned(hour.clone()).await.unwrap();
        let mut store = store.clone();
        let mut send = async move |presigned: &PresignedRequest| {
            let uri: Uri = presigned.uri().parse().unwrap();
            let request = Request::builder().method(presigned.method()).uri(&uri);
            let request = request.header("host", uri.authority().unwrap().as_str());
            let request = request.header("content-length", 0).body(AxumBody::empty());
            let response = store.call(request.unwrap()).await.unwrap();
            assert!(response.status().is_success(), "{response:?}");
        };
        tasks.push(tokio::spawn(async move {
            for _ in 0..300 {
                send(&put).await;
                send(&delete).await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}
