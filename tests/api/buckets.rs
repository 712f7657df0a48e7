//! A bucket for each policy: a key means the bucket of its policy, on every route.

use std::time::Duration;

use presignd::upload::Policies;
use reqwest::Method;
use serde_json::{Value, json};

use crate::helpers::{App, Grant, client, granted, is, problem, spawn_app_with_policies};
use crate::presigned_post::PostGrant;
use crate::process::{Running, one_line_and_exit_1, presignd};
use crate::uppy::create_in;

const TWO_BUCKETS: &str = "
    [policies.default]
    [policies.media]
    bucket = 'media'
    allowed_metadata = ['*']
";

/// The body of the object of this key in a bucket.
async fn body(app: &App, bucket: &str, key: &str) -> Option<Vec<u8>> {
    let object = app.store.get_object().bucket(bucket).key(key).send().await;
    Some(object.ok()?.body.collect().await.unwrap().to_vec())
}

fn request(policy: &str) -> Value {
    json!({"filename": "a.txt", "contentType": "text/plain", "policy": policy})
}

#[tokio::test]
async fn every_way_of_uploading_leads_to_the_bucket_of_the_policy() {
    let app = spawn_app_with_policies(TWO_BUCKETS).await;
    let grant = app.sent(&request("media"), "put").await;
    let files = json!({"files": [request("default"), request("media")]});
    let grants: Value = app.granted("/upload/presigned-urls", &files).await;
    let urls = [0, 1].map(|at| grants["uploads"][at]["url"].as_str().unwrap().to_owned());
    assert!(urls[0].contains("/uploads/uploads/"), "{}", urls[0]);
    assert!(urls[1].contains("/media/uploads/"), "{}", urls[1]);
    let form: PostGrant = app
        .granted("/upload/presigned-post", &request("media"))
        .await;
    assert_eq!(form.fields["bucket"], "media");
    assert_eq!(form.send(&app.client, "form").await.status(), 201);
    let upload = json!({"filename": "a.txt", "type": "text/plain", "policy": "media"});
    let upload = create_in(&app.base, "media", upload).await;
    let etag = upload.put(1, b"parts".to_vec()).await;
    assert_eq!(upload.list().await[0]["PartNumber"], 1);
    let parts = json!([{"PartNumber": 1, "ETag": etag}]);
    let completed: Value = upload.complete(parts.clone()).await.json().await.unwrap();
    assert_eq!(completed["bucket"], "media");
    let location = completed["location"].as_str().unwrap();
    assert!(location.contains("/media/uploads/"), "{location}");
    // The answer may have been lost.
    assert_eq!(upload.complete(parts).await.status(), 200);

    for (key, bytes) in [
        (&grant.key, &b"put"[..]),
        (&form.key, b"form"),
        (&upload.key, b"parts"),
    ] {
        assert_eq!(body(&app, "media", key).await.as_deref(), Some(bytes));
        assert_eq!(body(&app, "uploads", key).await, None);
    }
}

#[tokio::test]
async fn a_key_means_the_bucket_of_its_policy() {
    // The same key can be made in both buckets, by policies that accept other types.
    let app = spawn_app_with_policies(
        "[policies.a]
        key = 'logo'
        overwrite = true
        content_types = ['image/png']
        [policies.b]
        bucket = 'other'
        key = 'logo'
        overwrite = true
        content_types = ['text/plain']",
    )
    .await;
    let verify = async |policy| {
        let body = json!({"key": "logo", "policy": policy});
        app.post("/upload/verify", &body).await
    };
    for (policy, content_type) in [("b", "text/plain"), ("a", "image/png")] {
        is(&problem(verify(policy).await).await, 404, "not-uploaded");
        let body = json!({"filename": "logo", "contentType": content_type, "policy": policy});
        app.sent(&body, content_type).await;
    }
    for (policy, content_type) in [("a", "image/png"), ("b", "text/plain")] {
        let verified: Value = verify(policy).await.json().await.unwrap();
        assert_eq!(verified["contentType"], content_type);
    }
}

#[tokio::test]
async fn an_upload_in_parts_stays_in_the_bucket_that_it_began_in() {
    let app = spawn_app_with_policies(TWO_BUCKETS).await;
    let upload = json!({"filename": "a.txt", "type": "text/plain", "policy": "media"});
    let upload = create_in(&app.base, "media", upload).await;
    let policies = |toml| Policies::parse(toml, Duration::from_mins(10)).unwrap();
    app.uploads
        .replace_policies(policies("[policies.media]"))
        .unwrap();
    for (method, path) in [(Method::GET, ""), (Method::GET, "1"), (Method::DELETE, "")] {
        let refused = problem(upload.call(method, path, &[], None).await).await;
        is(&refused, 404, "no-such-upload");
    }
    app.uploads.replace_policies(policies(TWO_BUCKETS)).unwrap();
    upload.put(1, b"parts".to_vec()).await;
    let aborted = upload.call(Method::DELETE, "", &[], None).await;
    assert_eq!(aborted.status(), 200);
}

#[tokio::test]
async fn policies_that_name_a_new_bucket_are_refused_while_the_service_runs() {
    let app = spawn_app_with_policies(TWO_BUCKETS).await;
    let new = "[policies.default]\n[policies.more]\nbucket = 'another'";
    let new = Policies::parse(new, Duration::from_mins(10)).unwrap();
    let error = app.uploads.replace_policies(new).unwrap_err();
    for part in ["policies.more.bucket", "another", "restart"] {
        assert!(error.contains(part), "{error}");
    }
    app.granted::<Grant>("/upload/presigned-url", &request("media"))
        .await;
}

#[tokio::test]
async fn a_service_is_ready_when_the_buckets_of_all_policies_are_there() {
    let app = spawn_app_with_policies(TWO_BUCKETS).await;
    assert_eq!(app.get("/readyz").await.status(), 200);
    let app = spawn_app_with_policies(TWO_BUCKETS).await;
    std::fs::remove_dir(app.data().join("media")).unwrap();
    is(
        &problem(app.get("/readyz").await).await,
        503,
        "storage-unavailable",
    );
    // No policy uses the default bucket here.
    let app = spawn_app_with_policies("[policies.media]\nbucket = 'media'").await;
    std::fs::remove_dir(app.data().join("uploads")).unwrap();
    assert_eq!(app.get("/readyz").await.status(), 200);
}

#[tokio::test]
async fn dev_creates_the_buckets_of_all_policies() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("policies.toml"), TWO_BUCKETS).unwrap();
    let variables = [("UPLOAD_POLICIES_FILE", "policies.toml")];
    let (dev, base) = Running::dev(folder.path(), &variables);
    let says = "buckets uploads, media";
    assert!(dev.banner.contains(says), "{}", dev.banner);
    let grant: Grant = granted(&base, "/upload/presigned-url", &request("media")).await;
    assert_eq!(grant.send(&client(), "hello").await.status(), 200);
    assert_eq!(dev.stop("TERM").0, Some(0));
}

#[test]
fn a_bucket_that_nothing_can_be_signed_for_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let start = |default: &str, bucket: &str| {
        let toml = format!("[policies.media]\nbucket = '{bucket}'");
        std::fs::write(folder.path().join("policies.toml"), toml).unwrap();
        let variables = [
            ("AWS_S3_BUCKET_NAME", default),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1/media"),
            ("UPLOAD_POLICIES_FILE", "policies.toml"),
        ];
        let mut serve = presignd(&["serve"], folder.path());
        serve.envs(variables).output().unwrap()
    };
    one_line_and_exit_1(&start("media", "other"), &["AWS_ENDPOINT_URL_S3"]);
    let output = start("my-bucket", "media");
    one_line_and_exit_1(&output, &["bucket media", "AWS_ENDPOINT_URL_S3"]);
    let output = start("my-bucket", "a/b");
    one_line_and_exit_1(&output, &["policies.media.bucket", "3 to 63"]);
}
