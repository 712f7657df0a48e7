//! A pending upload counts once it was committed, and only what was verified is ever committed.

mod interrupted;
mod races;
pub(crate) mod stand_ins;

use std::collections::BTreeMap;

use presignd::dev::BUCKET;
use serde_json::{Value, json};

use crate::helpers::{App, Grant, fields, is, spawn_app_with_policies};
use crate::presigned_post::PostGrant;
use crate::uppy::create_at;

const COMMIT: &str = "/upload/commit";
const URL: &str = "/upload/presigned-url";

/// Under `pending` and `lax` the same files have the same marks.
const PENDING: &str = "
    [policies.default]
    pending = true
    sniff = true
    max_size = '100 B'
    tagging = { stage = 'inbox' }

    [policies.lax]
    key = 'lax/{uuid}'
    pending = true
    active_content = 'allow'
    tagging = { stage = 'inbox' }

    [policies.plain]
    key = 'plain/{uuid}'
";

pub(crate) type Tags = BTreeMap<String, String>;

/// The tags of an object.
pub(crate) async fn tags_of(store: &aws_sdk_s3::Client, key: &str) -> Tags {
    let get = store.get_object_tagging().bucket(BUCKET).key(key);
    let tags = get.send().await.unwrap().tag_set.into_iter();
    tags.map(|tag| (tag.key, tag.value)).collect()
}

/// The state of an upload, whose other tag must be there.
async fn state_of(store: &aws_sdk_s3::Client, key: &str) -> String {
    let mut tags = tags_of(store, key).await;
    let state = tags.remove("presignd").expect("a tag `presignd`");
    assert_eq!(tags, Tags::from([("stage".into(), "inbox".into())]));
    state
}

fn png() -> Value {
    json!({"filename": "a.png", "contentType": "image/png", "size": 8})
}

const PNG: &[u8; 8] = b"\x89PNG\r\n\x1a\n";

async fn committed(app: &App, body: Value) -> Value {
    app.accepted(COMMIT, &body).await
}

#[tokio::test]
async fn an_upload_is_pending_until_it_is_committed_and_the_answer_is_that_of_verify() {
    let app = spawn_app_with_policies(PENDING).await;
    let key = app.sent(&png(), &PNG[..]).await.key;
    assert_eq!(state_of(&app.store, &key).await, "pending");
    let verified: Value = app.accepted("/upload/verify", &json!({"key": key})).await;
    assert_eq!(state_of(&app.store, &key).await, "pending");

    let answer = committed(&app, json!({"key": key})).await;
    assert_eq!(answer, verified);
    let state = state_of(&app.store, &key).await;
    assert!(state.starts_with("committed-"), "{state}");
    // Again, with the same answer and nothing changed.
    assert_eq!(committed(&app, json!({"key": key})).await, verified);
    assert_eq!(state_of(&app.store, &key).await, state);
}

#[tokio::test]
async fn a_second_upload_with_the_same_url_is_pending_again() {
    let app = spawn_app_with_policies(PENDING).await;
    let grant = app.sent(&png(), &PNG[..]).await;
    committed(&app, json!({"key": grant.key})).await;
    assert_eq!(app.upload(&grant, &PNG[..]).await.status(), 200);
    assert_eq!(state_of(&app.store, &grant.key).await, "pending");
    committed(&app, json!({"key": grant.key})).await;
}

#[tokio::test]
async fn a_form_and_an_upload_in_parts_are_pending_too() {
    let app = spawn_app_with_policies(PENDING).await;
    let text = json!({"filename": "a.txt", "contentType": "text/plain", "size": 5});
    let form: PostGrant = app.granted("/upload/presigned-post", &text).await;
    assert_eq!(form.send(&app.client, "hello").await.status(), 201);

    let file = json!({"filename": "a.png", "type": "image/png", "metadata": {}});
    let upload = create_at(&app.base, file).await;
    let completed = upload.send(PNG.to_vec()).await;
    assert_eq!(completed.status(), 200);

    for key in [&form.key, &upload.key] {
        assert_eq!(state_of(&app.store, key).await, "pending");
        committed(&app, json!({"key": key})).await;
        assert_ne!(state_of(&app.store, key).await, "pending");
    }
}

#[tokio::test]
async fn what_is_not_what_was_granted_stays_pending() {
    let app = spawn_app_with_policies(PENDING).await;
    let html = app.sent(&png(), "<script>").await.key;
    let refused = app.refused(COMMIT, &json!({"key": html})).await;
    is(&refused, 409, "content-mismatch");
    assert_eq!(state_of(&app.store, &html).await, "pending");

    let key = app.sent(&png(), &PNG[..]).await.key;
    let refused = app.refused(COMMIT, &json!({"key": key, "size": 9})).await;
    is(&refused, 409, "mismatch");
    assert_eq!(fields(&refused), [("/size", "size-differs")]);
    assert_eq!(state_of(&app.store, &key).await, "pending");

    let missing = key.replace("a.png", "b.png");
    let refused = app.refused(COMMIT, &json!({"key": missing})).await;
    is(&refused, 404, "not-uploaded");
    let foreign = json!({"key": "plain/elsewhere"});
    is(&app.refused(COMMIT, &foreign).await, 404, "not-uploaded");
    let unknown = app
        .refused(COMMIT, &json!({"key": key, "policy": "x"}))
        .await;
    is(&unknown, 422, "unknown-policy");
    let invalid = app.refused(COMMIT, &json!({"keys": []})).await;
    is(&invalid, 400, "invalid-request");
}

#[tokio::test]
async fn several_uploads_are_committed_at_once_each_with_its_result() {
    let app = spawn_app_with_policies(PENDING).await;
    let good = app.sent(&png(), &PNG[..]).await.key;
    let bad = app.sent(&png(), "<script>").await.key;
    let answer = committed(&app, json!({"keys": [good, bad, "foreign", good]})).await;
    let statuses = answer["results"].as_array().unwrap().iter();
    let statuses: Vec<_> = statuses.map(|result| result["status"].clone()).collect();
    assert_eq!(statuses, [200, 409, 404, 200]);
    assert_ne!(state_of(&app.store, &good).await, "pending");
    assert_eq!(state_of(&app.store, &bad).await, "pending");
}

#[tokio::test]
async fn a_commit_waits_for_an_upload_that_is_under_way() {
    let app = spawn_app_with_policies(PENDING).await;
    let grant: Grant = app.granted(URL, &png()).await;
    let body = json!({"key": grant.key, "wait": 20});
    let (commit, _) = tokio::join!(app.post(COMMIT, &body), async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        app.upload(&grant, &PNG[..]).await
    });
    assert_eq!(commit.status(), 200);
    assert_ne!(state_of(&app.store, &grant.key).await, "pending");
}

#[tokio::test]
async fn where_nothing_is_pending_a_commit_only_verifies() {
    let app = spawn_app_with_policies(PENDING).await;
    let request = json!({"filename": "a", "contentType": "text/plain", "policy": "plain"});
    let key = app.sent(&request, "hello").await.key;
    committed(&app, json!({"key": key, "policy": "plain"})).await;
    assert_eq!(tags_of(&app.store, &key).await, Tags::new());
}

#[tokio::test]
async fn commits_are_counted_by_policy_and_outcome() {
    let app = spawn_app_with_policies(PENDING).await;
    let key = app.sent(&png(), &PNG[..]).await.key;
    committed(&app, json!({"key": key})).await;
    committed(&app, json!({"key": key})).await;
    app.refused(COMMIT, &json!({"key": key, "size": 1})).await;
    let text = app.metrics().await;
    for outcome in ["committed", "repeated", "mismatch"] {
        let line =
            format!("presignd_commits_total{{policy=\"default\",outcome=\"{outcome}\"}} 1\n");
        assert!(text.contains(&line), "{line}{text}");
    }
}
