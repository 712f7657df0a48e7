//! The commands: clap, and one short function for each.

mod ticket;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{self, Config, Env};
use crate::output::{explain, print};
use crate::{check, http, serve, upload};

const NAME: &str = env!("CARGO_PKG_NAME");

/// Issues presigned S3 upload URLs over HTTP.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, after_help = after_help())]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service with an embedded S3 store on this machine; needs no settings
    #[cfg(feature = "dev")]
    Dev(serve::DevArgs),
    /// Run the service with the S3 store that the environment names
    Serve,
    /// Create an API key for a caller: print it once, and the entry of `API_KEYS_FILE` that accepts it
    ApiKey {
        /// The caller's name, as in logs and in `{caller}` of keys
        name: String,
    },
    /// Create a ticket to try things out with: a token that narrows what its bearer may upload
    Ticket(ticket::TicketArgs),
    /// Try the configuration and the store, and say what is wrong and how to fix it; exit code 1 if a check failed
    Check {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        options: check::Options,
    },
    /// Print the OpenAPI document
    Openapi,
    /// Ask the service at `BIND_ADDR` whether it is alive; exit code 0 if it is
    Healthcheck,
    /// Print the script that completes commands and options in a shell
    Completions { shell: clap_complete::Shell },
    /// Write the manual pages, one for each command, into a folder
    Man {
        #[arg(value_name = "DIR")]
        folder: std::path::PathBuf,
    },
}

fn after_help() -> String {
    const PER_LINE: usize = 3;
    let mut text = "Variables, read from the environment and from .env of the working directory \
        (.env.example explains them):\n"
        .to_owned();
    for names in config::VARIABLES.chunks(PER_LINE) {
        text.push_str("  ");
        text.push_str(&names.join(", "));
        text.push_str(",\n");
    }
    text.trim_end_matches(",\n").to_owned()
}

pub fn run(cli: Cli) -> Result<()> {
    match cli.command {
        #[cfg(feature = "dev")]
        Command::Dev(args) => block_on(serve::dev(&Env::load()?, args)),
        Command::Serve => block_on(serve::serve(&Env::load()?)),
        Command::ApiKey { name } => api_key(&name),
        Command::Ticket(args) => ticket::ticket(&Env::load()?, args),
        Command::Check { json, options } => block_on(check(&Env::load()?, json, options)),
        Command::Openapi => openapi(),
        Command::Healthcheck => block_on(healthcheck(&Env::load()?)),
        Command::Completions { shell } => completions(shell),
        Command::Man { folder } => man(&folder),
    }
}

fn api_key(name: &str) -> Result<()> {
    let (key, entry) = http::auth::new_api_key(name)?;
    // The next start would refuse an invalid name, so it is refused now.
    http::auth::ApiKeys::parse(&entry, &upload::Policies::built_in(Duration::ZERO))
        .map_err(|why| anyhow!("NAME: {why}"))?;
    explain(format_args!(
        "The key of {name:?}. It is shown only once: give it to them.\n\n"
    ));
    print(format_args!("{key}\n"))?;
    explain(format_args!(
        "\nTo accept it, add this to API_KEYS_FILE, with `policies = [...]` if it may not use all policies:\n\n{entry}"
    ));
    Ok(())
}

async fn checks(config: Config, env: &Env) -> Result<check::Checks> {
    check::Checks::new(config, config::load_aws(env).await?).await
}

async fn check(env: &Env, json: bool, options: check::Options) -> Result<()> {
    let stop = serve::cancelled_by_signals()?;
    let report = match Config::from_env(env) {
        Err(faults) => check::Report::from_faults(&faults.0),
        Ok(config) => match checks(config, env).await {
            Err(error) => check::Report::from_faults(&[format!("{error:#}")]),
            Ok(check) => tokio::select! {
                report = check.run(options) => report,
                () = stop.cancelled() => {
                    for line in check.clean_up().await {
                        explain(format_args!("{}\n", line.detail));
                    }
                    bail!("stopped");
                }
            },
        },
    };
    if json {
        let report = serde_json::to_string_pretty(&report)?;
        print(format_args!("{report}\n"))?;
    } else {
        print(&report)?;
    }
    match report.failed() {
        0 => Ok(()),
        1 => bail!("1 check has failed"),
        failed => bail!("{failed} checks have failed"),
    }
}

fn openapi() -> Result<()> {
    let document = http::openapi().to_pretty_json()?;
    Ok(print(format_args!("{document}\n"))?)
}

fn completions(shell: clap_complete::Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
    Ok(print(String::from_utf8(script)?)?)
}

fn man(folder: &std::path::Path) -> Result<()> {
    let place = folder.display();
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), folder))
        .with_context(|| format!("cannot write the manual pages to {place}"))
}

async fn healthcheck(env: &Env) -> Result<()> {
    const TIMEOUT: Duration = Duration::from_secs(3);
    let mut addr = config::bind_addr_of(env)?;
    if addr.ip().is_unspecified() {
        addr.set_ip(match addr {
            SocketAddr::V4(_) => [127, 0, 0, 1].into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(TIMEOUT)
        .build()?;
    let url = format!("http://{addr}{}", http::HEALTHZ);
    let answer = client.get(url).send().await;
    let status = answer
        .with_context(|| format!("no answer from {addr}"))?
        .status();
    ensure!(
        status == reqwest::StatusCode::OK,
        "{addr} answered {status}"
    );
    Ok(())
}

fn block_on(command: impl Future<Output = Result<()>>) -> Result<()> {
    /// How long a blocked call, such as one that reads a file, may hold up the end of the process.
    const TIMEOUT: Duration = Duration::from_secs(1);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    let result = runtime.block_on(command);
    runtime.shutdown_timeout(TIMEOUT);
    result
}
