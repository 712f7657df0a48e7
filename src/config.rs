//! The environment, read into the settings of each module. A bad value is an error that names its
//! variable.

mod auth;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Uri};
use tokio_util::sync::CancellationToken;

use self::auth::AuthMode;
use crate::http::{AllowedOrigins, Limits};
use crate::telemetry::{LogFormat, Metrics};
use crate::upload::{Policies, SessionKey};
use crate::{http, s3, telemetry, upload};

/// Every variable that has a meaning here; `.env.example` explains them. The `AWS_…` ones but the
/// bucket's name are read by the SDK, among more of its own.
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
    "BIND_ADDR",
    "METRICS_ADDR",
    "MAX_CONNECTIONS",
    "S3_SUPPORTS_POST_POLICY",
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
    "RATE_LIMIT_PER_SECOND",
    "RATE_LIMIT_BURST",
    "TRUSTED_PROXIES",
    "CORS_ALLOWED_ORIGINS",
    "LOG_FORMAT",
    "RUST_LOG",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];

const HINT_AT_DEV: &str = if cfg!(feature = "dev") {
    ". To try the service without one, run `presignd dev`"
} else {
    ""
};
const S3_ENDPOINT: &str = "http://127.0.0.1:9000";
const DEFAULT_BIND_ADDR: &str = "127.0.0.1:3000";
const DEFAULT_EXPIRES_IN: Duration = Duration::from_mins(10);

/// Where variables come from. A variable that is empty counts as unset.
#[derive(Clone, Copy)]
pub struct Env<'a>(&'a dyn Fn(&str) -> Option<OsString>);

impl std::fmt::Debug for Env<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Env")
    }
}

impl<'a> Env<'a> {
    pub fn new(get: &'a dyn Fn(&str) -> Option<OsString>) -> Self {
        Self(get)
    }

    pub fn of_process() -> Env<'static> {
        Env(&|name| std::env::var_os(name))
    }

    fn get(self, name: &str) -> Result<Option<String>> {
        debug_assert!(VARIABLES.contains(&name), "{name} is not listed");
        let value = (self.0)(name).unwrap_or_default().into_string();
        // Not the value: it may be a secret.
        let value = value.map_err(|_| anyhow!("{name} is not UTF-8"))?;
        Ok(Some(value.trim().to_owned()).filter(|value| !value.is_empty()))
    }

    fn parse<T: FromStr>(self, name: &str, must_be: &str) -> Result<Option<T>> {
        self.get(name)?
            .map(|value| {
                value
                    .parse()
                    .ok()
                    .with_context(|| format!("{name} must be {must_be}; it is `{value}`"))
            })
            .transpose()
    }
}

/// Reads `.env` from this folder or one above it into the environment. What is set already stays.
pub fn load_dotenv() -> Result<()> {
    match dotenvy::dotenv() {
        Ok(_) => Ok(()),
        Err(error) if error.not_found() => Ok(()),
        // The line is not repeated: it may hold a secret.
        Err(dotenvy::Error::LineParse(..)) => bail!(".env has a line that is not NAME=value"),
        Err(error) => Err(error).context("cannot read .env"),
    }
}

pub fn bind_addr(env: Env<'_>) -> Result<SocketAddr> {
    let name = "BIND_ADDR";
    let addr = env.get(name)?.unwrap_or_else(|| DEFAULT_BIND_ADDR.into());
    addr.parse().ok().with_context(|| {
        format!("{name} must be an address and a port such as {DEFAULT_BIND_ADDR}; it is `{addr}`")
    })
}

/// How many connections there may be at once.
pub fn limits(env: Env<'_>) -> Result<Limits> {
    let default = Limits::default();
    let max_connections =
        env.parse::<NonZeroU16>("MAX_CONNECTIONS", "a whole number from 1 to 65535")?;
    Ok(Limits {
        max_connections: max_connections.map_or(default.max_connections, |n| n.get().into()),
        ..default
    })
}

/// Where the metrics are, if anywhere.
pub fn metrics_addr(env: Env<'_>) -> Result<Option<SocketAddr>> {
    env.parse(
        "METRICS_ADDR",
        "an address and a port such as 127.0.0.1:9090",
    )
}

pub fn s3(env: Env<'_>) -> Result<s3::Settings> {
    // The SDK reads these itself, but would complain of them only when it signs.
    for name in ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"] {
        endpoint(env, name, S3_ENDPOINT)?;
    }
    let name = "AWS_S3_BUCKET_NAME";
    let bucket = env.get(name)?.with_context(|| {
        format!("{name} is not set: it names the bucket to upload to{HINT_AT_DEV}")
    })?;
    let is_arn = bucket.starts_with("arn:");
    let is_name = (3..=63).contains(&bucket.len())
        && bucket.starts_with(|c: char| c.is_ascii_alphanumeric())
        && bucket.ends_with(|c: char| c.is_ascii_alphanumeric())
        && bucket
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    ensure!(
        is_arn || is_name,
        "{name} must be a bucket's name (3 to 63 letters, digits, `-`, `.`) or an access point's ARN; it is `{bucket}`"
    );
    let name = "S3_FORCE_PATH_STYLE";
    let force_path_style = env.parse(name, "true or false")?.unwrap_or(false);
    Ok(s3::Settings {
        bucket,
        force_path_style,
        public_endpoint: endpoint(env, "S3_PUBLIC_ENDPOINT_URL", S3_ENDPOINT)?,
    })
}

/// A variable that has to be an endpoint, if it is set.
fn endpoint(env: Env<'_>, name: &str, example: &str) -> Result<Option<String>> {
    let Some(value) = env.get(name)? else {
        return Ok(None);
    };
    let uri = value.parse::<Uri>().ok().filter(|uri| {
        let authority = uri.authority().map(Authority::as_str);
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            // Clients, or the log, would get to see a password in it.
            && authority.is_some_and(|authority| !authority.contains('@'))
            && uri.query().is_none()
    });
    // Not the value: it may have a password in it.
    ensure!(
        uri.is_some(),
        "{name} must be a URL such as {example}, with no user and no query"
    );
    Ok(Some(value))
}

pub fn upload(env: Env<'_>) -> Result<upload::Settings> {
    let name = "UPLOAD_URL_EXPIRES_IN";
    let max = s3::MAX_EXPIRES_IN;
    let must_be = format!("whole seconds from 1 to {}", max.as_secs());
    let expires_in = env
        .parse(name, &must_be)?
        .map_or(DEFAULT_EXPIRES_IN, Duration::from_secs);
    ensure!(
        !expires_in.is_zero() && expires_in <= max,
        "{name} must be {must_be}; it is `{}`",
        expires_in.as_secs()
    );
    let name = "UPLOAD_POLICIES_FILE";
    let policies = match env.get(name)? {
        None => Policies::built_in(expires_in),
        Some(path) => {
            let text = std::fs::read_to_string(&path)
                .with_context(|| format!("{name}: cannot read {path}"))?;
            Policies::parse(&text, expires_in).with_context(|| format!("{name}: {path}"))?
        }
    };
    if let Some(policy) = policies.with_caller() {
        ensure!(
            auth::mode(env)? != AuthMode::None,
            "{name}: policies.{policy}.key uses {{caller}}, but nobody says who the caller is: AUTH_MODE is none"
        );
    }
    let name = "S3_SUPPORTS_POST_POLICY";
    let supports_post = env.parse(name, "true or false")?.unwrap_or(true);
    let name = "UPLOAD_SESSION_SECRET";
    let session_key = match env.get(name)? {
        None => None,
        Some(secret) => {
            let min = SessionKey::MIN_BYTES;
            // The secret itself is not repeated.
            ensure!(
                secret.len() >= min,
                "{name} must have at least {min} bytes; it has {}",
                secret.len()
            );
            Some(SessionKey::new(secret.as_bytes()))
        }
    };
    Ok(upload::Settings {
        policies,
        supports_post,
        session_key: session_key.unwrap_or_else(SessionKey::random),
    })
}

/// Whether sessions outlive this process and can be shared with others.
pub fn has_session_secret(env: Env<'_>) -> Result<bool> {
    Ok(env.get("UPLOAD_SESSION_SECRET")?.is_some())
}

/// The callers' policies are some of `policies`.
pub fn http(env: Env<'_>, policies: &Policies) -> Result<http::Settings> {
    let name = "CORS_ALLOWED_ORIGINS";
    let allowed_origins = match env.get(name)?.as_deref() {
        None => AllowedOrigins::None,
        Some("*") => AllowedOrigins::Any,
        Some(list) => AllowedOrigins::Exactly(
            list.split(',')
                .map(|origin| parse_origin(origin.trim()))
                .collect::<Option<_>>()
                .with_context(|| {
                    format!("{name} must be `*` or origins such as https://app.example.com, separated by commas; it is `{list}`")
                })?,
        ),
    };
    Ok(http::Settings {
        allowed_origins,
        page: None,
        auth: auth::auth(env, policies)?,
        rate: auth::rate(env)?,
        trusted_proxies: auth::trusted_proxies(env)?,
        metrics: Metrics::default(),
        stop: CancellationToken::new(),
    })
}

/// A scheme and a host as [browsers send them](https://fetch.spec.whatwg.org/#origin-header): in lower
/// case, without the scheme's own port, and with no path, not even `/`.
fn parse_origin(origin: &str) -> Option<HeaderValue> {
    let uri: Uri = origin.parse().ok()?;
    let own_port = match uri.scheme_str()? {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let authority = uri.authority()?.as_str();
    let is_as_sent = format!("{}://{authority}", uri.scheme_str()?) == origin
        && origin == origin.to_ascii_lowercase()
        && !authority.contains('@')
        && uri.port_u16() != Some(own_port);
    is_as_sent.then(|| HeaderValue::from_str(origin).ok())?
}

pub fn telemetry(env: Env<'_>) -> Result<telemetry::Settings> {
    let name = "LOG_FORMAT";
    let format = match env.get(name)?.as_deref() {
        None => None,
        Some("pretty") => Some(LogFormat::Pretty),
        Some("json") => Some(LogFormat::Json),
        Some(other) => bail!("{name} must be pretty or json; it is `{other}`"),
    };
    let name = "RUST_LOG";
    let must_be = "a log filter such as info or presignd=debug";
    if let Some(filter) = env.get(name)? {
        // It would be taken for the name of a module, and all else would fall silent.
        ensure!(
            !filter.contains(' '),
            "{name} must be {must_be}; it is `{filter}`"
        );
    }
    let filter = env
        .parse(name, must_be)?
        .unwrap_or_else(telemetry::default_filter);
    let name = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let traces = endpoint(env, name, "http://127.0.0.1:4318")?.is_some();
    ensure!(
        cfg!(feature = "otlp") || !traces,
        "{name} is set, but this presignd cannot send traces: it was built without `--features otlp`"
    );
    Ok(telemetry::Settings {
        format,
        filter,
        #[cfg(feature = "otlp")]
        traces,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn with<T>(
        variables: &[(&str, &str)],
        read: impl Fn(Env<'_>) -> Result<T>,
    ) -> Result<T, String> {
        let get = |name: &str| {
            let found = variables.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| OsString::from(value))
        };
        read(Env::new(&get)).map_err(|error| format!("{error:#}"))
    }

    fn http_alone(env: Env<'_>) -> Result<http::Settings> {
        http(env, &Policies::built_in(DEFAULT_EXPIRES_IN))
    }

    #[track_caller]
    fn refused<T: std::fmt::Debug>(
        name: &str,
        values: &[&str],
        read: impl Fn(Env<'_>) -> Result<T>,
    ) {
        for value in values {
            let variables = [("AWS_S3_BUCKET_NAME", "bucket"), (name, value)];
            // The last one counts, as in an environment.
            let variables: Vec<_> = variables.into_iter().rev().collect();
            let error = with(&variables, &read).expect_err(value);
            assert!(error.starts_with(name) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn the_example_lists_each_variable_once_and_no_other() {
        let example = include_str!("../.env.example");
        let names: Vec<&str> = example
            .lines()
            .filter_map(|line| line.trim_start_matches("# ").split_once('='))
            .map(|(name, _)| name)
            .filter(|name| {
                name.chars()
                    .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
            })
            .collect();
        let unique: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(unique.len(), names.len(), "{names:?}");
        assert_eq!(unique, VARIABLES.iter().copied().collect());
    }

    #[test]
    fn defaults_are_those_of_the_example() {
        assert_eq!(
            with(&[], bind_addr).unwrap(),
            "127.0.0.1:3000".parse().unwrap()
        );
        let upload = with(&[], upload).unwrap();
        assert_eq!(upload.policies.longest_life().as_secs(), 600);
        assert!(upload.supports_post);
        assert_eq!(
            with(&[], http_alone).unwrap().allowed_origins,
            AllowedOrigins::None
        );
        let s3 = with(&[("AWS_S3_BUCKET_NAME", "my-bucket")], s3).unwrap();
        assert_eq!(
            (s3.bucket.as_str(), s3.force_path_style),
            ("my-bucket", false)
        );
    }

    #[test]
    fn a_missing_bucket_is_named_with_a_hint_at_dev() {
        for variables in [&[][..], &[("AWS_S3_BUCKET_NAME", " ")]] {
            let error = with(variables, s3).unwrap_err();
            assert!(error.starts_with("AWS_S3_BUCKET_NAME"), "{error}");
            assert_eq!(
                error.contains("presignd dev"),
                cfg!(feature = "dev"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_bad_value_is_refused_by_name() {
        refused(
            "BIND_ADDR",
            &["3000", "localhost:3000", "127.0.0.1:99999"],
            bind_addr,
        );
        refused(
            "AWS_S3_BUCKET_NAME",
            &["a", "a/b", "a b", "s3://bucket", "..."],
            s3,
        );
        refused("S3_FORCE_PATH_STYLE", &["yes", "1"], s3);
        refused(
            "AWS_ENDPOINT_URL_S3",
            &[
                "localhost:9000",
                "127.0.0.1",
                "ftp://host",
                "http://u:p@host",
                "http://host/?x=1",
                "http://",
            ],
            s3,
        );
        refused(
            "UPLOAD_URL_EXPIRES_IN",
            &["0", "604801", "-1", "10m", "1.5"],
            upload,
        );
        refused(
            "CORS_ALLOWED_ORIGINS",
            &[
                "app.example.com",
                "https://a.example/",
                "https://A.example",
                "http://a:80",
                "file://x",
                "https://a.example,",
                "*,https://a.example",
            ],
            http_alone,
        );
        refused("MAX_CONNECTIONS", &["0", "-1", "65536", "many"], limits);
        refused("METRICS_ADDR", &["9090", "localhost:9090"], metrics_addr);
        refused("S3_SUPPORTS_POST_POLICY", &["no"], upload);
        refused("UPLOAD_POLICIES_FILE", &["/no/such/file"], upload);
        refused("UPLOAD_SESSION_SECRET", &["x", &"x".repeat(31)], upload);
        refused("LOG_FORMAT", &["xml"], telemetry);
        refused("AWS_ENDPOINT_URL", &["localhost:9000"], s3);
        refused("S3_PUBLIC_ENDPOINT_URL", &["s3.example.com"], s3);
        refused("RUST_LOG", &["presignd=loud", "foo bar"], telemetry);
        refused(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            &["localhost:4318", "http://u:p@host", "grpc://host"],
            telemetry,
        );
        if !cfg!(feature = "otlp") {
            refused(
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                &["http://127.0.0.1:4318"],
                telemetry,
            );
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_is_not_utf8_is_refused_rather_than_ignored() {
        use std::os::unix::ffi::OsStringExt;
        let get = |_: &str| Some(OsString::from_vec(b"x\xff".to_vec()));
        let error = upload(Env::new(&get)).unwrap_err().to_string();
        assert!(error.contains("UTF-8"), "{error}");
    }

    #[test]
    fn origins_are_read_as_a_list() {
        let origins = "https://a.example, http://localhost:5173";
        let settings = with(&[("CORS_ALLOWED_ORIGINS", origins)], http_alone).unwrap();
        let AllowedOrigins::Exactly(origins) = settings.allowed_origins else {
            panic!("not a list");
        };
        assert_eq!(origins, ["https://a.example", "http://localhost:5173"]);
    }
}
