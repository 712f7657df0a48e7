//! What the targets share: how an input is read, and services with a simulated store. The promises are in the
//! targets.

pub mod problem;
mod store;

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use presignd::s3::{self, Bucket, CredentialsCache};
use presignd::telemetry::Metrics;
use presignd::upload::{
    Caller, ContentType, File, Filename, GrantRequest, MultipartUpload, Policies, SessionKey,
    Settings, UploadService,
};
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

pub use self::store::{Behavior, UPLOAD_ID, set_behavior};

/// The lifetime of grants of a policy without its own.
pub const LIFETIME: Duration = Duration::from_secs(600);
pub const BUCKET: &str = "bucket";

/// 1 March 2024, 00:00: the day before is that of a leap year.
pub fn midnight() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_709_251_200)
}

/// An id in the form of a random one, always the same.
pub fn id() -> Uuid {
    Uuid::from_u128(0x5d3c_8f60_9d0e_4b1f_8e51_3c2f_5c0a_8f3e)
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        let runtime = Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime")
    });
    RUNTIME.block_on(future)
}

/// The lines of an input, each split after its first word.
pub fn lines(input: &str) -> impl Iterator<Item = (&str, &str)> {
    input
        .split('\n')
        .map(|line| line.split_once(' ').unwrap_or((line, "")))
}

/// How a store is reached.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// By the bucket's own name.
    Aws,
    /// By an address, with the bucket in the path.
    Local,
}

impl Place {
    pub const ALL: [Self; 2] = [Self::Aws, Self::Local];

    /// The part of a URL before the key.
    pub fn base(self) -> &'static str {
        match self {
            Self::Aws => "https://bucket.s3.us-west-2.amazonaws.com/",
            Self::Local => "http://127.0.0.1:9000/bucket/",
        }
    }
}

/// The bucket of a simulated store; `token` is the session token of the credentials.
pub fn bucket(place: Place, token: Option<String>) -> Bucket {
    let credentials = Credentials::new("AKIDEXAMPLE", "secret", token, None, "fuzz");
    let provider = SharedCredentialsProvider::new(credentials);
    let mut config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-west-2"))
        .credentials_provider(provider.clone())
        .http_client(store::client());
    if let Place::Local = place {
        config.set_endpoint_url(Some("http://127.0.0.1:9000".to_owned()));
    }
    let credentials = CredentialsCache::new(provider, LIFETIME);
    let client = s3::client(&config.build(), matches!(place, Place::Local), &credentials);
    let bucket = Bucket::new(client.clone(), client, BUCKET.to_owned(), credentials);
    block_on(bucket).expect("a bucket that can be signed for")
}

/// A service with the policies of a file.
pub fn service(bucket: Bucket, policies: &str) -> UploadService {
    let policies = Policies::parse(policies, LIFETIME).expect("policies");
    service_of(bucket, policies)
}

pub fn service_of(bucket: Bucket, policies: Policies) -> UploadService {
    service_with_key(bucket, policies, &[7; 32])
}

/// The same with another secret.
pub fn service_with_key(bucket: Bucket, policies: Policies, key: &[u8]) -> UploadService {
    let settings = Settings {
        policies,
        supports_post: true,
        forms_only: false,
        receipts: None,
        session_key: Some(SessionKey::new(key)),
    };
    UploadService::new(bucket, settings, Metrics::default())
}

/// A request for a grant, at a time and with an id that are always the same.
pub fn ask<'a>(caller: &'a Caller, file: &'a File) -> GrantRequest<'a> {
    GrantRequest {
        id: id(),
        ..GrantRequest::new(caller, file, midnight())
    }
}

/// A service, and an upload in parts that anyone has begun there.
pub fn begun() -> (UploadService, MultipartUpload) {
    let policies = "[policies.default]\nmax_size = '12 MiB'";
    let service = service(bucket(Place::Local, None), policies);
    let filename = Filename::parse("a b.txt").expect("a name");
    let content_type = ContentType::parse("a/b").expect("a type");
    let file = file(filename, content_type, "default");
    let caller = Caller::anonymous();
    let upload = service.create_multipart(GrantRequest {
        id: id(),
        ..GrantRequest::new(&caller, &file, SystemTime::now())
    });
    let upload = block_on(upload).expect("an upload");
    (service, upload)
}

/// The first line of an input, and the rest.
pub fn first_line(input: &[u8]) -> (&[u8], &[u8]) {
    let end = input.iter().position(|b| *b == b'\n').unwrap_or(0);
    let (line, rest) = input.split_at(end);
    (line, rest.strip_prefix(b"\n").unwrap_or(rest))
}

/// A file with nothing but what is required.
pub fn file(filename: Filename, content_type: ContentType, policy: &str) -> File {
    File {
        policy: Some(policy.to_owned()),
        ..File::new(filename, content_type)
    }
}
