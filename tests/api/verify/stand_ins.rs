//! What is asked of the store, and what becomes of its troubles: with stand-ins that answer as told.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{self, HeaderMap};
use presignd::dev::BUCKET;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{SNIFF, VERIFY, Verified, is};
use crate::helpers::{client, fields, problem, service, spawn, with_policies};
use crate::policies::sha256;
use crate::uppy::app_on;

/// A service on a stand-in for a store, which counts how often it is asked.
async fn stand_in(
    answer: impl Fn(&Request) -> http::Response<Body> + Clone + Send + Sync + 'static,
) -> (String, Arc<AtomicU32>) {
    let asked = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&asked);
    let router = Router::new().fallback(move |request: Request| {
        counter.fetch_add(1, Ordering::SeqCst);
        let answer = answer(&request);
        async move { answer }
    });
    let base = app_on(&format!("http://{}", spawn(router).await)).await;
    (base, asked)
}

fn status(status: u16) -> http::Response<Body> {
    let mut response = http::Response::new(Body::empty());
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
    response
}

/// The answer to a HEAD of an object with these headers besides.
fn object(headers: &[(&'static str, &'static str)]) -> http::Response<Body> {
    let mut response = http::Response::new(Body::empty());
    let usual = [
        ("content-length", "5"),
        ("content-type", "text/plain"),
        ("etag", "\"e\""),
        ("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT"),
    ];
    for (name, value) in usual.iter().chain(headers) {
        response.headers_mut().insert(*name, value.parse().unwrap());
    }
    response
}

const KEY: &str = "uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/a.txt";

async fn ask(base: &str, body: Value) -> reqwest::Response {
    let request = client().post(format!("{base}{VERIFY}")).json(&body);
    request.send().await.unwrap()
}

#[tokio::test]
async fn one_head_with_checksums_answers_it() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heads = Arc::clone(&seen);
    let (base, asked) = stand_in(move |request| {
        let mode = |headers: &HeaderMap| headers.get("x-amz-checksum-mode").cloned();
        let head = (request.method().clone(), mode(request.headers()));
        heads.lock().unwrap().push(head);
        object(&[])
    })
    .await;
    let upload: Verified = ask(&base, json!({"key": KEY, "wait": 20}))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!((upload.size, upload.etag.as_str()), (5, "\"e\""));
    assert_eq!(upload.last_modified, "2026-01-01T00:00:00Z");
    // Nor does a mismatch wait for anything.
    is(
        &problem(ask(&base, json!({"key": KEY, "wait": 20, "size": 6})).await).await,
        409,
        "mismatch",
    );
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    for (method, mode) in seen.lock().unwrap().iter() {
        assert_eq!(method, http::Method::HEAD);
        assert_eq!(mode.as_ref().unwrap(), "ENABLED");
    }
}

#[tokio::test]
async fn waiting_asks_again_and_ends() {
    let (base, asked) = stand_in(|_| status(404)).await;
    is(
        &problem(ask(&base, json!({"key": KEY})).await).await,
        404,
        "not-uploaded",
    );
    assert_eq!(asked.swap(0, Ordering::SeqCst), 1);
    is(
        &problem(ask(&base, json!({"key": KEY, "wait": 1})).await).await,
        404,
        "not-uploaded",
    );
    let asked = asked.load(Ordering::SeqCst);
    assert!((2..=4).contains(&asked), "{asked}");
}

#[tokio::test]
async fn a_checksum_of_parts_is_not_taken_for_that_of_the_file() {
    let sum: &'static str = sha256("hello").leak();
    let composite: &'static str = format!("{sum}-2").leak();
    for headers in [
        &[("x-amz-checksum-sha256", composite)][..],
        &[
            ("x-amz-checksum-sha256", sum),
            ("x-amz-checksum-type", "COMPOSITE"),
        ],
        &[
            ("x-amz-checksum-sha256", composite),
            ("x-amz-checksum-type", "COMPOSITE"),
        ],
    ] {
        let headers = headers.to_vec();
        let (base, _) = stand_in(move |_| object(&headers)).await;
        let upload: Verified = ask(&base, json!({"key": KEY})).await.json().await.unwrap();
        assert_eq!(upload.checksum_sha256, None);
        let problem = problem(ask(&base, json!({"key": KEY, "checksumSha256": sum})).await).await;
        assert_eq!(fields(&problem), [("/checksumSha256", "checksum-unknown")]);
    }
    let whole = [
        ("x-amz-checksum-sha256", sum),
        ("x-amz-checksum-type", "FULL_OBJECT"),
    ];
    let (base, _) = stand_in(move |_| object(&whole)).await;
    let upload = ask(&base, json!({"key": KEY, "checksumSha256": sum})).await;
    let upload: Verified = upload.json().await.unwrap();
    assert_eq!(upload.checksum_sha256.as_deref(), Some(sum));
}

#[tokio::test]
async fn trouble_of_the_store_is_not_taken_for_an_absent_upload() {
    for (store, status_, code) in [
        // Without leave to list the bucket, S3 answers so when there is nothing.
        (403, 502, "storage-error"),
        (400, 502, "storage-error"),
        (301, 502, "storage-error"),
        (500, 502, "storage-error"),
        (503, 503, "storage-unavailable"),
        (429, 503, "storage-unavailable"),
    ] {
        let (base, _) = stand_in(move |_| status(store)).await;
        for body in [
            json!({"key": KEY, "wait": 1}),
            json!({"keys": [KEY, "foreign"]}),
        ] {
            let response = ask(&base, body).await;
            assert_eq!(
                response.headers().contains_key("retry-after"),
                status_ == 503
            );
            is(&problem(response).await, status_, code);
        }
    }
    // An object without what every object has.
    for lacking in ["etag", "last-modified"] {
        let (base, _) = stand_in(move |_| {
            let mut response = object(&[]);
            response.headers_mut().remove(lacking);
            response
        })
        .await;
        is(
            &problem(ask(&base, json!({"key": KEY})).await).await,
            502,
            "storage-error",
        );
    }
}

#[tokio::test]
async fn a_store_that_is_down_is_503_and_a_silent_one_504() {
    let down = app_on("http://127.0.0.1:1").await;
    let response = ask(&down, json!({"key": KEY})).await;
    assert!(response.headers().contains_key("retry-after"));
    is(&problem(response).await, 503, "storage-unavailable");

    let silent = Router::new().fallback(std::future::pending::<()>);
    let silent = app_on(&format!("http://{}", spawn(silent).await)).await;
    let many = json!({"keys": vec![KEY; 100]});
    let (one, many) = tokio::join!(ask(&silent, json!({"key": KEY})), ask(&silent, many));
    is(&problem(one).await, 504, "storage-timeout");
    is(&problem(many).await, 504, "storage-timeout");
}

#[tokio::test]
async fn many_keys_are_looked_for_at_once_but_not_all_of_them() {
    let [now, most] = [(); 2].map(|()| Arc::new(AtomicU32::new(0)));
    let (under_way, at_most) = (Arc::clone(&now), Arc::clone(&most));
    let store = Router::new().fallback(move || {
        let (under_way, at_most) = (Arc::clone(&under_way), Arc::clone(&at_most));
        async move {
            let count = under_way.fetch_add(1, Ordering::SeqCst) + 1;
            at_most.fetch_max(count, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(50)).await;
            under_way.fetch_sub(1, Ordering::SeqCst);
            object(&[])
        }
    });
    let base = app_on(&format!("http://{}", spawn(store).await)).await;
    let many = json!({"keys": vec![KEY; 100]});
    let answers = tokio::join!(
        ask(&base, many.clone()),
        ask(&base, many.clone()),
        ask(&base, many)
    );
    for answer in [answers.0, answers.1, answers.2] {
        let answer: Value = answer.json().await.unwrap();
        let results = answer["results"].as_array().unwrap();
        assert!(results.len() == 100 && results.iter().all(|r| r["status"] == 200));
    }
    let most = most.load(Ordering::SeqCst);
    assert!((2..=64).contains(&most), "{most}");
}

#[tokio::test]
async fn a_long_queue_before_a_slow_store_ends_in_time() {
    let store = Router::new().fallback(|| async {
        tokio::time::sleep(Duration::from_secs(8)).await;
        object(&[])
    });
    let base = app_on(&format!("http://{}", spawn(store).await)).await;
    let many = json!({"keys": vec![KEY; 100]});
    let begin = Instant::now();
    let (first, second, third, fourth) = tokio::join!(
        ask(&base, many.clone()),
        ask(&base, many.clone()),
        ask(&base, many.clone()),
        ask(&base, many)
    );
    assert!(
        begin.elapsed() < Duration::from_secs(30),
        "{:?}",
        begin.elapsed()
    );
    let answers = [first, second, third, fourth];
    let mut late = 0;
    for answer in answers {
        if answer.status() != StatusCode::OK {
            is(&problem(answer).await, 504, "storage-timeout");
            late += 1;
        }
    }
    assert!((1..4).contains(&late), "{late}");
}

#[tokio::test]
async fn only_policies_that_sniff_read_the_file_and_then_its_first_bytes_alone() {
    for (policy, gets) in [("[policies.default]", 0), (SNIFF, 1)] {
        let seen = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&seen);
        let store = Router::new().fallback(move |request: Request| {
            let headers = request.headers().clone();
            if request.method() == http::Method::GET {
                counter.fetch_add(1, Ordering::SeqCst);
                assert_eq!(headers["range"], "bytes=0-2047");
                assert_eq!(headers["if-match"], "\"e\"");
            }
            // One that ignores the range, and never ends.
            let endless = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>("text "));
            let mut response = object(&[("content-length", "1000000000")]);
            if request.method() == http::Method::GET {
                response.headers_mut().remove("content-length");
                *response.body_mut() = Body::from_stream(endless);
            }
            async move { response }
        });
        let base = sniffing_app_on(&format!("http://{}", spawn(store).await), policy).await;
        let upload: Verified = ask(&base, json!({"key": KEY})).await.json().await.unwrap();
        assert_eq!(upload.size, 1_000_000_000);
        assert_eq!(seen.load(Ordering::SeqCst), gets);
    }
}

#[tokio::test]
async fn a_file_that_is_replaced_or_removed_while_it_is_read_is_not_called_good() {
    for (get, status_, code) in [
        (412, 503, "storage-unavailable"),
        (404, 404, "not-uploaded"),
        (403, 502, "storage-error"),
    ] {
        let store = Router::new().fallback(move |request: Request| async move {
            match *request.method() {
                http::Method::HEAD => object(&[]),
                _ => status(get),
            }
        });
        let base = sniffing_app_on(&format!("http://{}", spawn(store).await), SNIFF).await;
        is(
            &problem(ask(&base, json!({"key": KEY})).await).await,
            status_,
            code,
        );
    }
}

#[tokio::test]
async fn bytes_of_something_else_are_not_taken_for_those_of_the_file() {
    // As what stands before a store answers: a proxy, or the page of a network that wants a login.
    for body in ["<!doctype html>", "text", ""] {
        let store = Router::new().fallback(move |request: Request| async move {
            match *request.method() {
                http::Method::HEAD => object(&[]),
                _ => http::Response::new(Body::from(body)),
            }
        });
        let base = sniffing_app_on(&format!("http://{}", spawn(store).await), SNIFF).await;
        let problem = problem(ask(&base, json!({"key": KEY})).await).await;
        is(&problem, 502, "storage-error");
    }
}

async fn sniffing_app_on(endpoint: &str, policy: &str) -> String {
    let config = presignd::dev::sdk_config("127.0.0.1:1".parse().unwrap())
        .into_builder()
        .endpoint_url(endpoint)
        .build();
    let uploads = service(&config, BUCKET, true, with_policies(policy)).await;
    let router = presignd::http::router(uploads, &presignd::http::Settings::default());
    format!("http://{}", spawn(router).await)
}

#[tokio::test]
async fn hostile_keys_are_answered_without_asking_the_store() {
    let (base, asked) = stand_in(|_| http::Response::new(Body::empty())).await;
    let id = "5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e";
    let mut keys: Vec<String> = [
        "",
        ".",
        "..",
        "/",
        "//",
        "*",
        "%",
        "\0",
        "\u{202e}",
        "uploads",
        "uploads/",
        "uploads//",
        "uploads/../x",
        "/etc/passwd",
        "C:\\x",
        "uploads/{uuid}/{filename}",
        "?versionId=1",
    ]
    .map(str::to_owned)
    .into();
    for name in [
        "",
        ".",
        "..",
        "a/b",
        "a\\b",
        "a\0b",
        "a\r\nb",
        "a\u{202e}b",
        "a\u{feff}",
        "\u{1112}\u{1161}",
        &"a".repeat(256),
        &"a".repeat(50_000),
    ] {
        keys.push(format!("uploads/{id}/{name}"));
    }
    for id in [
        "x",
        "00000000-0000-0000-0000-000000000000",
        "5D3C8F60-9D0E-4B1F-8E51-3C2F5C0A8F3E",
        "../..",
        "{}",
    ] {
        keys.push(format!("uploads/{id}/a.txt"));
    }
    for key in &keys {
        let body = json!({"key": key, "wait": 20});
        let response = client()
            .post(format!("{base}{VERIFY}"))
            .json(&body)
            .send()
            .await;
        is(&problem(response.unwrap()).await, 404, "not-uploaded");
    }
    let body = json!({ "keys": keys });
    let response = client()
        .post(format!("{base}{VERIFY}"))
        .json(&body)
        .send()
        .await;
    let answer: Value = response.unwrap().json().await.unwrap();
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.len(), keys.len());
    for (result, key) in results.iter().zip(&keys) {
        assert_eq!(result["key"], *key);
        assert_eq!(result["status"], 404);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}
