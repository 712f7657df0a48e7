//! Tags arrive with each way of uploading, belong to one object, and survive a restart; lifecycle rules
//! are kept.

use aws_sdk_s3::Client;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, ExpirationStatus,
    LifecycleExpiration, LifecycleRule, LifecycleRuleFilter, Tag, Tagging,
};
use presignd::dev::BUCKET;
use serde_json::json;

use super::parts::{Upload, etag_of};
use crate::commit::{Tags, tags_of};
use crate::helpers::{App, s3_client, spawn, spawn_app, spawn_app_with_policies};
use crate::presigned_post::PostGrant;

/// The tag needs every kind of escaping.
const TAGGED: &str = "[policies.default]\ntagging = { stage = 'inbox', 'a b+c' = '한/=d' }";

fn tags(pairs: &[(&str, &str)]) -> Tags {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn granted() -> Tags {
    tags(&[("stage", "inbox"), ("a b+c", "한/=d")])
}

async fn set_tags(store: &Client, key: &str, tags: Tags) -> Result<(), String> {
    let tags = tags
        .into_iter()
        .map(|(name, value)| Tag::builder().key(name).value(value).build().unwrap());
    let tagging = Tagging::builder().set_tag_set(Some(tags.collect()));
    let put = store.put_object_tagging().bucket(BUCKET).key(key);
    let put = put.tagging(tagging.build().unwrap()).send().await;
    let code = |error: &dyn ProvideErrorMetadata| error.code().unwrap_or_default().to_owned();
    put.map(|_| ()).map_err(|error| code(&error))
}

/// What HEAD says: `None` is no header.
async fn count_of(app: &App, key: &str) -> Option<String> {
    let head = app.store.head_object().bucket(BUCKET).key(key);
    let hour =
        aws_sdk_s3::presigning::PresigningConfig::expires_in(std::time::Duration::from_hours(1));
    let head = head.presigned(hour.unwrap()).await.unwrap();
    let head = app.client.head(head.uri()).send().await.unwrap();
    let count = head.headers().get("x-amz-tagging-count")?;
    Some(count.to_str().unwrap().to_owned())
}

async fn put(app: &App) -> String {
    let file = json!({"filename": "a.txt", "contentType": "text/plain"});
    app.sent(&file, "hello").await.key
}

#[tokio::test]
async fn a_put_stores_the_tags_that_were_signed() {
    let app = spawn_app_with_policies(TAGGED).await;
    let key = put(&app).await;
    assert_eq!(tags_of(&app.store, &key).await, granted());
    assert_eq!(count_of(&app, &key).await.as_deref(), Some("2"));
}

#[tokio::test]
async fn a_form_stores_the_tags_that_were_signed() {
    let app = spawn_app_with_policies(TAGGED).await;
    let request = json!({"filename": "a.txt", "contentType": "text/plain"});
    let grant: PostGrant = app.granted("/upload/presigned-post", &request).await;
    // The file looks like a field.
    let file = "\r\n\r\nContent-Disposition: form-data; name=\"tagging\"\r\n\r\n<Tagging/>";
    assert_eq!(grant.send(&app.client, file).await.status(), 201);
    assert_eq!(tags_of(&app.store, &grant.key).await, granted());
}

#[tokio::test]
async fn an_upload_in_parts_stores_the_tags_that_it_was_created_with() {
    let app = spawn_app().await;
    let tags = "stage=inbox&a%20b%2Bc=%ED%95%9C%2F%3Dd";
    let upload = Upload::create_at(&app, "a", Some(tags)).await;
    let etag = etag_of(upload.part(1).await.body("part")).await;
    upload.complete(&etag).await.unwrap();
    assert_eq!(tags_of(&app.store, "a").await, granted());
}

#[tokio::test]
async fn tags_are_replaced_and_removed_without_the_object_and_with_it() {
    let app = spawn_app_with_policies(TAGGED).await;
    let key = &put(&app).await;
    let others = tags(&[("owner", "")]);
    set_tags(&app.store, key, others.clone()).await.unwrap();
    assert_eq!(tags_of(&app.store, key).await, others);
    assert_eq!(
        app.stored(key).await.unwrap(),
        (b"hello".to_vec(), "text/plain".into())
    );

    let delete = app.store.delete_object_tagging().bucket(BUCKET).key(key);
    delete.send().await.unwrap();
    assert_eq!(tags_of(&app.store, key).await, Tags::new());
    assert_eq!(count_of(&app, key).await, None);

    set_tags(&app.store, key, others).await.unwrap();
    let again = app.store.put_object().bucket(BUCKET).key(key);
    again.tagging("a+b=c&d").send().await.unwrap();
    assert_eq!(
        tags_of(&app.store, key).await,
        tags(&[("a b", "c"), ("d", "")])
    );

    let delete = app.store.delete_object().bucket(BUCKET).key(key);
    delete.send().await.unwrap();
    let untagged = app.store.put_object().bucket(BUCKET).key(key);
    untagged.send().await.unwrap();
    assert_eq!(tags_of(&app.store, key).await, Tags::new());
}

#[tokio::test]
async fn objects_tags_and_rules_survive_a_restart() {
    let app = spawn_app_with_policies(TAGGED).await;
    let key = &put(&app).await;
    put_rules(&app.store, rule().build().unwrap())
        .await
        .unwrap();
    let addr = spawn(crate::helpers::store(app.data())).await;
    let store = s3_client(&crate::helpers::sdk_config(addr));
    assert_eq!(tags_of(&store, key).await, granted());
    let object = store.get_object().bucket(BUCKET).key(key).send().await;
    let bytes = object.unwrap().body.collect().await.unwrap();
    assert_eq!(bytes.to_vec(), b"hello");
    let rules = store.get_bucket_lifecycle_configuration().bucket(BUCKET);
    assert_eq!(rules.send().await.unwrap().rules().len(), 1);
}

#[tokio::test]
async fn what_s3_does_not_accept_as_tags_is_refused() {
    let app = spawn_app().await;
    let object = || app.store.put_object().bucket(BUCKET).key("a");
    object().send().await.unwrap();
    let eleven: Tags = (0..11).map(|i| (i.to_string(), String::new())).collect();
    let long_value = tags(&[("a", &"한".repeat(257))]);
    for refused in [eleven, tags(&[("", "")]), long_value] {
        let code = set_tags(&app.store, "a", refused).await.unwrap_err();
        assert_eq!(code, "InvalidTag");
    }
    let missing = set_tags(&app.store, "b", Tags::new()).await;
    assert_eq!(missing.unwrap_err(), "NoSuchKey");
    for (header, code) in [("a=1&a=2", "InvalidTag"), ("a=%FF", "InvalidArgument")] {
        let error = object().tagging(header).send().await.unwrap_err();
        assert_eq!(error.code(), Some(code), "{header}");
    }
}

fn rule() -> aws_sdk_s3::types::builders::LifecycleRuleBuilder {
    let tag = Tag::builder().key("stage").value("inbox").build().unwrap();
    LifecycleRule::builder()
        .id("r")
        .status(ExpirationStatus::Enabled)
        .filter(LifecycleRuleFilter::builder().tag(tag).build())
        .expiration(LifecycleExpiration::builder().days(7).build())
}

async fn put_rules(store: &Client, rule: LifecycleRule) -> Result<(), String> {
    let rules = BucketLifecycleConfiguration::builder().rules(rule).build();
    let put = store.put_bucket_lifecycle_configuration().bucket(BUCKET);
    let put = put.lifecycle_configuration(rules.unwrap()).send().await;
    let put = put.map(|_| ());
    put.map_err(|error| error.code().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn lifecycle_rules_are_kept_as_they_were_put_until_they_are_deleted() {
    let app = spawn_app().await;
    let get = || {
        app.store
            .get_bucket_lifecycle_configuration()
            .bucket(BUCKET)
    };
    let none = || async { get().send().await.unwrap_err().code().map(str::to_owned) };
    assert_eq!(
        none().await.as_deref(),
        Some("NoSuchLifecycleConfiguration")
    );
    let rule = rule().build().unwrap();
    put_rules(&app.store, rule.clone()).await.unwrap();
    assert_eq!(get().send().await.unwrap().rules(), [rule]);
    let delete = app.store.delete_bucket_lifecycle().bucket(BUCKET);
    delete.send().await.unwrap();
    assert_eq!(
        none().await.as_deref(),
        Some("NoSuchLifecycleConfiguration")
    );
}

#[tokio::test]
async fn a_rule_without_an_action_or_for_parts_with_a_tag_is_refused() {
    let app = spawn_app().await;
    let abort = AbortIncompleteMultipartUpload::builder();
    let abort = abort.days_after_initiation(7).build();
    for refused in [
        rule().set_expiration(None),
        rule().abort_incomplete_multipart_upload(abort),
    ] {
        let code = put_rules(&app.store, refused.build().unwrap()).await;
        assert_eq!(code.unwrap_err(), "InvalidRequest");
    }
}
