//! Uppy's protocol: the answers that its plugin expects, and uploads that only their creators continue.

mod first_urls;
mod in_path;
mod own_address;
pub(crate) mod sign;
mod single;
mod stand_ins;
mod upload;
mod verified;

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use self::upload::create;
pub(crate) use self::upload::{Upload, create_at, create_by, create_in, video};
use crate::helpers::{client, fields, is, problem, spawn_app, spawn_app_with_policies};
use crate::presigned_post;
use crate::stand_in::service_on;

const ANYTHING: &str = "[policies.default]";
pub(crate) const FIVE_MIB: usize = 5 * 1024 * 1024;

#[tokio::test]
async fn params_give_a_form_that_the_store_takes() {
    let app = spawn_app().await;
    let query = "filename=%ED%95%9C%20a.jpg&type=image%2Fjpeg&metadata%5Bname%5D=%ED%95%9C&metadata%5Brelative Path%5D=null&x=y";
    let response = app.get(&format!("/s3/params?{query}")).await;
    assert_eq!(response.status(), 200);
    let answer: Value = response.json().await.unwrap();
    let names: Vec<&String> = answer.as_object().unwrap().keys().collect();
    assert_eq!(
        names,
        ["expires", "fields", "headers", "key", "method", "url"]
    );
    assert_eq!(answer["method"], "POST");
    assert_eq!(answer["headers"], json!({}));
    assert_eq!(answer["key"], answer["fields"]["key"]);
    assert_eq!(answer["expires"], 600);
    let fields: BTreeMap<String, String> =
        serde_json::from_value(answer["fields"].clone()).unwrap();
    assert_eq!(fields["success_action_status"], "201");
    assert_eq!(fields["content-type"], "image/jpeg");
    assert_eq!(fields["x-amz-meta-name"], "한");
    assert!(
        !fields.keys().any(|name| name.contains("relative")),
        "not a name for metadata"
    );
    // Uppy 6 refuses answers with these.
    for refused in ["file", "redirect", "success_action_redirect"] {
        assert!(!fields.contains_key(refused));
    }
    let url = answer["url"].as_str().unwrap();
    let response = presigned_post::send(&app.client, url, &fields, "the bytes").await;
    assert_eq!(response.status(), 201);
    assert!(fields["key"].ends_with("/한 a.jpg"));
    let stored = app.stored(&fields["key"]).await.unwrap();
    assert_eq!(stored, (b"the bytes".to_vec(), "image/jpeg".to_owned()));
}

/// Otherwise a file would count as complete without its end.
#[tokio::test]
async fn an_upload_is_not_completed_without_the_bytes_that_were_announced() {
    let app = spawn_app().await;
    let file = json!({"filename": "a.bin", "type": "a/b", "size": FIVE_MIB + 1000});
    let upload = create_at(&app.base, file).await;
    let first = upload.put(1, vec![1; FIVE_MIB]).await;
    let second = upload.put(2, vec![2; 1000]).await;
    let first = json!({"PartNumber": 1, "ETag": first});
    let second = json!({"PartNumber": 2, "ETag": second});
    let problem = problem(upload.complete(json!([first])).await).await;
    assert_eq!(problem["code"], "invalid-parts");
    assert_eq!(fields(&problem), [("/size", "invalid-parts")]);
    let complete = upload.complete(json!([first, second])).await;
    assert_eq!(complete.status(), 200);
}

/// These fields work in other requests. Here they would be ignored, as Uppy's own ones are.
#[tokio::test]
async fn a_field_of_other_requests_is_refused_and_not_ignored() {
    let app = spawn_app().await;
    for field in [
        "contentType",
        "checksumSha256",
        "checksumCrc64nvme",
        "contentMd5",
    ] {
        let file = json!({"filename": "a", "type": "a/b", "uppys": "own", field: "image/png"});
        let refused = problem(app.post("/s3/multipart", &file).await).await;
        let pointer = format!("/{field}");
        assert_eq!(fields(&refused), [(&*pointer, "unknown-field")]);
        let absent = json!({"filename": "a", "type": "a/b", field: null});
        let created = app.post("/s3/multipart", &absent).await;
        assert_eq!(created.status(), 200, "{field}: null");
        let query = format!("/s3/params?filename=a&uppys=own&{field}=image/png");
        let refused = problem(app.get(&query).await).await;
        assert_eq!(fields(&refused), [(&*pointer, "unknown-field")]);
        if field != "contentType" {
            let file = json!({"method": "PUT", "key": "a", "uppys": "own", field: "x"});
            let refused = problem(app.post("/s3/sign", &file).await).await;
            assert_eq!(fields(&refused), [(&*pointer, "unknown-field")]);
        }
        let file = json!({"name": "a", "size": 1, "type": "a/b", "own": true, field: "x"});
        let refused = app.post("/better-upload", &json!({"files": [file]})).await;
        let pointer = format!("/files/0/{field}");
        let refused = problem(refused).await;
        assert_eq!(fields(&refused), [(&*pointer, "unknown-field")]);
    }
}

#[tokio::test]
async fn params_without_a_type_are_for_bytes_and_without_a_name_refused() {
    let app = spawn_app().await;
    let get = async |query: &str| app.get(&format!("/s3/params?{query}")).await;
    for query in ["filename=a", "filename=a&type="] {
        let answer: Value = get(query).await.json().await.unwrap();
        assert_eq!(answer["fields"]["content-type"], "application/octet-stream");
    }
    for (query, field) in [
        ("", "/filename"),
        ("filename=", "/filename"),
        ("filename=a&type=b", "/type"),
    ] {
        let problem = problem(get(query).await).await;
        assert_eq!(problem["status"], 400, "{query}");
        assert_eq!(fields(&problem)[0].0, field, "{query}");
        // Uppy shows these to its user.
        assert_eq!(problem["error"], problem["detail"]);
        assert_eq!(problem["message"], problem["detail"]);
    }
}

#[tokio::test]
async fn a_file_that_is_sent_in_parts_arrives_whole() {
    let app = spawn_app().await;
    let upload = video(&app).await;
    assert!(upload.key.ends_with("/a b.mp4"));
    let second = upload.put(2, vec![2; 1000]).await;
    let first = upload.put(1, vec![1; FIVE_MIB]).await;
    let expected = json!([
        {"PartNumber": 1, "ETag": first, "Size": FIVE_MIB},
        {"PartNumber": 2, "ETag": second, "Size": 1000},
    ]);
    assert_eq!(upload.list().await, expected);
    // In another order, and without quotes, as some clients send them.
    let parts = json!([
        {"PartNumber": 2, "ETag": second.trim_matches('"')},
        {"PartNumber": 1, "ETag": first},
    ]);
    let answer: Value = upload.complete(parts).await.json().await.unwrap();
    let names: Vec<&String> = answer.as_object().unwrap().keys().collect();
    assert_eq!(names, ["bucket", "key", "location"]);
    assert_eq!(answer["key"], upload.key);
    assert!(
        answer["location"].as_str().unwrap().ends_with("/a%20b.mp4"),
        "{answer}"
    );
    let (bytes, content_type) = app.stored(&upload.key).await.unwrap();
    assert_eq!(content_type, "video/mp4");
    assert_eq!(bytes.len(), FIVE_MIB + 1000);
    assert!(bytes[..FIVE_MIB].iter().all(|&b| b == 1) && bytes[FIVE_MIB..].iter().all(|&b| b == 2));
    let gone = problem(upload.call(Method::GET, "", &[], None).await).await;
    assert_eq!(gone["code"], "no-such-upload");
}

#[tokio::test]
async fn older_clients_get_urls_for_several_parts_at_once() {
    let app = spawn_app().await;
    let upload = video(&app).await;
    let answer = upload
        .json(Method::GET, "batch", &[("partNumbers", "1,2,10000")], None)
        .await;
    let urls = answer["presignedUrls"].as_object().unwrap();
    assert_eq!(urls.keys().collect::<Vec<_>>(), ["1", "10000", "2"]);
    let url = urls["1"].as_str().unwrap();
    let response = client().put(url).body("x").send().await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn one_request_signs_at_most_200_parts() {
    let app = spawn_app().await;
    let upload = video(&app).await;
    let numbers = |count: u32| {
        let numbers: Vec<String> = (1..=count).map(|n| n.to_string()).collect();
        numbers.join(",")
    };
    let (most, too_many) = (numbers(200), numbers(201));
    let answer = upload
        .json(Method::GET, "batch", &[("partNumbers", &most)], None)
        .await;
    assert_eq!(answer["presignedUrls"].as_object().unwrap().len(), 200);
    let query = [("partNumbers", too_many.as_str())];
    let problem = problem(upload.call(Method::GET, "batch", &query, None).await).await;
    assert_eq!(fields(&problem), [("/partNumbers", "length")]);
}

#[tokio::test]
async fn part_numbers_are_1_to_10000() {
    let app = spawn_app().await;
    let upload = video(&app).await;
    for number in ["0", "10001", "-1", "1.5", "x", "99999999999"] {
        let response = upload.call(Method::GET, number, &[], None).await;
        let problem = problem(response).await;
        assert_eq!(problem["status"], 400, "{number}");
        assert_eq!(fields(&problem), [("/partNumber", "out-of-range")]);
    }
    for numbers in ["", "1,", "1,0", "a"] {
        let query = [("partNumbers", numbers)];
        let problem = problem(upload.call(Method::GET, "batch", &query, None).await).await;
        assert_eq!(problem["status"], 400, "{numbers}");
        assert_eq!(fields(&problem), [("/partNumbers", "out-of-range")]);
    }
    for (parts, pointer, code) in [
        (json!([]), "/parts", "length"),
        (
            json!([{"PartNumber": 0, "ETag": "x"}]),
            "/parts/0/PartNumber",
            "out-of-range",
        ),
        (json!([{"PartNumber": 1}]), "/parts/0/ETag", "required"),
        (
            json!([{"PartNumber": "1", "ETag": "x"}]),
            "/parts/0/PartNumber",
            "wrong-type",
        ),
        (
            json!([{"PartNumber": 1, "ETag": "x"}, {"PartNumber": 1, "ETag": "y"}]),
            "/parts/1/PartNumber",
            "duplicate-part",
        ),
        (json!(null), "/parts", "wrong-type"),
    ] {
        let problem = problem(upload.complete(parts.clone()).await).await;
        assert_eq!(problem["status"], 400, "{parts}");
        assert_eq!(fields(&problem), [(pointer, code)], "{parts}");
    }
}

#[tokio::test]
async fn an_aborted_upload_leaves_nothing_behind() {
    let app = spawn_app().await;
    let upload = video(&app).await;
    upload.put(1, vec![1; 1000]).await;
    assert_eq!(upload.json(Method::DELETE, "", &[], None).await, json!({}));
    assert_eq!(app.unfinished(), [""; 0]);
    assert_eq!(app.stored(&upload.key).await, None);
    // Once more is no error.
    assert_eq!(upload.json(Method::DELETE, "", &[], None).await, json!({}));
}

#[tokio::test]
async fn parts_that_the_store_does_not_have_complete_nothing() {
    let app = spawn_app().await;
    let upload = video(&app).await;
    let etag = upload.put(1, vec![1; 1000]).await;
    for parts in [
        json!([{"PartNumber": 1, "ETag": "\"d41d8cd98f00b204e9800998ecf8427e\""}]),
        json!([{"PartNumber": 1, "ETag": etag}, {"PartNumber": 2, "ETag": etag}]),
    ] {
        let problem = problem(upload.complete(parts).await).await;
        is(&problem, 400, "invalid-parts");
    }
    assert_eq!(app.stored(&upload.key).await, None);
    let answer = upload
        .complete(json!([{"PartNumber": 1, "ETag": etag}]))
        .await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_file_over_the_limit_is_aborted_before_it_is_an_object() {
    let app = spawn_app_with_policies("[policies.default]\nmax_size = '1000 B'").await;
    let upload = video(&app).await;
    let etag = upload.put(1, vec![1; 1001]).await;
    let parts = json!([{"PartNumber": 1, "ETag": etag}]);
    let too_large = problem(upload.complete(parts.clone()).await).await;
    assert_eq!(too_large["status"], 422);
    assert_eq!(fields(&too_large), [("/size", "file-too-large")]);
    assert_eq!(
        too_large["message"],
        "size must be at most 1000 bytes; it is 1001"
    );
    assert_eq!(app.stored(&upload.key).await, None);
    let gone = problem(upload.complete(parts).await).await;
    assert_eq!(gone["code"], "no-such-upload");
    // A client that announces the size is refused immediately.
    let body = json!({"filename": "a", "type": "a/b", "size": 1001});
    let early = problem(app.post("/s3/multipart", &body).await).await;
    assert_eq!(fields(&early), [("/size", "file-too-large")]);
    // One byte less is accepted.
    let accepted = video(&app).await.send(vec![1; 1000]).await;
    assert_eq!(accepted.status(), 200);
}

#[tokio::test]
async fn the_rest_of_the_policy_holds_for_parts_too() {
    let app = spawn_app_with_policies(
        "[policies.default]
        content_types = ['text/*']
        cache_control = 'no-cache'
        metadata = { source = 'web' }
        allowed_metadata = ['album']
        [policies.once]
        key = 'fixed/{filename}'
        overwrite = false
        [policies.sum]
        require_checksum = true",
    )
    .await;
    let ask = async |body: Value| app.post("/s3/multipart", &body).await;
    let refused = problem(ask(json!({"filename": "a", "type": "image/png"})).await).await;
    assert_eq!(fields(&refused), [("/type", "type-not-allowed")]);
    assert_eq!(refused["detail"], "type must be one of text/*");
    let form = app.get("/s3/params?filename=a&type=image/png").await;
    let refused = problem(form).await;
    assert_eq!(fields(&refused), [("/type", "type-not-allowed")]);
    let refused =
        problem(ask(json!({"filename": "a", "type": "text/plain", "policy": "sum"})).await).await;
    assert_eq!(
        fields(&refused),
        [("/checksumSha256", "multipart-not-supported")]
    );

    let metadata = json!({"album": ["앨범", null, 7], "name": "not allowed", "source": "mine", "x": null, "n": 7});
    let upload = create(
        &app,
        json!({"filename": "a.html", "type": "text/html", "metadata": metadata}),
    )
    .await;
    assert_eq!(upload.send(b"<p>".to_vec()).await.status(), 200);
    let head = app.head(&upload.key).await;
    assert_eq!(head.cache_control.unwrap(), "no-cache");
    assert_eq!(
        head.content_disposition.unwrap(),
        "attachment; filename*=UTF-8''a.html"
    );
    let stored = head.metadata.unwrap();
    // "앨범,,7"
    assert_eq!(stored["album"], "=?UTF-8?B?7JWo67KULCw3?=");
    assert_eq!(stored["source"], "web");
    assert_eq!(stored.len(), 2);

    let body = json!({"filename": "a.txt", "type": "text/plain", "policy": "once"});
    for status in [200, 409] {
        let upload = create(&app, body.clone()).await;
        assert_eq!(upload.send(b"x".to_vec()).await.status(), status);
    }
}

#[tokio::test]
async fn a_file_without_a_type_is_one_of_unknown_bytes() {
    let app = spawn_app().await;
    let upload = create(&app, json!({"filename": "a", "type": ""})).await;
    assert_eq!(upload.send(b"x".to_vec()).await.status(), 200);
    let (_, content_type) = app.stored(&upload.key).await.unwrap();
    assert_eq!(content_type, "application/octet-stream");
}

#[tokio::test]
async fn a_session_is_valid_for_as_long_as_its_policy_exists() {
    let app = spawn_app_with_policies("[policies.old]").await;
    let body = json!({"filename": "a", "type": "a/b", "policy": "old"});
    let mut upload = create(&app, body).await;
    upload.base = service_on(&app.config, "[policies.new]").await;
    let problem = problem(upload.call(Method::GET, "1", &[], None).await).await;
    assert_eq!(problem["code"], "no-such-upload");
}
