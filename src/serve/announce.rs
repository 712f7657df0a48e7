//! What a start logs: where the service listens, and what of its configuration an operator should know.
//! Also what it lets systemd know.

use std::net::SocketAddr;

use ipnet::IpNet;

use crate::config::{Aws, Config, Env};
use crate::s3;
use crate::upload::Policies;

/// Logs where the service listens, and what an operator should know of its configuration. `addr` is
/// where it can be reached; a Lambda function has no address.
pub(super) fn announce(
    env: &Env,
    config: &Config,
    aws: &Aws,
    public_host: &s3::Host,
    addr: Option<SocketAddr>,
) {
    let region = aws.sdk_config.region();
    let auth = match (&config.http.auth.api_keys, &config.http.auth.jwt) {
        (None, None) => "none",
        (Some(_), None) => "api-key",
        (None, Some(_)) => "jwt",
        (Some(_), Some(_)) => "api-key,jwt",
    };
    tracing::info!(
        addr = addr.map(tracing::field::display),
        store = %public_host,
        bucket = config.s3.bucket,
        region = region.map(tracing::field::display),
        policies = config.upload.policies.names().join(","),
        auth,
        version = env!("CARGO_PKG_VERSION"),
        "listening"
    );
    warn_of_configuration(env, &config.upload.policies);
    if aws.region_is_assumed {
        tracing::warn!(
            "no region was found, so {} is assumed; set AWS_REGION to the bucket's region",
            s3::DEFAULT_REGION
        );
    }
    let is_exposed = addr.is_none_or(|addr| !addr.ip().is_loopback());
    if !config.http.auth.is_required() && is_exposed {
        let entrance = addr.map_or("the Lambda function".to_owned(), |addr| addr.to_string());
        tracing::warn!(
            "AUTH_MODE is none: ANYONE who reaches {entrance} can upload to this bucket"
        );
    }
    let trusts_all = |net: &IpNet| net.prefix_len() == 0;
    if config.http.trusted_proxies.iter().any(trusts_all) {
        tracing::warn!(
            "TRUSTED_PROXIES names all addresses, so each client chooses the address that limits count it by; name those of the proxies"
        );
    }
    if addr.is_some() {
        warn_of_few_descriptors(config.limits.max_connections);
    }
    if public_host.is_internal() && is_exposed {
        tracing::warn!(
            "clients are sent to the store at {public_host}, which they may not reach: S3_PUBLIC_ENDPOINT_URL sets another endpoint for them"
        );
    }
    if addr.is_none() && config.http.public_url.is_none() {
        tracing::warn!(
            "PUBLIC_URL is not set, so URLs that lead back to the Lambda function, for Uppy 6 and better-upload, do not work; set it to the function's address"
        );
    }
    let events = config.http.events.as_ref();
    if events.is_some_and(|events| events.webhook.is_unencrypted()) {
        tracing::warn!(
            "WEBHOOK_URL is an http URL, so others on the way can read the names of files; use https outside of a private network"
        );
    }
    let is_access_point = |name: &&str| name.starts_with("arn:") || name.ends_with("-s3alias");
    let others = config.upload.policies.buckets().into_iter().flatten();
    let bucket = std::iter::once(&*config.s3.bucket)
        .chain(others)
        .find(is_access_point);
    if let (true, Some(bucket)) = (events.is_some(), bucket) {
        tracing::warn!(
            "WEBHOOK_URL is set, but {bucket} is an access point: the store's events name the bucket behind it, so no webhook is posted for its uploads; name that bucket instead"
        );
    }
    if config.upload.session_key.is_none() {
        tracing::warn!(
            "UPLOAD_SESSION_SECRET is not set: multipart uploads cannot go on after a restart or at other replicas"
        );
    }
}

/// Logs the probable mistakes of a configuration, with whatever store.
pub(super) fn warn_of_configuration(env: &Env, policies: &Policies) {
    if !env.ignored.is_empty() {
        tracing::warn!(
            "these names in .env are ignored, because presignd has no such variables: {}; set them in the environment if the AWS SDK should see them",
            env.ignored.join(", ")
        );
    }
    for (name, known) in &env.misspelled {
        tracing::warn!(
            "{name} is set, but presignd has no such variable; if {known} is meant, set that"
        );
    }
    for name in [
        "API_KEYS_FILE",
        "JWT_PUBLIC_KEY_FILE",
        "RECEIPT_KEY_FILE",
        "UPLOAD_POLICIES_FILE",
    ] {
        if env.names_file_of_everyone(name) {
            tracing::warn!(
                "any user of this machine can write the file of {name}; remove that permission: chmod o-w"
            );
        }
    }
    warn_of_same_keys(policies);
}

/// Lets systemd know that the service is ready, if it waits for that (`Type=notify`).
#[cfg(target_os = "linux")]
pub(super) fn notify_systemd() {
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "NOTIFY_SOCKET is set, but systemd does not learn that the service is ready");
    }
}

/// How many files the process may open, connections among them.
pub(super) fn max_files() -> usize {
    #[cfg(unix)]
    if let Ok((limit, _)) = rlimit::Resource::NOFILE.get() {
        return usize::try_from(limit).unwrap_or(usize::MAX);
    }
    usize::MAX
}

/// Each connection may need a second descriptor, for a call to the store.
fn warn_of_few_descriptors(max_connections: usize) {
    /// For listeners, probes, webhooks and the like.
    const OTHERS: usize = 256;
    let wanted = max_connections.saturating_mul(2).saturating_add(OTHERS);
    let limit = max_files();
    if limit < wanted {
        tracing::warn!(
            "this process may open {limit} file descriptors, and {max_connections} connections can need {wanted}, as calls to the store need some, too; raise the hard limit (`ulimit -Hn`), or lower MAX_CONNECTIONS"
        );
    }
}

pub(super) fn warn_of_same_keys(policies: &Policies) {
    for (name, other) in policies.with_same_keys() {
        tracing::warn!(
            "the policies {name} and {other} can make the same keys, so an upload under one of them can be verified under the other, and may be replaced, downloaded or deleted there; begin each `key` with another text, such as `public/` and `users/`"
        );
    }
}
