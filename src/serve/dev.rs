//! `presignd dev`: the service with an embedded store.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Result, ensure};

use super::announce::warn_of_configuration;
use super::listeners::{Listeners, listen};
use super::{Hangups, Service, cancelled_by_signals, stopped_by};
use crate::config::{self, Config, Env};
use crate::http::auth::Auth;
use crate::output::print;
use crate::{dev, http, s3, telemetry};

/// Where `presignd dev` listens and keeps its files.
#[derive(Debug, clap::Args)]
pub(crate) struct DevArgs {
    /// Where the service listens: an address and a port, or a port [default: `BIND_ADDR`, else 127.0.0.1:3000]
    #[arg(long, value_name = "ADDR", value_parser = loopback_addr)]
    addr: Option<SocketAddr>,
    /// Where the S3 store listens
    #[arg(long, value_name = "ADDR", value_parser = loopback_addr, default_value = "127.0.0.1:9000")]
    s3_addr: SocketAddr,
    /// Where the uploads are kept
    #[arg(long, value_name = "DIR", default_value = ".presignd")]
    data_dir: std::path::PathBuf,
    /// The secret key of the S3 store [default: a random one, kept in the folder of the uploads]
    #[arg(long, value_name = "KEY")]
    secret_key: Option<String>,
    /// The URL to send webhooks to. Their secret is printed and kept in the folder of the uploads
    #[arg(long, value_name = "URL", value_parser = config::webhook_url)]
    webhook: Option<reqwest::Url>,
    /// Listen on all addresses of a container, whose loopback address nobody outside can reach; URLs
    /// have the addresses above, so publish the same ports
    #[arg(long, conflicts_with = "secret_key")]
    in_container: bool,
}

/// Parses an address. A port alone means the loopback address.
fn loopback_addr(text: &str) -> Result<SocketAddr, &'static str> {
    let port = || Some(SocketAddr::from(([127, 0, 0, 1], text.parse().ok()?)));
    config::parse_addr(text)
        .or_else(port)
        .ok_or("it must be an address and a port such as 127.0.0.1:3010, or a port such as 3010")
}

/// `presignd dev`: runs the service with an embedded store until a signal.
pub(crate) async fn dev(env: &Env, args: DevArgs) -> Result<()> {
    let hangups = Hangups::new()?;
    let s3_settings = s3::Settings {
        bucket: dev::BUCKET.into(),
        force_path_style: true,
        public_endpoint: None,
        accelerate: false,
    };
    let mut config = Config::with_store(env, s3_settings.clone())?;
    let _log = telemetry::init(dev::telemetry(config.telemetry.clone()))?;
    let addr = args.addr.unwrap_or(config.bind_addr);
    config.bind_addr = addr;
    for (addr, setting) in [(addr, "--addr"), (args.s3_addr, "--s3-addr")] {
        ensure!(
            addr.ip().is_loopback(),
            "{setting} must be a loopback address such as 127.0.0.1:{}: `dev` is open to whoever reaches it",
            addr.port()
        );
    }
    let mut embedded = dev::Dev::open(&args.data_dir, args.secret_key)?;
    embedded.add_buckets(config.upload.policies.buckets().into_iter().flatten())?;
    adapt(&mut config, &embedded)?;
    let notifier = dev::Notifier::open(&args.data_dir, args.webhook, &mut config.http.events)?;
    let store = notifier.watching(embedded.store(&config.http.allowed_origins)?);
    warn_of_configuration(env, &config.upload.policies);
    let stop = cancelled_by_signals()?;
    let opened = |addr: SocketAddr| {
        if !args.in_container {
            return addr;
        }
        let any: IpAddr = match addr {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        SocketAddr::new(any, addr.port())
    };
    let listeners = Listeners::open(opened(addr), "--addr", &config)?;
    let s3_listener = listen(opened(args.s3_addr), "--s3-addr")?;
    // The addresses for clients, with the listeners' ports, which the system may have chosen.
    let addr = SocketAddr::new(addr.ip(), listeners.addr()?.port());
    let s3_addr = SocketAddr::new(args.s3_addr.ip(), s3_listener.local_addr()?.port());
    let page = http::page::Settings::new(&format!("http://{s3_addr}"))?;
    let sdk_config = embedded.sdk_config(s3_addr);
    let service = Service::new(&config, &sdk_config, Some(page), stop.clone()).await?;
    let env = env.clone();
    service.reload_on_hangups(hangups, move || {
        Config::with_store(&env, s3_settings.clone())
    });
    let credential = match &service.settings.auth {
        Auth { jwt: Some(_), .. } => Some("authorization: Bearer YOUR-TOKEN"),
        Auth {
            api_keys: Some(_), ..
        } => Some("x-api-key: YOUR-API-KEY"),
        _ => None,
    };
    let policies = service.uploads.policy_names();
    print(embedded.banner(addr, s3_addr, credential, &policies)?)?;
    print(notifier.banner())?;

    let router = http::router(Arc::clone(&service.uploads), &service.settings);
    let ((), (), sent) = tokio::join!(
        service.run(listeners, embedded.watched(router)),
        http::serve(s3_listener, store, stopped_by(&stop)),
        notifier.run(addr, &stop),
    );
    telemetry::flush();
    sent?;
    print(format_args!(
        "Stopped. The uploads are still in {}.\n",
        args.data_dir.display()
    ))?;
    Ok(())
}

/// Adds to the configuration what a developer need not set.
fn adapt(config: &mut Config, embedded: &dev::Dev) -> Result<()> {
    // Uploads in progress survive a restart.
    let session_key = &mut config.upload.session_key;
    session_key.get_or_insert_with(|| embedded.session_key());
    if config.http.allowed_origins == http::AllowedOrigins::None {
        // A front end under development is a page of this machine. Other pages could fill the disk,
        // because a form needs no preflight.
        config.http.allowed_origins = http::AllowedOrigins::Loopback;
    }
    if config.upload.receipts.is_none() {
        config.upload.receipts = Some(embedded.receipts()?);
    }
    Ok(())
}
