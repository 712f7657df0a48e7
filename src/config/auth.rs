//! Who may call, and how often: the variables of authentication and of the rate limit.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

use anyhow::{Error, anyhow};
use ipnet::{IpNet, Ipv4Net};
use reqwest::Url;

use super::env::Reader;
use crate::http::Rate;
use crate::http::auth::{ApiKeys, Auth, Jwks, Jwt, JwtKey, Keys, TICKET_CLAIM};
use crate::upload::Policies;

/// `policies` are those that callers may be limited to, if they are known.
pub(super) fn auth(reader: &mut Reader<'_>, policies: Option<&Policies>) -> Option<Auth> {
    const API_KEY: &str = "api-key";
    const JWT: &str = "jwt";
    let mode = reader.get("AUTH_MODE").unwrap_or("none");
    let ways: Vec<&str> = match mode {
        "none" => Vec::new(),
        _ => mode.split(',').map(str::trim).collect(),
    };
    if !ways.iter().all(|way| [API_KEY, JWT].contains(way)) {
        reader.fault(format!(
            "AUTH_MODE must be none, api-key, jwt, or jwt,api-key; it is `{mode}`"
        ));
        return None;
    }
    let with = |way: &str| match ways[..] {
        [] => way.to_owned(),
        _ => format!("{JWT},{API_KEY}"),
    };
    // An operator who sets these expects that nobody can call without them.
    for (name, way) in [
        ("API_KEYS_FILE", API_KEY),
        ("JWT_ISSUER", JWT),
        ("JWT_AUDIENCE", JWT),
        ("JWT_JWKS_URL", JWT),
        ("JWT_PUBLIC_KEY_FILE", JWT),
        ("JWT_SECRET", JWT),
        ("JWT_POLICIES_CLAIM", JWT),
    ] {
        if !ways.contains(&way) && reader.is_set(name) {
            reader.fault(format!(
                "{name} is set, but AUTH_MODE is `{mode}`; set AUTH_MODE={}, or remove {name}",
                with(way)
            ));
        }
    }
    let mut auth = Auth::default();
    if ways.contains(&JWT) {
        auth.jwt = jwt(reader);
    }
    if ways.contains(&API_KEY) {
        auth.api_keys = api_keys(reader, policies);
    }
    let is_complete = auth.jwt.is_some() == ways.contains(&JWT)
        && auth.api_keys.is_some() == ways.contains(&API_KEY);
    is_complete.then_some(auth)
}

fn api_keys(reader: &mut Reader<'_>, policies: Option<&Policies>) -> Option<ApiKeys> {
    let name = "API_KEYS_FILE";
    reader.required(
        name,
        "AUTH_MODE=api-key needs it; `presignd api-key NAME` makes its entries",
    )?;
    let (path, text) = reader.file(name)?;
    let keys = ApiKeys::parse(&text, policies?).map_err(|why| anyhow!("{path}: {why}"));
    reader.keep(name, keys)
}

fn jwt(reader: &mut Reader<'_>) -> Option<Jwt> {
    let keys = jwt_keys(reader);
    if reader.get("JWT_POLICIES_CLAIM") == Some(TICKET_CLAIM) {
        reader.fault(format!(
            "JWT_POLICIES_CLAIM must not be {TICKET_CLAIM}, the claim of tickets; set it to another claim"
        ));
    }
    let why = "AUTH_MODE=jwt needs it";
    let issuer = reader.required("JWT_ISSUER", why);
    let audience = reader.required("JWT_AUDIENCE", why);
    Some(Jwt {
        keys: keys?,
        issuer: issuer?.to_owned(),
        audience: audience?.to_owned(),
        policies_claim: reader.get("JWT_POLICIES_CLAIM").map(str::to_owned),
    })
}

/// Without a mode anyone may call, which must be intended where others reach the service.
pub(super) fn require_mode(reader: &mut Reader<'_>, bind_addr: Option<SocketAddr>) {
    let who_reaches = match bind_addr {
        _ if reader.is_in_lambda() => "anyone may call a function with a public URL".to_owned(),
        Some(addr) if !addr.ip().is_loopback() => {
            format!("other machines can reach BIND_ADDR ({addr})")
        }
        _ => return,
    };
    if !reader.is_set("AUTH_MODE") {
        reader.fault(format!(
            "AUTH_MODE is not set, but {who_reaches}; set it to api-key or jwt, or to none if anyone may upload"
        ));
    }
}

fn jwt_keys(reader: &mut Reader<'_>) -> Option<Keys> {
    let names @ [url, file, secret] = ["JWT_JWKS_URL", "JWT_PUBLIC_KEY_FILE", "JWT_SECRET"];
    let set: Vec<&str> = names
        .into_iter()
        .filter(|name| reader.is_set(name))
        .collect();
    match set[..] {
        [name] if name == url => {
            // The URL may have a password.
            let url = reader.read_secret(name, |text| {
                let url = Url::parse(text).ok().filter(|url| {
                    // Over http, an attacker could replace the keys.
                    let is_local =
                        matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
                    url.scheme() == "https" || (url.scheme() == "http" && is_local)
                });
                url.ok_or("must be an https URL")
            });
            let keys = Jwks::new(url?, reader.is_in_lambda()).map_err(Error::from);
            Some(Keys::Set(reader.keep(name, keys)?))
        }
        [name] if name == file => {
            let (path, pem) = reader.file(name)?;
            let keys = JwtKey::all_from_pem(pem.as_bytes());
            let keys = keys.map_err(|why| anyhow!("{path}: {why}"));
            Some(reader.keep(name, keys)?.into())
        }
        [name] => {
            let key = reader.read_secret(name, |secret| JwtKey::from_secret(secret.as_bytes()));
            Some(vec![Arc::new(key?)].into())
        }
        [] => {
            reader.fault(format!(
                "AUTH_MODE=jwt needs one of {url}, {file} and {secret}; set one"
            ));
            None
        }
        _ => {
            reader.fault(format!("of {url}, {file} and {secret} only one may be set"));
            None
        }
    }
}

/// How often each caller may call; a limit only if one is set.
pub(super) fn rate(reader: &mut Reader<'_>) -> Option<Rate> {
    /// The longest time until a burst is refilled that the limiter can count in nanoseconds.
    const MAX_REFILL_SECONDS: f64 = 1e9;
    let (name, burst_name) = ("RATE_LIMIT_PER_SECOND", "RATE_LIMIT_BURST");
    let must_be = "a number above 0.00001 and up to 1000000, such as 10 or 0.5";
    let per_second = reader.read(name, must_be, |text| {
        text.parse::<f64>()
            .ok()
            .filter(|rate| *rate > 0.000_01 && *rate <= 1_000_000.0)
    });
    let burst: Option<NonZeroU32> = reader.parse(burst_name, "a whole number from 1");
    if !reader.is_set(name) && reader.is_set(burst_name) {
        reader.fault(format!("{burst_name} is set, but {name} is not; set both"));
    }
    let per_second = per_second?;
    let default_burst = || (1..=1_000_000).find(|burst| f64::from(*burst) >= per_second);
    let burst = burst.or_else(|| NonZeroU32::new(default_burst()?));
    let burst = burst.unwrap_or(NonZeroU32::MIN);
    if f64::from(burst.get()) / per_second > MAX_REFILL_SECONDS {
        reader.fault(format!(
            "{burst_name} must be less, or {name} more: a burst of {burst} would take over 30 years to refill"
        ));
    }
    Some(Rate { per_second, burst })
}

/// Addresses of IPv4 that are written as those of IPv6, such as `::ffff:10.0.0.0/104`, as the addresses
/// that clients have.
fn canonical(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else {
        return net;
    };
    let mapped = v6
        .addr()
        .to_ipv4_mapped()
        .zip(v6.prefix_len().checked_sub(96));
    let v4 = mapped.and_then(|(addr, prefix)| Ipv4Net::new(addr, prefix).ok());
    v4.map_or(net, IpNet::V4)
}

pub(super) fn trusted_proxies(reader: &mut Reader<'_>) -> Vec<IpNet> {
    let must_be = "addresses or networks such as 10.0.0.0/8, separated by commas";
    let proxies = reader.read("TRUSTED_PROXIES", must_be, |text| {
        text.split(',')
            .map(str::trim)
            .filter(|proxy| !proxy.is_empty())
            .map(|proxy| {
                let address = || proxy.parse::<IpAddr>().map(IpNet::from);
                proxy.parse().or_else(|_| address()).map(canonical).ok()
            })
            .collect()
    });
    proxies.unwrap_or_default()
}
