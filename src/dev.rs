//! The embedded store of `presignd dev`: real S3 signatures on a folder of this machine.

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
use axum::http::{Extensions, HeaderMap, HeaderName, Method, StatusCode, Uri, header};
use s3s::auth::SimpleAuth;
use s3s::crypto::{Checksum, Sha256};
use s3s::dto::{
    DeleteObjectInput, DeleteObjectOutput, GetObjectInput, GetObjectOutput, HeadBucketInput,
    HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListObjectsV2Input, ListObjectsV2Output,
    PutObjectInput, PutObjectOutput,
};
use s3s::service::S3ServiceBuilder;
use s3s::{S3, S3ErrorCode, S3Request, S3Response, S3Result};
use s3s_fs::FileSystem;
use tower_http::cors::{Any, CorsLayer};

pub const BUCKET: &str = "uploads";
const ACCESS_KEY_ID: &str = "presignd-dev";
const SECRET_ACCESS_KEY: &str = "presignd-dev-secret";
const REGION: &str = "us-east-1";

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

    let mut service = S3ServiceBuilder::new(Store(files));
    service.set_auth(SimpleAuth::from_single(ACCESS_KEY_ID, SECRET_ACCESS_KEY));
    let service = HandleError::new(service.build(), |error| async move {
        tracing::error!(?error, "the embedded store failed");
        StatusCode::INTERNAL_SERVER_ERROR
    });
    Ok(Router::new().fallback_service(service).layer(cors()))
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

/// [`FileSystem`], with what it lacks to be a truthful stand-in for S3.
///
/// - It names a file after the whole key, in base64, which is too long a name from some 130 bytes
///   on, where S3 takes 1,024. Longer keys get a [`short_key`].
/// - It keeps the bytes of an upload that it refuses for a wrong checksum; they are removed.
struct Store(FileSystem);

macro_rules! delegate {
    (by_key { $($by_key:ident: $ByKeyIn:ty => $ByKeyOut:ty,)* } as_is { $($as_is:ident: $AsIsIn:ty => $AsIsOut:ty,)* }) => {
        #[async_trait::async_trait]
        impl S3 for Store {
            $(async fn $by_key(&self, mut request: S3Request<$ByKeyIn>) -> S3Result<S3Response<$ByKeyOut>> {
                request.input.key = short_key(request.input.key);
                self.0.$by_key(request).await
            })*

            $(async fn $as_is(&self, request: S3Request<$AsIsIn>) -> S3Result<S3Response<$AsIsOut>> {
                self.0.$as_is(request).await
            })*

            async fn put_object(&self, mut request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
                request.input.key = short_key(request.input.key);
                let delete = delete_of(&request.input);
                let result = self.0.put_object(request).await;
                if result.as_ref().is_err_and(|error| *error.code() == S3ErrorCode::BadDigest) {
                    self.0.delete_object(delete).await?;
                }
                result
            }
        }
    };
}

delegate! {
    by_key {
        get_object: GetObjectInput => GetObjectOutput,
        head_object: HeadObjectInput => HeadObjectOutput,
        delete_object: DeleteObjectInput => DeleteObjectOutput,
    }
    as_is {
        head_bucket: HeadBucketInput => HeadBucketOutput,
        list_objects_v2: ListObjectsV2Input => ListObjectsV2Output,
    }
}

fn delete_of(put: &PutObjectInput) -> S3Request<DeleteObjectInput> {
    S3Request {
        input: DeleteObjectInput {
            bucket: put.bucket.clone(),
            key: put.key.clone(),
            ..DeleteObjectInput::default()
        },
        method: Method::DELETE,
        uri: Uri::default(),
        headers: HeaderMap::default(),
        extensions: Extensions::default(),
        credentials: None,
        region: None,
        service: None,
        trailing_headers: None,
    }
}

/// The key itself if [`FileSystem`] can hold it; otherwise its beginning, a digest of all of it,
/// and its end.
fn short_key(key: String) -> String {
    const LONGEST: usize = 128;
    if key.len() <= LONGEST {
        return key;
    }
    let mut digest = Sha256::new();
    digest.update(key.as_bytes());
    let digest = digest.finalize();
    let mut short = key[..key.floor_char_boundary(80)].to_owned();
    short.push('~');
    for byte in &digest[..12] {
        let _infallible = write!(short, "{byte:02x}");
    }
    short.push_str(&key[key.ceil_char_boundary(key.len() - 16)..]);
    short
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
        .expose_headers([header::ETAG, HeaderName::from_static("x-amz-request-id")])
        .max_age(Duration::from_hours(1))
}
