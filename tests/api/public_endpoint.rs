//! Clients are sent to one endpoint, and the service calls another.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use base64::prelude::{BASE64_STANDARD, Engine};
use presignd::dev::BUCKET;
use presignd::telemetry::Metrics;
use presignd::upload::UploadService;
use presignd::{http, s3};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::helpers::{self, Grant, built_in, client, file, granted, presign_post, spawn};
use crate::presigned_post::PostGrant;
use crate::uppy::create_at;

/// A service that sends its clients to `public`.
async fn service(config: &SdkConfig, public: &str) -> String {
    let settings = built_in();
    let provider = config.credentials_provider().unwrap();
    let credentials = s3::CredentialsCache::new(provider, settings.policies.longest_lifetime());
    let bucket = s3::Settings {
        bucket: BUCKET.to_owned(),
        force_path_style: true,
        public_endpoint: Some(public.to_owned()),
        accelerate: false,
    };
    let buckets = s3::buckets(config, &bucket, [], credentials, true);
    let buckets = buckets.await.unwrap();
    let uploads = UploadService::new(buckets, settings, Metrics::default());
    let router = http::router(Arc::new(uploads), &http::Settings::default());
    format!("http://{}", spawn(router).await)
}

#[tokio::test]
async fn what_clients_get_is_signed_for_the_public_endpoint() {
    let data = TempDir::new().unwrap();
    // One store with two addresses; a signature for one is none for the other.
    let called = spawn(crate::helpers::store(data.path())).await;
    let public = spawn(crate::helpers::store(data.path())).await;
    let public = format!("http://{public}");
    let base = service(&crate::helpers::sdk_config(called), &public).await;

    let file = json!({"filename": "a.txt", "contentType": "text/plain"});
    let grant: Grant = granted(&base, "/upload/presigned-url", &file).await;
    assert!(grant.url.starts_with(&public), "{}", grant.url);
    assert_eq!(grant.send(&client(), "body").await.status(), 200);

    let form: PostGrant = granted(&base, "/upload/presigned-post", &file).await;
    assert!(form.url.starts_with(&public), "{}", form.url);
    assert_eq!(form.send(&client(), "body").await.status(), 201);

    let file = json!({"filename": "a.bin", "type": "text/plain"});
    let upload = create_at(&base, file).await;
    let part = upload.json(Method::GET, "1", &[], None).await;
    let url = part["url"].as_str().unwrap();
    assert!(url.starts_with(&public), "{url}");
    let completed = upload.send(b"body".to_vec()).await;
    assert_eq!(completed.status(), 200);
    let answer: Value = completed.json().await.unwrap();
    let location = format!("{public}/{BUCKET}/{}", upload.key);
    assert_eq!(answer["location"], location);
}

#[tokio::test]
async fn the_service_itself_never_calls_the_public_endpoint() {
    let data = TempDir::new().unwrap();
    let called = spawn(crate::helpers::store(data.path())).await;
    // Where nothing listens.
    let base = service(&crate::helpers::sdk_config(called), "http://127.0.0.1:1").await;
    let file = json!({"filename": "a.bin", "type": "text/plain"});
    let upload = create_at(&base, file).await;
    upload.list().await;
    let aborted = upload.call(Method::DELETE, "", &[], None).await;
    assert_eq!(aborted.status(), 200);
}

/// Where forms go to, and the scope that they are signed for, on different endpoints.
#[tokio::test]
async fn forms_go_to_the_bucket_whatever_the_endpoint() {
    let aws = crate::helpers::sdk_config("127.0.0.1:9000".parse().unwrap());
    for (endpoint, region, path_style, url) in [
        (
            None,
            "ap-northeast-2",
            false,
            "https://my-bucket.s3.ap-northeast-2.amazonaws.com/",
        ),
        (
            None,
            "ap-northeast-2",
            true,
            "https://s3.ap-northeast-2.amazonaws.com/my-bucket",
        ),
        (
            None,
            "cn-north-1",
            false,
            "https://my-bucket.s3.cn-north-1.amazonaws.com.cn/",
        ),
        (
            Some("http://127.0.0.1:9000"),
            "us-east-1",
            true,
            "http://127.0.0.1:9000/my-bucket",
        ),
        (
            Some("https://s3.example.com"),
            "eu-west-1",
            false,
            "https://my-bucket.s3.example.com/",
        ),
        (
            Some("https://example.com/s3/"),
            "eu-west-1",
            true,
            "https://example.com/s3/my-bucket",
        ),
    ] {
        let mut config = aws.clone().into_builder();
        config.set_endpoint_url(endpoint.map(str::to_owned));
        config.set_region(Some(aws_config::Region::new(region)));
        let config = config.build();
        let uploads = helpers::service(&config, "my-bucket", path_style, built_in()).await;
        let now = SystemTime::UNIX_EPOCH + Duration::from_hours(24 * 365);
        let grant = presign_post(&uploads, &file("a", "a/b"), now).await;
        assert_eq!(grant.request.url, url);
        let fields = grant.request.fields;
        let credential = format!("presignd-dev/19710101/{region}/s3/aws4_request");
        assert_eq!(fields["x-amz-credential"], credential);
        assert_eq!(fields["x-amz-date"], "19710101T000000Z");
        let document = BASE64_STANDARD.decode(&fields["policy"]).unwrap();
        let document: Value = serde_json::from_slice(&document).unwrap();
        assert_eq!(document["expiration"], "1971-01-01T00:10:00Z");
        let conditions = document["conditions"].as_array().unwrap();
        assert!(conditions.contains(&json!({"bucket": "my-bucket"})));
    }
}
