//! What a ticket means after the grant: for parts, and for verifying.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::*;
use crate::auth::status;

#[tokio::test]
async fn a_session_belongs_to_the_ticket_that_it_was_opened_under() {
    const PART: u64 = 5 * 1024 * 1024;
    let app = app().await;
    let create = async |token: &str, policy: &str| {
        let body = json!({"filename": "a.bin", "type": "a/b", "metadata": {}, "policy": policy});
        let created: Value = post(&app, token, "/s3/multipart", body)
            .await
            .json()
            .await
            .unwrap();
        let id = created["uploadId"]
            .as_str()
            .expect("an upload id")
            .to_owned();
        (
            format!("{}/s3/multipart/{id}", app.base),
            created["key"].as_str().unwrap().to_owned(),
        )
    };
    let with = |request: RequestBuilder, token: &str, key: &str| {
        request.query(&[("key", key)]).bearer_auth(token)
    };
    let own = json!({"max_size": PART + 1, "vars": {"tenant": "acme"}});
    let token = ticket(own.clone());
    let (session, key) = create(&token, "tenant").await;
    let sign =
        |token: &str, number: u32| with(app.client.get(format!("{session}/{number}")), token, &key);
    assert_eq!(status(sign(&token, 1)).await, StatusCode::OK);
    // A fresh token with the same ticket continues; after the old one has expired it has to.
    let mut fresh = claims("alice");
    fresh["upload"] = own.clone();
    fresh["exp"] = json!(crate::auth::jwt::now() + 1000);
    assert_eq!(status(sign(&signed(&fresh), 2)).await, StatusCode::OK);
    fresh["exp"] = json!(crate::auth::jwt::now() - 60);
    assert_eq!(
        status(sign(&signed(&fresh), 2)).await,
        StatusCode::UNAUTHORIZED
    );
    // Its limit holds: the third part would be beyond it.
    assert_eq!(
        status(sign(&token, 3)).await,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    // The user's own session may continue, within the same limit.
    let plain = signed(&claims("alice"));
    assert_eq!(status(sign(&plain, 2)).await, StatusCode::OK);
    assert_eq!(
        status(sign(&plain, 3)).await,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    // No other ticket may, nor the same one of another user.
    for other in [
        ticket(json!({})),
        ticket(json!({"vars": {"tenant": "acme"}})),
        ticket(json!({"max_size": PART * 100, "vars": {"tenant": "acme"}})),
        ticket(json!({"max_size": PART + 1, "vars": {"tenant": "other"}})),
        ticket_of("bob", own),
    ] {
        for request in [
            with(app.client.get(&session), &other, &key),
            sign(&other, 1),
            with(
                app.client.get(format!("{session}/batch?partNumbers=1")),
                &other,
                &key,
            ),
            with(app.client.delete(&session), &other, &key),
            with(app.client.post(format!("{session}/complete")), &other, &key)
                .json(&json!({"parts": [{"PartNumber": 1, "ETag": "x"}]})),
        ] {
            assert_eq!(status(request).await, StatusCode::NOT_FOUND);
        }
    }
    // What was begun without a ticket is not continued under one.
    let (session, key) = create(&plain, "default").await;
    let part = |token: &str| with(app.client.get(format!("{session}/1")), token, &key);
    assert_eq!(status(part(&plain)).await, StatusCode::OK);
    assert_eq!(
        status(part(&ticket(json!({})))).await,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn completing_keeps_to_the_limit_of_the_ticket() {
    let app = app().await;
    let token = ticket(json!({"max_size": 3}));
    for (body, expected) in [
        ("abc", StatusCode::OK),
        ("four", StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        let create = json!({"filename": "a.bin", "type": "a/b", "metadata": {}});
        let created = post(&app, &token, "/s3/multipart", create).await;
        let created: Value = created.json().await.unwrap();
        let (id, key) = (
            created["uploadId"].as_str().unwrap(),
            created["key"].as_str().unwrap(),
        );
        let session = format!("{}/s3/multipart/{id}", app.base);
        let sign = app
            .client
            .get(format!("{session}/1"))
            .query(&[("key", key)]);
        let part = sign.bearer_auth(&token).send().await.unwrap();
        let part: Value = part.json().await.unwrap();
        let sent = app.client.put(part["url"].as_str().unwrap()).body(body);
        let sent = sent.send().await.unwrap();
        let etag = sent.headers()["etag"].to_str().unwrap().to_owned();
        let complete = app
            .client
            .post(format!("{session}/complete"))
            .query(&[("key", key)]);
        let parts = json!({"parts": [{"PartNumber": 1, "ETag": etag}]});
        // Also with the user's own token, which has no limit.
        let complete = complete.bearer_auth(signed(&claims("alice"))).json(&parts);
        assert_eq!(status(complete).await, expected, "{body}");
    }
}

#[tokio::test]
async fn verifying_keeps_to_the_ticket() {
    let app = app().await;
    let own = ticket(json!({"max_size": 100, "metadata": {"order": "42"}}));
    let grant = put(&app, &own, file(&json!({"size": 3}))).await;
    let grant: Grant = grant.json().await.unwrap();
    assert_eq!(app.upload(&grant, "abc").await.status(), StatusCode::OK);
    for (upload, expected) in [
        (
            json!({"max_size": 100, "metadata": {"order": "42"}}),
            "granted",
        ),
        (json!({}), "granted"),
        (json!({"max_size": 2}), "mismatch"),
        (json!({"content_types": ["text/*"]}), "mismatch"),
        (json!({"metadata": {"order": "43"}}), "mismatch"),
        (json!({"metadata": {"album": "7"}}), "mismatch"),
        (json!({"policy": "avatar"}), "not-uploaded"),
    ] {
        let body = json!({"key": grant.key});
        let response = post(&app, &ticket(upload.clone()), "/upload/verify", body).await;
        assert_eq!(outcome(response).await, expected, "{upload}");
    }
}

/// Whoever begins the upload sends no ticket, and chooses its type if none was sealed.
#[tokio::test]
async fn an_upload_that_was_sealed_begins_within_its_ticket() {
    let app = app().await;
    let token = ticket(json!({"policy": "open", "content_types": ["text/*"]}));
    let sign = json!({"method": "POST", "key": "a.txt"});
    let sealed = post(&app, &token, "/s3/sign", sign).await;
    let sealed: Value = sealed.json().await.unwrap();
    for (content_type, expected) in [
        ("image/png", StatusCode::UNPROCESSABLE_ENTITY),
        ("text/plain", StatusCode::OK),
    ] {
        let begin = app.client.post(sealed["url"].as_str().unwrap());
        let begin = begin.header("content-type", content_type);
        assert_eq!(status(begin).await, expected, "{content_type}");
    }
}
