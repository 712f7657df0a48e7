//! Uploads in parts cannot store more than their policy needs.

use std::time::SystemTime;

use presignd::upload::Caller;
use reqwest::StatusCode;
use serde_json::json;
use uuid::Uuid;

use crate::helpers::{client, file, problem, spawn_app_with_policies};
use crate::uppy::create_at;

const SMALL: &str = "[policies.default]\nmax_size = '6 MiB'\n[policies.large]";

#[tokio::test]
async fn no_part_is_signed_that_the_largest_file_cannot_need() {
    let app = spawn_app_with_policies(SMALL).await;
    let begin = async |body| create_at(&app.base, body).await;
    let bounded = begin(json!({"filename": "a", "type": "a/b"})).await;
    let announced = json!({"filename": "a", "type": "a/b", "policy": "large", "size": 1});
    let announced = begin(announced).await;
    let unbounded = json!({"filename": "a", "type": "a/b", "policy": "large"});
    let unbounded = begin(unbounded).await;
    let multipart = format!("{}/s3/multipart", app.base);
    for (upload, last) in [(&bounded, 2), (&announced, 1), (&unbounded, 10_000)] {
        let key = [("key", &upload.key)];
        let part = |number| {
            let url = format!("{multipart}/{}/{number}", upload.id);
            client().get(url).query(&key).send()
        };
        assert_eq!(part(last).await.unwrap().status(), StatusCode::OK);
        if last == 10_000 {
            continue;
        }
        let url = format!("{multipart}/{}/batch", upload.id);
        let numbers = [("partNumbers", format!("1,{}", last + 1))];
        let batch = client().get(url).query(&key).query(&numbers).send();
        for answer in [part(last + 1).await.unwrap(), batch.await.unwrap()] {
            assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
            let problem = problem(answer).await;
            assert_eq!(problem["errors"][0]["code"], "file-too-large", "{problem}");
            assert_eq!(problem["errors"][0]["pointer"], "/partNumber");
        }
    }
}

#[tokio::test]
async fn a_part_whose_size_is_known_is_bound_to_it() {
    let app = spawn_app_with_policies(SMALL).await;
    let (caller, now) = (Caller::anonymous(), SystemTime::now());
    let upload = app
        .uploads
        .create_multipart(&caller, &file("a", "a/b"), Uuid::new_v4(), now)
        .await
        .unwrap();
    let (token, key) = (&upload.token, &upload.key);
    let part = (1, Some(5));
    let request = app.uploads.presign_part(&caller, token, key, part, now);
    let request = request.await.unwrap();
    assert!(request.headers.is_empty(), "{:?}", request.headers);
    for (body, status) in [
        ("longer", StatusCode::FORBIDDEN),
        ("less", StatusCode::FORBIDDEN),
        ("exact", StatusCode::OK),
    ] {
        let answer = client().put(&request.url).body(body).send().await.unwrap();
        assert_eq!(answer.status(), status, "{body}");
    }
    let part = (1, Some(7 * 1024 * 1024));
    let too_large = app.uploads.presign_part(&caller, token, key, part, now);
    too_large.await.unwrap_err();
}

#[tokio::test]
async fn a_policy_can_forbid_uploads_in_parts() {
    let app = spawn_app_with_policies("[policies.default]\nmultipart = false").await;
    let body = json!({"filename": "a", "type": "a/b"});
    let answer = app.post("/s3/multipart", &body).await;
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let problem = problem(answer).await;
    assert_eq!(
        problem["errors"][0]["code"], "multipart-not-supported",
        "{problem}"
    );
    app.grant("a", "a/b").await;
}

#[tokio::test]
async fn no_request_waits_for_many_keys_at_once() {
    let app = spawn_app_with_policies(SMALL).await;
    let key = |_| format!("uploads/{}/a", Uuid::new_v4());
    let keys: Vec<String> = (0..11).map(key).collect();
    let body = json!({"keys": keys, "wait": 1});
    let answer = app.post("/upload/verify", &body).await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    assert_eq!(problem(answer).await["errors"][0]["code"], "too-many-keys");
    for body in [
        json!({"keys": keys[..10], "wait": 1}),
        json!({"keys": keys, "wait": 0}),
    ] {
        let answer = app.post("/upload/verify", &body).await;
        assert_eq!(answer.status(), StatusCode::OK);
    }
}
