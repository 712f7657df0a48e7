//! Uploads that begin with the URLs of their first parts, so that a client saves a call for each.

use std::collections::BTreeMap;

use presignd::dev::BUCKET;
use reqwest::Method;
use serde_json::{Value, json};

use super::{FIVE_MIB, Upload};
use crate::helpers::{
    answer, client, fields, post, spawn_app, spawn_app_with_policies, with_members,
};

const MIB: u64 = 1024 * 1024;

/// An upload of a file of this size, and the URLs of its first parts.
async fn begin(base: &str, size: u64, part_size: u64) -> (Upload, BTreeMap<u16, String>) {
    let body = json!({"filename": "a", "type": "video/mp4", "size": size, "partSize": part_size});
    let answer: Value = answer(200, post(base, "/s3/multipart", &body).await).await;
    assert_eq!(answer["bucket"], BUCKET);
    let text = |name: &str| answer[name].as_str().unwrap().to_owned();
    let upload = Upload {
        base: base.to_owned(),
        key: text("key"),
        id: text("uploadId"),
        bearer: None,
    };
    let urls = serde_json::from_value(answer["presignedUrls"].clone()).unwrap();
    (upload, urls)
}

#[tokio::test]
async fn a_file_is_uploaded_with_the_urls_that_came_with_its_upload() {
    let app = spawn_app().await;
    let whole: Vec<u8> = (0..FIVE_MIB + 3).map(|n| n.to_le_bytes()[0]).collect();
    let (first, last) = whole.split_at(FIVE_MIB);
    let size = whole.len().try_into().unwrap();
    let (upload, urls) = begin(&app.base, size, 5 * MIB).await;
    assert_eq!(urls.keys().collect::<Vec<_>>(), [&1, &2]);
    let put = async |number, body: &[u8]| {
        let request = client().put(&urls[&number]).body(body.to_vec());
        request.send().await.unwrap()
    };
    for other in [&last[1..], first] {
        assert_eq!(put(2, other).await.status(), 403);
    }
    assert_eq!(put(1, last).await.status(), 403);
    let mut parts = Vec::new();
    for (number, body) in [(1, first), (2, last)] {
        let answer = put(number, body).await;
        assert_eq!(answer.status(), 200);
        let etag = answer.headers()["etag"].to_str().unwrap();
        parts.push(json!({"PartNumber": number, "ETag": etag}));
    }
    let completed = upload.complete(json!(parts)).await;
    assert_eq!(completed.status(), 200);
    let (stored, _) = app.stored(&upload.key).await.unwrap();
    assert!(stored == whole);
}

#[tokio::test]
async fn the_answer_has_the_urls_of_twenty_parts_at_most_and_the_others_can_be_asked_for() {
    let app = spawn_app().await;
    let (_, urls) = begin(&app.base, 100 * MIB, 5 * MIB).await;
    assert!(urls.into_keys().eq(1..=20));
    let (upload, urls) = begin(&app.base, 100 * MIB + 1, 5 * MIB).await;
    assert!(urls.into_keys().eq(1..=20));
    let other = upload.json(Method::GET, "21", &[("size", "1")], None).await;
    assert!(other["url"].as_str().unwrap().contains("partNumber=21"));
    let (_, urls) = begin(&app.base, 10 * MIB, 5 * MIB).await;
    assert!(urls.into_keys().eq([1, 2]), "none is empty");
    let (_, urls) = begin(&app.base, 0, 5 * MIB).await;
    assert!(urls.into_keys().eq([1]), "an empty file has an empty part");
}

#[tokio::test]
async fn a_part_size_is_one_that_the_store_accepts_and_comes_with_the_size_of_the_file() {
    let policy = "[policies.default]\nmax_size = '100 GiB'";
    let app = spawn_app_with_policies(policy).await;
    let refused = async |sizes: Value| {
        let file = json!({"filename": "a", "type": "video/mp4"});
        let body = with_members(file, &sizes);
        app.refused("/s3/multipart", &body).await
    };
    let out_of_range = ("/partSize", "out-of-range");
    for part_size in [0, 5 * MIB - 1, 5 * 1024 * MIB + 1] {
        let problem = refused(json!({"size": 6, "partSize": part_size})).await;
        assert_eq!(fields(&problem), [out_of_range]);
    }
    let problem = refused(json!({"size": 50_000 * MIB + 1, "partSize": 5 * MIB})).await;
    assert_eq!(fields(&problem), [("/partSize", "too-many-parts")]);
    let problem = refused(json!({"partSize": 5 * MIB})).await;
    assert_eq!(fields(&problem), [("/size", "size-required")]);
    let problem = refused(json!({"partSize": 1})).await;
    assert_eq!(fields(&problem), [out_of_range, ("/size", "size-required")]);
    let problem = refused(json!({"size": 6, "partSize": "6"})).await;
    assert_eq!(fields(&problem), [("/partSize", "wrong-type")]);
    let (_, urls) = begin(&app.base, 50_000 * MIB, 5 * MIB).await;
    assert_eq!(urls.len(), 20);
}
