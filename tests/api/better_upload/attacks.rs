//! Requests of better-upload from those who may not call, for too much, and at stores that fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use reqwest::Method;
use serde_json::{Value, json};

use super::{PATH, file, key, refused};
use crate::auth::tickets::{app as app_with_tickets, ticket};
use crate::helpers::{client, fields, is, post, problem, spawn_app, with_policies};
use crate::rate_limit::limited;
use crate::stand_in::{StandIn, error};

/// Of a file in bytes.
const GIB: u64 = 1024 * 1024 * 1024;

#[tokio::test]
async fn no_answer_to_better_upload_has_more_than_200_parts() {
    let app = spawn_app().await;
    let one = |size: u64| json!({"name": "a", "size": size, "type": "a/b"});
    for (size, part_size) in [
        (3 * GIB, 16 << 20),
        (400 * GIB, 2 * GIB),
        (1000 * GIB, 5 * GIB),
    ] {
        let body = json!({"route": "default", "files": [one(size)]});
        let text = app.post(PATH, &body).await.text().await.unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["multipart"]["partSize"], part_size);
        let parts = answer["multipart"]["files"][0]["parts"].as_array().unwrap();
        assert!(parts.len() <= 200 && parts.len() > 190, "{}", parts.len());
        assert!(text.len() < 200_000, "{}", text.len());
    }
    let files = [one(1), one(1000 * GIB)];
    let body = json!({"route": "default", "files": files});
    let (problem, kind) = refused(&app, &body).await;
    is(&problem, 422, "file-too-large");
    assert_eq!(kind, "file_too_large");
    assert_eq!(fields(&problem), [("/files/1/size", "file-too-large")]);
    // A hundred files.
    let files: Vec<Value> = (0..100).map(|n| file("a", n, "")).collect();
    let body = json!({"route": "default", "files": files});
    let text = app.post(PATH, &body).await.text().await.unwrap();
    assert!(text.len() < 400_000, "{}", text.len());
}

#[tokio::test]
async fn a_ticket_in_the_path_narrows_what_better_upload_gets() {
    let app = app_with_tickets().await;
    let token = ticket(json!({"policy": "open", "max_size": 100, "content_types": ["text/*"]}));
    let path = format!("/t/{token}{PATH}");
    let ask = async |body: Value| app.post(&path, &body).await;
    let text = file("a.txt", 3, "text/plain");
    // The ticket names the policy, so the request need not.
    for body in [
        json!({"files": [text]}),
        json!({"route": "open", "files": [text]}),
    ] {
        let answer: Value = ask(body).await.json().await.unwrap();
        assert!(key(&answer["files"][0]).starts_with("open/"));
    }
    for (body, status, kind) in [
        (
            json!({"route": "default", "files": [text]}),
            403,
            "rejected",
        ),
        (
            json!({"files": [file("a", 101, "text/plain")]}),
            422,
            "file_too_large",
        ),
        (
            json!({"files": [file("a", 1, "image/png")]}),
            422,
            "invalid_file_type",
        ),
    ] {
        let problem = problem(ask(body).await).await;
        assert_eq!(
            (&problem["status"], &problem["error"]["type"]),
            (&json!(status), &json!(kind))
        );
    }
    // Whoever has no credentials learns it in the same shape.
    let body = json!({"files": [text]});
    let (problem, kind) = refused(&app, &body).await;
    is(&problem, 401, "unauthorized");
    assert_eq!(kind, "rejected");
}

#[tokio::test]
async fn calls_of_better_upload_are_for_the_caller_who_began() {
    let app = app_with_tickets().await;
    let ask = async |token: &str| -> Value {
        let body = json!({"files": [file("a", 3, "")]});
        let response = app.post(&format!("/t/{token}{PATH}"), &body).await;
        response.json().await.unwrap()
    };
    let answer = ask(&ticket(json!({"policy": "open", "max_size": 3}))).await;
    let upload = &answer["multipart"]["files"][0];
    // Each URL is for its own call alone.
    for (name, methods) in [
        ("completeSignedUrl", ["GET", "DELETE"]),
        ("abortSignedUrl", ["GET", "POST"]),
    ] {
        for method in methods {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let call = client().request(method, upload[name].as_str().unwrap());
            let status = call.send().await.unwrap().status();
            assert_eq!(status, 404, "{name}");
        }
    }
    let list = super::put_parts(upload, &json!(16 << 20), b"abc").await;
    // What another upload's URL completes is not this one.
    let other = ask(&ticket(json!({"policy": "open", "max_size": 3}))).await;
    let other = super::complete(&other["multipart"]["files"][0], list.clone()).await;
    assert_eq!(other.status(), 400);
    assert_eq!(super::complete(upload, list).await.status(), 200);
}

#[tokio::test]
async fn if_one_of_the_uploads_cannot_begin_the_others_are_aborted() {
    let created = Arc::new(AtomicU32::new(0));
    let store = StandIn::except(move |method, uri| {
        let begins = *method == Method::POST && uri.contains("?uploads");
        let is_third = begins && created.fetch_add(1, Ordering::SeqCst) == 2;
        is_third.then(|| error(501, "NotImplemented"))
    })
    .await;
    let base = store.service("[policies.default]").await;
    let files: Vec<Value> = (0..3).map(|n| file("a", n, "")).collect();
    let body = json!({"route": "default", "files": files});
    let problem = problem(post(&base, PATH, &body).await).await;
    is(&problem, 502, "storage-error");
    assert_eq!(problem["error"]["type"], "unknown");
    assert_eq!(store.asked_to(&Method::DELETE), 2);
    store.is_as_it_was();
}

#[tokio::test]
async fn many_parts_and_files_of_better_upload_count_as_many_requests() {
    let parts = json!([{"name": "a", "size": 3 * GIB, "type": "a/b"}]);
    let files: Vec<Value> = (0..10).map(|n| file("a", n, "")).collect();
    // 192 parts are 10 requests, and so are 10 uploads.
    for files in [parts, json!(files)] {
        let settings = with_policies("[policies.default]");
        let app = crate::helpers::spawn_app_with_both(settings, &limited(20)).await;
        let body = json!({"files": files});
        for _ in 0..2 {
            assert_eq!(app.post(PATH, &body).await.status(), 200);
        }
        let (problem, kind) = refused(&app, &body).await;
        is(&problem, 429, "rate-limited");
        assert_eq!(kind, "rejected");
    }
}
