//! What verifying asks of the store, and how it reports a store that fails.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::Method;
use axum::response::Response;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{SNIFF, VERIFY, Verified};
use crate::helpers::{answer, fields, hurry, is, post, problem};
use crate::policies::sha256;
use crate::stand_in::{KEY, StandIn, error, object};

const ANYTHING: &str = "[policies.default]";
pub(super) async fn ask(base: &str, body: Value) -> reqwest::Response {
    post(base, VERIFY, &body).await
}

/// The problem in the answer to one key.
async fn problem_of(base: &str) -> Value {
    problem(ask(base, json!({"key": KEY})).await).await
}

#[tokio::test]
async fn one_head_with_checksums_answers_it() {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    let store = StandIn::answering(move |request| {
        let mode = request.headers().get("x-amz-checksum-mode").cloned();
        seen.lock().unwrap().push((request.method().clone(), mode));
        std::future::ready(object(&[]))
    })
    .await;
    let base = store.service(ANYTHING).await;
    let upload = ask(&base, json!({"key": KEY, "wait": 20})).await;
    let upload: Verified = upload.json().await.unwrap();
    assert_eq!((upload.size, upload.etag.as_str()), (5, "\"e\""));
    assert_eq!(upload.last_modified, "2026-01-01T00:00:00Z");
    // Nor does a mismatch wait for anything.
    let other = ask(&base, json!({"key": KEY, "wait": 20, "size": 6})).await;
    is(&problem(other).await, 409, "mismatch");
    assert_eq!(store.asked(), 2);
    for (method, mode) in heads.lock().unwrap().iter() {
        assert_eq!(method, Method::HEAD);
        assert_eq!(mode.as_ref().unwrap(), "ENABLED");
    }
}

/// Some stores keep how the SDKs send a body, which changes nothing about the bytes.
#[tokio::test]
async fn an_encoding_that_encodes_nothing_is_no_mismatch() {
    for (encoding, status) in [("identity", 200), ("aws-chunked", 200), ("gzip", 409)] {
        let store = StandIn::answering(move |_| {
            std::future::ready(object(&[("content-encoding", encoding)]))
        })
        .await;
        let base = store.service(ANYTHING).await;
        let answer = ask(&base, json!({"key": KEY})).await;
        assert_eq!(answer.status(), status, "{encoding}");
    }
}

#[tokio::test]
async fn waiting_repeats_the_question_and_ends_in_time() {
    let store = StandIn::with_status(404).await;
    let base = store.service(ANYTHING).await;
    is(&problem_of(&base).await, 404, "not-uploaded");
    assert_eq!(store.asked(), 1);
    let absent = ask(&base, json!({"key": KEY, "wait": 1})).await;
    is(&problem(absent).await, 404, "not-uploaded");
    let asked = store.asked();
    assert!((2..=4).contains(&asked), "{asked}");
}

#[tokio::test]
async fn a_checksum_of_parts_does_not_count_as_that_of_the_file() {
    const SUM: &str = "x-amz-checksum-sha256";
    const TYPE: &str = "x-amz-checksum-type";
    let sum = sha256("hello");
    let composite = format!("{sum}-2");
    for (headers, expected) in [
        (vec![(SUM, composite.clone())], None),
        (vec![(SUM, sum.clone()), (TYPE, "COMPOSITE".into())], None),
        (vec![(SUM, composite), (TYPE, "COMPOSITE".into())], None),
        (
            vec![(SUM, sum.clone()), (TYPE, "FULL_OBJECT".into())],
            Some(sum.clone()),
        ),
    ] {
        let store = StandIn::answering(move |_| {
            let headers: Vec<_> = headers
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            std::future::ready(object(&headers))
        });
        let base = store.await.service(ANYTHING).await;
        let upload: Verified = ask(&base, json!({"key": KEY})).await.json().await.unwrap();
        assert_eq!(upload.checksum_sha256, expected);
        let compared = ask(&base, json!({"key": KEY, "checksumSha256": sum})).await;
        if expected.is_some() {
            assert_eq!(compared.status(), 200);
        } else {
            let problem = problem(compared).await;
            assert_eq!(fields(&problem), [("/checksumSha256", "checksum-unknown")]);
        }
    }
}

#[tokio::test]
async fn an_error_of_the_store_does_not_count_as_a_missing_upload() {
    hurry();
    for (store, status_, code) in [
        // What S3 answers if no object has the key and the credentials may not list the bucket.
        (403, 502, "storage-error"),
        (400, 502, "storage-error"),
        (301, 502, "storage-error"),
        (500, 502, "storage-error"),
        (503, 503, "storage-unavailable"),
        (429, 503, "storage-unavailable"),
    ] {
        let base = StandIn::with_status(store).await.service(ANYTHING).await;
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
        let store = StandIn::answering(move |_| async move {
            let mut response = object(&[]);
            response.headers_mut().remove(lacking);
            response
        });
        let base = store.await.service(ANYTHING).await;
        is(&problem_of(&base).await, 502, "storage-error");
    }
}

#[tokio::test]
async fn a_list_at_a_silent_store_is_504() {
    hurry();
    let silent = StandIn::answering(async |_| std::future::pending().await).await;
    let silent = silent.service(ANYTHING).await;
    let many = ask(&silent, json!({"keys": vec![KEY; 100]})).await;
    is(&problem(many).await, 504, "storage-timeout");
}

#[tokio::test]
async fn many_keys_are_verified_at_once_but_not_all_of_them() {
    let [now, most] = [(); 2].map(|()| Arc::new(AtomicU32::new(0)));
    let (under_way, at_most) = (Arc::clone(&now), Arc::clone(&most));
    let store = StandIn::answering(move |_| {
        let (under_way, at_most) = (Arc::clone(&under_way), Arc::clone(&at_most));
        async move {
            let count = under_way.fetch_add(1, Ordering::SeqCst) + 1;
            at_most.fetch_max(count, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(50)).await;
            under_way.fetch_sub(1, Ordering::SeqCst);
            object(&[])
        }
    });
    let base = store.await.service(ANYTHING).await;
    let many = json!({"keys": vec![KEY; 100]});
    for answer in join_all((0..3).map(|_| ask(&base, many.clone()))).await {
        let answer: Value = answer.json().await.unwrap();
        let results = answer["results"].as_array().unwrap();
        assert!(results.len() == 100 && results.iter().all(|r| r["status"] == 200));
    }
    let most = most.load(Ordering::SeqCst);
    assert!((2..=64).contains(&most), "{most}");
}

#[tokio::test]
async fn a_long_queue_before_a_slow_store_is_refused_and_not_called_a_fault_of_the_store() {
    let store = StandIn::answering(async |_| {
        tokio::time::sleep(Duration::from_secs(8)).await;
        object(&[])
    });
    let base = store.await.service(ANYTHING).await;
    let many = json!({"keys": vec![KEY; 100]});
    hurry();
    let begin = Instant::now();
    let answers = join_all((0..4).map(|_| ask(&base, many.clone()))).await;
    let took = begin.elapsed();
    // The time in the queue, and a call that had begun before its end.
    assert!(took < Duration::from_secs(45), "{took:?}");
    for answer in answers {
        assert!(answer.headers().contains_key("retry-after"));
        is(&problem(answer).await, 429, "too-much-at-once");
    }
}

#[tokio::test]
async fn only_policies_that_sniff_read_the_file_and_then_its_first_bytes_alone() {
    for (policy, gets) in [("[policies.default]", 0), (SNIFF, 1)] {
        let store = StandIn::answering(async |request: Request| {
            let mut response = object(&[("content-length", "1000000000")]);
            if request.method() == Method::GET {
                assert_eq!(request.headers()["range"], "bytes=0-2047");
                assert_eq!(request.headers()["if-match"], "\"e\"");
                // This store ignores the range, and its answer never ends.
                let endless =
                    futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>("text "));
                response.headers_mut().remove("content-length");
                *response.body_mut() = Body::from_stream(endless);
            }
            response
        })
        .await;
        let base = store.service(policy).await;
        let upload: Verified = ask(&base, json!({"key": KEY})).await.json().await.unwrap();
        assert_eq!(upload.size, 1_000_000_000);
        assert_eq!(store.asked_to(&Method::GET), gets);
    }
}

#[tokio::test]
async fn a_file_that_is_replaced_or_removed_while_it_is_read_is_not_called_good() {
    for ((get, of_s3), status_, code) in [
        ((412, "PreconditionFailed"), 409, "replaced"),
        ((404, "NoSuchKey"), 404, "not-uploaded"),
        ((403, "AccessDenied"), 502, "storage-error"),
        // As a proxy answers, which says nothing of the file.
        ((404, ""), 502, "storage-error"),
    ] {
        let base = sniffing(move || error(get, of_s3)).await;
        is(&problem_of(&base).await, status_, code);
    }
}

#[tokio::test]
async fn whoever_replaces_an_upload_all_the_time_changes_the_result_of_no_other() {
    let other = KEY.replace("a.txt", "b.txt");
    // The second object is replaced once.
    let is_first = Arc::new(AtomicBool::new(true));
    let store = StandIn::answering(move |request: Request| {
        let is_head = request.method() == Method::HEAD;
        let always = request.uri().path().ends_with("a.txt");
        let answer = if !is_head && (always || is_first.swap(false, Ordering::SeqCst)) {
            error(412, "PreconditionFailed")
        } else {
            object(&[])
        };
        std::future::ready(answer)
    });
    let base = store.await.service(SNIFF).await;
    let verified = ask(&base, json!({"keys": [KEY, other]})).await;
    let verified: Value = answer(200, verified).await;
    let [replaced, good] = [0, 1].map(|place| &verified["results"][place]);
    assert_eq!(replaced["status"], 409, "{verified}");
    assert_eq!(replaced["problem"]["code"], "replaced");
    assert_eq!(good["status"], 200, "{verified}");
}

#[tokio::test]
async fn bytes_of_something_else_do_not_count_as_those_of_the_file() {
    // As what stands before a store answers: a proxy, or the page of a network that wants a login.
    for body in ["<!doctype html>", "text", ""] {
        let base = sniffing(move || Response::new(Body::from(body))).await;
        is(&problem_of(&base).await, 502, "storage-error");
    }
}

/// A service whose store has an object, and answers with `body` when it is read.
async fn sniffing(body: impl Fn() -> Response + Clone + Send + Sync + 'static) -> String {
    StandIn::with_object_but(body).await.service(SNIFF).await
}

#[tokio::test]
async fn hostile_keys_are_answered_without_asking_the_store() {
    let store = StandIn::with_status(200).await;
    let base = store.service(ANYTHING).await;
    let mut keys: Vec<String> = [
        "",
        ".",
        "..",
        "/",
        "*",
        "%",
        "\0",
        "\u{202e}",
        "uploads",
        "uploads//",
        "/etc/passwd",
        "uploads/{uuid}/{filename}",
        "?versionId=1",
        "uploads/../../a.txt",
        "uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/..",
    ]
    .map(str::to_owned)
    .into();
    keys.push(KEY.replace("a.txt", &"a".repeat(50_000)));
    for key in &keys {
        let response = ask(&base, json!({"key": key, "wait": 20})).await;
        is(&problem(response).await, 404, "not-uploaded");
    }
    let answer: Value = answer(200, ask(&base, json!({ "keys": keys })).await).await;
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.len(), keys.len());
    for (result, key) in results.iter().zip(&keys) {
        assert_eq!(result["key"], *key);
        assert_eq!(result["status"], 404);
    }
    assert_eq!(store.asked(), 0);
}
