//! What a download asks of a store.

use serde_json::{Value, json};

use super::URL;
use crate::commit::stand_ins::with_tags;
use crate::helpers::{granted, post};
use crate::stand_in::{KEY, StandIn};

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
    let (store, _) = with_tags("", &[("x-amz-version-id", "v/7")]).await;
    let base = store
        .service("[policies.default]\ndownload = true\npending = true")
        .await;
    let committed = post(&base, "/upload/commit", &json!({"key": KEY})).await;
    assert_eq!(committed.status(), 200);
    let answer: Value = granted(&base, URL, &json!({"key": KEY})).await;
    let url = answer["url"].as_str().unwrap();
    assert!(url.contains("&versionId=v%2F7&"), "{url}");
}
