//! A presigned form does one thing, and the store enforces that.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use base64::prelude::{BASE64_STANDARD, Engine};
use reqwest::multipart::{Form, Part};
use reqwest::{Client, Method, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::helpers::{
    App, Grant, built_in, fields, file, is, presign_post, presign_put, problem, service, spawn_app,
    spawn_app_with_forms_only, spawn_app_with_policies, spawn_app_without_forms, with_members,
};
use crate::policies::sha256;
use crate::stand_in::service_on;
use crate::uppy::create_at;

const POST: &str = "/upload/presigned-post";

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PostGrant {
    pub(crate) url: String,
    pub(crate) key: String,
    pub(crate) method: String,
    pub(crate) fields: BTreeMap<String, String>,
    pub(crate) max_size: u64,
    #[serde(rename = "expiresAt")]
    pub(crate) _expires_at: String,
}

/// Sends the form as a browser would.
pub(crate) async fn send(
    client: &Client,
    url: &str,
    fields: &BTreeMap<String, String>,
    body: &str,
) -> Response {
    let mut form = Form::new();
    for (name, value) in fields {
        form = form.text(name.clone(), value.clone());
    }
    let file = Part::text(body.to_owned()).file_name("of-the-client.bin");
    let form = form.part("file", file);
    client.post(url).multipart(form).send().await.unwrap()
}

impl PostGrant {
    pub(crate) async fn send(&self, client: &Client, body: &str) -> Response {
        send(client, &self.url, &self.fields, body).await
    }

    /// The form with this file, as bytes.
    pub(crate) fn bytes(&self, boundary: &str, file: &[u8]) -> Vec<u8> {
        let begin = format!("--{boundary}\r\nContent-Disposition: form-data; name=");
        let fields = self.fields.iter();
        let fields = fields.map(|(name, value)| format!("{begin}\"{name}\"\r\n\r\n{value}\r\n"));
        let file_head = format!(
            "{begin}\"file\"; filename=\"a.bin\"\r\nContent-Type: application/octet-stream\r\n\r\n"
        );
        let head: String = fields.chain([file_head]).collect();
        let end = format!("\r\n--{boundary}--\r\n");
        [head.as_bytes(), file, end.as_bytes()].concat()
    }
}

async fn granted(app: &App) -> PostGrant {
    let body = json!({"filename": "example.jpg", "contentType": "image/jpeg"});
    app.granted(POST, &body).await
}

#[tokio::test]
async fn the_store_accepts_what_was_granted() {
    let app = spawn_app().await;
    let grant = granted(&app).await;
    assert_eq!(grant.method, "POST");
    assert_eq!(grant.max_size, 5 * 1024 * 1024 * 1024);
    assert_eq!(grant.fields["key"], grant.key);
    let response = grant.send(&app.client, "the bytes").await;
    assert_eq!(response.status(), 201);
    // As S3 does; Uppy 5 never ends without the first.
    let headers = response.headers();
    assert!(headers["etag"].to_str().unwrap().starts_with('"'));
    let location = headers["location"].to_str().unwrap();
    assert!(
        location.starts_with(&grant.url) && location.ends_with("/example.jpg"),
        "{location}"
    );
    let stored = app.stored(&grant.key).await.unwrap();
    assert_eq!(stored, (b"the bytes".to_vec(), "image/jpeg".to_owned()));
}

#[tokio::test]
async fn the_store_refuses_a_form_with_a_field_less_or_another_value() {
    let app = spawn_app_with_policies(
        "[policies.default]
        cache_control = 'no-cache'
        server_side_encryption = 'aws:kms'
        kms_key_id = 'k'
        storage_class = 'STANDARD'
        acl = 'private'
        tagging = { a = 'b' }
        metadata = { source = 'web' }",
    )
    .await;
    let body =
        json!({"filename": "a.html", "contentType": "text/html", "checksumSha256": sha256("x")});
    let grant: PostGrant = app.granted(POST, &body).await;
    let names: Vec<&str> = grant.fields.keys().map(String::as_str).collect();
    let expected = [
        "acl",
        "bucket",
        "cache-control",
        "content-disposition",
        "content-type",
        "key",
        "policy",
        "success_action_status",
        "tagging",
        "x-amz-algorithm",
        "x-amz-checksum-sha256",
        "x-amz-credential",
        "x-amz-date",
        "x-amz-meta-source",
        "x-amz-server-side-encryption",
        "x-amz-server-side-encryption-aws-kms-key-id",
        "x-amz-signature",
        "x-amz-storage-class",
    ];
    assert_eq!(names, expected);
    for name in expected {
        let mut other = grant.clone();
        let value = other.fields.remove(name).unwrap();
        // The bucket is named by the address, too.
        if name != "bucket" {
            let status = other.send(&app.client, "x").await.status();
            assert!(!status.is_success(), "without {name}: {status}");
        }
        other.fields.insert(name.to_owned(), format!("{value}0"));
        let status = other.send(&app.client, "x").await.status();
        assert!(!status.is_success(), "another {name}: {status}");
    }
    assert_eq!(app.stored(&grant.key).await, None);
    assert_eq!(grant.send(&app.client, "x").await.status(), 201);
}

#[tokio::test]
async fn the_store_refuses_a_form_with_a_field_more() {
    let app = spawn_app().await;
    let grant = granted(&app).await;
    for (name, value) in [
        ("acl", "public-read"),
        ("x-amz-meta-owner", "me"),
        ("content-encoding", "gzip"),
        ("success_action_redirect", "http://evil.example/"),
        ("x-amz-website-redirect-location", "http://evil.example/"),
    ] {
        let mut other = grant.clone();
        other.fields.insert(name.to_owned(), value.to_owned());
        let status = other.send(&app.client, "x").await.status();
        assert_eq!(status, 403, "{name}");
    }
    assert_eq!(app.stored(&grant.key).await, None);
}

#[tokio::test]
async fn the_store_refuses_another_size_and_other_bytes_than_the_form_is_bound_to() {
    let app =
        spawn_app_with_policies("[policies.default]\n[policies.five]\nmax_size = '5 B'").await;
    let file = json!({"filename": "a", "contentType": "a/b"});
    for (more, max_size, refused, accepted) in [
        // A form binds a range, so the size need not be known.
        (
            json!({"policy": "five"}),
            5,
            &["123456"][..],
            &["12345", ""][..],
        ),
        (json!({"size": 3}), 3, &["12", "1234"], &["123"]),
        (
            json!({"checksumSha256": sha256("right")}),
            5 << 30,
            &["wrong"],
            &["right"],
        ),
    ] {
        let grant: PostGrant = app.granted(POST, &with_members(file.clone(), &more)).await;
        assert_eq!(grant.max_size, max_size);
        for body in refused {
            let sent = grant.send(&app.client, body).await;
            assert_eq!(sent.status(), 400, "{body}");
        }
        assert_eq!(app.stored(&grant.key).await, None);
        for body in accepted {
            let sent = grant.send(&app.client, body).await;
            assert_eq!(sent.status(), 201, "{body}");
        }
    }
}

#[tokio::test]
async fn the_store_refuses_a_form_that_has_expired() {
    let app = spawn_app().await;
    let send_after = async |age: u64| {
        let now = SystemTime::now() - Duration::from_secs(age);
        let grant = presign_post(&app.uploads, &file("a", "a/b"), now).await;
        let fields = grant.request.fields;
        send(&app.client, &grant.request.url, &fields, "x")
            .await
            .status()
    };
    assert_eq!(send_after(590).await, 201);
    assert_eq!(send_after(602).await, 403);
}

#[tokio::test]
async fn awkward_names_and_types_arrive_unchanged_and_widen_nothing() {
    let app = spawn_app().await;
    for (name, content_type) in [
        ("보고서 최종.pdf", "video/webm;codecs=vp8,opus"),
        ("🎉.png", "text/x-c++"),
        ("$key.txt", "text/html; charset=\"a\\\"b\""),
        ("a$b\"c'd.txt", "x/x;a=$b"),
        (
            "\"},[\"starts-with\",\"$key\",\"\"],{\"x\":\"",
            "text/plain",
        ),
        ("a+b%20c&d=e;f.txt", "text/plain"),
        ("${other}", "text/plain"),
        (&"한".repeat(85), "text/plain"),
    ] {
        let body = json!({"filename": name, "contentType": content_type});
        let grant: PostGrant = app.granted(POST, &body).await;
        assert_eq!(grant.send(&app.client, name).await.status(), 201, "{name}");
        let (bytes, stored_type) = app.stored(&grant.key).await.expect(name);
        assert_eq!(bytes, name.as_bytes());
        assert_eq!(stored_type, content_type);
        let mut other = grant.clone();
        other.fields.insert("key".into(), "elsewhere".into());
        let status = other.send(&app.client, "x").await.status();
        assert!(!status.is_success(), "{name}: {status}");
    }
}

#[tokio::test]
async fn a_name_that_s3_would_replace_is_refused() {
    let app = spawn_app().await;
    let body = json!({
        "filename": "a${filename}.txt",
        "contentType": "a/b; c=\"${filename}\"",
        "metadata": {"x": "${filename}"},
    });
    let problem = app.refused(POST, &body).await;
    assert_eq!(problem["status"], 422);
    let expected = [
        ("/contentType", "reserved"),
        ("/filename", "reserved"),
        ("/metadata/x", "reserved"),
    ];
    assert_eq!(fields(&problem), expected);
}

#[tokio::test]
async fn a_key_that_s3_would_replace_is_refused() {
    let app = spawn_app_with_policies(
        "[policies.default]
        key = 'u/${filename}'
        overwrite = true
        [policies.twice]
        key = '{uuid}/{filename}{filename}'",
    )
    .await;
    for body in [
        json!({"filename": "{filename}", "contentType": "a/b"}),
        json!({"filename": "{filename}$", "contentType": "a/b", "policy": "twice"}),
    ] {
        let problem = app.refused(POST, &body).await;
        assert_eq!(fields(&problem), [("/filename", "reserved")]);
        let put: Grant = app.granted("/upload/presigned-url", &body).await;
        assert!(put.key.contains("${filename}"), "{}", put.key);
    }
}

#[tokio::test]
async fn a_store_without_forms_gets_none_and_the_client_learns_what_to_do() {
    let app = spawn_app_without_forms("[policies.default]").await;
    let body = json!({"filename": "a", "contentType": "a/b"});
    let problem = app.refused(POST, &body).await;
    is(&problem, 422, "post-not-supported");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("/upload/presigned-url"), "{detail}");
}

#[tokio::test]
async fn a_policy_that_forbids_overwriting_gives_no_forms() {
    let app = spawn_app_with_policies("[policies.default]\noverwrite = false").await;
    let body = json!({"filename": "a", "contentType": "a/b"});
    let problem = app.refused(POST, &body).await;
    assert_eq!(problem["code"], "post-not-supported");
    assert!(problem["detail"].as_str().unwrap().contains("overwriting"));
}

#[tokio::test]
async fn a_session_token_is_a_field_and_the_form_expires_with_the_credentials() {
    use aws_credential_types::Credentials;
    use aws_credential_types::provider::SharedCredentialsProvider;

    let now = SystemTime::now();
    let end = now + Duration::from_mins(2);
    let credentials = Credentials::new(
        "AKID",
        "secret",
        Some("the/token=".into()),
        Some(end),
        "test",
    );
    let config = crate::helpers::sdk_config("127.0.0.1:9000".parse().unwrap())
        .into_builder()
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build();
    let uploads = service(&config, "b", true, built_in()).await;
    let file = file("a", "a/b");
    let grant = presign_post(&uploads, &file, now).await;
    let fields = grant.request.fields;
    assert_eq!(fields["x-amz-security-token"], "the/token=");
    assert!(grant.request.expires_at <= end);
    let document = String::from_utf8(BASE64_STANDARD.decode(&fields["policy"]).unwrap()).unwrap();
    assert!(
        document.contains(r#"{"x-amz-security-token":"the/token="}"#),
        "{document}"
    );
    let grant = presign_put(&uploads, &file, now).await;
    assert!(grant.request.expires_at <= end);
    assert!(
        grant
            .request
            .url
            .contains("X-Amz-Security-Token=the%2Ftoken%3D")
    );
}

#[tokio::test]
async fn with_forms_only_a_form_is_granted_and_nothing_else() {
    let app = spawn_app_with_forms_only().await;
    let file = json!({"filename": "a.txt", "contentType": "text/plain"});
    let form: Value = app.granted("/upload/presigned-post", &file).await;
    assert!(form["fields"].is_object());
    let files = json!({"files": [file]});
    let of_uppy = json!({"filename": "a.txt", "type": "text/plain"});
    for (path, body) in [
        ("/upload/presigned-url", &file),
        ("/upload/presigned-urls", &files),
        ("/s3/multipart", &of_uppy),
    ] {
        is(&app.refused(path, body).await, 422, "forms-only");
    }
    // Nor the parts of an upload that was created before.
    let before = service_on(&app.config, "[policies.default]").await;
    let upload = create_at(&before, of_uppy).await.at(&app.base);
    for (path, query) in [("1", &[][..]), ("batch", &[("partNumbers", "1")])] {
        let answer = upload.call(Method::GET, path, query, None).await;
        is(&problem(answer).await, 422, "forms-only");
    }
}

#[tokio::test]
async fn a_form_that_is_longer_than_s3_takes_is_a_put_where_one_will_do() {
    let tags = (0..10).map(|n| format!("t{n} = '{}'", "𠀀".repeat(256)));
    let tags: Vec<String> = tags.collect();
    let policy = format!("[policies.default.tagging]\n{}", tags.join("\n"));
    let app = spawn_app_with_policies(&policy).await;
    let file = json!({"filename": "a.txt", "contentType": "text/plain"});
    let refused = app.refused("/upload/presigned-post", &file).await;
    is(&refused, 422, "post-not-supported");
    let files = json!({"files": [file], "forms": true});
    let grants: Value = app.granted("/upload/presigned-urls", &files).await;
    assert_eq!(grants["uploads"][0]["method"], "PUT");
}
