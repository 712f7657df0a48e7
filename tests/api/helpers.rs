//! A service with a store of its own, and clients for both.

// A path, because other test targets have this module, too.
#[path = "helpers/requests.rs"]
mod requests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_credential_types::credential_fn::provide_credentials_fn;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::operation::get_object::GetObjectError;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use presignd::telemetry::Metrics;
use presignd::upload::{Caller, File, GrantRequest, Policies, SessionKey, UploadService};
use presignd::{dev, http, s3, upload};
use reqwest::{Client, Method, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

pub(crate) use self::requests::*;

/// A running service and its store. Both stop when it is dropped.
pub(crate) struct App {
    pub(crate) base: String,
    pub(crate) client: Client,
    /// The service behind the routes, for tests that turn its clock.
    pub(crate) uploads: Arc<UploadService>,
    pub(crate) http_settings: http::Settings,
    /// Leads to the store.
    pub(crate) config: SdkConfig,
    /// Reaches the store with its own keys.
    pub(crate) store: aws_sdk_s3::Client,
    data: TempDir,
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

impl Grant {
    /// Sends `body` exactly as the grant says.
    pub(crate) async fn send(&self, client: &Client, body: impl Into<reqwest::Body>) -> Response {
        let method = Method::from_bytes(self.method.as_bytes()).unwrap();
        let mut request = client.request(method, &self.url);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.body(body).send().await.unwrap()
    }
}

pub(crate) async fn spawn_app() -> App {
    spawn_app_with(built_in()).await
}

/// With the policies of a file.
pub(crate) async fn spawn_app_with_policies(toml: &str) -> App {
    spawn_app_with(with_policies(toml)).await
}

pub(crate) fn with_policies(toml: &str) -> upload::Settings {
    upload::Settings {
        policies: Policies::parse(toml, TEN_MINUTES).unwrap(),
        ..built_in()
    }
}

/// The settings of a service with another session secret.
pub(crate) fn with_another_secret() -> upload::Settings {
    upload::Settings {
        session_key: Some(SessionKey::new(&[8; 32])),
        ..built_in()
    }
}

/// On a store that accepts no forms.
pub(crate) async fn spawn_app_without_forms(toml: &str) -> App {
    let settings = upload::Settings {
        supports_post: false,
        ..with_policies(toml)
    };
    spawn_app_with(settings).await
}

/// On a store where forms alone are granted.
pub(crate) async fn spawn_app_with_forms_only() -> App {
    let settings = upload::Settings {
        forms_only: true,
        ..built_in()
    };
    spawn_app_with(settings).await
}

pub(crate) async fn spawn_app_with(settings: upload::Settings) -> App {
    spawn_app_with_both(settings, &http::Settings::default()).await
}

/// With `change` to the usual settings of HTTP.
pub(crate) async fn spawn_app_where(
    settings: upload::Settings,
    change: impl FnOnce(&mut http::Settings),
) -> App {
    let mut http_settings = http::Settings::default();
    change(&mut http_settings);
    spawn_app_with_both(settings, &http_settings).await
}

pub(crate) async fn spawn_app_with_both(
    settings: upload::Settings,
    http_settings: &http::Settings,
) -> App {
    let data = TempDir::new().unwrap();
    let buckets = settings.policies.buckets();
    let store = embedded_store(data.path(), buckets.into_iter().flatten());
    let config = sdk_config(spawn(store).await);
    let metrics = &http_settings.metrics;
    let uploads = service_counting(&config, dev::BUCKET, true, settings, metrics).await;
    let addr = spawn(http::router(Arc::clone(&uploads), http_settings)).await;
    let store = s3_client(&config);
    App {
        base: format!("http://{addr}"),
        client: client(),
        uploads,
        http_settings: http_settings.clone(),
        config,
        store,
        data,
    }
}

/// A client with the store's own keys.
pub(crate) fn s3_client(config: &SdkConfig) -> aws_sdk_s3::Client {
    let config = aws_sdk_s3::config::Builder::from(config).force_path_style(true);
    aws_sdk_s3::Client::from_conf(config.build())
}

const SECRET_KEY: &str = "presignd-dev-secret";

/// An embedded store for pages of all origins.
pub(crate) fn store(data: &std::path::Path) -> axum::Router {
    embedded_store(data, std::iter::empty())
}

/// The same with these buckets besides.
pub(crate) fn embedded_store<'a>(
    data: &std::path::Path,
    buckets: impl Iterator<Item = &'a str>,
) -> axum::Router {
    let mut store = dev::Dev::open(data, Some(SECRET_KEY.into())).unwrap();
    store.add_buckets(buckets).unwrap();
    store.store(&http::AllowedOrigins::Any).unwrap()
}

/// The SDK's configuration for an embedded store that listens on `addr`.
pub(crate) fn sdk_config(addr: SocketAddr) -> SdkConfig {
    let anywhere = TempDir::new().unwrap();
    let store = dev::Dev::open(anywhere.path(), Some(SECRET_KEY.into()));
    store.unwrap().sdk_config(addr)
}

const TEN_MINUTES: Duration = Duration::from_mins(10);

/// What all replicas of the tests share.
pub(crate) fn session_key() -> SessionKey {
    SessionKey::new(&[7; 32])
}

/// What a service has that was given no policies.
pub(crate) fn built_in() -> upload::Settings {
    upload::Settings {
        policies: Policies::built_in(TEN_MINUTES),
        supports_post: true,
        forms_only: false,
        receipts: None,
        session_key: Some(session_key()),
    }
}

/// The service on the bucket that `config` leads to, as `presignd serve` builds it.
pub(crate) async fn service(
    config: &SdkConfig,
    bucket: &str,
    path_style: bool,
    settings: upload::Settings,
) -> Arc<UploadService> {
    service_counting(config, bucket, path_style, settings, &Metrics::default()).await
}

pub(crate) async fn service_counting(
    config: &SdkConfig,
    bucket: &str,
    path_style: bool,
    settings: upload::Settings,
    metrics: &Metrics,
) -> Arc<UploadService> {
    let provider = config.credentials_provider().unwrap();
    let credentials = s3::CredentialsCache::new(provider, settings.policies.longest_lifetime());
    let s3_settings = s3::Settings {
        bucket: bucket.to_owned(),
        force_path_style: path_style,
        public_endpoint: None,
        accelerate: false,
    };
    let named = settings.policies.buckets().into_iter().flatten();
    let buckets = s3::buckets(config, &s3_settings, named, credentials, false);
    let buckets = buckets.await.unwrap();
    Arc::new(UploadService::new(buckets, settings, metrics.clone()))
}

/// The SDK's configuration for a store without credentials.
pub(crate) fn without_credentials() -> SdkConfig {
    let nothing = async || Err(CredentialsError::not_loaded("secret cause"));
    let provider = SharedCredentialsProvider::new(provide_credentials_fn(nothing));
    let config = sdk_config("127.0.0.1:1".parse().unwrap()).into_builder();
    config.credentials_provider(provider).build()
}

/// Advances the clock whenever nothing else happens, until the test ends, which has to run in one thread and without
/// other processes. What measures time by `std::time::Instant` does not notice.
pub(crate) fn hurry() {
    tokio::spawn(async {
        loop {
            let begin = std::time::Instant::now();
            tokio::time::sleep(Duration::from_millis(5)).await;
            // If it took longer, other tasks had work to do.
            if begin.elapsed() < Duration::from_millis(9) {
                later(Duration::from_millis(100)).await;
            }
        }
    });
}

/// Turns the clock on, without waiting.
pub(crate) async fn later(by: Duration) {
    tokio::time::pause();
    tokio::time::advance(by).await;
    tokio::time::resume();
}

pub(crate) async fn spawn(service: impl http::HttpService) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(http::serve(listener, service, http::Server::default()));
    addr
}

impl App {
    /// The folder of the store.
    pub(crate) fn data(&self) -> &std::path::Path {
        self.data.path()
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        let request = self.client.get(format!("{}{path}", self.base));
        request.send().await.unwrap()
    }

    /// The OpenAPI document.
    pub(crate) async fn document(&self) -> Value {
        answer(200, self.get("/openapi.json").await).await
    }

    pub(crate) async fn ask(&self, body: &Value) -> Response {
        self.post("/upload/presigned-url", body).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Response {
        let request = self.client.post(format!("{}{path}", self.base));
        request.json(body).send().await.unwrap()
    }

    /// Posts a text as it is, under the content type of JSON.
    pub(crate) async fn post_text(&self, path: &str, text: impl Into<reqwest::Body>) -> Response {
        let request = self.client.post(format!("{}{path}", self.base)).body(text);
        let request = request.header("content-type", "application/json");
        request.send().await.unwrap()
    }

    /// The answer to a request that has to be granted.
    pub(crate) async fn granted<T: DeserializeOwned>(&self, path: &str, body: &Value) -> T {
        answer(201, self.post(path, body).await).await
    }

    /// The answer to any other request that has to succeed.
    pub(crate) async fn accepted<T: DeserializeOwned>(&self, path: &str, body: &Value) -> T {
        answer(200, self.post(path, body).await).await
    }

    /// The problem with a request that has to be refused.
    pub(crate) async fn refused(&self, path: &str, body: &Value) -> Value {
        problem(self.post(path, body).await).await
    }

    pub(crate) async fn grant(&self, filename: &str, content_type: &str) -> Grant {
        let body = json!({"filename": filename, "contentType": content_type});
        self.granted("/upload/presigned-url", &body).await
    }

    /// A grant for this request, after `body` was sent with it.
    pub(crate) async fn sent(&self, request: &Value, body: impl Into<reqwest::Body>) -> Grant {
        let grant: Grant = self.granted("/upload/presigned-url", request).await;
        assert_eq!(self.upload(&grant, body).await.status(), 200);
        grant
    }

    /// A grant as if it had been asked for at `now`.
    pub(crate) async fn grant_at(&self, now: SystemTime) -> upload::Grant {
        let file = file("a.txt", "text/plain");
        presign_put(&self.uploads, &file, now).await
    }

    /// Sends `body` exactly as `grant` says.
    pub(crate) async fn upload(&self, grant: &Grant, body: impl Into<reqwest::Body>) -> Response {
        grant.send(&self.client, body).await
    }

    /// What the store says of an object.
    pub(crate) async fn head(&self, key: &str) -> HeadObjectOutput {
        let head = self.store.head_object().bucket(dev::BUCKET).key(key);
        head.send().await.unwrap()
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

/// Waits until something is so. A test that fails does not hang.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    assert!(ended.is_ok(), "not within 20 seconds: {what}");
}

/// A grant for a file of an anonymous caller.
pub(crate) async fn presign_put(
    uploads: &UploadService,
    file: &File,
    now: SystemTime,
) -> upload::Grant {
    let caller = Caller::anonymous();
    let grant = uploads.presign_put(GrantRequest::new(&caller, file, now));
    grant.await.unwrap()
}

/// The same for a form.
pub(crate) async fn presign_post(
    uploads: &UploadService,
    file: &File,
    now: SystemTime,
) -> upload::Grant {
    let caller = Caller::anonymous();
    let grant = uploads.presign_post(GrantRequest::new(&caller, file, now));
    grant.await.unwrap()
}

/// A file of which only this is known.
pub(crate) fn file(filename: &str, content_type: &str) -> File {
    File::new(
        upload::Filename::parse(filename).unwrap(),
        upload::ContentType::parse(content_type).unwrap(),
    )
}
