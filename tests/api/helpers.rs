//! A service with a store of its own, and clients for both.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_sdk_s3::operation::get_object::GetObjectError;
use presignd::upload::{File, UploadService};
use presignd::{dev, http, s3, upload};
use reqwest::{Client, Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use uuid::Uuid;

/// A running service and its store; both end with it.
pub(crate) struct App {
    pub(crate) base: String,
    pub(crate) client: Client,
    /// The service behind the routes, for tests that turn its clock.
    pub(crate) uploads: Arc<UploadService>,
    /// Reaches the store with its own keys.
    pub(crate) store: aws_sdk_s3::Client,
    _data: TempDir,
}

/// What a client gets, read strictly: a field more or less is an error.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Grant {
    pub(crate) url: String,
    pub(crate) key: String,
    pub(crate) method: String,
    pub(crate) headers: std::collections::BTreeMap<String, String>,
    pub(crate) expires_at: String,
}

pub(crate) async fn spawn_app() -> App {
    let data = TempDir::new().unwrap();
    let store_addr = spawn(dev::store(data.path()).unwrap()).await;
    let config = dev::sdk_config(store_addr);
    let uploads = service(&config, dev::BUCKET, true);
    let settings = http::Settings::default();
    let addr = spawn(http::router(Arc::clone(&uploads), &settings)).await;
    let store = aws_sdk_s3::config::Builder::from(&config).force_path_style(true);
    App {
        base: format!("http://{addr}"),
        client: client(),
        uploads,
        store: aws_sdk_s3::Client::from_conf(store.build()),
        _data: data,
    }
}

/// The service on the bucket that `config` leads to, as `presignd serve` builds it.
pub(crate) fn service(config: &SdkConfig, bucket: &str, path_style: bool) -> Arc<UploadService> {
    let settings = upload::Settings {
        expires_in: Duration::from_mins(10),
    };
    let provider = config.credentials_provider().unwrap();
    let credentials = s3::CredentialsCache::new(provider, settings.expires_in);
    let client = s3::client(config, path_style, &credentials);
    let bucket = s3::Bucket::new(client, bucket.to_owned(), credentials);
    Arc::new(UploadService::new(bucket, settings))
}

pub(crate) async fn spawn(router: axum::Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(http::serve(listener, router, std::future::pending()));
    addr
}

pub(crate) fn client() -> Client {
    Client::builder().no_proxy().build().unwrap()
}

impl App {
    pub(crate) async fn ask(&self, body: &Value) -> Response {
        let url = format!("{}/upload/presigned-url", self.base);
        self.client.post(url).json(body).send().await.unwrap()
    }

    #[track_caller]
    pub(crate) fn grant(
        &self,
        filename: &str,
        content_type: &str,
    ) -> impl Future<Output = Grant> + use<'_> {
        let body = json!({"filename": filename, "contentType": content_type});
        async move {
            let response = self.ask(&body).await;
            let status = response.status();
            let text = response.text().await.unwrap();
            assert_eq!(status, StatusCode::CREATED, "{text}");
            serde_json::from_str(&text).unwrap()
        }
    }

    /// A grant as if it had been asked for at `now`.
    pub(crate) async fn grant_at(&self, now: SystemTime) -> upload::Grant {
        let file = File {
            filename: upload::Filename::parse("a.txt").unwrap(),
            content_type: upload::ContentType::parse("text/plain").unwrap(),
        };
        self.uploads
            .presign_put(&file, Uuid::new_v4(), now)
            .await
            .unwrap()
    }

    /// Sends `body` exactly as `grant` says.
    pub(crate) async fn upload(&self, grant: &Grant, body: impl Into<reqwest::Body>) -> Response {
        let method = Method::from_bytes(grant.method.as_bytes()).unwrap();
        let mut request = self.client.request(method, &grant.url);
        for (name, value) in &grant.headers {
            request = request.header(name, value);
        }
        request.body(body).send().await.unwrap()
    }

    /// The bytes and the content type of a stored object, asked for with the store's own keys.
    pub(crate) async fn stored(&self, key: &str) -> Option<(Vec<u8>, String)> {
        let get = self.store.get_object().bucket(dev::BUCKET).key(key);
        let object = match get.send().await {
            Ok(object) => object,
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(GetObjectError::is_no_such_key) =>
            {
                return None;
            }
            Err(error) => panic!("{error:?}"),
        };
        let content_type = object.content_type.unwrap_or_default();
        let body = object.body.collect().await.unwrap().to_vec();
        Some((body, content_type))
    }
}

/// The problem in a response, whose status and content type must agree with it.
pub(crate) async fn problem(response: Response) -> Value {
    let status = response.status();
    let headers = response.headers().clone();
    assert_eq!(headers["content-type"], "application/problem+json");
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["status"], status.as_u16());
    assert_eq!(problem["title"], status.canonical_reason().unwrap());
    assert_eq!(problem["type"], "about:blank");
    assert_eq!(
        problem["requestId"],
        headers["x-request-id"].to_str().unwrap()
    );
    assert!(!problem["detail"].as_str().unwrap().is_empty());
    problem
}

/// The fields that a problem names, each with its code.
pub(crate) fn fields(problem: &Value) -> Vec<(&str, &str)> {
    problem["errors"]
        .as_array()
        .map(|errors| {
            errors
                .iter()
                .map(|e| (e["pointer"].as_str().unwrap(), e["code"].as_str().unwrap()))
                .collect()
        })
        .unwrap_or_default()
}
