//! Uppy's protocol: the answers that its plugin expects, and uploads that belong to those who began
//! them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use axum::extract::Request;
use axum::http::HeaderName;
use presignd::dev::BUCKET;
use presignd::upload::{Caller, SessionKey, Settings};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::helpers::{
    App, built_in, client, fields, file, problem, spawn_app, spawn_app_with,
    spawn_app_with_policies,
};
use crate::presigned_post;
use crate::stand_in::{StandIn, error, service_on, xml};

pub(crate) const FIVE_MIB: usize = 5 * 1024 * 1024;

/// An upload in parts, as a client of `base` sees it.
#[derive(Clone)]
pub(crate) struct Upload {
    base: String,
    pub(crate) key: String,
    pub(crate) id: String,
}

async fn create(app: &App, body: Value) -> Upload {
    create_at(&app.base, body).await
}

pub(crate) async fn create_at(base: &str, body: Value) -> Upload {
    let request = client().post(format!("{base}/s3/multipart")).json(&body);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut answer: BTreeMap<String, String> = response.json().await.unwrap();
    assert_eq!(answer.remove("bucket").unwrap(), BUCKET);
    let key = answer.remove("key").unwrap();
    let id = answer.remove("uploadId").unwrap();
    assert!(answer.is_empty());
    Upload {
        base: base.to_owned(),
        key,
        id,
    }
}

pub(crate) async fn video(app: &App) -> Upload {
    create(app, json!({"filename": "a b.mp4", "type": "video/mp4"})).await
}

impl Upload {
    /// The same upload, at another service.
    pub(crate) fn at(&self, base: &str) -> Self {
        Self {
            base: base.to_owned(),
            ..self.clone()
        }
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Value>,
    ) -> Response {
        let mut url = reqwest::Url::parse(&self.base).unwrap();
        url.path_segments_mut()
            .unwrap()
            .extend(["s3", "multipart", &self.id])
            .extend(path.split('/').filter(|segment| !segment.is_empty()));
        url.query_pairs_mut()
            .append_pair("key", &self.key)
            .extend_pairs(query);
        let mut request = client().request(method, url);
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.send().await.unwrap()
    }

    async fn json(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Value>,
    ) -> Value {
        let response = self.call(method, path, query, body).await;
        let status = response.status();
        let text = response.text().await.unwrap();
        assert_eq!(status, StatusCode::OK, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) async fn list(&self) -> Value {
        self.json(Method::GET, "", &[], None).await
    }

    /// Sends a part and gives the entity tag.
    pub(crate) async fn put(&self, number: u16, body: Vec<u8>) -> String {
        let answer = self.json(Method::GET, &number.to_string(), &[], None).await;
        assert_eq!(answer["expires"], 600);
        assert_eq!(answer.as_object().unwrap().len(), 2);
        let url = answer["url"].as_str().unwrap();
        let response = client().put(url).body(body).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.headers()["etag"].to_str().unwrap().to_owned()
    }

    /// Sends all of the file as one part and completes the upload.
    async fn send(&self, body: Vec<u8>) -> Response {
        let etag = self.put(1, body).await;
        self.complete(json!([{"PartNumber": 1, "ETag": etag}]))
            .await
    }

    pub(crate) async fn complete(&self, parts: Value) -> Response {
        let body = json!({ "parts": parts });
        self.call(Method::POST, "complete", &[], Some(body)).await
    }
}

#[tokio::test]
async fn params_give_a_form_that_the_store_takes() {
    let app = spawn_app().await;
    let query = "filename=%ED%95%9C%20a.jpg&type=image%2Fjpeg&metadata%5Bname%5D=%ED%95%9C&metadata%5Brelative Path%5D=null&x=y";
    let response = app.get(&format!("/s3/params?{query}")).await;
    assert_eq!(response.status(), StatusCode::OK);
    let answer: Value = response.json().await.unwrap();
    let names: Vec<&String> = answer.as_object().unwrap().keys().collect();
    assert_eq!(names, ["expires", "fields", "method", "url"]);
    assert_eq!(answer["method"], "POST");
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
    let response = presigned_post::send(&app, url, &fields, "the bytes").await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert!(fields["key"].ends_with("/한 a.jpg"));
    let stored = app.stored(&fields["key"]).await.unwrap();
    assert_eq!(stored, (b"the bytes".to_vec(), "image/jpeg".to_owned()));
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
async fn a_file_goes_up_in_parts_and_is_whole() {
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
    assert_eq!(response.status(), StatusCode::OK);
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
    let left: Vec<_> = std::fs::read_dir(app.data())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(".upload"))
        .collect();
    assert_eq!(left, Vec::<String>::new());
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
        assert_eq!(problem["status"], 400);
        assert_eq!(problem["code"], "invalid-parts");
    }
    assert_eq!(app.stored(&upload.key).await, None);
    let answer = upload
        .complete(json!([{"PartNumber": 1, "ETag": etag}]))
        .await;
    assert_eq!(answer.status(), StatusCode::OK);
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
    // Who says it beforehand is told at once.
    let body = json!({"filename": "a", "type": "a/b", "size": 1001});
    let early = problem(app.post("/s3/multipart", &body).await).await;
    assert_eq!(fields(&early), [("/size", "file-too-large")]);
    // One byte less is accepted.
    let accepted = video(&app).await.send(vec![1; 1000]).await;
    assert_eq!(accepted.status(), StatusCode::OK);
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
    assert_eq!(upload.send(b"<p>".to_vec()).await.status(), StatusCode::OK);
    let head = app.store.head_object().bucket(BUCKET).key(&upload.key);
    let head = head.send().await.unwrap();
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
    for status in [StatusCode::OK, StatusCode::CONFLICT] {
        let upload = create(&app, body.clone()).await;
        assert_eq!(upload.send(b"x".to_vec()).await.status(), status);
    }
}

#[tokio::test]
async fn names_are_kept_as_companion_keeps_them() {
    let app = spawn_app().await;
    let name = "가".repeat(200) + ".mp4";
    let upload = create(&app, json!({"filename": name, "type": ""})).await;
    assert!(upload.key.ends_with("가.mp4"), "{}", upload.key);
    assert_eq!(upload.send(b"x".to_vec()).await.status(), StatusCode::OK);
    let (_, content_type) = app.stored(&upload.key).await.unwrap();
    assert_eq!(content_type, "application/octet-stream");
}

#[tokio::test]
async fn bucket_wide_credentials_are_not_handed_out() {
    let app = spawn_app().await;
    assert_eq!(app.get("/s3/sts").await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn any_replica_with_the_secret_goes_on_with_an_upload() {
    let app = spawn_app().await;
    let mut upload = video(&app).await;
    let first = upload.put(1, vec![1; FIVE_MIB]).await;
    upload.base = service_on(&app.config, ANYTHING).await;
    let second = upload.put(2, vec![2; 10]).await;
    let parts = json!([{"PartNumber": 1, "ETag": first}, {"PartNumber": 2, "ETag": second}]);
    assert_eq!(upload.complete(parts).await.status(), StatusCode::OK);
    assert_eq!(
        app.stored(&upload.key).await.unwrap().0.len(),
        FIVE_MIB + 10
    );
}

/// An upload whose token any service with the same secret accepts, at a service on `store`.
async fn upload_on(store: &StandIn) -> Upload {
    let app = spawn_app().await;
    video(&app).await.at(&store.service(ANYTHING).await)
}

const ANYTHING: &str = "[policies.default]";
const CREATED: &str =
    "<InitiateMultipartUploadResult><UploadId>x</UploadId></InitiateMultipartUploadResult>";

#[tokio::test]
async fn an_invalid_expired_or_foreign_token_is_refused_without_asking_the_store() {
    let store = StandIn::with_status(200).await;
    let good = upload_on(&store).await;
    let foreign = {
        let settings = Settings {
            session_key: SessionKey::new(&[8; 32]),
            ..built_in()
        };
        let app = spawn_app_with(settings).await;
        video(&app).await
    };
    let expired = {
        let app = spawn_app().await;
        let long_ago = SystemTime::now() - Duration::from_hours(8 * 24);
        let (caller, file) = (Caller::anonymous(), file("a.mp4", "video/mp4"));
        let upload = app
            .uploads
            .create_multipart(&caller, &file, Uuid::new_v4(), long_ago);
        let upload = upload.await.unwrap();
        (upload.key, upload.token)
    };
    let other_key = good.key.replace("a b.mp4", "c.mp4");
    let invalid = format!("{}A{}", &good.id[..40], &good.id[41..]);
    for (id, key) in [
        (&good.id, &other_key),
        (&invalid, &good.key),
        (&good.id[..good.id.len() - 3].to_owned(), &good.key),
        (&foreign.id, &foreign.key),
        (&expired.1, &expired.0),
        (&"x".to_owned(), &good.key),
        (&"../../etc".to_owned(), &good.key),
    ] {
        let upload = Upload {
            key: key.clone(),
            id: id.clone(),
            ..good.clone()
        };
        let parts = json!({"parts": [{"PartNumber": 1, "ETag": "x"}]});
        for (method, path, query, body) in [
            (Method::GET, "", vec![], None),
            (Method::GET, "1", vec![], None),
            (Method::GET, "batch", vec![("partNumbers", "1")], None),
            (Method::POST, "complete", vec![], Some(parts.clone())),
            (Method::DELETE, "", vec![], None),
        ] {
            let response = upload.call(method.clone(), path, &query, body).await;
            let problem = problem(response).await;
            assert_eq!(problem["status"], 404, "{method} {path} {id}");
            assert_eq!(problem["code"], "no-such-upload");
        }
    }
    assert_eq!(store.asked(), 0);
    let without_key = client().get(format!("{}/s3/multipart/{}", good.base, good.id));
    let problem = problem(without_key.send().await.unwrap()).await;
    assert_eq!(fields(&problem), [("/key", "required")]);
}

#[tokio::test]
async fn an_error_of_the_store_is_reported_in_bounded_time_and_without_its_cause() {
    for (status, code, expected, ours) in [
        (404, "NoSuchUpload", 404, "no-such-upload"),
        // Ceph's answer about an upload that was completed or aborted.
        (404, "NoSuchKey", 404, "no-such-upload"),
        (403, "AccessDenied", 502, "storage-error"),
        (500, "InternalError", 502, "storage-error"),
        (503, "SlowDown", 503, "storage-unavailable"),
        (404, "NoSuchBucket", 502, "storage-error"),
    ] {
        let store = StandIn::answering(move |_| async move { error(status, code) }).await;
        let upload = upload_on(&store).await;
        let begin = Instant::now();
        let parts = json!([{"PartNumber": 1, "ETag": "\"a\""}]);
        let list = upload.call(Method::GET, "", &[], None).await;
        for answer in [list, upload.complete(parts).await] {
            let problem = problem(answer).await;
            let found = (&problem["status"], &problem["code"]);
            assert_eq!(found, (&json!(expected), &json!(ours)), "{code}");
            assert!(problem["message"].is_string());
            assert!(!problem.to_string().contains("secret cause"));
        }
        let abort = upload.call(Method::DELETE, "", &[], None).await;
        // An upload that is gone needs no abort.
        assert_eq!(
            abort.status().as_u16(),
            if expected == 404 { 200 } else { expected }
        );
        // Creating is repeated only if the store says that it did nothing: it might exist twice.
        store.asked();
        let body = json!({"filename": "a", "type": "a/b"});
        let create = client().post(format!("{}/s3/multipart", upload.base));
        let create = create.json(&body).send().await.unwrap();
        assert_eq!(create.status().as_u16(), expected, "{code}");
        assert_eq!(store.asked() > 1, code == "SlowDown", "{code}");
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "{:?}",
            begin.elapsed()
        );
    }
}

#[tokio::test]
async fn no_checksum_is_asked_of_parts_that_browsers_do_not_send() {
    // S3 refuses to complete an upload that was begun with one.
    let store = StandIn::answering(async |request: Request| {
        let mut names = request.headers().keys().map(HeaderName::as_str);
        let asks = names.any(|name| name.contains("checksum"));
        if asks || request.uri().to_string().contains("checksum") {
            return error(400, "InvalidRequest");
        }
        xml(CREATED)
    });
    let base = store.await.service(ANYTHING).await;
    let upload = create_at(&base, json!({"filename": "a", "type": "a/b"})).await;
    let answer = upload.json(Method::GET, "1", &[], None).await;
    let url = answer["url"].as_str().unwrap();
    assert!(!url.to_lowercase().contains("checksum"), "{url}");
    assert!(url.contains("X-Amz-SignedHeaders=host&"), "{url}");
}

#[tokio::test]
async fn a_store_that_is_busy_for_a_moment_costs_no_upload() {
    let calls = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&calls);
    let store = StandIn::answering(move |_| {
        let is_first = counter.fetch_add(1, Ordering::SeqCst) == 0;
        std::future::ready(if is_first {
            error(503, "SlowDown")
        } else {
            xml(CREATED)
        })
    });
    let base = store.await.service(ANYTHING).await;
    create_at(&base, json!({"filename": "a", "type": "a/b"})).await;
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn ten_thousand_parts_are_completed_in_one_call() {
    // The stand-in lists its parts in pages of a thousand, as S3 does.
    let store = StandIn::answering(async |request: Request| {
        let query = request.uri().query().unwrap_or_default().to_owned();
        if request.method() == Method::POST {
            let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
            let body = String::from_utf8(body.to_vec()).unwrap();
            assert_eq!(body.matches("<PartNumber>").count(), 10_000);
            let done = "<CompleteMultipartUploadResult><Location>http://there</Location></CompleteMultipartUploadResult>";
            return xml(done);
        }
        let after: u32 = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("part-number-marker="))
            .map_or(0, |n| n.parse().unwrap());
        let mut list = format!(
            "<ListPartsResult><IsTruncated>{}</IsTruncated><NextPartNumberMarker>{}</NextPartNumberMarker>",
            after < 9000,
            after + 1000
        );
        for n in after + 1..=after + 1000 {
            write!(list, "<Part><PartNumber>{n}</PartNumber><ETag>\"{n}\"</ETag><Size>5</Size></Part>").unwrap();
        }
        xml(&(list + "</ListPartsResult>"))
    })
    .await;
    let upload = upload_on(&store).await;
    assert_eq!(upload.list().await.as_array().unwrap().len(), 10_000);
    let parts: Vec<Value> = (1..=10_000)
        .map(|n| json!({"PartNumber": n, "ETag": format!("\"{n}\"")}))
        .collect();
    let response = upload.complete(json!(parts)).await;
    assert_eq!(response.status(), StatusCode::OK);
    let answer: Value = response.json().await.unwrap();
    // Its address for clients, whatever the store calls it.
    let address = format!("{}/{BUCKET}/{}", store.url(), upload.key);
    assert_eq!(answer["location"], address.replace(' ', "%20"));
    let over: Vec<Value> = (1..=10_001)
        .map(|n| json!({"PartNumber": n, "ETag": "x"}))
        .collect();
    let problem = problem(upload.complete(json!(over)).await).await;
    assert_eq!(fields(&problem), [("/parts", "length")]);
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
