//! Uploads in parts cannot store more than their policy needs.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::helpers::{client, fields, is, problem, spawn_app, spawn_app_with_policies};
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
    for (upload, last) in [(&bounded, 2), (&announced, 1), (&unbounded, 10_000)] {
        let get = async |path: &str, query: &[(&str, &str)]| {
            upload.call(Method::GET, path, query, None).await
        };
        let part = async |number: u32| get(&number.to_string(), &[]).await;
        assert_eq!(part(last).await.status(), 200);
        if last == 10_000 {
            continue;
        }
        let numbers = format!("1,{}", last + 1);
        let batch = get("batch", &[("partNumbers", &numbers)]).await;
        for (answer, pointer) in [
            (part(last + 1).await, "/partNumber"),
            (batch, "/partNumbers"),
        ] {
            let problem = problem(answer).await;
            is(&problem, 422, "part-number-too-high");
            assert_eq!(fields(&problem), [(pointer, "part-number-too-high")]);
        }
        let signed = problem(get("batch", &[("partNumbers", "+1")]).await).await;
        assert_eq!(fields(&signed), [("/partNumbers", "out-of-range")]);
        let none = get("batch", &[]).await;
        assert_eq!(fields(&problem(none).await), [("/partNumbers", "required")]);
    }
}

#[tokio::test]
async fn a_part_whose_size_is_known_is_bound_to_it() {
    let app = spawn_app_with_policies(SMALL).await;
    let upload = create_at(&app.base, json!({"filename": "a", "type": "a/b"})).await;
    let part = async |size: &str| upload.call(Method::GET, "1", &[("size", size)], None).await;
    let granted: Value = part("5").await.json().await.unwrap();
    for (body, status) in [("longer", 403), ("less", 403), ("exact", 200)] {
        let url = granted["url"].as_str().unwrap();
        let answer = client().put(url).body(body).send().await.unwrap();
        assert_eq!(answer.status(), status, "{body}");
    }
    let too_large = problem(part("7340032").await).await;
    is(&too_large, 422, "file-too-large");
    assert_eq!(fields(&too_large), [("/size", "file-too-large")]);
    for wrong in ["-1", "-0", "+1", "1.5", "", "a"] {
        let wrong = problem(part(wrong).await).await;
        assert_eq!(fields(&wrong), [("/size", "out-of-range")]);
    }
}

#[tokio::test]
async fn no_part_of_a_large_file_is_larger_than_s3_takes() {
    const LARGEST: u64 = 5 * 1024 * 1024 * 1024;
    let app = spawn_app().await;
    let upload = create_at(&app.base, json!({"filename": "a", "type": "a/b"})).await;
    for (size, status) in [(LARGEST, 200), (LARGEST + 1, 422)] {
        let size = size.to_string();
        let answer = upload
            .call(Method::GET, "1", &[("size", &size)], None)
            .await;
        assert_eq!(answer.status(), status, "{size}");
    }
}

#[tokio::test]
async fn a_policy_can_forbid_uploads_in_parts() {
    let app = spawn_app_with_policies("[policies.default]\nmultipart = false").await;
    let body = json!({"filename": "a", "type": "a/b"});
    let problem = app.refused("/s3/multipart", &body).await;
    is(&problem, 422, "multipart-not-allowed");
    assert_eq!(fields(&problem), [("/policy", "multipart-not-allowed")]);
    app.grant("a", "a/b").await;
}

#[tokio::test]
async fn no_request_waits_for_many_keys_at_once() {
    let app = spawn_app_with_policies(SMALL).await;
    let key = |_| format!("uploads/{}/a", Uuid::new_v4());
    let keys: Vec<String> = (0..11).map(key).collect();
    let body = json!({"keys": keys, "wait": 1});
    let answer = app.post("/upload/verify", &body).await;
    assert_eq!(answer.status(), 400);
    assert_eq!(problem(answer).await["errors"][0]["code"], "too-many-keys");
    for body in [
        json!({"keys": keys[..10], "wait": 1}),
        json!({"keys": keys, "wait": 0}),
    ] {
        let answer = app.post("/upload/verify", &body).await;
        assert_eq!(answer.status(), 200);
    }
}
