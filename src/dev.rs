//! The embedded store of `presignd dev`: real S3 signatures on a folder of this machine.

mod store;

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, absolute};
use std::time::Duration;

use anyhow::{Context, Result};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use axum::Router;
use axum::error_handling::HandleError;
use axum::extract::Request;
use axum::http::{HeaderName, Method, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tower_http::cors::{Any, CorsLayer};

use self::store::Store;

pub const BUCKET: &str = "uploads";
const ACCESS_KEY_ID: &str = "presignd-dev";
const SECRET_ACCESS_KEY: &str = "presignd-dev-secret";
const REGION: &str = "us-east-1";
/// Known to all, like the keys above: uploads under way go on after a restart.
pub const SESSION_SECRET: &[u8] = b"presignd-dev-session-secret-00000";

/// The store, with its bucket, on the folder `data_dir`, which is made if it is not there.
pub fn store(data_dir: &Path) -> Result<Router> {
    let cannot_use = || format!("cannot keep uploads in {}", data_dir.display());
    std::fs::create_dir_all(data_dir.join(BUCKET)).with_context(cannot_use)?;
    let probe = data_dir.join(".writable");
    std::fs::write(&probe, "").with_context(cannot_use)?;
    std::fs::remove_file(&probe).with_context(cannot_use)?;
    let files = FileSystem::new(data_dir)
        .map_err(|error| anyhow::anyhow!("{error:?}"))
        .with_context(cannot_use)?;

    let mut service = S3ServiceBuilder::new(Store::new(data_dir, files));
    service.set_auth(SimpleAuth::from_single(ACCESS_KEY_ID, SECRET_ACCESS_KEY));
    let service = HandleError::new(service.build(), |error| async move {
        tracing::error!(?error, "the embedded store failed");
        StatusCode::INTERNAL_SERVER_ERROR
    });
    Ok(Router::new()
        .fallback_service(service)
        .layer(from_fn(require_signed))
        .layer(cors()))
}

/// Refuses a presigned request with an `x-amz-…` header that is not part of the signature, as
/// [S3 does](https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html); `s3s` lets it
/// pass.
async fn require_signed(request: Request, next: Next) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let signed = query
        .split('&')
        .find_map(|parameter| parameter.strip_prefix("X-Amz-SignedHeaders="));
    let is_unsigned = |name: &HeaderName| {
        let name = name.as_str();
        name.starts_with("x-amz-")
            && signed.is_some_and(|names| names.split("%3B").all(|signed| signed != name))
    };
    if request.headers().keys().any(is_unsigned) {
        let xml = "<Error><Code>AccessDenied</Code><Message>There were headers present in the request which were not signed</Message></Error>";
        return (StatusCode::FORBIDDEN, xml).into_response();
    }
    next.run(request).await
}

/// Leads the SDK to a store that listens on `addr`.
pub fn sdk_config(addr: SocketAddr) -> SdkConfig {
    let credentials = Credentials::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY, None, None, "dev");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .endpoint_url(format!("http://{addr}"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}

/// What `presignd dev` says when it is up: where things are, and an upload to try.
pub fn banner(addr: SocketAddr, s3_addr: SocketAddr, data_dir: &Path) -> Result<String> {
    let folder = absolute(data_dir)?.join(BUCKET);
    let folder = folder.display();
    let mut text = String::new();
    write!(
        text,
        r#"presignd is up. Ctrl-C stops it; the uploads stay.

  page      http://{addr}/
  service   http://{addr}/upload/presigned-url
  docs      http://{addr}/docs
  S3 store  http://{s3_addr}, bucket {BUCKET}, region {REGION}
            access key {ACCESS_KEY_ID}, secret {SECRET_ACCESS_KEY}
  uploads   {folder}

Try it in another terminal: ask for a URL, then send a file to it.

  echo 'Hello, S3!' > hello.txt

  URL=$(curl -sS --fail-with-body http://{addr}/upload/presigned-url \
    -H 'content-type: application/json' \
    -d '{{"filename":"hello.txt","contentType":"text/plain"}}' |
    sed 's/.*"url":"\([^"]*\)".*/\1/')

  curl -sS --fail-with-body -T hello.txt -H 'content-type: text/plain' "$URL"

"#
    )?;
    Ok(text)
}

/// What browsers need to upload from any page.
fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([
            Method::GET,
            Method::HEAD,
            Method::PUT,
            Method::POST,
            Method::DELETE,
        ])
        .allow_headers(Any)
        .expose_headers([header::ETAG, header::LOCATION])
        .max_age(Duration::from_hours(1))
}
