//! What committing asks of a store, and how it reports one that has no tags.

use std::sync::{Arc, Mutex};

use axum::extract::Request;
use axum::http::Method;
use axum::response::Response;
use serde_json::{Value, json};

use super::COMMIT;
use crate::helpers::{hurry, is, post, problem};
use crate::stand_in::{KEY, StandIn, empty, error, object, page, xml};

const PENDING: &str = "[policies.default]\npending = true\ntagging = { stage = 'inbox' }";

async fn commit(store: &StandIn) -> reqwest::Response {
    let base = store.service(PENDING).await;
    post(&base, COMMIT, &json!({"key": KEY})).await
}

/// A store with one object, whose tags are kept as the XML that set them.
pub(crate) async fn with_tags(
    tags: &str,
    headers: &'static [(&'static str, &'static str)],
) -> (StandIn, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::new(Mutex::new(tags.to_owned()));
    let log = Arc::clone(&seen);
    let store = StandIn::answering(move |request: Request| {
        let (log, kept) = (Arc::clone(&log), Arc::clone(&kept));
        async move {
            let (method, query) = (request.method().clone(), request.uri().query());
            let query = query.unwrap_or_default().to_owned();
            let body = axum::body::to_bytes(request.into_body(), 10_000)
                .await
                .unwrap();
            let body = String::from_utf8(body.to_vec()).unwrap();
            log.lock().unwrap().push(format!("{method} {query} {body}"));
            if method == Method::HEAD {
                return object(headers);
            }
            assert!(query.contains("tagging"), "{query}");
            let mut kept = kept.lock().unwrap();
            if method == Method::PUT {
                *kept = body;
                return empty(200);
            }
            if kept.is_empty() {
                Response::default()
            } else {
                xml(&kept)
            }
        }
    })
    .await;
    (store, seen)
}

const TAGS: &str = "<Tagging><TagSet><Tag><Key>presignd</Key><Value>pending</Value></Tag><Tag><Key>owner</Key><Value>a&amp;b</Value></Tag></TagSet></Tagging>";

#[tokio::test]
async fn where_objects_have_versions_the_tag_goes_to_the_one_that_was_verified() {
    let (store, seen) = with_tags(TAGS, &[("x-amz-version-id", "v7")]).await;
    assert_eq!(commit(&store).await.status(), 200);
    for request in seen.lock().unwrap().iter() {
        let is_head = request.starts_with("HEAD");
        assert_eq!(request.contains("versionId=v7"), !is_head, "{request}");
    }
}

#[tokio::test]
async fn a_commit_is_five_requests_and_a_repeated_one_two() {
    let (store, seen) = with_tags(TAGS, &[]).await;
    assert_eq!(commit(&store).await.status(), 200);
    let methods = || -> Vec<String> {
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        let methods = seen
            .iter()
            .map(|request| request.split(' ').next().unwrap());
        methods.map(str::to_owned).collect()
    };
    assert_eq!(methods(), ["HEAD", "GET", "PUT", "HEAD", "GET"]);
    assert_eq!(commit(&store).await.status(), 200);
    assert_eq!(methods(), ["HEAD", "GET"]);
}

#[tokio::test]
async fn other_tags_are_kept_and_those_that_the_store_has_lost_are_set_again() {
    for (tags, expected) in [(TAGS, "<Key>owner</Key>"), ("", "<Key>stage</Key>")] {
        let (store, seen) = with_tags(tags, &[]).await;
        assert_eq!(commit(&store).await.status(), 200, "{tags}");
        let seen = seen.lock().unwrap();
        let put = seen.iter().find(|it| it.starts_with("PUT")).unwrap();
        assert!(
            put.contains(expected) && put.contains("committed-"),
            "{put}"
        );
        assert!(!put.contains("pending"), "{put}");
    }
}

#[tokio::test]
async fn a_store_that_fails_is_not_taken_for_a_commit() {
    hurry();
    for (status, code, expected, problem_code) in [
        (501, "NotImplemented", 502, "storage-error"),
        (403, "AccessDenied", 502, "storage-error"),
        (503, "SlowDown", 503, "storage-unavailable"),
        (404, "NoSuchKey", 404, "not-uploaded"),
        // It was deleted just now, in a bucket with versions.
        (405, "MethodNotAllowed", 404, "not-uploaded"),
    ] {
        let store = StandIn::with_object_but(move || error(status, code)).await;
        let answer: Value = problem(commit(&store).await).await;
        is(&answer, expected, problem_code);
        assert!(!answer.to_string().contains("secret"), "{answer}");
    }
}

#[tokio::test]
async fn a_404_of_a_proxy_does_not_mean_that_the_upload_is_gone() {
    for refused in [Method::GET, Method::PUT] {
        let store = StandIn::answering(move |request: Request| {
            let method = request.method();
            std::future::ready(match *method {
                Method::HEAD => object(&[]),
                _ if *method == refused => page(404),
                _ => xml(TAGS),
            })
        });
        let answer: Value = problem(commit(&store.await).await).await;
        is(&answer, 502, "storage-error");
    }
    // A version that is gone.
    let store = StandIn::answering(|request: Request| {
        let is_head = *request.method() == Method::HEAD;
        std::future::ready(if is_head {
            object(&[("x-amz-version-id", "v7")])
        } else {
            error(404, "NoSuchVersion")
        })
    });
    is(
        &problem(commit(&store.await).await).await,
        404,
        "not-uploaded",
    );
}
