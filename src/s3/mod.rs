//! Buckets of one store: how requests to them are signed, and what is asked of the store. Knows
//! nothing of policies, filenames or HTTP servers.

mod buckets;
mod clock;
mod credentials;
mod delete;
mod endpoint;
mod error;
mod head;
mod host;
mod multipart;
mod object;
mod post;
mod presign;
mod readable;
mod samples;
mod sign;
mod tags;
mod target;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::IdentityCache;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;

pub use self::buckets::{BUCKET_NAME, Buckets, CANNOT_SIGN, buckets, is_bucket_name};
pub use self::clock::ClockDifference;
pub use self::credentials::{CredentialsCache, CredentialsError};
pub use self::error::{StoreCause, StoreError};
pub(crate) use self::head::MAX_TEXT_BYTES;
pub use self::head::{FirstBytes, StoredObject};
pub use self::host::Host;
pub use self::multipart::{MAX_PARTS, MIN_PART_BYTES, StoredPart};
pub use self::object::{
    MAX_OBJECT_BYTES, MAX_PUT_BYTES, Object, ObjectCannedAcl, ServerSideEncryption, StorageClass,
    header_value,
};
pub(crate) use self::object::{has_two_spaces, is_encoded};
pub use self::post::Post;
pub(crate) use self::presign::IN_PATH;
use self::presign::Presigner;
pub use self::presign::{Get, MAX_EXPIRES_IN, PresignError, PresignedRequest, Put, Request};
use self::readable::ReadableHeaders;
use self::sign::SigningKeyCache;
use self::target::Target;

/// The region that is assumed, with a warning, when the SDK finds none. The examples of the docs use it.
pub const DEFAULT_REGION: &str = "ap-northeast-2";

/// Timeouts of a call to the store: for connecting, for one attempt, and for all attempts.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
pub const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// The timeout of the call that finds out whether the store answers.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Clone, Debug)]
pub struct Settings {
    pub bucket: String,
    /// Put the bucket's name in the path instead of in the host's name.
    pub force_path_style: bool,
    /// The endpoint for clients, if it differs from the one that the service calls.
    pub public_endpoint: Option<String>,
    /// Send clients to S3 Transfer Acceleration.
    pub accelerate: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Presign(#[from] PresignError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A form would have this many bytes, which is more than S3 accepts.
    #[error("the fields of the form are too large: {0} bytes")]
    FormTooLarge(usize),
}

/// How the store answered [`Bucket::probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeAnswer {
    Found,
    /// The credentials may only write, or are invalid: an answer to HEAD has no code that tells these
    /// apart. The first probe of a process gets it also if the clock is wrong, which the SDK then corrects.
    Denied,
}

/// One bucket, and the requests to it.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// For the service's own calls.
    client: Client,
    name: String,
    credentials: CredentialsCache,
    target: Arc<Target>,
    signing_key: SigningKeyCache,
    presigner: Presigner,
    /// Whether the last probe was refused.
    is_denied: Arc<AtomicBool>,
}

impl Bucket {
    /// `client` makes the service's own calls; clients get what `presigner` would sign. Both should
    /// sign with `credentials`, as a [`client`] does, because these limit the lifetime of a
    /// signature.
    ///
    /// # Errors
    ///
    /// Nothing can be signed with the settings of `presigner`.
    pub async fn new(
        client: Client,
        presigner: Client,
        name: String,
        credentials: CredentialsCache,
    ) -> Result<Self, PresignError> {
        let presigner = Presigner {
            client: presigner,
            bucket: name.clone(),
        };
        Ok(Self {
            target: Target::learn(&presigner).await?.into(),
            signing_key: SigningKeyCache::default(),
            presigner,
            is_denied: Arc::default(),
            client,
            name,
            credentials,
        })
    }

    /// The host that clients are sent to.
    pub fn host(&self) -> Host {
        let has_bucket = self.target.path == "/";
        Host::from_authority(&self.target.host, has_bucket.then_some(&*self.name))
    }

    /// The client for calls to the store, once there are credentials to sign them with.
    async fn client(&self) -> Result<&Client, CredentialsError> {
        self.credentials.get(SystemTime::now()).await?;
        Ok(&self.client)
    }

    /// Checks that there are credentials and that the store answers for this bucket. A refusal
    /// counts as an answer: some credentials may only write. Compares the clocks, too.
    pub async fn probe(&self, clock: &ClockDifference) -> Result<ProbeAnswer, Error> {
        let client = self.client().await?;
        let once = aws_sdk_s3::config::Builder::new()
            .retry_config(RetryConfig::disabled())
            .timeout_config(
                TimeoutConfig::builder()
                    .operation_timeout(PROBE_TIMEOUT)
                    .build(),
            );
        let call = client.head_bucket().bucket(&self.name);
        let call = call.customize().interceptor(clock.clone());
        let answer = match call.config_override(once).send().await {
            Ok(_) => ProbeAnswer::Found,
            Err(error) if error::status(&error) == Some(403) => ProbeAnswer::Denied,
            Err(error) => return Err(StoreError::from(error).into()),
        };
        let bucket = &*self.name;
        let is_denied = matches!(answer, ProbeAnswer::Denied);
        match (self.is_denied.swap(is_denied, Ordering::Relaxed), is_denied) {
            (false, true) => tracing::warn!(
                bucket,
                "the store answers HeadBucket with 403: it refuses the credentials, as after they were revoked, or they lack s3:ListBucket"
            ),
            (true, false) => tracing::info!(bucket, "the store accepts HeadBucket again"),
            _ => {}
        }
        Ok(answer)
    }

    /// The remaining lifetime of the cached credentials: [`CredentialsCache::remaining_lifetime`].
    pub fn credentials_lifetime(&self, now: SystemTime) -> Option<Duration> {
        self.credentials.remaining_lifetime(now)
    }
}

/// A client that signs with `credentials`.
pub fn client(
    config: &SdkConfig,
    force_path_style: bool,
    credentials: &CredentialsCache,
) -> Client {
    let mut builder = aws_sdk_s3::config::Builder::from(config);
    builder.set_endpoint_url(endpoint::configured(config));
    let config = builder
        .credentials_provider(SharedCredentialsProvider::new(credentials.clone()))
        // `CredentialsCache` is the only cache: a second one could hold other credentials.
        .identity_cache(IdentityCache::no_cache())
        .force_path_style(force_path_style)
        // Sessions of directory buckets would be a second source of credentials, fetched over the
        // network.
        .disable_s3_express_session_auth(true)
        .interceptor(ReadableHeaders)
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
