//! A presigned download fetches one object of its caller, as the policy allows, until it expires.

mod stand_ins;

use std::time::{Duration, SystemTime};

use presignd::dev::BUCKET;
use presignd::upload::{Caller, Disposition, Download, Filename, Wanted};
use reqwest::Response;
use serde_json::{Value, json};

use crate::helpers::{App, Grant, fields, is, spawn_app_with_policies};

const URL: &str = "/download/presigned-url";

const POLICIES: &str = "
    [policies.default]
    download = true
    download_expires_in = '5m'

    [policies.fixed]
    key = 'fixed/{filename}'
    overwrite = true
    active_content = 'allow'
    download = true

    [policies.pending]
    key = 'pending/{uuid}'
    pending = true
    download = true

    [policies.closed]
    key = 'closed/{uuid}'
";

async fn fetch(app: &App, grant: &Grant) -> Response {
    assert_eq!(grant.method, "GET");
    assert!(grant.headers.is_empty());
    app.client.get(&grant.url).send().await.unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers()[name].to_str().unwrap()
}

fn text(filename: &str) -> Value {
    json!({"filename": filename, "contentType": "text/plain"})
}

#[tokio::test]
async fn a_download_fetches_the_bytes_whatever_the_name() {
    let app = spawn_app_with_policies(POLICIES).await;
    for name in ["a b.txt", "한글 파일.txt", "🎉+%41.txt", "it's;\"x\".txt"] {
        let key = app.sent(&text(name), "hello").await.key;
        let body = json!({"key": key, "filename": name});
        let grant: Grant = app.granted(URL, &body).await;
        assert_eq!(grant.key, key);
        let response = fetch(&app, &grant).await;
        assert_eq!(response.status(), 200, "{name}");
        let disposition = header(&response, "content-disposition");
        let (kind, encoded) = disposition.split_once("; filename*=UTF-8''").unwrap();
        assert_eq!(kind, "attachment");
        let decoded = percent_encoding::percent_decode_str(encoded).decode_utf8();
        assert_eq!(decoded.unwrap(), name);
        assert_eq!(response.text().await.unwrap(), "hello");
    }
}

#[tokio::test]
async fn ranges_of_a_download_are_served() {
    let app = spawn_app_with_policies(POLICIES).await;
    let key = app.sent(&text("a.txt"), "hello").await.key;
    let grant: Grant = app.granted(URL, &json!({"key": key})).await;
    let range = app.client.get(&grant.url).header("range", "bytes=1-3");
    let response = range.send().await.unwrap();
    assert_eq!(response.status(), 206);
    assert_eq!(header(&response, "content-range"), "bytes 1-3/5");
    assert_eq!(header(&response, "content-disposition"), "attachment");
    assert_eq!(response.text().await.unwrap(), "ell");
}

#[tokio::test]
async fn a_download_is_for_one_object_and_one_disposition() {
    let app = spawn_app_with_policies(POLICIES).await;
    let key = app.sent(&text("a.txt"), "hello").await.key;
    let other = app.sent(&text("b.txt"), "other").await.key;
    let grant: Grant = app.granted(URL, &json!({"key": key})).await;
    for url in [
        grant.url.replace(&key, &other),
        grant.url.replace("=attachment", "=inline"),
        format!("{}&response-content-type=text%2Fhtml", grant.url),
    ] {
        assert_ne!(url, grant.url);
        let response = app.client.get(url).send().await.unwrap();
        assert_eq!(response.status(), 403);
    }
    for request in [app.client.put(&grant.url), app.client.delete(&grant.url)] {
        let response = request.body("x").send().await.unwrap();
        assert_eq!(response.status(), 403);
    }
}

#[tokio::test]
async fn a_download_expires_with_the_lifetime_of_its_policy() {
    let app = spawn_app_with_policies(POLICIES).await;
    let key = app.sent(&text("a.txt"), "hello").await.key;
    let wanted = |disposition| Wanted {
        keys: vec![key.clone()],
        disposition,
        filename: Some(Filename::parse("a.txt").unwrap()),
    };
    let (caller, now) = (Caller::anonymous(), SystemTime::now());
    for (age, disposition, status) in [
        (290, Disposition::Attachment, 200),
        (310, Disposition::Attachment, 403),
        (290, Disposition::Inline, 200),
        (310, Disposition::Inline, 403),
    ] {
        let wanted = wanted(disposition);
        let then = now - Duration::from_secs(age);
        let downloads = app.uploads.presign_gets(&caller, None, &wanted, then);
        let downloads = downloads.await.unwrap();
        let [Download::Granted(request)] = &downloads[..] else {
            panic!("{downloads:?}");
        };
        assert!(request.expires_at <= then + Duration::from_mins(5));
        let response = app.client.get(&request.url).send().await.unwrap();
        assert_eq!(response.status(), status, "{age}");
    }
}

#[tokio::test]
async fn a_file_is_shown_only_if_its_type_runs_no_scripts() {
    let app = spawn_app_with_policies(POLICIES).await;
    let file = |name: &str, content_type: &str| json!({"filename": name, "contentType": content_type, "policy": "fixed"});
    for (content_type, shown) in [
        ("image/png", true),
        ("application/pdf", true),
        ("text/html", false),
        ("image/svg+xml", false),
        ("application/xhtml+xml; a=image/png", false),
    ] {
        let key = app.sent(&file("a", content_type), "hello").await.key;
        let body = json!({"key": key, "policy": "fixed", "disposition": "inline", "filename": "b"});
        let grant: Grant = app.granted(URL, &body).await;
        let response = fetch(&app, &grant).await;
        let kind = if shown { "inline" } else { "attachment" };
        let expected = format!("{kind}; filename*=UTF-8''b");
        assert_eq!(
            header(&response, "content-disposition"),
            expected,
            "{content_type}"
        );
        assert_eq!(header(&response, "content-type"), content_type);

        // Whatever takes its place is shown as what it was, or saved.
        app.sent(&file("a", "text/html"), "<script>").await;
        let response = fetch(&app, &grant).await;
        let is_saved = header(&response, "content-disposition").starts_with("attachment");
        assert!(is_saved || header(&response, "content-type") == content_type);
    }
}

/// A pending upload, and the request for its download.
async fn pending(app: &App) -> (Grant, Value) {
    let file = json!({"filename": "a", "contentType": "text/plain", "policy": "pending"});
    let grant = app.sent(&file, "hello").await;
    let body = json!({"key": grant.key, "policy": "pending"});
    (grant, body)
}

#[tokio::test]
async fn a_pending_upload_is_downloaded_once_it_is_committed() {
    let app = spawn_app_with_policies(POLICIES).await;
    let (grant, one) = pending(&app).await;
    is(&app.refused(URL, &one).await, 409, "pending");
    let committed = app.post("/upload/commit", &one).await;
    assert_eq!(committed.status(), 200);
    let download: Grant = app.granted(URL, &one).await;
    assert_eq!(fetch(&app, &download).await.text().await.unwrap(), "hello");
    // Another one in its place, and one that only has its tag.
    assert_eq!(app.upload(&grant, "other").await.status(), 200);
    is(&app.refused(URL, &one).await, 409, "pending");
    let delete = app.store.delete_object().bucket(BUCKET).key(&grant.key);
    delete.send().await.unwrap();
    is(&app.refused(URL, &one).await, 404, "not-uploaded");
}

#[tokio::test]
async fn what_was_replaced_since_its_commit_is_pending_although_it_has_a_mark() {
    let app = spawn_app_with_policies(POLICIES).await;
    let (grant, one) = pending(&app).await;
    app.post("/upload/commit", &one).await;
    let put = app.store.put_object().bucket(BUCKET).key(&grant.key);
    let tags = app
        .store
        .get_object_tagging()
        .bucket(BUCKET)
        .key(&grant.key);
    let tag = tags.send().await.unwrap().tag_set.remove(0);
    let put = put
        .content_type("text/plain")
        .body(b"other".to_vec().into());
    let put = put.tagging(format!("{}={}", tag.key, tag.value));
    put.send().await.unwrap();
    is(&app.refused(URL, &one).await, 409, "pending");
}

#[tokio::test]
async fn each_key_of_a_list_has_a_result() {
    let app = spawn_app_with_policies(POLICIES).await;
    let key = app.sent(&text("a.txt"), "hello").await.key;
    let missing = key.replace("a.txt", "b.txt");
    for (disposition, of_missing) in [("inline", 404), ("attachment", 201)] {
        let keys = json!({"keys": [key, "no/such", missing], "disposition": disposition});
        let answer: Value = app.granted(URL, &keys).await;
        let results = answer["results"].as_array().unwrap();
        let statuses: Vec<&Value> = results.iter().map(|it| &it["status"]).collect();
        assert_eq!(statuses, [201, 404, of_missing], "{answer}");
        let grant: Grant = serde_json::from_value(results[0]["download"].clone()).unwrap();
        assert_eq!(fetch(&app, &grant).await.text().await.unwrap(), "hello");
        assert_eq!(results[1]["key"], "no/such");
        assert_eq!(results[1]["problem"]["code"], "not-uploaded");
    }
    // What the store is not asked about, it answers itself.
    let grant: Grant = app.granted(URL, &json!({"key": missing})).await;
    assert_eq!(fetch(&app, &grant).await.status(), 404);
    let many: Vec<&str> = vec![&key; 1000];
    let answer: Value = app.granted(URL, &json!({"keys": many})).await;
    assert_eq!(answer["results"].as_array().unwrap().len(), 1000);
}

#[tokio::test]
async fn a_policy_has_to_allow_downloads() {
    let app = spawn_app_with_policies(POLICIES).await;
    let file = json!({"filename": "a", "contentType": "text/plain", "policy": "closed"});
    let key = app.sent(&file, "hello").await.key;
    let problem = app
        .refused(URL, &json!({"key": key, "policy": "closed"}))
        .await;
    is(&problem, 422, "download-not-allowed");
    let detail = "policy `closed` does not allow downloads";
    assert_eq!(
        problem["detail"], detail,
        "a request that names no policy learns which one it is"
    );
    assert_eq!(fields(&problem), [("/policy", "download-not-allowed")]);
    // Another policy does not open it.
    is(
        &app.refused(URL, &json!({"key": key})).await,
        404,
        "not-uploaded",
    );
}

#[tokio::test]
async fn wrong_fields_are_named() {
    let app = spawn_app_with_policies(POLICIES).await;
    for (body, expected) in [
        (json!({}), ("/key", "required")),
        (
            json!({"key": "a", "keys": ["a"]}),
            ("/keys", "key-and-keys"),
        ),
        (json!({"keys": []}), ("/keys", "length")),
        (json!({"keys": vec!["a"; 1001]}), ("/keys", "length")),
        (json!({"keys": ["a", 1]}), ("/keys/1", "wrong-type")),
        (
            json!({"keys": ["a"], "filename": "b"}),
            ("/filename", "needs-key"),
        ),
        (
            json!({"key": "a", "filename": "b/c"}),
            ("/filename", "path-separator"),
        ),
        (
            json!({"key": "a", "disposition": "Inline"}),
            ("/disposition", "not-a-disposition"),
        ),
        (
            json!({"key": "a", "dispositon": "inline"}),
            ("/dispositon", "unknown-field"),
        ),
    ] {
        let problem = app.refused(URL, &body).await;
        assert_eq!(fields(&problem), [expected], "{body}");
    }
}
