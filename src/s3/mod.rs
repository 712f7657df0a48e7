//! How requests are signed: one bucket, the SDK's client for it, and the credentials. Knows
//! nothing of policies, filenames or HTTP servers.

mod credentials;
mod head;
mod host;
mod multipart;
mod object;
mod post;
mod presign;
mod replay;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, Region, SdkConfig, meta::region::RegionProviderChain};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::IdentityCache;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use tokio::sync::OnceCell;

pub use self::credentials::{CredentialsCache, CredentialsError};
pub use self::head::StoredObject;
pub use self::host::Host;
pub use self::multipart::{MAX_PARTS, StoreError, StoredPart};
pub(crate) use self::object::has_two_spaces;
pub use self::object::{
    MAX_OBJECT_BYTES, MAX_PUT_BYTES, Object, ObjectCannedAcl, ServerSideEncryption, StorageClass,
    header_value,
};
pub use self::post::{Post, PresignedPost};
pub use self::presign::{MAX_EXPIRES_IN, PresignError, PresignedRequest, Put};
use self::replay::Replay;

/// Used when the SDK's chain finds no region.
pub const DEFAULT_REGION: &str = "ap-northeast-2";

/// How long a call to the store may take: to connect, for one try, and with all tries.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
pub const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// How long finding out whether the store answers may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Clone, Debug)]
pub struct Settings {
    pub bucket: String,
    /// Put the bucket's name in the path instead of in the host's name.
    pub force_path_style: bool,
    /// The endpoint that clients see, when it is not the one that we call.
    pub public_endpoint: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Presign(#[from] PresignError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A form would have so many bytes, which is more than S3 takes.
    #[error("the fields of the form are too large: {0} bytes")]
    FormTooLarge(usize),
}

/// One bucket, and what we ask of it.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// For our own calls.
    client: Client,
    /// Signs what clients get.
    presigner: Client,
    name: String,
    credentials: CredentialsCache,
    /// Where forms are sent to; found out at the first one.
    form_target: Arc<OnceCell<post::FormTarget>>,
    put_replay: Arc<Replay>,
    part_replay: Arc<Replay>,
}

impl Bucket {
    /// `client` should sign with `credentials`, as one made by [`client`] does: they tell when a
    /// signature ends.
    pub fn new(client: Client, name: String, credentials: CredentialsCache) -> Self {
        Self {
            presigner: client.clone(),
            client,
            name,
            credentials,
            form_target: Arc::default(),
            put_replay: Arc::default(),
            part_replay: Arc::default(),
        }
    }

    /// Signs what clients get for `endpoint`; our own calls go where they went.
    #[must_use]
    pub fn with_public_endpoint(self, endpoint: &str) -> Self {
        let config = self.client.config().to_builder().endpoint_url(endpoint);
        Self {
            presigner: Client::from_conf(config.build()),
            ..Self::new(self.client, self.name, self.credentials)
        }
    }
}

/// The bucket that `settings` name, with clients that sign with `credentials`.
pub fn bucket(config: &SdkConfig, settings: Settings, credentials: CredentialsCache) -> Bucket {
    let client = client(config, settings.force_path_style, &credentials);
    let bucket = Bucket::new(client, settings.bucket, credentials);
    match settings.public_endpoint {
        Some(endpoint) => bucket.with_public_endpoint(&endpoint),
        None => bucket,
    }
}

impl Bucket {
    /// Whether there are credentials, and the store answers for this bucket. A refusal is an answer:
    /// credentials that can only write may not ask for more.
    pub async fn probe(&self, now: SystemTime) -> Result<(), Error> {
        self.credentials.get(now).await?;
        let once = aws_sdk_s3::config::Builder::new()
            .retry_config(RetryConfig::disabled())
            .timeout_config(
                TimeoutConfig::builder()
                    .operation_timeout(PROBE_TIMEOUT)
                    .build(),
            );
        let call = self.client.head_bucket().bucket(&self.name);
        let answer = call.customize().config_override(once).send().await;
        match answer {
            Ok(_) => Ok(()),
            Err(error)
                if error
                    .raw_response()
                    .is_some_and(|r| r.status().as_u16() == 403) =>
            {
                Ok(())
            }
            Err(error) => Err(StoreError::from(error).into()),
        }
    }

    /// How long the credentials at hand live on: [`CredentialsCache::life`].
    pub fn credentials_life(&self, now: SystemTime) -> Option<Duration> {
        self.credentials.life(now)
    }
}

/// What the environment, the profile and the machine say of AWS: region, endpoint, credentials.
pub async fn sdk_config() -> SdkConfig {
    let region = RegionProviderChain::default_provider().or_else(Region::new(DEFAULT_REGION));
    aws_config::defaults(BehaviorVersion::latest())
        .region(region)
        .load()
        .await
}

/// A client that signs with `credentials`.
pub fn client(
    config: &SdkConfig,
    force_path_style: bool,
    credentials: &CredentialsCache,
) -> Client {
    let config = aws_sdk_s3::config::Builder::from(config)
        .credentials_provider(SharedCredentialsProvider::new(credentials.clone()))
        // `CredentialsCache` is the one cache: a second could hold other credentials.
        .identity_cache(IdentityCache::no_cache())
        .force_path_style(force_path_style)
        // Sessions of directory buckets would be a second source of credentials, asked over the network.
        .disable_s3_express_session_auth(true)
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                .operation_timeout(CALL_TIMEOUT)
                .build(),
        )
        .build();
    Client::from_conf(config)
}

/// Signs once for nothing, with made-up credentials and without asking anyone: an error here means that
/// these settings can never sign. Gives the host that clients will be sent to.
pub async fn check(
    config: &SdkConfig,
    settings: &Settings,
    with_forms: bool,
) -> Result<Host, Error> {
    let made_up = Credentials::new("AKID", "secret", None, None, "made up");
    let credentials =
        CredentialsCache::new(SharedCredentialsProvider::new(made_up), Duration::ZERO);
    let bucket = bucket(config, settings.clone(), credentials);
    let object = Object {
        key: "k",
        ..Object::default()
    };
    let put = Put {
        object: object.clone(),
        ..Put::default()
    };
    let (life, now) = (Duration::from_secs(1), SystemTime::now());
    let signing = presign::Signing {
        credentials: bucket.credentials.get(now).await?,
        expires_in: life,
        now: presign::whole_seconds(now),
    };
    let put = presign::Request::Put(&put);
    let presigned = bucket.ask_presigner(put, &signing).await?;
    if with_forms {
        let post = Post {
            object,
            size: 0..=0,
        };
        bucket.presign_post(&post, life, now).await?;
    }
    Ok(Host::of_url(&presigned.url, &settings.bucket))
}
