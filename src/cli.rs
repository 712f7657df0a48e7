//! The commands: one short function for each.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use aws_config::SdkConfig;
use clap::{Parser, Subcommand};
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

use crate::config::{self, Env};
use crate::http::auth::Auth;
use crate::upload::UploadService;
use crate::{check, http, s3, telemetry, upload};

/// Hands out presigned S3 upload URLs over HTTP.
#[derive(Debug, Parser)]
#[command(
    version,
    arg_required_else_help = true,
    after_help = "Settings come from the environment and from .env; .env.example lists them."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service and a small S3 store on this machine: nothing to set up
    #[cfg(feature = "dev")]
    Dev(DevArgs),
    /// Run the service against the S3 that the environment names
    Serve,
    /// Make an API key for a caller: print it once, and the entry that lets it in
    ApiKey {
        /// Who the key is for, as logs and `{caller}` in keys name them
        name: String,
    },
    /// Find what is wrong with the set-up and say how to mend it; exit code 1 if something has failed
    Check(CheckArgs),
    /// Print the OpenAPI document
    Openapi,
    /// Ask the service at `BIND_ADDR` whether it is alive; the exit code is the answer
    Healthcheck,
}

#[cfg(feature = "dev")]
#[derive(Debug, clap::Args)]
struct DevArgs {
    /// Where the service listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3000")]
    addr: SocketAddr,
    /// Where the S3 store listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9000")]
    s3_addr: SocketAddr,
    /// Where the uploads are kept
    #[arg(long, value_name = "DIR", default_value = ".presignd")]
    data_dir: std::path::PathBuf,
}

#[derive(Debug, clap::Args)]
struct CheckArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Add to the bucket's CORS rules what browsers need
    #[arg(long)]
    fix_cors: bool,
}

pub fn run(cli: Cli) -> Result<()> {
    let Cli { command } = cli;
    config::load_dotenv()?;
    match command {
        #[cfg(feature = "dev")]
        Command::Dev(args) => block_on(dev(args)),
        Command::Serve => block_on(serve()),
        Command::ApiKey { name } => api_key(&name),
        Command::Check(args) => block_on(check(args)),
        Command::Openapi => openapi(),
        Command::Healthcheck => healthcheck(),
    }
}

async fn serve() -> Result<()> {
    let env = Env::of_process();
    let bind_addr = config::bind_addr(env)?;
    let limits = config::limits(env)?;
    let s3_settings = config::s3(env)?;
    let upload_settings = config::upload(env)?;
    let mut http_settings = config::http(env, &upload_settings.policies)?;
    let _log = telemetry::init(config::telemetry(env)?)?;

    let stop = cancelled_by_signals()?;
    http_settings.stop = stop.clone();
    #[cfg(feature = "lambda")]
    if crate::lambda::is_here() {
        let uploads = ready(env, None, s3_settings, upload_settings, &http_settings).await?;
        let router = http::router(uploads, &http_settings);
        return tokio::select! {
            ended = crate::lambda::run(router) => ended,
            () = stop.cancelled() => Ok(()),
        };
    }
    // The usual soft limit, 1,024, is less than a service has connections. Where it cannot be raised,
    // connections wait.
    let _as_it_was = rlimit::increase_nofile_limit(u64::MAX);
    let listener = listen(bind_addr, "BIND_ADDR")?;
    let metrics_listener = listen_for_metrics(env)?;
    let addr = Some(listener.local_addr()?);
    let uploads = ready(env, addr, s3_settings, upload_settings, &http_settings).await?;
    let listeners = (listener, metrics_listener);
    serve_all(listeners, limits, uploads, &http_settings).await;
    telemetry::flush();
    Ok(())
}

/// The service on the S3 that the environment names, once it has shown that it can sign, for those who
/// reach `addr`; a function has none.
async fn ready(
    env: Env<'_>,
    addr: Option<SocketAddr>,
    s3_settings: s3::Settings,
    upload_settings: upload::Settings,
    http_settings: &http::Settings,
) -> Result<Arc<UploadService>> {
    let sdk_config = s3::sdk_config().await;
    let name = s3_settings.bucket.clone();
    let bucket = bucket(&sdk_config, s3_settings, &upload_settings).await?;
    let public_host = bucket.host();
    tracing::info!(
        addr = addr.map(tracing::field::display),
        bucket = name,
        region = sdk_config.region().map(tracing::field::display),
        version = env!("CARGO_PKG_VERSION"),
        "listening"
    );
    let entrance = addr.map_or("the function".to_owned(), |addr| addr.to_string());
    let is_exposed = addr.is_none_or(|addr| !addr.ip().is_loopback());
    if matches!(http_settings.auth, Auth::None) && is_exposed {
        tracing::warn!(
            "AUTH_MODE is none: ANYONE who reaches {entrance} can upload to this bucket"
        );
    }
    if let Auth::Jwt(jwt) = &http_settings.auth {
        jwt.prepare();
    }
    if public_host.is_internal() && is_exposed {
        tracing::warn!(
            "clients are sent to the store at {public_host}, which they may not reach: S3_PUBLIC_ENDPOINT_URL sets another endpoint for them"
        );
    }
    if !config::has_session_secret(env)? {
        tracing::warn!(
            "UPLOAD_SESSION_SECRET is not set: multipart uploads end with this process, and other replicas do not know them"
        );
    }
    let metrics = http_settings.metrics.clone();
    Ok(Arc::new(UploadService::new(
        bucket,
        upload_settings,
        metrics,
    )))
}

fn listen_for_metrics(env: Env<'_>) -> Result<Option<TcpListener>> {
    let addr = config::metrics_addr(env)?;
    addr.map(|addr| listen(addr, "METRICS_ADDR")).transpose()
}

/// Serves the service on the first listener, and its metrics on the second, if there is one.
async fn serve_all(
    (listener, metrics_listener): (TcpListener, Option<TcpListener>),
    limits: http::Limits,
    uploads: Arc<UploadService>,
    settings: &http::Settings,
) {
    let router = http::router(Arc::clone(&uploads), settings);
    let server = http::Server {
        limits,
        stop: settings.stop.clone(),
        metrics: settings.metrics.clone(),
    };
    let service = http::serve(listener, router, server);
    let metrics = async {
        if let Some(listener) = metrics_listener {
            let router = http::metrics_router(uploads, settings);
            http::serve(listener, router, stopped_by(&settings.stop)).await;
        }
    };
    tokio::join!(service, metrics);
}

#[cfg(feature = "dev")]
async fn dev(args: DevArgs) -> Result<()> {
    use crate::dev;

    for (addr, flag) in [(args.addr, "--addr"), (args.s3_addr, "--s3-addr")] {
        ensure!(
            addr.ip().is_loopback(),
            "{flag} must be a loopback address such as 127.0.0.1:{}: `dev` is open to whoever reaches it",
            addr.port()
        );
    }
    let env = Env::of_process();
    let mut upload_settings = config::upload(env)?;
    let limits = config::limits(env)?;
    if !config::has_session_secret(env)? {
        upload_settings.session_key = upload::SessionKey::new(dev::SESSION_SECRET);
    }
    let _log = telemetry::init(config::telemetry(env)?)?;

    let stop = cancelled_by_signals()?;
    let listener = listen(args.addr, "--addr")?;
    let s3_listener = listen(args.s3_addr, "--s3-addr")?;
    let store = dev::store(&args.data_dir)?;
    let addr = listener.local_addr()?;
    let s3_addr = s3_listener.local_addr()?;

    let s3_settings = s3::Settings {
        bucket: dev::BUCKET.into(),
        force_path_style: true,
        public_endpoint: None,
    };
    let http_settings = http::Settings {
        allowed_origins: http::AllowedOrigins::Any,
        stop: stop.clone(),
        page: Some(http::page::Settings::new(&format!("http://{s3_addr}"))?),
        ..config::http(env, &upload_settings.policies)?
    };
    if let Auth::Jwt(jwt) = &http_settings.auth {
        jwt.prepare();
    }
    let sdk_config = dev::sdk_config(s3_addr);
    let bucket = bucket(&sdk_config, s3_settings, &upload_settings).await?;
    let metrics = http_settings.metrics.clone();
    let uploads = Arc::new(UploadService::new(bucket, upload_settings, metrics));
    let metrics_listener = listen_for_metrics(env)?;
    print!("{}", dev::banner(addr, s3_addr, &args.data_dir)?);

    let listeners = (listener, metrics_listener);
    tokio::join!(
        serve_all(listeners, limits, uploads, &http_settings),
        http::serve(s3_listener, store, stopped_by(&stop)),
    );
    telemetry::flush();
    println!(
        "Stopped. The uploads are still in {}.",
        args.data_dir.display()
    );
    Ok(())
}

fn api_key(name: &str) -> Result<()> {
    let (key, entry) = http::auth::new_api_key(name)?;
    // The file is checked like this, too: better now than at the next start.
    http::auth::ApiKeys::parse(&entry, &upload::Policies::built_in(Duration::ZERO))
        .map_err(|why| anyhow!("NAME: {why}"))?;
    eprintln!("The key of {name:?}. It is shown this once: give it to them.\n");
    println!("{key}");
    eprintln!(
        "\nTo let it in, add this to API_KEYS_FILE, with `policies = [...]` if it may not use all:\n"
    );
    eprint!("{entry}");
    Ok(())
}

async fn check(args: CheckArgs) -> Result<()> {
    let stop = cancelled_by_signals()?;
    let report = match check_setup(Env::of_process()).await {
        Ok(check) => {
            tokio::select! {
                report = check.run(args.fix_cors) => report,
                () = stop.cancelled() => {
                    if let Some(line) = check.clean_up().await {
                        eprintln!("{}", line.detail);
                    }
                    bail!("stopped");
                }
            }
        }
        Err(error) => check::Report::of_settings(&error),
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    match report.failed() {
        0 => Ok(()),
        1 => bail!("1 check has failed"),
        failed => bail!("{failed} checks have failed"),
    }
}

async fn check_setup(env: Env<'_>) -> Result<check::Check> {
    let upload = config::upload(env)?;
    check::Check::new(check::Setup {
        bind_addr: config::bind_addr(env)?,
        s3: config::s3(env)?,
        http: config::http(env, &upload.policies)?,
        upload,
        sdk_config: s3::sdk_config().await,
    })
    .await
}

fn openapi() -> Result<()> {
    println!("{}", http::openapi().to_pretty_json()?);
    Ok(())
}

fn healthcheck() -> Result<()> {
    const TIMEOUT: Duration = Duration::from_secs(3);
    const HEALTHY: [u8; 13] = *b"HTTP/1.1 200 ";
    let mut addr = config::bind_addr(Env::of_process())?;
    if addr.ip().is_unspecified() {
        addr.set_ip(match addr.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let deadline = Instant::now() + TIMEOUT;
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&addr, TIMEOUT)?;
        let path = http::HEALTHZ;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n"
        )?;
        let mut answer = [0; HEALTHY.len()];
        let mut length = 0;
        while length < answer.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            match stream.read(&mut answer[length..])? {
                0 => break,
                read => length += read,
            }
        }
        Ok(answer == HEALTHY)
    };
    let is_healthy = ask().with_context(|| format!("no answer from {addr}"))?;
    ensure!(is_healthy, "{addr} is not well");
    Ok(())
}

/// The bucket that `sdk_config` leads to, once it is certain that requests to it can be signed.
async fn bucket(
    sdk_config: &SdkConfig,
    s3_settings: s3::Settings,
    upload_settings: &upload::Settings,
) -> Result<s3::Bucket> {
    let provider = sdk_config
        .credentials_provider()
        .context("the SDK has no provider of credentials")?;
    let credentials = s3::CredentialsCache::new(provider, upload_settings.policies.longest_life());
    s3::bucket(
        sdk_config,
        s3_settings,
        credentials,
        upload_settings.supports_post,
    )
    .await
    .context(s3::CANNOT_SIGN)
}

fn listen(addr: SocketAddr, setting: &str) -> Result<TcpListener> {
    /// Who is waiting to be accepted: more than come in a burst.
    const BACKLOG: u32 = 4096;
    let socket = || {
        let socket = match addr {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        socket.listen(BACKLOG)
    };
    socket().map_err(|error: std::io::Error| {
        let why = match error.kind() {
            ErrorKind::AddrInUse => "something else listens there already".to_owned(),
            _ => error.to_string(),
        };
        anyhow!("cannot listen on {addr}: {why}; {setting} sets another address")
    })
}

fn stopped_by(stop: &CancellationToken) -> http::Server {
    http::Server {
        stop: stop.clone(),
        ..http::Server::default()
    }
}

/// A token that SIGINT or SIGTERM cancels. A second signal ends the process immediately.
///
/// The signals are caught from this call on, even if nobody waits for the token yet.
fn cancelled_by_signals() -> Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let cancelled = stop.clone();
    tokio::spawn(async move {
        for _ in 0..2 {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            cancelled.cancel();
        }
        // No message: a blocked stdout or stderr may be the reason for the second signal.
        std::process::exit(1);
    });
    Ok(stop)
}

fn block_on(command: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start")?
        .block_on(command)
}
