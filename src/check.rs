//! `presignd check`: tries a configuration as the service and its clients would use it, and says
//! what is wrong and how to fix it. It removes whatever it puts into the bucket.
//!
//! Every request to the store has a timeout. URLs, signatures and secrets are never part of the
//! report.

mod bucket;
mod cors;
mod lifecycle;
mod marker;
mod problem;
mod prove;
mod public_endpoint;
mod removal;
mod report;
mod requests;
mod settings;
mod tags;
mod unsigned;
mod uploads;
mod write;

use std::ops::Deref;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Result;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use tokio::sync::OnceCell;

use self::marker::MarkerError;
use self::removal::Marker;
pub use self::report::{Line, Report, Status};
use crate::config::{Aws, Config};
use crate::telemetry::Metrics;
use crate::upload::{Sample, UploadService};
use crate::{s3, serve};

/// How long one request to the store may take, and connecting as a part of it.
const TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a check that needs PUTs or uploads in parts is skipped.
const FORMS_ONLY: &str = "S3_FORMS_ONLY is true";
/// Why a check that needs forms is skipped.
const FORMS_OFF: &str = "S3_SUPPORTS_POST_POLICY is false";
/// The checks that upload in one way.
const PUT: &str = "put";
const POST: &str = "post";
const MULTIPART: &str = "multipart";
/// Why a check that uploads markers is skipped.
const NO_SAMPLE: &str = "no policy has unique keys for a marker";

/// What the checks do only on request.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Options {
    /// Add what browsers need to the bucket's CORS rules
    #[arg(long)]
    pub fix_cors: bool,
    /// Add the lifecycle rules that remove parts nobody completes and uploads nobody commits
    #[arg(long)]
    pub fix_lifecycle: bool,
    /// Violate the terms of grants, and fail where the store accepts it; about 100 requests for
    /// each bucket, and 10 for each policy
    #[arg(long)]
    pub prove: bool,
}

/// A configuration that can sign: the checks of all buckets that its policies use.
#[derive(Debug)]
pub struct Checks(Vec<Check>);

impl Checks {
    /// # Errors
    ///
    /// Nothing can be signed with these settings.
    pub async fn new(config: Config, aws: Aws) -> Result<Self> {
        let (sdk_config, s3) = (&aws.sdk_config, &config.s3);
        let credentials = serve::credentials(&config, sdk_config)?;
        let called = s3::Settings {
            public_endpoint: None,
            accelerate: false,
            ..s3.clone()
        };
        let called = serve::buckets(&config, sdk_config, &called, &credentials).await?;
        let public = serve::buckets(&config, sdk_config, s3, &credentials).await?;
        let service = |buckets: &s3::Buckets| {
            let (settings, metrics) = (config.upload.clone(), Metrics::default());
            UploadService::new(buckets.clone(), settings, metrics)
        };
        let client = s3::client(sdk_config, s3.force_path_style, &credentials);
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_timeout(TIMEOUT);
        let requests = Arc::<AtomicU32>::default();
        let client_config = client.config().to_builder();
        let client_config = client_config
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts.build())
            .interceptor(requests::Counter(Arc::clone(&requests)));
        let common = Arc::new(Common {
            client: aws_sdk_s3::Client::from_conf(client_config.build()),
            requests,
            http: reqwest::Client::builder()
                .timeout(TIMEOUT)
                .connect_timeout(CONNECT_TIMEOUT)
                .redirect(reqwest::redirect::Policy::none())
                .build()?,
            uploads: service(&called),
            public_uploads: (s3.public_endpoint.is_some() || s3.accelerate)
                .then(|| service(&public)),
            credentials,
            config,
            aws,
        });
        let names = common.config.upload.policies.buckets().into_iter();
        let all = names.filter_map(|name| {
            let (called, public) = (called.get(name)?, public.get(name)?);
            Some(Check::new(Arc::clone(&common), name, called, public))
        });
        Ok(Self(all.collect()))
    }

    /// Runs all checks. A bucket that cannot be reached or used has fewer.
    pub async fn run(&self, options: Options) -> Report {
        let mut report = Report::default();
        for (index, check) in self.0.iter().enumerate() {
            let mut lines = check.run(index == 0, options).await;
            if self.0.len() > 1 {
                for line in &mut lines {
                    line.bucket = Some(check.bucket.clone());
                }
            }
            report.checks.extend(lines);
        }
        report
    }

    /// Removes what the checks left in the buckets. Returns a line for each bucket where this
    /// failed.
    pub async fn clean_up(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        for check in &self.0 {
            lines.extend(check.clean_up().await);
        }
        lines
    }
}

/// What the checks of all buckets share.
#[derive(Debug)]
struct Common {
    /// The configuration that `serve` would use.
    config: Config,
    aws: Aws,
    credentials: s3::CredentialsCache,
    /// Sends requests that the service itself never sends.
    client: aws_sdk_s3::Client,
    /// How many requests the proof has sent to the store.
    requests: Arc<AtomicU32>,
    /// Sends what clients and browsers send.
    http: reqwest::Client,
    /// The service, with the endpoint that it calls.
    uploads: UploadService,
    /// The service, with the endpoint that clients see, if that is another one.
    public_uploads: Option<UploadService>,
}

/// The checks of one bucket, and everything that is needed to try it.
#[derive(Debug)]
struct Check {
    common: Arc<Common>,
    /// The bucket's name.
    bucket: String,
    /// Files for the policies that use the bucket.
    samples: Vec<Sample>,
    /// The bucket's URL, for the service and for clients.
    address: String,
    public_address: String,
    public_host: s3::Host,
    /// What has to be removed from the bucket.
    markers: Mutex<Vec<Marker>>,
    /// Whether the bucket keeps versions, or has kept them before; or why nothing may be uploaded
    /// into it. It is read once.
    keeps_versions: OnceCell<Result<bool, String>>,
    /// Whether the answer to the first upload lets pages read `ETag`.
    exposes_etag: OnceLock<bool>,
}

impl Deref for Check {
    type Target = Common;

    fn deref(&self) -> &Common {
        &self.common
    }
}

impl Check {
    /// `name` is the bucket's name in policies. `called` is the bucket at the endpoint that the
    /// service calls, and `public` at the one that clients see.
    fn new(
        common: Arc<Common>,
        name: Option<&str>,
        called: &s3::Bucket,
        public: &s3::Bucket,
    ) -> Self {
        let address = |bucket: &s3::Bucket| bucket.address("").trim_end_matches('/').to_owned();
        let samples = common.config.upload.policies.samples().into_iter();
        Self {
            bucket: called.name().to_owned(),
            samples: samples
                .filter(|sample| sample.bucket.as_deref() == name)
                .collect(),
            address: address(called),
            public_address: address(public),
            public_host: public.host(),
            markers: Mutex::default(),
            keeps_versions: OnceCell::new(),
            exposes_etag: OnceLock::new(),
            common,
        }
    }

    /// Runs all checks of the bucket. The `first` one also checks what all buckets share.
    async fn run(&self, first: bool, options: Options) -> Vec<Line> {
        let mut lines = Vec::new();
        let may_go_on = self.until_the_bucket(first, &mut lines).await;
        if first {
            lines.extend(self.issuer().await);
            lines.extend(self.webhook().await);
        }
        if may_go_on {
            let uploads = self.uploads().await;
            let accepts = |line: &Line| matches!(line.status, Status::Ok | Status::Warning);
            let accepts_forms = uploads
                .iter()
                .any(|line| line.check == POST && accepts(line));
            let write = self.write(&uploads).await;
            lines.extend(uploads);
            lines.extend(write);
            let tags = self.tags().await;
            let keeps_tags = tags.iter().all(|line| line.status == Status::Ok);
            lines.extend(tags);
            lines.push(self.unsigned_headers().await);
            if accepts_forms {
                lines.push(self.form_headers().await);
            }
            lines.push(self.unsigned_stream().await);
            if options.prove {
                lines.extend(self.prove().await);
            }
            lines.extend(self.public_endpoint().await);
            lines.push(self.cors(options.fix_cors).await);
            lines.extend(self.mixed_content());
            lines.extend(self.lifecycle(options.fix_lifecycle, keeps_tags).await);
            lines.push(self.public_access().await);
        } else {
            let detail = "uploads, CORS and the bucket's rules, until the failures above are fixed";
            lines.push(Line::skipped("rest", detail));
        }
        lines.extend(self.clean_up().await);
        lines
    }

    /// Runs the checks up to the existence of the bucket. False if the others cannot succeed.
    async fn until_the_bucket(&self, first: bool, lines: &mut Vec<Line>) -> bool {
        lines.push(self.settings());
        if first {
            lines.extend(self.callers());
            lines.push(self.credentials().await);
        }
        let reached = self.endpoint(lines).await;
        let has_failed = lines.iter().any(|line| line.status == Status::Failed);
        match reached {
            Some(reached) if !has_failed => self.region_and_bucket(&reached, lines).await,
            _ => false,
        }
    }

    /// Removes what the checks left in the bucket. Returns a line if this failed.
    async fn clean_up(&self) -> Option<Line> {
        let mut left = Vec::new();
        let markers = self.markers().clone();
        for marker in markers {
            // A marker stays listed until it is removed, so that the call after a signal finds it.
            if let Err(MarkerError::NotRemoved(key, problem)) = self.discard(&marker).await {
                left.push(format!("{key} ({problem})"));
            }
        }
        if left.is_empty() {
            return None;
        }
        let detail = format!("may still be in the bucket: {}", left.join(", "));
        Some(Line::failed("left-behind", detail).fix("remove it yourself"))
    }

    fn markers(&self) -> std::sync::MutexGuard<'_, Vec<Marker>> {
        self.markers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The samples of policies whose keys no other object can have.
    fn unique_samples(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(|sample| sample.has_unique_key)
    }
}
