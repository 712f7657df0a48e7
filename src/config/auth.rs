//! Who may call and how often: the part of the environment that keeps strangers out.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use ipnet::IpNet;

use super::Env;
use crate::http::Rate;
use crate::http::auth::{self, Auth, Jwt, JwtKey};
use crate::upload::Policies;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AuthMode {
    None,
    ApiKey,
    Jwt,
}

pub(super) fn mode(env: Env<'_>) -> Result<AuthMode> {
    let name = "AUTH_MODE";
    match env.get(name)?.as_deref() {
        None | Some("none") => Ok(AuthMode::None),
        Some("api-key") => Ok(AuthMode::ApiKey),
        Some("jwt") => Ok(AuthMode::Jwt),
        Some(other) => bail!("{name} must be none, api-key or jwt; it is `{other}`"),
    }
}

/// How callers say who they are. Their policies are some of `policies`.
pub(super) fn auth(env: Env<'_>, policies: &Policies) -> Result<Auth> {
    let mode = mode(env)?;
    // Somebody who sets these believes that nobody gets in without.
    for (name, of, in_words) in [
        ("API_KEYS_FILE", AuthMode::ApiKey, "api-key"),
        ("JWT_ISSUER", AuthMode::Jwt, "jwt"),
        ("JWT_AUDIENCE", AuthMode::Jwt, "jwt"),
        ("JWT_JWKS_URL", AuthMode::Jwt, "jwt"),
        ("JWT_PUBLIC_KEY_FILE", AuthMode::Jwt, "jwt"),
        ("JWT_SECRET", AuthMode::Jwt, "jwt"),
        ("JWT_POLICIES_CLAIM", AuthMode::Jwt, "jwt"),
    ] {
        ensure!(
            mode == of || env.get(name)?.is_none(),
            "{name} is set, but AUTH_MODE is not {in_words}"
        );
    }
    match mode {
        AuthMode::None => Ok(Auth::None),
        AuthMode::ApiKey => {
            let name = "API_KEYS_FILE";
            let path = env.get(name)?.with_context(|| {
                format!("{name} is not set: AUTH_MODE=api-key needs it; `presignd api-key` makes its entries")
            })?;
            let text = read_file(name, &path)?;
            let keys = auth::ApiKeys::parse(&text, policies)
                .map_err(|why| anyhow!("{name}: {path}: {why}"))?;
            Ok(Auth::ApiKeys(keys))
        }
        AuthMode::Jwt => {
            let required = |name: &str| {
                env.get(name)?
                    .with_context(|| format!("{name} is not set: AUTH_MODE=jwt needs it"))
            };
            Ok(Auth::Jwt(Box::new(Jwt {
                keys: jwt_keys(env)?,
                issuer: required("JWT_ISSUER")?,
                audience: required("JWT_AUDIENCE")?,
                policies_claim: env.get("JWT_POLICIES_CLAIM")?,
            })))
        }
    }
}

fn jwt_keys(env: Env<'_>) -> Result<auth::Keys> {
    let [url, file, secret] = ["JWT_JWKS_URL", "JWT_PUBLIC_KEY_FILE", "JWT_SECRET"];
    match (env.get(url)?, env.get(file)?, env.get(secret)?) {
        (Some(text), None, None) => {
            let parsed = reqwest::Url::parse(&text).ok().filter(|url| {
                // Whoever can change the answer can let in anyone.
                let is_local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
                url.scheme() == "https" || (url.scheme() == "http" && is_local)
            });
            let parsed = parsed.with_context(|| format!("{url} must be an https URL"))?;
            let jwks = auth::Jwks::new(parsed).with_context(|| format!("{url} cannot be used"))?;
            Ok(auth::Keys::Set(jwks))
        }
        (None, Some(path), None) => {
            let pem = read_file(file, &path)?;
            let key = JwtKey::of_pem(pem.as_bytes()).with_context(|| format!("{file}: {path}"))?;
            Ok(auth::Keys::One(Arc::new(key)))
        }
        (None, None, Some(text)) => {
            let key = JwtKey::of_secret(text.as_bytes()).with_context(|| secret.to_owned())?;
            Ok(auth::Keys::One(Arc::new(key)))
        }
        (None, None, None) => bail!("AUTH_MODE=jwt needs one of {url}, {file} and {secret}"),
        _ => bail!("of {url}, {file} and {secret} only one may be set"),
    }
}

fn read_file(name: &str, path: &str) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{name}: cannot read {path}"))
}

/// How often each caller may call.
pub(super) fn rate(env: Env<'_>) -> Result<Option<Rate>> {
    let name = "RATE_LIMIT_PER_SECOND";
    let must_be = "a number above 0 and up to 1000000, such as 10 or 0.5";
    let per_second: Option<f64> = env.parse(name, must_be)?;
    let burst_name = "RATE_LIMIT_BURST";
    let burst: Option<NonZeroU32> = env.parse(burst_name, "a whole number from 1")?;
    let Some(per_second) = per_second else {
        ensure!(burst.is_none(), "{burst_name} is set, but {name} is not");
        return Ok(None);
    };
    ensure!(
        per_second > 0.000_01 && per_second <= 1_000_000.0,
        "{name} must be {must_be}; it is `{per_second}`"
    );
    let default_burst = || (1..=1_000_000).find(|burst| f64::from(*burst) >= per_second);
    let burst = burst.or_else(|| NonZeroU32::new(default_burst()?));
    let burst = burst.unwrap_or(NonZeroU32::MIN);
    // Beyond, the arithmetic of nanoseconds ends.
    ensure!(
        f64::from(burst.get()) / per_second <= 1e9,
        "{burst_name} must be less, or {name} more: to be refilled a burst of {burst} takes over 30 years"
    );
    Ok(Some(Rate { per_second, burst }))
}

pub(super) fn trusted_proxies(env: Env<'_>) -> Result<Vec<IpNet>> {
    let name = "TRUSTED_PROXIES";
    let text = env.get(name)?.unwrap_or_default();
    let proxies = text
        .split(',')
        .map(str::trim)
        .filter(|proxy| !proxy.is_empty());
    proxies
        .map(|proxy| {
            let address = || proxy.parse::<IpAddr>().map(IpNet::from);
            proxy.parse().or_else(|_| address()).ok().with_context(|| {
                format!("{name} must be addresses or networks such as 10.0.0.0/8, separated by commas; one is `{proxy}`")
            })
        })
        .collect()
}
