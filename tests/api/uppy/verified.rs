//! Completions that also verify, so that a client saves the call after them.

use std::time::Duration;

use axum::extract::Request;
use axum::middleware::Next;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{create_at, video};
use crate::helpers::{fields, hurry, problem, spawn_app};
use crate::stand_in::{StandIn, empty};

/// The answer to the completion of an upload in one part, with this value of `verify`.
async fn completed(base: &str, verify: Option<Value>) -> Value {
    let upload = create_at(base, json!({"filename": "a.mp4", "type": "video/mp4"})).await;
    let etag = upload.put(1, b"hello".to_vec()).await;
    let mut body = json!({"parts": [{"PartNumber": 1, "ETag": etag}]});
    if let Some(verify) = verify {
        body["verify"] = verify;
    }
    upload.json(Method::POST, "complete", &[], Some(body)).await
}

#[tokio::test]
async fn a_completion_answers_what_verifying_would_if_it_is_asked_to() {
    let app = spawn_app().await;
    let answer = completed(&app.base, Some(json!(true))).await;
    let body = json!({"key": answer["key"]});
    let verified: Value = app.accepted("/upload/verify", &body).await;
    assert_eq!(answer["upload"], verified);
    assert_eq!(verified["size"], 5);
}

#[tokio::test]
async fn a_completion_that_is_not_asked_to_verify_does_not_ask_the_store() {
    let store = StandIn::except(|method, _| (method == Method::HEAD).then(|| empty(500))).await;
    let base = store.service("[policies.default]").await;
    for verify in [None, Some(json!(false)), Some(json!(null))] {
        let answer = completed(&base, verify).await;
        assert_eq!(answer.get("upload"), None, "{answer}");
    }
    assert_eq!(store.asked_to(&Method::HEAD), 0);
    // The upload is complete even if it cannot be verified.
    let answer = completed(&base, Some(json!(true))).await;
    assert_eq!(answer.get("upload"), None, "{answer}");
    assert!(store.asked_to(&Method::HEAD) > 0);
}

#[tokio::test]
async fn a_completion_does_not_wait_for_a_store_that_hangs_when_it_is_verified() {
    let store = StandIn::between(async |request: Request, next: Next| {
        if request.method() == Method::HEAD {
            std::future::pending::<()>().await;
        }
        next.run(request).await
    })
    .await;
    let base = store.service("[policies.default]").await;
    hurry();
    let begin = Instant::now();
    let answer = completed(&base, Some(json!(true))).await;
    assert_eq!(answer.get("upload"), None, "{answer}");
    assert!(begin.elapsed() < Duration::from_secs(10), "it takes 5 s");
}

#[tokio::test]
async fn whether_to_verify_is_true_or_false() {
    let app = spawn_app().await;
    let upload = video(&app).await;
    let body = json!({"parts": [{"PartNumber": 1, "ETag": "x"}], "verify": "yes"});
    let answer = upload.call(Method::POST, "complete", &[], Some(body)).await;
    let problem = problem(answer).await;
    assert_eq!(problem["status"], 400);
    assert_eq!(fields(&problem), [("/verify", "wrong-type")]);
}
