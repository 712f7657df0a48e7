//! Uppy 6's `signRequest`, and the calls in S3's XML that its answers lead to.

mod attacks;

use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::FIVE_MIB;
use crate::connections::{connect, rest};
use crate::helpers::{
    App, answer, client, fields, is, post, preflight, problem, spawn_app, spawn_app_with_policies,
    with_members,
};
use crate::receipts::{pem, service_with};
use crate::stand_in::StandIn;

/// A client that speaks as Uppy 6 does.
#[derive(Clone)]
pub(super) struct Uppy {
    pub(super) base: String,
    /// The key that Uppy proposes, which all its calls repeat.
    key: String,
    pub(super) id: String,
}

pub(super) async fn sign(base: &str, body: &Value) -> Response {
    post(base, "/s3/sign", body).await
}

pub(super) async fn signed(base: &str, body: &Value) -> Value {
    answer(200, sign(base, body).await).await
}

/// Sends a request as the answer says, with this type and body.
pub(super) async fn send(answer: &Value, content_type: Option<&str>, body: Vec<u8>) -> Response {
    let method = Method::from_bytes(answer["method"].as_str().unwrap().as_bytes()).unwrap();
    let mut request = client().request(method, answer["url"].as_str().unwrap());
    let headers = answer["headers"].as_object().unwrap();
    if let Some(content_type) = content_type.filter(|_| !headers.contains_key("content-type")) {
        request = request.header("content-type", content_type);
    }
    for (name, value) in headers {
        request = request.header(name, value.as_str().unwrap());
    }
    request.body(body).send().await.unwrap()
}

/// The text of an element.
pub(crate) fn element<'a>(xml: &'a str, name: &str) -> &'a str {
    let (_, rest) = xml.split_once(&format!("<{name}>")).expect(xml);
    rest.split_once(&format!("</{name}>")).expect(xml).0
}

/// The status and the code of an error in S3's XML.
pub(super) async fn refused(response: Response) -> (u16, String) {
    assert_eq!(response.headers()["content-type"], "application/xml");
    let id = response.headers()["x-request-id"].clone();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    assert!(text.contains("<Error><Code>"), "{text}");
    assert_eq!(element(&text, "RequestId"), id.to_str().unwrap());
    assert!(!element(&text, "Message").is_empty());
    (status, element(&text, "Code").to_owned())
}

pub(super) fn list_of(parts: &[(u16, &str)]) -> String {
    let parts = parts.iter().map(|(number, etag)| {
        format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>")
    });
    let parts = parts.collect::<Vec<_>>().concat();
    format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>")
}

impl Uppy {
    pub(super) async fn begin(base: &str, key: &str, content_type: &str) -> Self {
        let answer = signed(base, &json!({"method": "POST", "key": key})).await;
        Self::begin_with(base, key, &answer, content_type).await
    }

    async fn begin_with(base: &str, key: &str, answer: &Value, content_type: &str) -> Self {
        let response = send(answer, Some(content_type), Vec::new()).await;
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert_eq!(status, 200, "{text}");
        let id = element(&text, "UploadId").to_owned();
        Self {
            base: base.to_owned(),
            key: key.to_owned(),
            id,
        }
    }

    fn request(&self, method: &str) -> Value {
        json!({"method": method, "key": self.key, "uploadId": self.id})
    }

    /// What `/s3/sign` answers.
    pub(super) async fn signed(&self, method: &str) -> Value {
        signed(&self.base, &self.request(method)).await
    }

    pub(super) async fn put(&self, number: u16, body: Vec<u8>) -> String {
        let mut request = self.request("PUT");
        request["partNumber"] = json!(number);
        let answer = signed(&self.base, &request).await;
        let response = send(&answer, None, body).await;
        assert_eq!(response.status(), 200);
        let etag = response.headers()["etag"].to_str().unwrap();
        // Uppy removes the quotes.
        etag.trim_matches('"').to_owned()
    }

    pub(super) async fn complete(&self, parts: &[(u16, &str)]) -> Response {
        let answer = self.signed("POST").await;
        send(&answer, Some("application/xml"), list_of(parts).into()).await
    }
}

#[tokio::test]
async fn uppy_6_sends_a_file_in_parts() {
    let app = spawn_app().await;
    let proposed = "5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e-a b & c.mp4";
    let upload = Uppy::begin(&app.base, proposed, "video/mp4").await;
    let first = upload.put(1, vec![1; FIVE_MIB]).await;
    let list = upload.signed("GET").await;
    assert!(list["url"].as_str().unwrap().starts_with(&app.base));
    let list = send(&list, None, Vec::new()).await.text().await.unwrap();
    assert_eq!(element(&list, "PartNumber"), "1");
    assert_eq!(element(&list, "ETag"), format!("&quot;{first}&quot;"));
    assert_eq!(element(&list, "Size"), FIVE_MIB.to_string());
    assert!(
        !list.contains(&upload.id),
        "a URL to list parts does that alone"
    );
    let second = upload.put(2, vec![2; 10]).await;
    let done = upload.complete(&[(1, &first), (2, &second)]).await;
    assert_eq!(done.status(), 200);
    assert_eq!(done.headers()["content-type"], "application/xml");
    let done = done.text().await.unwrap();
    assert!(
        element(&done, "Location").ends_with("/a%20b%20%26%20c.mp4"),
        "{done}"
    );
    let key = element(&done, "Key").replace("&amp;", "&");
    assert!(key.ends_with("/a b & c.mp4"), "{key}");
    let (bytes, content_type) = app.stored(&key).await.unwrap();
    assert_eq!((bytes.len(), &*content_type), (FIVE_MIB + 10, "video/mp4"));
}

#[tokio::test]
async fn a_completion_whose_answer_has_no_receipt_does_not_verify() {
    let store = StandIn::embedded().await;
    let base = service_with(&pem(), &store.config()).await;
    let upload = Uppy::begin(&base, "a.mp4", "video/mp4").await;
    let part = upload.put(1, vec![1; 10]).await;
    store.asked();
    let done = upload.complete(&[(1, &part)]).await;
    assert_eq!(done.status(), 200);
    assert_eq!(
        store.asked(),
        2,
        "the list of the parts, and the completion"
    );
}

#[tokio::test]
async fn uppy_6_sends_a_small_file_by_a_form_and_where_there_are_none_by_a_put() {
    let app = spawn_app_with_policies(
        "[policies.default]
        allowed_metadata = ['album']
        [policies.once]
        key = 'once/{uuid}/{filename}'
        overwrite = false",
    )
    .await;
    let request = json!({"method": "PUT", "key": "x-한.jpg", "contentType": "image/jpeg", "filename": "a.jpg",
        "metadata": {"album": 7, "other": "x"}, "expiresIn": 5});
    let form = signed(&app.base, &request).await;
    assert_eq!(form["method"], "POST");
    assert_eq!(form["key"], form["fields"]["key"]);
    assert!(form["key"].as_str().unwrap().ends_with("/a.jpg"));
    assert_eq!(form["fields"]["x-amz-meta-album"], "7");
    assert!(form["fields"].get("x-amz-meta-other").is_none());
    let mut request = request;
    request["policy"] = json!("once");
    request["size"] = json!(3);
    request.as_object_mut().unwrap().remove("filename");
    let put = signed(&app.base, &request).await;
    // Uppy would take any `fields` for a form.
    assert_eq!(
        (put["method"].as_str(), put.get("fields")),
        (Some("PUT"), None)
    );
    assert_eq!(put["expires"], 600);
    assert_eq!(
        send(&put, Some("image/jpeg"), b"abcd".into())
            .await
            .status(),
        403
    );
    assert_eq!(
        send(&put, Some("image/jpeg"), b"abc".into()).await.status(),
        200
    );
    let stored = app.stored(put["key"].as_str().unwrap()).await.unwrap();
    assert_eq!(stored, (b"abc".to_vec(), "image/jpeg".to_owned()));
    assert!(put["key"].as_str().unwrap().ends_with("/x-한.jpg"));
}

#[tokio::test]
async fn the_policy_holds_for_what_uppy_6_sends_in_parts() {
    let app = spawn_app_with_policies(
        "[policies.default]
        content_types = ['video/*']
        max_size = '1000 B'
        [policies.single]
        multipart = false",
    )
    .await;
    // Without a type in the request the next one has it, and is refused.
    let answer = signed(&app.base, &json!({"method": "POST", "key": "a.png"})).await;
    let image = send(&answer, Some("image/png"), Vec::new()).await;
    assert_eq!(refused(image).await, (422, "TypeNotAllowed".to_owned()));
    // With one, no other counts.
    let request = json!({"method": "POST", "key": "a.mp4", "contentType": "video/mp4"});
    let answer = signed(&app.base, &request).await;
    let upload = Uppy::begin_with(&app.base, "a.mp4", &answer, "image/png").await;
    let etag = upload.put(1, vec![1; 1001]).await;
    let too_large = upload.complete(&[(1, &etag)]).await;
    assert_eq!(refused(too_large).await, (422, "FileTooLarge".to_owned()));
    // It was aborted.
    let gone = upload.complete(&[(1, &etag)]).await;
    assert_eq!(refused(gone).await, (404, "NoSuchUpload".to_owned()));
    for (change, pointer, code) in [
        (
            json!({"contentType": "image/png"}),
            "/contentType",
            "type-not-allowed",
        ),
        (json!({"size": 1001}), "/size", "file-too-large"),
        (
            json!({"policy": "single"}),
            "/policy",
            "multipart-not-allowed",
        ),
        (json!({"policy": "other"}), "/policy", "unknown-policy"),
    ] {
        let request = with_members(json!({"method": "POST", "key": "a.mp4"}), &change);
        let problem = problem(sign(&app.base, &request).await).await;
        is(&problem, 422, code);
        assert_eq!(fields(&problem), [(pointer, code)]);
        assert_eq!(problem["message"], problem["detail"]);
    }
    let stored = Uppy::begin(&app.base, "a.mp4", "video/mp4").await;
    let etag = stored.put(1, vec![1; 1000]).await;
    assert_eq!(stored.complete(&[(1, &etag)]).await.status(), 200);
}

#[tokio::test]
async fn a_request_that_uppy_never_sends_is_refused() {
    let app = spawn_app().await;
    for (body, field, code) in [
        (json!({"key": "a"}), "/method", "required"),
        (json!({"method": "PUT"}), "/key", "required"),
        (
            json!({"method": "HEAD", "key": "a"}),
            "/method",
            "unknown-method",
        ),
        (
            json!({"method": "GET", "key": "a"}),
            "/uploadId",
            "upload-id-required",
        ),
        (
            json!({"method": "DELETE", "key": "a"}),
            "/uploadId",
            "upload-id-required",
        ),
        (
            json!({"method": "PUT", "key": "a", "uploadId": "x"}),
            "/partNumber",
            "part-number-required",
        ),
        (
            json!({"method": "PUT", "key": "a", "uploadId": "x", "partNumber": 0}),
            "/partNumber",
            "out-of-range",
        ),
        (
            json!({"method": "PUT", "key": "a", "uploadId": "x", "partNumber": 10001}),
            "/partNumber",
            "out-of-range",
        ),
        (
            json!({"method": "PUT", "key": "a", "partNumber": 0}),
            "/partNumber",
            "out-of-range",
        ),
        (json!({"method": "PUT", "key": "a/"}), "/filename", "empty"),
        (
            json!({"method": "PUT", "key": "a", "contentType": "b"}),
            "/contentType",
            "invalid",
        ),
    ] {
        let problem = problem(sign(&app.base, &body).await).await;
        assert_eq!(problem["status"], 400, "{problem}");
        assert_eq!(fields(&problem)[0].0, field, "{problem}");
        assert!(
            code == "invalid" || fields(&problem)[0].1 == code,
            "{problem}"
        );
    }
    let unknown = json!({"method": "GET", "key": "a", "uploadId": "x"});
    is(
        &problem(sign(&app.base, &unknown).await).await,
        404,
        "no-such-upload",
    );
}

#[tokio::test]
async fn a_refusal_has_its_reason_beside_the_status() {
    let app = spawn_app_with_policies("[policies.default]\ncontent_types = ['image/*']").await;
    let host = app.base.strip_prefix("http://").unwrap();
    for (path, reason) in [
        (
            "s3/params?filename=a&type=a/b",
            "422 type must be one of image/*",
        ),
        (
            "s3/params?filename=%E2%80%AE&type=a/b",
            "400 filename must not contain ",
        ),
        ("nowhere", "404 Not Found"),
    ] {
        let head = format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let answer = rest(connect(host, &head).await).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {reason}")),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn pages_of_other_origins_may_make_the_sealed_calls() {
    use presignd::http::{AllowedOrigins, Settings};
    let http_settings = Settings {
        allowed_origins: AllowedOrigins::Any,
        public_url: Some("https://uploads.example.com/base/".to_owned()),
        ..Settings::default()
    };
    let settings = crate::helpers::built_in();
    let app: App = crate::helpers::spawn_app_with_both(settings, &http_settings).await;
    let answer = signed(&app.base, &json!({"method": "POST", "key": "a"})).await;
    let url = answer["url"].as_str().unwrap();
    let path = url
        .strip_prefix("https://uploads.example.com/base")
        .unwrap();
    let url = format!("{}{path}", app.base);
    for method in ["GET", "POST", "DELETE"] {
        let answer = preflight(&url, "https://app.example", method, "content-type").await;
        let headers = answer.headers();
        let allowed = headers["access-control-allow-methods"].to_str().unwrap();
        assert!(allowed.contains(method), "{allowed}");
        assert_eq!(headers["access-control-allow-headers"], "content-type");
    }
    let begun = client().post(url).header("origin", "https://app.example");
    let begun = begun.send().await.unwrap();
    assert_eq!(begun.headers()["access-control-allow-origin"], "*");
}
