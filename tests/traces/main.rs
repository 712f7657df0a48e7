//! What a collector gets to see of requests. It is a test target of its own, because it needs the feature
//! `otlp`, with which the large target `api` would have to be built once more.

// Tests may panic.
#![allow(clippy::unwrap_used)]

// `api` uses all of these two.
#[allow(dead_code)]
#[path = "../api/helpers.rs"]
mod helpers;
#[allow(dead_code)]
#[path = "../api/process.rs"]
mod process;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::routing::post;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::helpers::{Grant, client, spawn};
use crate::process::{Running, one_line_and_exit_1, run};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// `presignd dev` that sends its traces to `collector`.
async fn dev(collector: axum::Router, log: &str, trusted: &str) -> (TempDir, Running, String) {
    named("", collector, log, trusted).await
}

/// The same with a name of the service.
async fn named(
    name: &str,
    collector: axum::Router,
    log: &str,
    trusted: &str,
) -> (TempDir, Running, String) {
    let endpoint = format!("http://{}", spawn(collector).await);
    let folder = TempDir::new().unwrap();
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("LOG_FORMAT", "json"),
        ("RUST_LOG", log),
        ("TRUSTED_PROXIES", trusted),
        ("OTEL_SERVICE_NAME", name),
    ];
    let (dev, base) = Running::dev(folder.path(), &variables);
    (folder, dev, base)
}

/// A collector, and what it receives.
fn collector() -> (axum::Router, Arc<Mutex<Vec<u8>>>) {
    let received = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&received);
    let collect = async move |headers: HeaderMap, body: Bytes| {
        assert_eq!(headers["content-type"], "application/x-protobuf");
        all.lock().unwrap().extend_from_slice(&body);
    };
    let router = axum::Router::new().route("/v1/traces", post(collect));
    (router, received)
}

/// The attribute with the name of the service, as OTLP encodes it.
fn service_name(name: &str) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap();
    let head = [0x12, length + 2, 0x0a, length];
    [b"service.name", head.as_slice(), name.as_bytes()].concat()
}

async fn grant(base: &str) -> Grant {
    let response = client()
        .post(format!("{base}/upload/presigned-url?secret-query"))
        .header("traceparent", format!("00-{TRACE}-{PARENT}-01"))
        .header("authorization", "Bearer secret-token")
        .json(&json!({"filename": "secret-name.txt", "contentType": "text/plain"}))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 201);
    response.json().await.unwrap()
}

async fn stop(dev: Running) -> (Option<i32>, String) {
    let stop = tokio::task::spawn_blocking(move || dev.stop("TERM"));
    let (code, _, log) = stop.await.unwrap();
    (code, log)
}

fn count(haystack: &[u8], needle: &[u8]) -> usize {
    haystack
        .windows(needle.len())
        .filter(|w| *w == needle)
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_is_a_span_of_the_trace_that_it_belongs_to_and_tells_no_secret() {
    let (collector, received) = collector();
    let (_folder, dev, base) = named("avatars", collector, "trace", "127.0.0.1").await;
    let grant = grant(&base).await;
    let nowhere = format!("{base}/secret-path");
    client().get(nowhere).send().await.unwrap();
    let method = reqwest::Method::from_bytes(b"SECRET").unwrap();
    let healthz = format!("{base}/healthz");
    client().request(method, healthz).send().await.unwrap();
    // What is not sent yet is sent at the end.
    let (code, log) = stop(dev).await;
    assert_eq!(code, Some(0), "{log}");

    let spans = received.lock().unwrap().clone();
    let id = |hex: &str| u128::from_str_radix(hex, 16).unwrap().to_be_bytes();
    assert_eq!(count(&spans, &id(TRACE)), 1);
    assert_eq!(count(&spans, &id(PARENT)[8..]), 1);
    for (text, times) in [
        ("http.request.method", 3),
        ("POST /upload/presigned-url", 1),
        ("http.route", 2),
        ("http.response.status_code", 3),
        ("_OTHER", 2),
    ] {
        assert!(count(&spans, text.as_bytes()) >= times, "{text}");
    }
    assert_eq!(count(&spans, b"http.request.method"), 3);
    assert!(count(&spans, &service_name("avatars")) >= 1);
    let (_, signature) = grant.url.split_once("X-Amz-Signature=").unwrap();
    for secret in [signature, &grant.key, "X-Amz", "secret", "SECRET"] {
        assert_eq!(count(&spans, secret.as_bytes()), 0, "{secret}");
    }
    // The log leads to the trace, and still tells no secret.
    let line = log.lines().find(|line| line.contains("presigned-url"));
    let line: Value = serde_json::from_str(line.expect(&log)).unwrap();
    assert_eq!(line["trace_id"], TRACE);
    assert!(!log.contains(signature) && !log.contains("secret"), "{log}");
}

#[test]
fn the_path_of_the_collector_is_not_given_twice() {
    let endpoint = "http://127.0.0.1:4318/v1/traces";
    let (output, _) = run(&["dev"], &[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)]);
    one_line_and_exit_1(&output, &["OTEL_EXPORTER_OTLP_ENDPOINT", "/v1/traces"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_cannot_choose_its_trace() {
    let (collector, received) = collector();
    let (_folder, dev, base) = dev(collector, "info", "192.0.2.1").await;
    grant(&base).await;
    let (_, log) = stop(dev).await;
    let line = log.lines().find(|line| line.contains("presigned-url"));
    let line: Value = serde_json::from_str(line.expect(&log)).unwrap();
    assert_eq!(line["trace_id"].as_str().unwrap().len(), 32, "{line}");
    assert_ne!(line["trace_id"], TRACE);
    let spans = received.lock().unwrap();
    assert!(count(&spans, &service_name("presignd")) >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_costs_no_request_and_not_the_end() {
    let hang = async || std::future::pending::<()>().await;
    let (_folder, dev, base) = dev(axum::Router::new().fallback(hang), "warn", "").await;
    let (client, healthz) = (client(), format!("{base}/healthz"));
    // More than the queue holds.
    for _ in 0..3000 {
        let answer = client.get(&healthz).send().await;
        assert_eq!(answer.unwrap().status(), 200);
    }
    grant(&base).await;
    let begin = Instant::now();
    let (code, log) = stop(dev).await;
    assert_eq!(code, Some(0));
    assert!(log.contains("the last traces were not sent"), "{log}");
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
}
