//! The store answers about objects as S3 does, so that clients of S3 understand it.

use aws_sdk_s3::types::EncodingType;
use presignd::dev::BUCKET;

use crate::helpers::{App, spawn_app};

async fn put(app: &App, key: &str, body: &'static [u8]) {
    let put = app.store.put_object().bucket(BUCKET).key(key);
    put.body(body.to_vec().into()).send().await.unwrap();
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
