//! What a download asks of a store.

use serde_json::{Value, json};

use super::URL;
use crate::helpers::{granted, post};
use crate::stand_in::{StandIn, object, xml};

const KEY: &str = "uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/a.txt";

#[tokio::test]
async fn a_list_of_attachments_needs_no_call_to_the_store() {
    let store = StandIn::with_status(500).await;
    let base = store.service("[policies.default]\ndownload = true").await;
    store.asked();
    let answer: Value = granted(&base, URL, &json!({"keys": vec![KEY; 1000]})).await;
    assert_eq!(answer["results"].as_array().unwrap().len(), 1000);
    assert_eq!(store.asked(), 0);
}

#[tokio::test]
async fn of_a_pending_upload_the_version_that_was_committed_is_fetched() {
    let tags = std::sync::Arc::new(std::sync::Mutex::new(String::from("<Tagging/>")));
    let store = StandIn::answering(move |request: axum::extract::Request| {
        let tags = std::sync::Arc::clone(&tags);
        async move {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 10_000).await.unwrap();
            match parts.method.as_str() {
                "HEAD" => object(&[("x-amz-version-id", "v/7")]),
                "PUT" => {
                    *tags.lock().unwrap() = String::from_utf8(body.to_vec()).unwrap();
                    xml("")
                }
                _ => xml(&tags.lock().unwrap()),
            }
        }
    })
    .await;
    let base = store
        .service("[policies.default]\ndownload = true\npending = true")
        .await;
    let committed = post(&base, "/upload/commit", &json!({"key": KEY})).await;
    assert_eq!(committed.status(), 200);
    let answer: Value = granted(&base, URL, &json!({"key": KEY})).await;
    let url = answer["url"].as_str().unwrap();
    assert!(url.contains("&versionId=v%2F7&"), "{url}");
}
