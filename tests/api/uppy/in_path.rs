//! Policies in the path, for clients that cannot name one in any other way.

use reqwest::Method;
use serde_json::json;

use super::{create_at, fields};
use crate::helpers::{App, is, problem, spawn_app_with_policies};

const POLICIES: &str = "[policies.default]
    content_types = ['image/*']
    [policies.videos]
    key = 'videos/{uuid}/{filename}'
    content_types = ['video/*']";

async fn params(app: &App, path: &str) -> reqwest::Response {
    let query = "filename=a.mp4&type=video/mp4";
    app.get(&format!("{path}/s3/params?{query}")).await
}

#[tokio::test]
async fn a_policy_in_the_path_is_that_of_every_call_below_it() {
    let app = spawn_app_with_policies(POLICIES).await;
    let refused = problem(params(&app, "").await).await;
    is(&refused, 422, "type-not-allowed");
    let granted: serde_json::Value = params(&app, "/p/videos").await.json().await.unwrap();
    assert!(granted["key"].as_str().unwrap().starts_with("videos/"));
    let base = format!("{}/p/videos", app.base);
    let upload = create_at(&base, json!({"filename": "a.mp4", "type": "video/mp4"})).await;
    assert!(upload.key.starts_with("videos/"));
    assert_eq!(upload.send(b"x".to_vec()).await.status(), 200);
    assert_eq!(app.stored(&upload.key).await.unwrap().1, "video/mp4");
}

#[tokio::test]
async fn no_request_leaves_the_policy_of_its_path() {
    let app = spawn_app_with_policies(POLICIES).await;
    let other = app.get("/p/videos/s3/params?filename=a.png&type=image/png&policy=default");
    let other = problem(other.await).await;
    is(&other, 403, "policy-not-allowed");
    assert_eq!(other["message"], other["detail"]);
    let body = json!({"filename": "a.png", "type": "image/png", "policy": "default"});
    let other = app.refused("/p/videos/s3/multipart", &body).await;
    is(&other, 403, "policy-not-allowed");
    let same = app.get("/p/videos/s3/params?filename=a.mp4&type=video/mp4&policy=videos");
    assert_eq!(same.await.status(), 200);
    // An upload of another policy is not continued here.
    let upload = create_at(&app.base, json!({"filename": "a.png", "type": "image/png"})).await;
    let elsewhere = upload.at(&format!("{}/p/videos", app.base));
    let elsewhere = elsewhere.call(Method::GET, "1", &[], None).await;
    let elsewhere = problem(elsewhere).await;
    is(&elsewhere, 404, "no-such-upload");
}

#[tokio::test]
async fn a_path_with_no_policy_grants_nothing() {
    let app = spawn_app_with_policies(POLICIES).await;
    for path in ["/p/other", "/p/a%2Fb", "/p/videos%00"] {
        let refused = problem(params(&app, path).await).await;
        is(&refused, 422, "unknown-policy");
        assert_eq!(fields(&refused), [("/policy", "unknown-policy")]);
    }
    for path in [
        "/p",
        "/p/",
        "/p/videos",
        "/p/videos/p/videos/s3/params",
        "/p/%ff/s3/params",
    ] {
        let status = app.get(path).await.status().as_u16();
        assert!([400, 404, 422].contains(&status), "{path}: {status}");
    }
    let body = json!({"filename": "a.mp4", "contentType": "video/mp4"});
    let rest = app.post("/p/videos/upload/presigned-url", &body).await;
    assert_eq!(rest.status(), 404);
}

#[tokio::test]
async fn metrics_show_the_pattern_of_a_path_with_a_policy() {
    let app = spawn_app_with_policies(POLICIES).await;
    for path in ["/p/videos", "/p/one", "/p/two"] {
        params(&app, path).await;
    }
    let metrics = app.metrics().await;
    let pattern = "route=\"/p/{policy}/s3/params\"";
    assert!(metrics.contains(pattern), "{metrics}");
    assert!(!metrics.contains("/p/one") && !metrics.contains("policy=\"one\""));
}
