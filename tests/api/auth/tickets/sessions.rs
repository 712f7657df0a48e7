//! What a ticket means after the grant: for parts, and for verifying.

use reqwest::Method;
use serde_json::{Value, json};

use super::*;
use crate::auth::status;
use crate::uppy::{Upload, create_by};

#[tokio::test]
async fn a_session_belongs_to_the_ticket_that_it_was_opened_under() {
    const PART: u64 = 5 * 1024 * 1024;
    let app = app().await;
    let create = async |token: &str, policy: &str| {
        let body = json!({"filename": "a.bin", "type": "a/b", "metadata": {}, "policy": policy});
        create_by(&app.base, token, body).await
    };
    let own = json!({"max_size": PART + 1, "vars": {"tenant": "acme"}});
    let token = ticket(own.clone());
    let upload = create(&token, "tenant").await;
    let sign = async |token: &str, part: &str| {
        let answer = upload.by(token).call(Method::GET, part, &[], None).await;
        answer.status().as_u16()
    };
    assert_eq!(sign(&token, "1").await, 200);
    // A fresh token with the same ticket continues; after the old one has expired it has to.
    let mut fresh = claims("alice");
    fresh["upload"] = own.clone();
    fresh["exp"] = json!(crate::auth::jwt::now() + 1000);
    assert_eq!(sign(&signed(&fresh), "2").await, 200);
    fresh["exp"] = json!(crate::auth::jwt::now() - 60);
    assert_eq!(sign(&signed(&fresh), "2").await, 401);
    // Its limit holds: the third part would be beyond it.
    assert_eq!(sign(&token, "3").await, 422);
    // The user's own session may continue, within the same limit.
    let plain = signed(&claims("alice"));
    assert_eq!(sign(&plain, "2").await, 200);
    assert_eq!(sign(&plain, "3").await, 422);
    // No other ticket may, nor the same one of another user.
    for other in [
        ticket(json!({})),
        ticket(json!({"vars": {"tenant": "acme"}})),
        ticket(json!({"max_size": PART * 100, "vars": {"tenant": "acme"}})),
        ticket(json!({"max_size": PART + 1, "vars": {"tenant": "other"}})),
        ticket_of("bob", own),
    ] {
        for (call, answer) in upload.by(&other).each_call().await {
            assert_eq!(answer.status(), 404, "{call}");
        }
    }
    // What was begun without a ticket is not continued under one.
    let upload = create(&plain, "default").await;
    let part = async |upload: &Upload| upload.call(Method::GET, "1", &[], None).await.status();
    assert_eq!(part(&upload).await, 200);
    let with_ticket = upload.by(&ticket(json!({})));
    assert_eq!(part(&with_ticket).await, 404);
}

#[tokio::test]
async fn completing_keeps_to_the_limit_of_the_ticket() {
    let app = app().await;
    let token = ticket(json!({"max_size": 3}));
    for (body, expected) in [("abc", 200), ("four", 422)] {
        let create = json!({"filename": "a.bin", "type": "a/b", "metadata": {}});
        let upload = create_by(&app.base, &token, create).await;
        let etag = upload.put(1, body.into()).await;
        let parts = json!([{"PartNumber": 1, "ETag": etag}]);
        // Also with the user's own token, which has no limit.
        let upload = upload.by(&signed(&claims("alice")));
        assert_eq!(upload.complete(parts).await.status(), expected, "{body}");
    }
}

#[tokio::test]
async fn verifying_keeps_to_the_ticket() {
    let app = app().await;
    let own = ticket(json!({"max_size": 100, "metadata": {"order": "42"}}));
    let grant = put(&app, &own, file(&json!({"size": 3}))).await;
    let grant: Grant = grant.json().await.unwrap();
    assert_eq!(app.upload(&grant, "abc").await.status(), 200);
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
    for (content_type, expected) in [("image/png", 422), ("text/plain", 200)] {
        let begin = app.client.post(sealed["url"].as_str().unwrap());
        let begin = begin.header("content-type", content_type);
        assert_eq!(status(begin).await, expected, "{content_type}");
    }
}
