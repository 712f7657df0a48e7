//! The store answers about objects as S3 does, so that clients of S3 understand it.

use std::time::Duration;

use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::types::EncodingType;
use presignd::dev::BUCKET;
use serde_json::json;

use super::parts::{Upload, etag_of};
use crate::helpers::{App, spawn_app, spawn_app_with_policies};
use crate::presigned_post::PostGrant;
use crate::uppy::create_at;

async fn put(app: &App, key: &str, body: &'static [u8]) {
    let put = app.store.put_object().bucket(BUCKET).key(key);
    put.body(body.to_vec().into()).send().await.unwrap();
}

#[tokio::test]
async fn every_storage_class_of_a_policy_is_accepted() {
    for class in ["STANDARD_IA", "INTELLIGENT_TIERING"] {
        let policy = format!("[policies.default]\nstorage_class = '{class}'");
        let app = spawn_app_with_policies(&policy).await;
        let file = json!({"filename": "a.txt", "contentType": "text/plain"});
        app.sent(&file, "x").await;
        let form: PostGrant = app.granted("/upload/presigned-post", &file).await;
        assert_eq!(form.send(&app.client, "x").await.status(), 201);
        let upload = create_at(&app.base, json!({"filename": "a", "type": "text/plain"})).await;
        let etag = upload.put(1, b"x".to_vec()).await;
        let parts = json!([{"PartNumber": 1, "ETag": etag}]);
        assert_eq!(upload.complete(parts).await.status(), 200);
    }
}

/// Clients ask for percent-encoding because XML cannot hold every key.
#[tokio::test]
async fn lists_name_keys_in_the_encoding_that_was_asked_for() {
    let app = spawn_app().await;
    for key in ["a+b c.txt", "a\u{1}.txt", "d+/a"] {
        put(&app, key, b"x").await;
    }
    let encoded = || Some(EncodingType::Url);
    let list = app.store.list_objects_v2().bucket(BUCKET).delimiter("/");
    let list = list.set_encoding_type(encoded()).send().await.unwrap();
    let keys: Vec<_> = list.contents().iter().map(|it| it.key().unwrap()).collect();
    assert_eq!(keys, ["a%01.txt", "a%2Bb%20c.txt"]);
    assert_eq!(list.common_prefixes()[0].prefix(), Some("d%2B/"));
    assert_eq!(list.delimiter(), Some("/"));
    let list = app.store.list_objects().bucket(BUCKET).prefix("a+");
    let list = list.set_encoding_type(encoded()).send().await.unwrap();
    assert_eq!(list.prefix(), Some("a%2B"));
    assert_eq!(list.contents()[0].key(), Some("a%2Bb%20c.txt"));
    let list = app.store.list_objects_v2().bucket(BUCKET).prefix("a+");
    let list = list.send().await.unwrap();
    assert_eq!(list.contents()[0].key(), Some("a+b c.txt"));
}

#[tokio::test]
async fn lists_have_the_entity_tag_and_the_storage_class_of_each_object() {
    let app = spawn_app().await;
    put(&app, "a.txt", b"x").await;
    let list = app.store.list_objects_v2().bucket(BUCKET).send();
    let object = &list.await.unwrap().contents.unwrap()[0];
    assert_eq!(object.e_tag(), app.head("a.txt").await.e_tag());
    assert!(object.e_tag().is_some());
    assert_eq!(object.storage_class().unwrap().as_str(), "STANDARD");
}

#[tokio::test]
async fn a_range_that_is_longer_than_the_object_is_all_of_it() {
    let app = spawn_app().await;
    put(&app, "a.txt", b"abc").await;
    for (range, expected) in [("bytes=-65536", "abc"), ("bytes=-2", "bc")] {
        let get = app.store.get_object().bucket(BUCKET).key("a.txt");
        let answer = get.range(range).send().await.unwrap();
        let begin = 3 - expected.len();
        let content_range = format!("bytes {begin}-2/3");
        assert_eq!(answer.content_range(), Some(content_range.as_str()));
        let body = answer.body.collect().await.unwrap().to_vec();
        assert_eq!(body, expected.as_bytes());
    }
}

#[tokio::test]
async fn an_object_without_a_content_type_has_that_of_s3() {
    let app = spawn_app().await;
    let put = app.store.put_object().bucket(BUCKET).key("a");
    let put = put.presigned(PresigningConfig::expires_in(Duration::from_hours(1)).unwrap());
    let put = app.client.put(put.await.unwrap().uri()).body("abc").send();
    assert_eq!(put.await.unwrap().status(), 200);
    let upload = Upload::create_at(&app, "b", None).await;
    let etag = etag_of(upload.part(1).await.body("abc")).await;
    upload.complete(&etag).await.unwrap();
    let [a, b] = [app.head("a").await, app.head("b").await];
    let expected = Some("binary/octet-stream");
    assert_eq!([a.content_type(), b.content_type()], [expected; 2]);
}
