//! What the messages to the application say.

use std::time::Duration;

use axum::http::HeaderValue;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use presignd::dev;
use serde_json::{Map, Value, json};

use super::{ANY, Application, notification, record, report_to, reported_by, settings, start};
use crate::checksums::HELLO;
use crate::helpers::{hurry, with_policies};
use crate::receipts::{pem, service_for};
use crate::stand_in::{KEY, StandIn, error, object};

#[tokio::test]
async fn an_upload_is_reported_with_a_signature_whatever_its_name() {
    let (app, application) = start(ANY).await;
    for name in ["a.txt", "a b+c%2B.txt", "100%.txt", "사진.txt", "🎉.txt"] {
        let key = app.uploaded(name, "text/plain").await;
        app.acknowledges(&notification(&key)).await;
        let message = application.received().pop().unwrap().message;
        assert_eq!(message["type"], "upload.arrived");
        let data = &message["data"];
        let found = (&data["bucket"], &data["key"], &data["policy"]);
        assert_eq!(found, (&json!("uploads"), &json!(key), &json!("default")));
        let found = (&data["size"], &data["contentType"], &data["metadata"]);
        assert_eq!(found, (&json!(5), &json!("text/plain"), &json!({})));
        assert!(data["etag"].is_string() && data["lastModified"].is_string());
        assert!(data.get("caller").is_none() && data.get("errors").is_none());
    }
}

#[tokio::test]
async fn a_message_says_all_that_its_receipt_states_also_of_an_object_without_a_type() {
    const SHA256: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    for has_type in [true, false] {
        let store = StandIn::answering(move |_| async move {
            let mut response = object(&[
                ("x-amz-version-id", "v7"),
                ("x-amz-checksum-sha256", SHA256),
                ("x-amz-checksum-crc64nvme", HELLO),
            ]);
            if !has_type {
                response.headers_mut().remove("content-type");
            }
            response
        })
        .await;
        let (application, url) = Application::start().await;
        let policies = with_policies(ANY);
        let base = service_for(&pem(), &store.config(), policies, &settings(&url)).await;
        let answer = report_to(&base, &notification(KEY)).await;
        assert_eq!(answer.status(), 200);
        let data = application.received()[0].message["data"].clone();
        let found = (&data["versionId"], &data["checksumSha256"]);
        assert_eq!(found, (&json!("v7"), &json!(SHA256)));
        let receipt = data["receipt"].as_str().unwrap();
        let claims = BASE64_URL_SAFE_NO_PAD.decode(receipt.split('.').nth(1).unwrap());
        let mut claims: Map<String, Value> = serde_json::from_slice(&claims.unwrap()).unwrap();
        claims.remove("iat");
        assert!(claims.contains_key("checksumCrc64nvme"));
        for (name, value) in claims {
            assert_eq!(data[&name], value, "{name}");
        }
    }
}

#[tokio::test]
async fn an_object_that_violates_its_policy_is_reported_as_refused() {
    let (app, application) = start(
        "[policies.small]\nkey = 'small/{uuid}/{filename}'\nmax_size = '3 B'\n[policies.default]",
    )
    .await;
    // As if someone else had put it there.
    let key = "small/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/a.txt";
    let put = app.store.put_object().bucket(dev::BUCKET).key(key);
    let put = put.body(b"hello".to_vec().into());
    put.content_type("text/plain").send().await.unwrap();
    app.acknowledges(&notification(key)).await;
    let message = application.received().pop().unwrap().message;
    assert_eq!(message["type"], "upload.refused");
    assert_eq!(message["data"]["policy"], "small");
    assert_eq!(message["data"]["errors"][0]["pointer"], "/size");
}

#[tokio::test]
async fn an_object_that_is_gone_before_its_first_bytes_are_read_is_not_reported_as_refused() {
    hurry();
    let store = StandIn::with_object_but(|| error(404, "NoSuchKey")).await;
    let sniffs = "[policies.default]\nsniff = true";
    let (status, messages) = reported_by(&store, sniffs, &notification(KEY)).await;
    assert_eq!(status, 503);
    assert_eq!(messages, [json!(null); 0]);
}

/// The event of an object in this store makes a message that refuses it, first for this reason.
async fn is_refused(store: &StandIn, code: &str) {
    let (status, mut messages) = reported_by(store, ANY, &notification(KEY)).await;
    assert_eq!(status, 200);
    let message = messages.pop().unwrap();
    assert_eq!(message["type"], "upload.refused");
    assert_eq!(message["data"]["errors"][0]["code"], code, "{message}");
}

#[tokio::test]
async fn an_object_with_a_header_that_is_no_text_is_reported_as_refused() {
    let store = StandIn::answering(async |_| {
        let mut odd = object(&[]);
        let value = HeaderValue::from_bytes(b"attachment; filename=\"caf\xe9.txt\"").unwrap();
        odd.headers_mut().insert("content-disposition", value);
        odd
    })
    .await;
    is_refused(&store, "disposition-differs").await;
}

/// Otherwise its event would come again and again, before those of others.
#[tokio::test]
async fn an_object_whose_headers_cannot_be_read_is_reported_as_refused() {
    let long = "x".repeat(900_000);
    let store = StandIn::answering(move |_| {
        std::future::ready(object(&[("x-amz-meta-album", long.as_str())]))
    });
    let store = store.await;
    is_refused(&store, "metadata-too-large").await;
}

#[tokio::test]
async fn a_key_names_its_caller() {
    let (app, application) = start("[policies.own]\nkey = 'own/{caller}/{uuid}.{ext}'").await;
    let key = "own/auth0=7C7/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e.txt";
    let put = app.store.put_object().bucket(dev::BUCKET).key(key);
    put.content_type("text/plain").send().await.unwrap();
    app.report(&notification(key)).await;
    let message = application.received().pop().unwrap().message;
    assert_eq!(message["type"], "upload.arrived", "{message}");
    assert_eq!(message["data"]["caller"], "auth0=7C7");
}

#[tokio::test]
async fn whatever_is_no_upload_is_acknowledged_and_makes_no_message() {
    let (app, application) = start(ANY).await;
    let key = app.uploaded("a.txt", "text/plain").await;
    let mut removed = record(dev::BUCKET, &key, Duration::ZERO);
    removed["eventName"] = "s3:ObjectRemoved:Delete".into();
    let gone = key.replace("a.txt", "gone.txt");
    for body in [
        json!({"Event": "s3:TestEvent", "Service": "Amazon S3"}),
        json!({"Records": [removed]}),
        json!({"Records": [record("other", &key, Duration::ZERO)]}),
        notification("elsewhere/a.txt"),
        // It was deleted since.
        json!({"Records": [record(dev::BUCKET, &gone, Duration::from_mins(3))]}),
        json!({"Records": []}),
    ] {
        app.acknowledges(&body).await;
    }
    assert!(application.received().is_empty());
}

#[tokio::test]
async fn of_several_policies_the_first_that_allows_the_object_counts() {
    let policies = "[policies.a]\nmax_size = '3 B'\n[policies.b]\n[policies.c]";
    let (app, application) = start(policies).await;
    let body = json!({"filename": "a.txt", "contentType": "text/plain", "policy": "c"});
    let grant = app.sent(&body, "hello").await;
    app.report(&notification(&grant.key)).await;
    let message = application.received().pop().unwrap().message;
    assert_eq!(message["type"], "upload.arrived");
    assert_eq!(message["data"]["policy"], "b");
}

#[tokio::test]
async fn an_upload_to_another_bucket_of_a_policy_is_reported_under_that_policy() {
    let (app, application) = start(
        "[policies.default]
        [policies.media]
        bucket = 'media'
        key = 'media/{uuid}/{filename}'",
    )
    .await;
    let body = json!({"filename": "a+b%.txt", "contentType": "text/plain", "policy": "media"});
    let grant = app.sent(&body, "hello").await;
    // No policy grants this key in the default bucket, and none at all in the last one.
    for (bucket, messages) in [(dev::BUCKET, 0), ("media", 1), ("other", 1)] {
        let record = record(bucket, &grant.key, Duration::ZERO);
        app.acknowledges(&json!({"Records": [record]})).await;
        assert_eq!(application.received().len(), messages, "{bucket}");
    }
    let message = application.received().pop().unwrap().message;
    assert_eq!(message["type"], "upload.arrived", "{message}");
    let data = &message["data"];
    let found = [&data["bucket"], &data["key"], &data["policy"]];
    assert_eq!(found, [&json!("media"), &json!(grant.key), &json!("media")]);
}

#[tokio::test]
async fn a_pending_upload_is_reported_before_its_commit_and_a_commit_makes_no_new_message() {
    let (app, application) = start("[policies.default]\npending = true").await;
    let key = app.uploaded("a.txt", "text/plain").await;
    let first = record(dev::BUCKET, &key, Duration::from_secs(5));
    app.report(&json!({"Records": [first]})).await;
    let received = application.received().pop().unwrap();
    assert_eq!(
        received.message["type"], "upload.arrived",
        "{}",
        received.message
    );
    assert_eq!(received.message["data"]["key"], key);

    let commit = app.post("/upload/commit", &json!({"key": key})).await;
    assert_eq!(commit.status(), 200);
    // What stores report of the commit itself.
    let mut tagged = record(dev::BUCKET, &key, Duration::ZERO);
    for name in ["s3:ObjectCreated:PutTagging", "ObjectTagging:Put"] {
        tagged["eventName"] = name.into();
        app.acknowledges(&json!({"Records": [tagged]})).await;
    }
    assert_eq!(application.received().len(), 1);
    // A duplicate that comes after the commit is recognised as one.
    app.report(&notification(&key)).await;
    assert_eq!(application.received().pop().unwrap().id, received.id);
}

#[tokio::test]
async fn each_message_is_what_the_document_describes() {
    let (app, application) = start("[policies.default]\nmax_size = '5 B'").await;
    for body in ["hello", "too long"] {
        let put = app.store.put_object().bucket(dev::BUCKET).key(KEY);
        let put = put.body(body.as_bytes().to_vec().into());
        put.content_type("text/plain").send().await.unwrap();
        app.report(&notification(KEY)).await;
    }
    let document = app.document().await;
    let schemas = &document["components"]["schemas"];
    let described = |value: &Value, schema: &str| {
        let schema = &schemas[schema];
        let fields = schema["properties"].as_object().unwrap();
        for name in value.as_object().unwrap().keys() {
            assert!(fields.contains_key(name), "{name} is not described");
        }
        for name in schema["required"].as_array().unwrap() {
            let name = name.as_str().unwrap();
            assert!(value.get(name).is_some(), "{name} is not in {value}");
        }
    };
    let received = application.received();
    let types: Vec<&str> = received
        .iter()
        .map(|received| received.message["type"].as_str().unwrap())
        .collect();
    assert_eq!(types, ["upload.arrived", "upload.refused"]);
    assert_eq!(schemas["UploadMessageType"]["enum"], json!(types));
    for (name, received) in types.iter().zip(&received) {
        let webhook = &document["webhooks"][name]["post"];
        let body = &webhook["requestBody"]["content"]["application/json"]["schema"]["$ref"];
        assert_eq!(body, "#/components/schemas/UploadMessage");
        described(&received.message, "UploadMessage");
        described(&received.message["data"], "UploadMessageData");
    }
}
