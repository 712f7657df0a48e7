//! Clients are sent to one endpoint, and the service calls another.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use aws_config::SdkConfig;
use presignd::dev::{self, BUCKET};
use presignd::telemetry::Metrics;
use presignd::upload::UploadService;
use presignd::{http, s3};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::helpers::{Grant, built_in, client, spawn};
use crate::presigned_post::PostGrant;

/// A service that sends its clients to `public`.
async fn service(config: &SdkConfig, public: &str) -> SocketAddr {
    let settings = built_in();
    let provider = config.credentials_provider().unwrap();
    let credentials = s3::CredentialsCache::new(provider, settings.policies.longest_lifetime());
    let bucket = s3::Settings {
        bucket: BUCKET.to_owned(),
        force_path_style: true,
        public_endpoint: Some(public.to_owned()),
    };
    let bucket = s3::bucket(config, bucket, credentials, true).await.unwrap();
    let uploads = UploadService::new(bucket, settings, Metrics::default());
    let router = http::router(Arc::new(uploads), &http::Settings::default());
    spawn(router).await
}

async fn post(addr: SocketAddr, path: &str, body: Value) -> Value {
    let url = format!("http://{addr}{path}");
    let response = client().post(url).json(&body).send().await.unwrap();
    assert!(response.status().is_success(), "{path}");
    response.json().await.unwrap()
}

async fn put(url: &str, headers: &BTreeMap<String, String>) -> reqwest::Response {
    let mut request = client().put(url).body("body");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response
}

#[tokio::test]
async fn what_clients_get_is_signed_for_the_public_endpoint() {
    let data = TempDir::new().unwrap();
    // One store with two addresses; a signature for one is none for the other.
    let called = spawn(dev::store(data.path()).unwrap()).await;
    let public = spawn(dev::store(data.path()).unwrap()).await;
    let public = format!("http://{public}");
    let addr = service(&dev::sdk_config(called), &public).await;

    let file = json!({"filename": "a.txt", "contentType": "text/plain"});
    let grant = post(addr, "/upload/presigned-url", file.clone()).await;
    let grant: Grant = serde_json::from_value(grant).unwrap();
    assert!(grant.url.starts_with(&public), "{}", grant.url);
    put(&grant.url, &grant.headers).await;

    let grant = post(addr, "/upload/presigned-post", file).await;
    let grant: PostGrant = serde_json::from_value(grant).unwrap();
    assert!(grant.url.starts_with(&public), "{}", grant.url);
    let mut form = reqwest::multipart::Form::new();
    for (name, value) in grant.fields {
        form = form.text(name, value);
    }
    let form = form.text("file", "body");
    let sent = client().post(grant.url).multipart(form).send().await;
    assert_eq!(sent.unwrap().status(), StatusCode::CREATED);

    let file = json!({"filename": "a.bin", "type": "text/plain"});
    let upload = post(addr, "/s3/multipart", file).await;
    let [id, key] = ["uploadId", "key"].map(|name| upload[name].as_str().unwrap());
    let path = format!("http://{addr}/s3/multipart/{id}/1?key={key}");
    let part: Value = client()
        .get(path)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let url = part["url"].as_str().unwrap();
    assert!(url.starts_with(&public), "{url}");
    let stored = put(url, &BTreeMap::new()).await;
    let etag = stored.headers()["etag"].to_str().unwrap();
    let parts = json!({"parts": [{"PartNumber": 1, "ETag": etag}]});
    let path = format!("/s3/multipart/{id}/complete?key={key}");
    let answer = post(addr, &path, parts).await;
    assert_eq!(answer["location"], format!("{public}/{BUCKET}/{key}"));
}

#[tokio::test]
async fn the_service_itself_never_calls_the_public_endpoint() {
    let data = TempDir::new().unwrap();
    let called = spawn(dev::store(data.path()).unwrap()).await;
    // Where nothing listens.
    let addr = service(&dev::sdk_config(called), "http://127.0.0.1:1").await;
    let file = json!({"filename": "a.bin", "type": "text/plain"});
    let upload = post(addr, "/s3/multipart", file).await;
    let [id, key] = ["uploadId", "key"].map(|name| upload[name].as_str().unwrap());
    let path = format!("http://{addr}/s3/multipart/{id}?key={key}");
    let listed = client().get(&path).send().await.unwrap();
    assert_eq!(listed.status(), StatusCode::OK);
    let aborted = client().delete(&path).send().await.unwrap();
    assert_eq!(aborted.status(), StatusCode::OK);
}
