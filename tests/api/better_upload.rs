//! better-upload's protocol: what its client, version 3, does with the answers, and what it shows of refusals.

mod attacks;
mod skip;

use std::collections::BTreeMap;

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::helpers::{
    App, client, fields, is, problem, spawn_app, spawn_app_with_forms_only, spawn_app_with_policies,
};

const MIB: usize = 1024 * 1024;
const PATH: &str = "/better-upload";

fn file(name: &str, size: usize, content_type: &str) -> Value {
    json!({"name": name, "size": size, "type": content_type})
}

async fn asked(app: &App, route: &str, files: &[Value]) -> Value {
    let body = json!({"route": route, "files": files});
    app.accepted(PATH, &body).await
}

/// The problem with a request, and the error that the client reads of it.
async fn refused(app: &App, body: &Value) -> (Value, String) {
    let problem = problem(app.post(PATH, body).await).await;
    assert_eq!(problem["error"]["message"], problem["detail"]);
    let kind = problem["error"]["type"].as_str().unwrap().to_owned();
    (problem, kind)
}

/// Sends a file as the client does, which appends to a header that it sets again.
async fn put(single: &Value, body: Vec<u8>) -> Response {
    let file = &single["file"];
    let mut headers = BTreeMap::<String, String>::new();
    let mut set = |name: &str, value: &Value| {
        let value = value.as_str().unwrap();
        let both = match headers.get(name) {
            Some(before) => format!("{before}, {value}"),
            None => value.to_owned(),
        };
        headers.insert(name.to_owned(), both);
    };
    set("content-type", &file["type"]);
    if let cache_control @ Value::String(_) = &file["objectInfo"]["cacheControl"] {
        set("cache-control", cache_control);
    }
    for (name, value) in file["objectInfo"]["metadata"].as_object().unwrap() {
        set(&format!("x-amz-meta-{name}"), value);
    }
    for (name, value) in single["headers"].as_object().unwrap() {
        set(name, value);
    }
    let mut request = client().put(single["signedUrl"].as_str().unwrap());
    // As browsers do, also for an empty body.
    request = request.header("content-length", body.len());
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.body(body).send().await.unwrap()
}

/// Sends all parts of a file as the client does, and gives the list that completes the upload.
async fn put_parts(upload: &Value, part_size: &Value, bytes: &[u8]) -> String {
    let part_size = usize::try_from(part_size.as_u64().unwrap()).unwrap();
    let mut parts = Vec::new();
    for part in upload["parts"].as_array().unwrap() {
        let number = part["partNumber"].as_u64().unwrap();
        let start = (usize::try_from(number).unwrap() - 1) * part_size;
        let size = usize::try_from(part["size"].as_u64().unwrap()).unwrap();
        let body = bytes[start..(start + size).min(bytes.len())].to_vec();
        let request = client().put(part["signedUrl"].as_str().unwrap());
        // As browsers do, also for an empty body.
        let request = request.header("content-length", size);
        let response = request.body(body).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let etag = response.headers()["etag"].to_str().unwrap();
        let etag = etag.replace('"', "");
        parts.push(format!(
            "<Part>\n    <ETag>{etag}</ETag>\n    <PartNumber>{number}</PartNumber>\n  </Part>"
        ));
    }
    let parts = parts.concat();
    format!("\n<CompleteMultipartUpload>\n  {parts}\n</CompleteMultipartUpload>\n  ")
}

async fn complete(upload: &Value, list: String) -> Response {
    let request = client().post(upload["completeSignedUrl"].as_str().unwrap());
    let request = request.header("content-type", "application/xml");
    request.body(list).send().await.unwrap()
}

async fn abort(upload: &Value) -> StatusCode {
    let request = client().delete(upload["abortSignedUrl"].as_str().unwrap());
    request.send().await.unwrap().status()
}

fn key(file: &Value) -> &str {
    file["file"]["objectInfo"]["key"].as_str().unwrap()
}

#[tokio::test]
async fn better_upload_gets_a_put_for_each_small_file() {
    let app = spawn_app().await;
    let sent = [
        file("한 a.jpg", 9, "image/jpeg"),
        file("empty", 0, "image/png"),
    ];
    let answer = asked(&app, "default", &sent).await;
    assert_eq!(answer["metadata"], json!({}));
    let names: Vec<&String> = answer.as_object().unwrap().keys().collect();
    assert_eq!(names, ["files", "metadata"]);
    for ((single, sent), bytes) in answer["files"]
        .as_array()
        .unwrap()
        .iter()
        .zip(&sent)
        .zip(["the bytes", ""])
    {
        // The client finds the file by these, and the type is a header that it sends already.
        for name in ["name", "size", "type"] {
            assert_eq!(single["file"][name], sent[name]);
        }
        assert_eq!(single["headers"], json!({}));
        // The store accepts no other length.
        let other = put(single, b"other bytes".to_vec()).await;
        assert_eq!(other.status(), 403);
        assert_eq!(put(single, bytes.into()).await.status(), 200);
        let stored = app.stored(key(single)).await.unwrap();
        assert_eq!(stored.0, bytes.as_bytes());
        assert_eq!(stored.1, sent["type"].as_str().unwrap());
    }
    assert!(key(&answer["files"][0]).ends_with("/한 a.jpg"));
}

#[tokio::test]
async fn better_upload_sends_each_signed_header_once() {
    let app = spawn_app_with_policies(
        "[policies.once]
        key = 'once/{filename}'
        overwrite = false
        cache_control = 'no-cache'
        metadata = { source = 'web' }
        allowed_metadata = ['album']",
    )
    .await;
    let metadata = json!({"album": ["앨범", 7], "source": "mine", "x": {"y": 1}});
    let body =
        json!({"route": "once", "files": [file("a.html", 1, "text/html")], "metadata": metadata});
    let answer: Value = app.accepted(PATH, &body).await;
    let single = &answer["files"][0];
    assert_eq!(
        single["file"]["objectInfo"],
        json!({
            "key": "once/a.html",
            "metadata": {"album": "=?UTF-8?B?7JWo67KULDc=?=", "source": "web"},
            "cacheControl": "no-cache",
        })
    );
    let names: Vec<&String> = single["headers"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["content-disposition", "if-none-match"]);
    assert_eq!(put(single, b"1".into()).await.status(), 200);
    let head = app.head(key(single)).await;
    assert_eq!(head.cache_control.unwrap(), "no-cache");
    assert_eq!(head.metadata.unwrap()["source"], "web");
    // Metadata of another shape is the application's own, and no object's.
    for metadata in [json!("x"), json!([1]), json!(null), json!(7)] {
        let body = json!({"route": "once", "files": [file("b", 1, "a/b")], "metadata": metadata});
        let answer: Value = app.accepted(PATH, &body).await;
        let metadata = &answer["files"][0]["file"]["objectInfo"]["metadata"];
        assert_eq!(*metadata, json!({"source": "web"}));
    }
}

#[tokio::test]
async fn better_upload_sends_large_files_in_parts_and_small_ones_with_them() {
    let app = spawn_app().await;
    let large = vec![7; 32 * MIB + 1];
    let files = [
        file("large.mp4", large.len(), "video/mp4"),
        file("small.txt", 3, "text/plain"),
        file("empty", 0, ""),
    ];
    let answer = asked(&app, "default", &files).await;
    let multipart = &answer["multipart"];
    assert_eq!(multipart["partSize"], 16 * MIB);
    let uploads = multipart["files"].as_array().unwrap();
    let counts = uploads
        .iter()
        .map(|it| it["parts"].as_array().unwrap().len());
    assert_eq!(counts.collect::<Vec<_>>(), [3, 1, 1]);
    for (upload, (bytes, content_type)) in uploads.iter().zip([
        (&large[..], "video/mp4"),
        (b"abc", "text/plain"),
        (b"", "application/octet-stream"),
    ]) {
        let list = put_parts(upload, &multipart["partSize"], bytes).await;
        // A lost answer: the same call says again that the object is there.
        for _ in 0..2 {
            let completed = complete(upload, list.clone()).await;
            assert_eq!(completed.status(), 200);
        }
        let stored = app.stored(key(upload)).await.unwrap();
        assert!(stored.0 == bytes, "{}", stored.0.len());
        assert_eq!(stored.1, content_type);
    }
}

#[tokio::test]
async fn a_part_of_better_upload_has_the_size_that_was_signed() {
    let app = spawn_app().await;
    let answer = asked(&app, "default", &[file("a", 3, "")]).await;
    let upload = &answer["multipart"]["files"][0];
    let url = upload["parts"][0]["signedUrl"].as_str().unwrap();
    for body in ["ab", "abcd"] {
        let put = client().put(url).body(body).send().await.unwrap();
        assert_eq!(put.status(), 403);
    }
    // It is aborted, twice, and neither completed nor found then.
    let list = put_parts(upload, &json!(16 * MIB), b"abc").await;
    for _ in 0..2 {
        assert_eq!(abort(upload).await, 204);
    }
    let completed = complete(upload, list).await;
    assert_eq!(completed.status(), 404);
    assert_eq!(app.stored(key(upload)).await, None);
}

#[tokio::test]
async fn better_upload_learns_why_a_file_is_refused_in_its_own_types() {
    let app = spawn_app_with_policies(
        "[policies.default]
        content_types = ['image/*']
        max_size = '1000 B'
        [policies.single]
        multipart = false
        [policies.sum]
        require_checksum = true",
    )
    .await;
    let large = || file("a.png", 1001, "image/png");
    let text = || file("a.txt", 1, "text/plain");
    let many: Vec<Value> = (0..101).map(|n| file("a.png", n, "image/png")).collect();
    let ask = |route: &str, files: &[Value]| json!({"route": route, "files": files});
    for (body, expected) in [
        (
            ask("default", &[large()]),
            "422 file_too_large /files/0/size file-too-large",
        ),
        (
            ask("default", &[text()]),
            "422 invalid_file_type /files/0/type type-not-allowed",
        ),
        // Without a type it is of unknown bytes, which are no image.
        (
            ask("default", &[file("a", 1, "")]),
            "422 invalid_file_type /files/0/type type-not-allowed",
        ),
        (
            ask("single", &[file("a", 1, "")]),
            "400 invalid_file_type /files/0/type type-required",
        ),
        (
            ask("sum", &[text()]),
            "422 rejected /files/0/checksumSha256 checksum-required",
        ),
        (
            ask("other", &[text()]),
            "422 rejected /route unknown-policy",
        ),
        (
            ask("default", &many),
            "400 too_many_files /files too-many-files",
        ),
        (ask("default", &[]), "400 invalid_request /files length"),
        (
            ask("default", &[file("", 1, "image/png")]),
            "400 invalid_request /files/0/name empty",
        ),
        (
            ask("default", &[file("a", 1, "png")]),
            "400 invalid_request /files/0/type not-a-media-type",
        ),
        (
            json!({"files": [{}]}),
            "400 invalid_request /files/0/name required",
        ),
        (json!({}), "400 invalid_request /files required"),
    ] {
        let (problem, kind) = refused(&app, &body).await;
        let (pointer, code) = fields(&problem)[0];
        let found = format!("{} {kind} {pointer} {code}", problem["status"]);
        assert_eq!(found, expected, "{problem}");
        assert!(problem["message"].is_null());
    }
    // All reasons, and all files or none.
    let good = file("b.png", 1, "image/png");
    let (problem, _) = refused(&app, &ask("default", &[good, text(), large()])).await;
    let reasons = [
        ("/files/1/type", "type-not-allowed"),
        ("/files/2/size", "file-too-large"),
    ];
    assert_eq!(fields(&problem), reasons);
    assert_eq!(
        problem["error"]["message"],
        "files/1/type must be one of image/*; files/2/size must be at most 1000 bytes; it is 1001"
    );
}

#[tokio::test]
async fn files_that_better_upload_cannot_distinguish_are_refused() {
    let app = spawn_app().await;
    let image = || file("image.png", 5, "image/png");
    let files = [image(), file("image.png", 6, "image/png"), image()];
    let (problem, kind) = refused(&app, &json!({"route": "default", "files": files})).await;
    is(&problem, 400, "invalid-request");
    assert_eq!(kind, "invalid_request");
    assert_eq!(fields(&problem), [("/files/2", "duplicate-file")]);
}

#[tokio::test]
async fn better_upload_gets_no_put_where_forms_alone_are_granted() {
    let app = spawn_app_with_forms_only().await;
    for content_type in ["a/b", ""] {
        let body = json!({"route": "default", "files": [file("a", 1, content_type)]});
        let (problem, kind) = refused(&app, &body).await;
        is(&problem, 422, "forms-only");
        assert_eq!(kind, "rejected");
    }
}
