//! Builds what runs from the configuration: the service, its listeners, and the token that stops
//! it.

mod announce;
#[cfg(feature = "dev")]
mod dev;
mod listeners;
mod reload;
mod signals;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result};
use aws_config::SdkConfig;
use tokio_util::sync::CancellationToken;

use self::announce::announce;
#[cfg(feature = "dev")]
pub(crate) use self::dev::{DevArgs, dev};
use self::listeners::Listeners;
use self::signals::Hangups;
pub(crate) use self::signals::cancelled_by_signals;
use crate::config::{self, Config, Env};
use crate::error_chain::causes;
use crate::http::HttpService;
use crate::upload::UploadService;
use crate::{http, s3, telemetry};

/// The most connections to the listener of the metrics and the probes.
const METRICS_CONNECTIONS: usize = 64;

/// `presignd serve`: runs the service until a signal.
pub(crate) async fn serve(env: &Env) -> Result<()> {
    let hangups = Hangups::new()?;
    let config = Config::from_env(env)?;
    let _log = telemetry::init(config.telemetry.clone())?;
    let stop = cancelled_by_signals()?;
    #[cfg(feature = "lambda")]
    if env.is_in_lambda() {
        let aws = config::load_aws(env).await?;
        let service = Service::new(&config, &aws.sdk_config, None, stop.clone()).await?;
        announce(env, &config, &aws, &service.public_host, None);
        let events = http::events::Events::from_settings(&service.uploads, &service.settings);
        let router = http::router(service.uploads, &service.settings);
        let ended = tokio::select! {
            ended = crate::lambda::run(router, events) => ended,
            () = stop.cancelled() => Ok(()),
        };
        telemetry::flush();
        return ended;
    }
    // The usual soft limit of 1,024 is less than the connections of a service. If it cannot be
    // raised, connections wait.
    rlimit::increase_nofile_limit(u64::MAX).ok(); // best effort
    let listeners = Listeners::open(config.bind_addr, "BIND_ADDR", &config)?;
    let aws = config::load_aws(env).await?;
    let service = Service::new(&config, &aws.sdk_config, None, stop).await?;
    let addr = listeners.addr()?;
    let reloaded_env = env.clone();
    service.reload_on_hangups(hangups, move || Config::from_env(&reloaded_env));
    announce(env, &config, &aws, &service.public_host, Some(addr));
    service.warn_without_credentials();
    #[cfg(target_os = "linux")]
    announce::notify_systemd();
    let router = http::router(Arc::clone(&service.uploads), &service.settings);
    service.run(listeners, router).await;
    telemetry::flush();
    Ok(())
}

/// The service without its listeners.
struct Service {
    uploads: Arc<UploadService>,
    credentials: s3::CredentialsCache,
    settings: http::Settings,
    limits: http::Limits,
    /// The host that clients send files to.
    public_host: s3::Host,
}

impl Service {
    /// # Errors
    ///
    /// Nothing can be signed with this configuration.
    async fn new(
        config: &Config,
        sdk_config: &SdkConfig,
        page: Option<http::page::Settings>,
        stop: CancellationToken,
    ) -> Result<Self> {
        let credentials = credentials(config, sdk_config)?;
        let buckets = buckets(config, sdk_config, &config.s3, &credentials).await?;
        let public_host = buckets.default_bucket().host();
        let is_for_anyone = !config.http.auth.is_required();
        let settings = http::Settings {
            page,
            local_hosts_only: config.bind_addr.ip().is_loopback() && is_for_anyone,
            stop,
            ..config.http.clone()
        };
        let metrics = settings.metrics.clone();
        let uploads = UploadService::new(buckets, config.upload.clone(), metrics);
        if let Some(jwt) = &settings.auth.jwt {
            jwt.prepare(&settings.metrics);
        }
        Ok(Self {
            uploads: Arc::new(uploads),
            credentials,
            settings,
            limits: http::Limits {
                max_connections: config.limits.max_connections.min(announce::max_files()),
                ..config.limits
            },
            public_host,
        })
    }

    /// Serves `router` on one listener, and its metrics on another, until it is stopped.
    async fn run(self, listeners: Listeners, router: impl HttpService) {
        let settings = self.settings;
        let server = http::Server {
            limits: self.limits,
            stop: settings.stop.clone(),
            metrics: settings.metrics.clone(),
        };
        let metrics = async {
            if let Some(listener) = listeners.metrics {
                // It asks for no credentials, whatever AUTH_MODE is.
                let is_local = |addr: SocketAddr| addr.ip().is_loopback();
                let settings = http::Settings {
                    local_hosts_only: listener.local_addr().is_ok_and(is_local),
                    ..settings.clone()
                };
                let router = http::metrics_router(self.uploads, &settings);
                let mut server = stopped_by(&settings.stop);
                server.limits.max_connections = METRICS_CONNECTIONS;
                http::serve(listener, router, server).await;
            }
        };
        tokio::join!(http::serve(listeners.service, router, server), metrics);
    }

    /// Warns in the background if there are no credentials, before the first request fails.
    fn warn_without_credentials(&self) {
        let credentials = self.credentials.clone();
        tokio::spawn(async move {
            if let Err(error) = credentials.get(SystemTime::now()).await {
                tracing::warn!(
                    error = causes(&error),
                    "there are no credentials to sign with: {}",
                    error.fix()
                );
            }
        });
    }
}

/// The credentials that the SDK's chain finds, cached for grants of this configuration.
pub(crate) fn credentials(config: &Config, sdk_config: &SdkConfig) -> Result<s3::CredentialsCache> {
    let provider = sdk_config
        .credentials_provider()
        .context("the SDK has no provider of credentials")?;
    let longest = config.upload.policies.longest_lifetime();
    Ok(s3::CredentialsCache::new(provider, longest))
}

/// The buckets of all policies, at the endpoints of `s3`.
pub(crate) async fn buckets(
    config: &Config,
    sdk_config: &SdkConfig,
    s3: &s3::Settings,
    credentials: &s3::CredentialsCache,
) -> Result<s3::Buckets> {
    let named = config.upload.policies.buckets().into_iter().flatten();
    let forms = config.upload.supports_post;
    let buckets = s3::buckets(sdk_config, s3, named, credentials.clone(), forms);
    buckets.await.context(s3::CANNOT_SIGN)
}

fn stopped_by(stop: &CancellationToken) -> http::Server {
    http::Server {
        stop: stop.clone(),
        ..http::Server::default()
    }
}
