//! What S3 refuses, the store refuses, and says why.

use presignd::dev::{BUCKET, Dev};
use presignd::http;
use presignd::http::AllowedOrigins;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body as AxumBody, Bytes};
use axum::extract::Request;
use futures_util::{StreamExt, stream};
use reqwest::{Body, Method};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::Service;

use super::{refusal, refused};
use crate::helpers::{Grant, built_in, client, granted, service, spawn, spawn_app};
use crate::presigned_post::{PostGrant, send};

#[tokio::test]
async fn whoever_is_not_signed_in_learns_nothing() {
    let app = spawn_app().await;
    let endpoint = app.config.endpoint_url().unwrap();
    for path in [
        "/",
        "/uploads",
        "/uploads/a",
        "/uploads/a?uploads",
        "/other/a",
    ] {
        for method in [Method::GET, Method::DELETE] {
            let request = app
                .client
                .request(method.clone(), format!("{endpoint}{path}"));
            let (status, code, _) = refusal(request.send().await.unwrap()).await;
            assert!(
                matches!(
                    (status, code.as_str()),
                    (403, "AccessDenied") | (501, "NotImplemented")
                ),
                "{method} {path}: {status} {code}"
            );
        }
    }
    let get = app.client.get(format!("{endpoint}/uploads/a")).send().await;
    assert_eq!(refusal(get.unwrap()).await.0, 403);
}

#[tokio::test]
async fn buckets_and_objects_are_listed() {
    let app = spawn_app().await;
    let grant = app.grant("a.txt", "text/plain").await;
    assert_eq!(app.upload(&grant, "x").await.status(), 200);
    let buckets = app.store.list_buckets().send().await.unwrap();
    let names: Vec<_> = buckets
        .buckets()
        .iter()
        .map(|bucket| bucket.name().unwrap())
        .collect();
    assert_eq!(names, [BUCKET]);
    let list = app.store.list_objects().bucket(BUCKET).send();
    let list = list.await.unwrap();
    assert_eq!(list.contents()[0].key(), Some(grant.key.as_str()));
}

/// A service whose grants are known to the store, as `presignd dev` runs it.
async fn spawn_dev(data: &TempDir) -> String {
    let dev = Dev::open(data.path(), None).unwrap();
    let store = spawn(dev.store(&AllowedOrigins::Loopback).unwrap()).await;
    let uploads = service(&dev.sdk_config(store), BUCKET, true, built_in()).await;
    let router = http::router(Arc::clone(&uploads), &http::Settings::default());
    format!("http://{}", spawn(dev.watched(router)).await)
}

#[tokio::test]
async fn a_signature_that_does_not_match_is_explained() {
    let data = TempDir::new().unwrap();
    let base = spawn_dev(&data).await;
    let body = json!({"filename": "a.txt", "contentType": "text/plain", "size": 3});
    let grant: Grant = granted(&base, "/upload/presigned-url", &body).await;
    let url = grant.url.as_str();
    let other_key = url.replace("a.txt", "b.txt");
    let other_query = format!("{url}&x=1");
    let other_host = url.replace("127.0.0.1", "localhost");
    let put = |url: &str| client().put(url).body("abc");
    let text = |url: &str| put(url).header("content-type", "text/plain");
    let post = client().post(url).body("abc");
    for (request, expected) in [
        (
            put(url).header("content-type", "text/csv"),
            "signed for content-type text/plain; the request has text/csv",
        ),
        (
            put(url),
            "signed for content-type text/plain; the request has none",
        ),
        (text(url).body("abcd"), "content-length"),
        (
            post.header("content-type", "text/plain"),
            "signed for the method PUT; the request has POST",
        ),
        (text(&other_key), "signed for the path"),
        (text(&other_query), "query was changed"),
        (text(&other_host), "the request has localhost"),
    ] {
        let response = request.send().await.unwrap();
        let message = refused(response, 403, "SignatureDoesNotMatch").await;
        assert!(message.contains(expected), "{expected}: {message}");
    }
    // The URLs of a batch and of parts are known, too.
    let files = json!({"files": [{"filename": "a.txt", "contentType": "text/plain"}]});
    let batch: Value = granted(&base, "/upload/presigned-urls", &files).await;
    let put = client()
        .put(batch["uploads"][0]["url"].as_str().unwrap())
        .body("x");
    let (_, _, message) = refusal(put.header("content-type", "a/b").send().await.unwrap()).await;
    assert!(
        message.contains("signed for content-type text/plain; the request has a/b"),
        "{message}"
    );
    // This answer has no headers, so the store knows only which of them were signed.
    let files = json!({"files": [{"name": "a.txt", "size": 1, "type": "text/plain"}]});
    let asked = client().post(format!("{base}/better-upload")).json(&files);
    let answer: Value = asked.send().await.unwrap().json().await.unwrap();
    let put = client()
        .put(answer["files"][0]["signedUrl"].as_str().unwrap())
        .body("x");
    let (_, _, message) = refusal(put.header("content-type", "a/b").send().await.unwrap()).await;
    let expected = "one of these headers; the request has content-length 1, content-type a/b";
    assert!(message.contains(expected), "{message}");
}

#[tokio::test]
async fn every_refusal_has_the_code_of_s3_and_a_reason() {
    let app = spawn_app().await;
    let grant = app.grant("a.txt", "text/plain").await;
    let expired = app.grant_at(SystemTime::now() - Duration::from_hours(1));
    let expired = expired.await.request.url;
    let long = grant.url.replace("Expires=600", "Expires=604801");
    let unknown = grant.url.replace("presignd-dev", "presignd-other");
    let unsigned = format!("{}/uploads/a", app.config.endpoint_url().unwrap());
    let chunks = stream::iter(["a", "b"].map(Ok::<_, std::io::Error>));
    let put = |url: &str| app.client.put(url).body("x");
    let text = |url: &str| put(url).header("content-type", "text/plain");
    for (request, status, code, reason) in [
        (
            put(&grant.url).header("content-type", "text/csv"),
            403,
            "SignatureDoesNotMatch",
            "content-type",
        ),
        (
            text(&grant.url).header("x-amz-acl", "public-read"),
            403,
            "AccessDenied",
            "x-amz-acl",
        ),
        (
            text(&grant.url).header("authorization", "Bearer token"),
            400,
            "InvalidArgument",
            "Only one auth mechanism allowed",
        ),
        (
            text(&grant.url).body(Body::wrap_stream(chunks)),
            501,
            "NotImplemented",
            "Transfer-Encoding",
        ),
        (
            text(&long),
            400,
            "AuthorizationQueryParametersError",
            "604800",
        ),
        (text(&unknown), 403, "InvalidAccessKeyId", "presignd dev"),
        (put(&unsigned), 403, "AccessDenied", "not signed"),
    ] {
        let message = refused(request.send().await.unwrap(), status, code).await;
        assert!(message.contains(reason), "{code}: {message}");
    }
    // Uppy 4 and 5 sign a part again only if the message is this one.
    let message = refused(text(&expired).send().await.unwrap(), 403, "AccessDenied").await;
    assert_eq!(message, "Request has expired");
    assert_eq!(app.stored(&grant.key).await, None);
}

#[tokio::test]
async fn a_form_that_violates_its_policy_is_forbidden() {
    let app = spawn_app().await;
    let body = json!({"filename": "a.txt", "contentType": "text/plain"});
    let grant: PostGrant = app.granted("/upload/presigned-post", &body).await;
    for (field, value) in [
        ("content-type", Some("text/html")),
        ("content-type", None),
        ("key", Some("uploads/another")),
        ("success_action_status", Some("200")),
    ] {
        let mut fields = grant.fields.clone();
        let name = fields.keys().find(|name| name.eq_ignore_ascii_case(field));
        let name = name.unwrap().clone();
        match value {
            Some(value) => fields.insert(name, value.to_owned()),
            None => fields.remove(&name),
        };
        let response = send(&app.client, &grant.url, &fields, "x").await;
        let message = refused(response, 403, "AccessDenied").await;
        assert!(
            message.starts_with("Invalid according to Policy: ") && message.contains(field),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_is_no_fault_of_the_store() {
    let app = spawn_app().await;
    let grant = app.grant("a.txt", "text/plain").await;
    // The client cannot read the answer, so the store is called without a connection.
    let mut store = crate::helpers::store(app.data());
    let frames = stream::iter([Ok(Bytes::from("ab")), Err(std::io::Error::other("gone"))]);
    let request = Request::put(&grant.url)
        .header(
            "host",
            app.config.endpoint_url().unwrap().replace("http://", ""),
        )
        .header("content-type", "text/plain")
        .header("content-length", 3)
        .body(AxumBody::from_stream(frames));
    let response = store.call(request.unwrap()).await.unwrap();
    assert_eq!(response.status(), 400);
    let body = axum::body::to_bytes(response.into_body(), 1000).await;
    let body = String::from_utf8(body.unwrap().to_vec()).unwrap();
    assert!(body.contains("<Code>IncompleteBody</Code>"), "{body}");
}

#[tokio::test(start_paused = true)]
async fn the_log_lets_the_service_wait_for_slow_bodies() {
    let data = TempDir::new().unwrap();
    let echo = Router::new().fallback(async |body: Bytes| body);
    let mut watched = Dev::open(data.path(), None).unwrap().watched(echo);
    let frames = stream::iter(["[1,", "2]"]).then(async |half| {
        tokio::time::sleep(Duration::from_mins(1)).await;
        Ok::<_, Infallible>(half)
    });
    let request = Request::post("/upload/presigned-urls")
        .header("content-type", "application/json")
        .body(AxumBody::from_stream(frames));
    let response = watched.call(request.unwrap()).await.unwrap();
    let body = axum::body::to_bytes(response.into_body(), 1000).await;
    assert_eq!(body.unwrap(), "[1,2]");
}
