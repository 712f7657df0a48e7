//! Reads the environment in one pass into one [`Config`], so that a start reports all of its faults
//! at once.

mod auth;
mod aws;
mod dotenv;
mod env;
mod events;
mod store;
#[cfg(test)]
mod tests;
mod typos;

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use anyhow::anyhow;
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Uri};
use tracing::level_filters::LevelFilter;

pub use self::aws::{Aws, load as load_aws};
use self::env::Reader;
pub use self::env::{Env, Faults};
#[cfg(feature = "dev")]
pub(crate) use self::events::webhook_url;
use crate::http::{AllowedOrigins, Limits};
use crate::telemetry::LogFormat;
use crate::upload::{Policies, Receipts, SessionKey};
use crate::{http, s3, telemetry, upload};

/// Every variable of presignd; `.env.example` explains them. The SDK reads those that begin with
/// `AWS_`, except the bucket's name, and others that are not listed here.
pub const VARIABLES: &[&str] = &[
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_S3_BUCKET_NAME",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "S3_PUBLIC_ENDPOINT_URL",
    "S3_FORCE_PATH_STYLE",
    "S3_ACCELERATE",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_USE_FIPS_ENDPOINT",
    "BIND_ADDR",
    "METRICS_ADDR",
    "MAX_CONNECTIONS",
    "KEEP_ALIVE_TIMEOUT",
    "S3_SUPPORTS_POST_POLICY",
    "S3_FORMS_ONLY",
    "UPLOAD_URL_EXPIRES_IN",
    "UPLOAD_POLICIES_FILE",
    "UPLOAD_SESSION_SECRET",
    "AUTH_MODE",
    "API_KEYS_FILE",
    "JWT_ISSUER",
    "JWT_AUDIENCE",
    "JWT_JWKS_URL",
    "JWT_PUBLIC_KEY_FILE",
    "JWT_SECRET",
    "JWT_POLICIES_CLAIM",
    "RECEIPT_KEY_FILE",
    "EVENTS_TOKEN",
    "WEBHOOK_URL",
    "WEBHOOK_SECRET",
    "WEBHOOK_GIVE_UP_AFTER",
    "RATE_LIMIT_PER_SECOND",
    "RATE_LIMIT_BURST",
    "TRUSTED_PROXIES",
    "PUBLIC_URL",
    "CORS_ALLOWED_ORIGINS",
    "LOG_FORMAT",
    "RUST_LOG",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];

const DEV_HINT: &str = if cfg!(feature = "dev") {
    "; `presignd dev` tries the service without one"
} else {
    ""
};
const EXAMPLE_ENDPOINT: &str = "http://127.0.0.1:9000";
const DEFAULT_BIND_ADDR: &str = "127.0.0.1:3000";
const DEFAULT_EXPIRES_IN: Duration = Duration::from_mins(10);

/// The settings in the environment, from which `serve` builds the service.
#[derive(Clone, Debug)]
pub struct Config {
    pub bind_addr: SocketAddr,
    pub metrics_addr: Option<SocketAddr>,
    pub limits: Limits,
    pub s3: s3::Settings,
    pub upload: upload::Settings,
    /// Members that no variable sets, such as the page, have their defaults; `serve` replaces them.
    pub http: http::Settings,
    pub telemetry: telemetry::Settings,
}

impl Config {
    /// # Errors
    ///
    /// All faults of all variables.
    pub fn from_env(env: &Env) -> Result<Self, Faults> {
        let mut reader = Reader::new(env);
        aws::check(&mut reader);
        let s3 = store::s3(&mut reader);
        Self::read(reader, s3)
    }

    /// The configuration for the store in `s3`, whatever store the environment names. Clients get the
    /// kinds of grants (PUTs, forms) that they would get at the store which the environment names.
    ///
    /// # Errors
    ///
    /// All faults of all other variables.
    pub fn with_store(env: &Env, s3: s3::Settings) -> Result<Self, Faults> {
        let is_of_store = |name: &str| match name {
            "S3_SUPPORTS_POST_POLICY" | "S3_FORMS_ONLY" => false,
            name => name.starts_with("AWS_") || name.starts_with("S3_"),
        };
        let env = env.clone().only(|name| !is_of_store(name));
        Self::read(Reader::new(&env), Some(s3))
    }

    fn read(mut reader: Reader<'_>, s3: Option<s3::Settings>) -> Result<Self, Faults> {
        let r = &mut reader;
        r.check_certificates();
        let bind_addr = bind_addr(r);
        let metrics_addr = r.read(
            "METRICS_ADDR",
            "an address and a port such as 127.0.0.1:9090",
            parse_addr,
        );
        if bind_addr.is_some_and(|addr| addr.port() != 0 && metrics_addr == Some(addr)) {
            r.fault("METRICS_ADDR must be another address or port than BIND_ADDR, or not be set");
        }
        let limits = limits(r);
        let policies = policies(r).map(|policies| match &s3 {
            Some(s3) => policies.with_default_bucket(&s3.bucket),
            None => policies,
        });
        let supports_post = r.parse("S3_SUPPORTS_POST_POLICY", "true or false");
        let supports_post = supports_post.unwrap_or(true);
        let forms_only = forms_only(r, supports_post, policies.as_ref());
        let session_key = session_key(r);
        let receipts = receipts(r);
        let auth = auth::auth(r, policies.as_ref());
        auth::require_mode(r, bind_addr);
        if let (Some(auth), Some(policies)) = (&auth, &policies)
            && !auth.is_required()
            && let Some((policy, why)) = policies.needing_callers()
        {
            r.fault(format!(
                "UPLOAD_POLICIES_FILE: policies.{policy}.{why}, but AUTH_MODE is none, so that nobody is known; set AUTH_MODE to api-key or jwt"
            ));
        }
        if let (Some(auth), Some(policies)) = (&auth, &policies)
            && auth.jwt.is_none()
            && let Some(policy) = policies.with_vars()
        {
            r.fault(format!(
                "UPLOAD_POLICIES_FILE: policies.{policy}.key uses {{vars.…}}, but only JWTs have tickets with variables; set AUTH_MODE to jwt or jwt,api-key"
            ));
        }
        let events = events::events(r);
        let rate = auth::rate(r);
        let trusted_proxies = auth::trusted_proxies(r);
        let public_url = endpoint(r, "PUBLIC_URL", "https://uploads.example.com");
        let allowed_origins = allowed_origins(r);
        let telemetry = telemetry(r);
        let config = (|| {
            Some(Self {
                bind_addr: bind_addr?,
                metrics_addr,
                limits,
                s3: s3?,
                upload: upload::Settings {
                    policies: policies?,
                    supports_post,
                    forms_only,
                    receipts,
                    session_key,
                },
                http: http::Settings {
                    allowed_origins,
                    auth: auth?,
                    rate,
                    trusted_proxies,
                    public_url,
                    events,
                    ..http::Settings::default()
                },
                telemetry,
            })
        })();
        reader.finish(config)
    }
}

/// Reads only `BIND_ADDR`, to call a running service.
///
/// # Errors
///
/// `BIND_ADDR` is not an address.
pub fn bind_addr_of(env: &Env) -> Result<SocketAddr, Faults> {
    let env = env.clone().only(|name| name == "BIND_ADDR");
    let mut reader = Reader::new(&env);
    let addr = bind_addr(&mut reader);
    reader.finish(addr)
}

fn bind_addr(reader: &mut Reader<'_>) -> Option<SocketAddr> {
    let name = "BIND_ADDR";
    if !reader.is_set(name) {
        return parse_addr(DEFAULT_BIND_ADDR);
    }
    let must_be = format!("an address and a port such as {DEFAULT_BIND_ADDR} or [::]:3000");
    reader.read(name, &must_be, parse_addr)
}

/// An address and a port. The address may be `localhost`, which is 127.0.0.1.
pub(crate) fn parse_addr(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => Some(SocketAddr::from(([127, 0, 0, 1], port.parse().ok()?))),
        None => text.parse().ok(),
    }
}

/// How many connections may be open at once, and for how long they may be idle.
fn limits(reader: &mut Reader<'_>) -> Limits {
    let default = Limits::default();
    let max_connections: Option<NonZeroU16> =
        reader.parse("MAX_CONNECTIONS", "a whole number from 1 to 65535");
    let head_timeout = seconds(reader, "KEEP_ALIVE_TIMEOUT", Duration::from_hours(1));
    Limits {
        head_timeout: head_timeout.unwrap_or(default.head_timeout),
        max_connections: max_connections.map_or(default.max_connections, |n| n.get().into()),
        ..default
    }
}

/// A variable that has to be an endpoint, if it is set.
fn endpoint(reader: &mut Reader<'_>, name: &str, example: &str) -> Option<String> {
    reader.read_secret(name, |text| {
        let uri = text.parse::<Uri>().ok().filter(|uri| {
            let authority = uri.authority().map(Authority::as_str);
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
                // Clients and the log would show a password in it.
                && authority.is_some_and(|authority| !authority.contains('@'))
                && uri.query().is_none()
                // `Uri` drops a fragment.
                && !text.contains('#')
        });
        uri.map(|_| text.to_owned()).ok_or(format!(
            "must be a URL such as {example}, with no user, no query and no fragment"
        ))
    })
}

/// A variable with a number of seconds, from 1 to `max`.
fn seconds(reader: &mut Reader<'_>, name: &str, max: Duration) -> Option<Duration> {
    let must_be = format!("whole seconds from 1 to {}", max.as_secs());
    reader.read(name, &must_be, |text| {
        let duration = Duration::from_secs(text.parse().ok()?);
        (!duration.is_zero() && duration <= max).then_some(duration)
    })
}

fn policies(reader: &mut Reader<'_>) -> Option<Policies> {
    let expires_in = seconds(reader, "UPLOAD_URL_EXPIRES_IN", s3::MAX_EXPIRES_IN);
    let expires_in = expires_in.unwrap_or(DEFAULT_EXPIRES_IN);
    let name = "UPLOAD_POLICIES_FILE";
    if !reader.is_set(name) {
        return Some(Policies::built_in(expires_in));
    }
    let (path, text) = reader.file(name)?;
    let policies = Policies::parse(&text, expires_in).map_err(|why| anyhow!("{path}: {why}"));
    reader.keep(name, policies)
}

/// Whether only forms are granted. Settings that contradict this are faults.
fn forms_only(reader: &mut Reader<'_>, supports_post: bool, policies: Option<&Policies>) -> bool {
    let name = "S3_FORMS_ONLY";
    let forms_only = reader.parse(name, "true or false").unwrap_or(false);
    if forms_only && !supports_post {
        reader.fault(format!(
            "{name} is true, but S3_SUPPORTS_POST_POLICY is false, so that nothing could be granted; set one of them to its default"
        ));
    }
    if let Some(policy) = policies
        .and_then(Policies::write_once)
        .filter(|_| forms_only)
    {
        reader.fault(format!(
            "{name} is true, but policies.{policy} forbids overwriting, which a form cannot enforce; set overwrite = true there, with {{uuid}} in its key"
        ));
    }
    forms_only
}

fn session_key(reader: &mut Reader<'_>) -> Option<SessionKey> {
    reader.read_secret("UPLOAD_SESSION_SECRET", |secret| {
        let (min, length) = (SessionKey::MIN_BYTES, secret.len());
        if length < min {
            return Err(format!("must have at least {min} bytes; it has {length}"));
        }
        Ok(SessionKey::new(secret.as_bytes()))
    })
}

fn receipts(reader: &mut Reader<'_>) -> Option<Receipts> {
    let name = "RECEIPT_KEY_FILE";
    let (path, pem) = reader.file(name)?;
    let receipts = Receipts::parse(&pem);
    reader.keep(name, receipts.map_err(|rule| anyhow!("{path} {rule}")))
}

fn allowed_origins(reader: &mut Reader<'_>) -> AllowedOrigins {
    let must_be = "`*` or origins such as https://app.example.com or https://*.example.com, separated by commas";
    let origins = reader.read("CORS_ALLOWED_ORIGINS", must_be, |text| match text {
        "*" => Some(AllowedOrigins::Any),
        list => list
            .split(',')
            .map(|origin| parse_origin(origin.trim()))
            .collect::<Option<_>>()
            .map(AllowedOrigins::Exactly),
    });
    origins.unwrap_or_default()
}

/// A scheme and a host as [browsers send them](https://fetch.spec.whatwg.org/#origin-header): in
/// lower case, without the scheme's default port, and with no path, not even `/`.
fn parse_origin(origin: &str) -> Option<HeaderValue> {
    let uri: Uri = origin.parse().ok()?;
    let default_port = match uri.scheme_str()? {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let authority = uri.authority()?.as_str();
    let is_as_sent = format!("{}://{authority}", uri.scheme_str()?) == origin
        && origin == origin.to_ascii_lowercase()
        && !authority.contains('@')
        && uri.port_u16() != Some(default_port);
    // `*` may stand for names below a domain, and for nothing else.
    let names = authority.strip_prefix("*.").unwrap_or(authority);
    let is_precise = !names.contains('*') && (names == authority || names.contains('.'));
    HeaderValue::from_str(origin)
        .ok()
        .filter(|_| is_as_sent && is_precise)
}

fn telemetry(reader: &mut Reader<'_>) -> telemetry::Settings {
    let format = reader.read("LOG_FORMAT", "pretty or json", |format| match format {
        "pretty" => Some(LogFormat::Pretty),
        "json" => Some(LogFormat::Json),
        _ => None,
    });
    let must_be = "a log filter such as info or presignd=debug";
    // Any other word counts as the name of a module, and turns off all other logs.
    let is_clear = |part: &str| {
        let names_module = part == "presignd" || part.starts_with("presignd::");
        // An empty level is `error`.
        let has_level = part
            .split_once('=')
            .is_some_and(|(_, level)| !level.is_empty());
        names_module || has_level || (!part.is_empty() && part.parse::<LevelFilter>().is_ok())
    };
    let filter = reader.read("RUST_LOG", must_be, |filter| {
        let are_clear = filter.split(',').all(is_clear) && !filter.contains(' ');
        filter.parse().ok().filter(|_| are_clear)
    });
    let name = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let traces = endpoint(reader, name, "http://127.0.0.1:4318");
    if traces
        .as_ref()
        .is_some_and(|url| url.trim_end_matches('/').ends_with("/v1/traces"))
    {
        reader.fault(format!(
            "{name} must not end with /v1/traces, which is added; remove it"
        ));
    }
    if cfg!(not(feature = "otlp")) && traces.is_some() {
        reader.fault(format!(
            "{name} is set, but this presignd cannot send traces; unset it, or build with `--features otlp`"
        ));
    }
    telemetry::Settings {
        format,
        filter: filter.unwrap_or_else(telemetry::default_filter),
        #[cfg(feature = "otlp")]
        traces,
    }
}
