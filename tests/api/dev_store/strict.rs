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
use reqwest::{Body, Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::Service;

use super::{refusal, refused};
use crate::helpers::{Grant, built_in, client, post, service, spawn, spawn_app};
use crate::presigned_post::{PostGrant, send};

#[tokio::test]
async fn a_url_is_not_combined_with_an_authorization_header() {
    let app = spawn_app().await;
    let grant = app.grant("a.txt", "text/plain").await;
    let put = app
        .client
        .put(&grant.url)
        .header("content-type", "text/plain");
    let put = put.header("authorization", "Bearer token").body("x");
    let message = refused(
        put.send().await.unwrap(),
        StatusCode::BAD_REQUEST,
        "InvalidArgument",
    )
    .await;
    assert!(
        message.starts_with("Only one auth mechanism allowed"),
        "{message}"
    );
}

#[tokio::test]
async fn a_body_needs_a_length() {
    let app = spawn_app().await;
    let grant = app.grant("a.txt", "text/plain").await;
    let chunks = futures_util::stream::iter(["a", "b"].map(Ok::<_, std::io::Error>));
    let put = app
        .client
        .put(&grant.url)
        .header("content-type", "text/plain");
    let put = put.body(Body::wrap_stream(chunks));
    let message = refused(
        put.send().await.unwrap(),
        StatusCode::NOT_IMPLEMENTED,
        "NotImplemented",
    )
    .await;
    assert!(message.contains("Transfer-Encoding"), "{message}");
    assert_eq!(app.stored(&grant.key).await, None);
}

#[tokio::test]
async fn a_url_is_valid_for_seven_days_at_most() {
    let app = spawn_app().await;
    let grant = app.grant("a.txt", "text/plain").await;
    let url = grant
        .url
        .replace("X-Amz-Expires=600", "X-Amz-Expires=604801");
    let put = app
        .client
        .put(url)
        .header("content-type", "text/plain")
        .body("x");
    let code = "AuthorizationQueryParametersError";
    let message = refused(put.send().await.unwrap(), StatusCode::BAD_REQUEST, code).await;
    assert!(message.contains("604800"), "{message}");
}

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
                    (status.as_u16(), code.as_str()),
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
    let list = app
        .store
        .list_objects()
        .bucket(BUCKET)
        .send()
        .await
        .unwrap();
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
    let grant = post(&base, "/upload/presigned-url", &body).await;
    let grant: Grant = grant.json().await.unwrap();
    let url = grant.url.as_str();
    let other_key = url.replace("a.txt", "b.txt");
    let other_query = format!("{url}&x=1");
    let other_host = url.replace("127.0.0.1", "localhost");
    for (method, url, content_type, body, expected) in [
        (
            "PUT",
            url,
            Some("text/csv"),
            "abc",
            "signed for content-type text/plain; the request has text/csv",
        ),
        (
            "PUT",
            url,
            None,
            "abc",
            "signed for content-type text/plain; the request has none",
        ),
        ("PUT", url, Some("text/plain"), "abcd", "content-length"),
        (
            "POST",
            url,
            Some("text/plain"),
            "abc",
            "signed for the method PUT; the request has POST",
        ),
        (
            "PUT",
            &other_key,
            Some("text/plain"),
            "abc",
            "signed for the path",
        ),
        (
            "PUT",
            &other_query,
            Some("text/plain"),
            "abc",
            "query was changed",
        ),
        (
            "PUT",
            &other_host,
            Some("text/plain"),
            "abc",
            "the request has localhost",
        ),
    ] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = client().request(method, url).body(body);
        let request = match content_type {
            Some(content_type) => request.header("content-type", content_type),
            None => request,
        };
        let response = request.send().await.unwrap();
        let message = refused(response, StatusCode::FORBIDDEN, "SignatureDoesNotMatch").await;
        assert!(message.contains(expected), "{expected}: {message}");
    }
    // The URLs of a batch and of parts are known, too.
    let files = json!({"files": [{"filename": "a.txt", "contentType": "text/plain"}]});
    let batch = post(&base, "/upload/presigned-urls", &files).await;
    let batch: Value = batch.json().await.unwrap();
    let put = client()
        .put(batch["uploads"][0]["url"].as_str().unwrap())
        .body("x");
    let (_, _, message) = refusal(put.header("content-type", "a/b").send().await.unwrap()).await;
    assert!(
        message.contains("signed for content-type text/plain; the request has a/b"),
        "{message}"
    );
}

#[tokio::test]
async fn every_refusal_has_a_reason() {
    let app = spawn_app().await;
    let endpoint = app.config.endpoint_url().unwrap();
    let grant = app.grant("a.txt", "text/plain").await;
    let expired = app.grant_at(SystemTime::now() - Duration::from_hours(1));
    let expired = expired.await.request.url;
    for (url, headers, expected) in [
        (
            grant.url.as_str(),
            &[("content-type", "text/csv")][..],
            "content-type",
        ),
        (
            &grant.url,
            &[("content-type", "text/plain"), ("x-amz-acl", "public-read")],
            "x-amz-acl",
        ),
        (
            &expired,
            &[("content-type", "text/plain")],
            "Request has expired: the URL was valid for 600 seconds",
        ),
        (&format!("{endpoint}/uploads/a"), &[], "not signed"),
    ] {
        let put = app.client.put(url).body("x");
        let put = headers
            .iter()
            .fold(put, |put, (name, value)| put.header(*name, *value));
        let (status, code, message) = refusal(put.send().await.unwrap()).await;
        assert!(status.is_client_error(), "{url}: {status} {code}");
        assert!(message.contains(expected), "{code}: {message}");
    }
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
        let message = refused(response, StatusCode::FORBIDDEN, "AccessDenied").await;
        assert!(
            message.starts_with("Invalid according to Policy: ") && message.contains(field),
            "{message}"
        );
    }
}

#[tokio::test]
async fn an_unknown_access_key_is_called_that() {
    let app = spawn_app().await;
    let grant = app.grant("a.txt", "text/plain").await;
    let url = grant.url.replace("presignd-dev", "presignd-other");
    let put = app.client.put(url).header("content-type", "text/plain");
    let put = put.body("x").send().await.unwrap();
    let message = refused(put, StatusCode::FORBIDDEN, "InvalidAccessKeyId").await;
    assert!(message.contains("presignd dev"), "{message}");
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
