//! Deleting removes an upload of its caller, and can be repeated.

use serde_json::{Value, json};

use crate::helpers::{App, fields, is, post, problem, spawn_app_with_policies};
use crate::stand_in::{KEY, StandIn, empty, error, page};

const URL: &str = "/upload/delete";
const POLICIES: &str = "
    [policies.default]
    delete = true

    [policies.closed]
    key = 'closed/{uuid}'
";

async fn deleted(app: &App, body: &Value) -> Value {
    app.accepted(URL, body).await
}

#[tokio::test]
async fn a_deleted_upload_is_gone_and_can_be_deleted_again() {
    let app = spawn_app_with_policies(POLICIES).await;
    let (kept, grant) = (
        app.grant("b.txt", "text/plain").await,
        app.grant("한 🎉+%41.txt", "text/plain").await,
    );
    for grant in [&kept, &grant] {
        assert_eq!(app.upload(grant, "hello").await.status(), 200);
    }
    let body = json!({"key": grant.key, "policy": null});
    for _ in 0..2 {
        assert_eq!(deleted(&app, &body).await, json!({"key": grant.key}));
        assert_eq!(app.stored(&grant.key).await, None);
    }
    assert!(app.stored(&kept.key).await.is_some());
    // The URL is still valid.
    assert_eq!(app.upload(&grant, "hello").await.status(), 200);
    assert!(app.stored(&grant.key).await.is_some());
}

#[tokio::test]
async fn a_policy_has_to_allow_deleting() {
    let app = spawn_app_with_policies(POLICIES).await;
    let file = json!({"filename": "a", "contentType": "text/plain", "policy": "closed"});
    let grant = app.sent(&file, "hello").await;
    let refused = app
        .refused(URL, &json!({"key": grant.key, "policy": "closed"}))
        .await;
    is(&refused, 422, "delete-not-allowed");
    assert_eq!(fields(&refused), [("/policy", "delete-not-allowed")]);
    // Another policy does not reach it.
    let refused = app.refused(URL, &json!({"key": grant.key})).await;
    is(&refused, 404, "not-uploaded");
    // Asking again cannot help.
    let detail = refused["detail"].as_str().unwrap();
    assert!(!detail.contains("not yet"), "{detail}");
    assert!(app.stored(&grant.key).await.is_some());
    is(&app.refused(URL, &json!({})).await, 400, "invalid-request");
}

async fn delete_at(store: &StandIn) -> reqwest::Response {
    let base = store.service(POLICIES).await;
    post(&base, URL, &json!({"key": KEY})).await
}

#[tokio::test]
async fn where_the_bucket_has_versions_the_answer_names_that_of_the_delete_marker() {
    let store = StandIn::answering(|request| async move {
        assert_eq!(request.method(), "DELETE");
        assert!(!request.uri().to_string().contains("versionId"));
        let mut answer = empty(204);
        answer
            .headers_mut()
            .insert("x-amz-version-id", "v7".parse().unwrap());
        answer
            .headers_mut()
            .insert("x-amz-delete-marker", "true".parse().unwrap());
        answer
    })
    .await;
    let answer: Value = delete_at(&store).await.json().await.unwrap();
    assert_eq!(answer, json!({"key": KEY, "versionId": "v7"}));
    assert_eq!(store.asked(), 1);
}

#[tokio::test]
async fn a_store_that_does_not_delete_is_reported() {
    for (answer, status, code) in [
        ((404, "NoSuchBucket"), 502, "storage-error"),
        ((403, "AccessDenied"), 502, "storage-error"),
        ((503, "SlowDown"), 503, "storage-unavailable"),
        ((429, "QuotaExceeded"), 503, "storage-unavailable"),
        ((400, "TooManyRequests"), 503, "storage-unavailable"),
    ] {
        let store = StandIn::answering(move |_| async move { error(answer.0, answer.1) }).await;
        is(&problem(delete_at(&store).await).await, status, code);
    }
    // Who answers 404 without S3's code may be a proxy in between.
    for answer in [page, empty] {
        let store = StandIn::answering(move |_| async move { answer(404) }).await;
        is(
            &problem(delete_at(&store).await).await,
            502,
            "storage-error",
        );
    }
    // There was no object.
    let store = StandIn::answering(|_| async { error(404, "NoSuchKey") }).await;
    assert_eq!(delete_at(&store).await.status(), 200);
}

#[tokio::test]
async fn deletes_are_counted_by_policy_and_outcome() {
    let app = spawn_app_with_policies(POLICIES).await;
    for _ in 0..2 {
        deleted(&app, &json!({"key": KEY})).await;
    }
    app.refused(URL, &json!({"key": "closed/a"})).await;
    let text = app.metrics().await;
    for (outcome, count) in [("deleted", 2), ("not_uploaded", 1)] {
        let line =
            format!("presignd_deletes_total{{policy=\"default\",outcome=\"{outcome}\"}} {count}\n");
        assert!(text.contains(&line), "{line}{text}");
    }
}
