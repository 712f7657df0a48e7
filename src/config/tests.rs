mod auth;
mod events;

use std::collections::BTreeSet;

use super::*;

pub(super) const VALID: (&str, &str) = ("AWS_S3_BUCKET_NAME", "my-bucket");

/// An environment in which the last value of a variable counts.
pub(super) fn env(variables: &[(&str, &str)]) -> Env {
    let variables = variables.iter();
    Env::new(
        variables
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        Vec::new(),
    )
}

pub(super) fn config(variables: &[(&str, &str)]) -> Result<Config, Faults> {
    Config::from_env(&env(&[&[VALID], variables].concat()))
}

#[track_caller]
pub(super) fn faults(variables: &[(&str, &str)]) -> Vec<String> {
    config(variables).expect_err(&format!("{variables:?}")).0
}

/// Each of the values causes one fault, on one line, which begins with the variable.
#[track_caller]
pub(super) fn refused(name: &str, values: &[&str]) {
    for value in values {
        let faults = faults(&[(name, value)]);
        let [fault] = &faults[..] else {
            panic!("{name}={value}: {faults:?}");
        };
        assert!(fault.starts_with(name) && !fault.contains('\n'), "{fault}");
    }
}

#[test]
fn the_example_lists_each_variable_once_and_no_other() {
    let example = include_str!("../../.env.example");
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
    let config = config(&[]).unwrap();
    assert_eq!(config.bind_addr, "127.0.0.1:3000".parse().unwrap());
    assert_eq!(config.upload.policies.longest_lifetime().as_secs(), 600);
    assert!(config.upload.supports_post && !config.s3.force_path_style);
    assert_eq!(config.http.allowed_origins, AllowedOrigins::None);
    assert!(!config.http.auth.is_required() && config.http.rate.is_none());
    assert!(config.upload.session_key.is_none() && config.metrics_addr.is_none());
}

#[test]
fn a_start_reports_all_faults_at_once() {
    let faults = faults(&[
        ("AWS_S3_BUCKET_NAME", ""),
        ("AWS_REGION", "foo bar"),
        ("BIND_ADDR", "nowhere"),
        ("UPLOAD_URL_EXPIRES_IN", "0"),
        ("UPLOAD_SESSION_SECRET", "hidden"),
        ("AUTH_MODE", "jwt"),
        ("JWT_AUDIENCE", "presignd"),
        ("JWT_SECRET", "hidden"),
        ("LOG_FORMAT", "xml"),
        ("RATE_LIMIT_BURST", "5"),
    ]);
    let expected = [
        "AWS_REGION",
        "AWS_S3_BUCKET_NAME",
        "BIND_ADDR",
        "UPLOAD_URL_EXPIRES_IN",
        "UPLOAD_SESSION_SECRET",
        "JWT_SECRET",
        "JWT_ISSUER",
        "RATE_LIMIT_BURST",
        "LOG_FORMAT",
    ];
    assert_eq!(faults.len(), expected.len(), "{faults:#?}");
    for (fault, name) in faults.iter().zip(expected) {
        assert!(fault.starts_with(name), "{fault}");
    }
    let text = Faults(faults).to_string();
    assert!(text.starts_with("the configuration has 9 faults\n- AWS_REGION"));
    assert!(!text.contains("hidden"), "{text}");
}

#[test]
fn a_missing_bucket_is_named_with_a_hint_at_dev() {
    for bucket in ["", " "] {
        let faults = faults(&[("AWS_S3_BUCKET_NAME", bucket)]);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].starts_with("AWS_S3_BUCKET_NAME is not set"));
        assert_eq!(
            faults[0].contains("presignd dev"),
            cfg!(feature = "dev"),
            "{faults:?}"
        );
    }
}

#[test]
fn an_invalid_value_is_refused_by_name() {
    refused("BIND_ADDR", &["3000", "nowhere:3000", "127.0.0.1:99999"]);
    refused(
        "AWS_S3_BUCKET_NAME",
        &[
            "a",
            "a/b",
            "a b",
            "s3://bucket",
            "arn:aws:s3:::bucket",
            "...",
        ],
    );
    refused("S3_FORCE_PATH_STYLE", &["yes", "1"]);
    for name in [
        "AWS_ENDPOINT_URL_S3",
        "AWS_ENDPOINT_URL",
        "S3_PUBLIC_ENDPOINT_URL",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "PUBLIC_URL",
    ] {
        refused(
            name,
            &[
                "localhost:9000",
                "127.0.0.1",
                "s3.example.com",
                "ftp://host",
                "http://u:p@host",
                "http://host/?x=1",
                "http://host/#x",
                "http://",
            ],
        );
    }
    refused("AWS_REGION", &["foo bar", "eu/west"]);
    refused(
        "UPLOAD_URL_EXPIRES_IN",
        &["0", "604801", "-1", "10m", "1.5"],
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
    );
    // Nothing else is checked of it.
    refused("AWS_PROFILE", &["a\nb", "a\u{7}b", "\"a\""]);
    refused("MAX_CONNECTIONS", &["0", "-1", "65536", "many"]);
    refused("KEEP_ALIVE_TIMEOUT", &["0", "-1", "3601", "75s"]);
    refused("METRICS_ADDR", &["9090", "nowhere:9090", DEFAULT_BIND_ADDR]);
    refused("S3_SUPPORTS_POST_POLICY", &["no"]);
    refused("UPLOAD_POLICIES_FILE", &["/no/such/file"]);
    refused("UPLOAD_SESSION_SECRET", &["x", &"x".repeat(31)]);
    refused("LOG_FORMAT", &["xml"]);
    refused(
        "RUST_LOG",
        &[
            "presignd=loud",
            "foo bar",
            "a=b=c",
            "verbose",
            "info,hyper",
            "presignd:debug",
            "info,",
            "presignd=",
        ],
    );
    refused(
        "AUTH_MODE",
        &["basic", "None", "none,jwt", "jwt,", "jwt;api-key"],
    );
    refused("RATE_LIMIT_PER_SECOND", &["0", "-1", "inf", "NaN"]);
    refused("RATE_LIMIT_BURST", &["5"]);
    let rarely = [
        ("RATE_LIMIT_PER_SECOND", "0.0001"),
        ("RATE_LIMIT_BURST", "1000000"),
    ];
    let faults = faults(&rarely);
    assert!(
        faults.len() == 1 && faults[0].contains("over 30 years"),
        "{faults:?}"
    );
    refused("AWS_RETRY_MODE", &["legacy"]);
    refused("AWS_MAX_ATTEMPTS", &["0", "many"]);
    refused("TRUSTED_PROXIES", &["10.0.0.0/33", "proxy.example.com"]);
    if cfg!(not(feature = "otlp")) {
        refused("OTEL_EXPORTER_OTLP_ENDPOINT", &["http://127.0.0.1:4318"]);
    }
}

#[test]
fn localhost_is_an_address_too() {
    let config = config(&[
        ("BIND_ADDR", "localhost:3010"),
        ("METRICS_ADDR", "[::]:9090"),
    ]);
    let config = config.unwrap();
    assert_eq!(config.bind_addr, "127.0.0.1:3010".parse().unwrap());
    assert_eq!(config.metrics_addr, Some("[::]:9090".parse().unwrap()));
}

#[test]
fn only_documented_variables_in_dotenv_count_and_the_environment_wins() {
    let of = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    let dotenv = of(&[
        ("AWS_CONFIG_FILE", "/tmp/evil"),
        ("AWS_REGION", "eu-west-1"),
        ("BIND_ADDR", "127.0.0.1:1"),
        ("LOG_FORMAT", "xml"),
    ]);
    let process = [("BIND_ADDR", "127.0.0.1:2"), ("LOG_FORMAT", ""), VALID];
    let process = process.map(|(name, value)| (name.into(), value.into()));
    let env = Env::new(process.into(), dotenv);
    assert_eq!(env.ignored, ["AWS_CONFIG_FILE"]);
    assert!(!env.values().contains_key("AWS_CONFIG_FILE"));
    assert_eq!(env.get("AWS_REGION"), Some("eu-west-1"));
    let config = Config::from_env(&env).unwrap();
    assert_eq!(config.bind_addr.port(), 2);
}

#[cfg(unix)]
#[test]
fn what_is_not_utf8_is_refused_rather_than_ignored() {
    use std::os::unix::ffi::OsStringExt;
    let value = std::ffi::OsString::from_vec(b"x\xff".to_vec());
    let process = vec![
        ("API_KEYS_FILE".into(), value),
        (VALID.0.into(), VALID.1.into()),
        ("AUTH_MODE".into(), "api-key".into()),
    ];
    let faults = Config::from_env(&Env::new(process, Vec::new())).unwrap_err();
    assert_eq!(faults.0, ["API_KEYS_FILE is not UTF-8; set it to text"]);
}

#[test]
fn the_embedded_store_needs_no_variable_of_a_store() {
    let s3 = s3::Settings {
        bucket: "uploads".into(),
        force_path_style: true,
        public_endpoint: None,
        accelerate: false,
    };
    let env = env(&[
        ("AWS_REGION", "foo bar"),
        ("AWS_SECRET_ACCESS_KEY", "'x'"),
        ("S3_PUBLIC_ENDPOINT_URL", "nowhere"),
        ("S3_SUPPORTS_POST_POLICY", "false"),
    ]);
    let config = Config::with_store(&env, s3).unwrap();
    // Clients are granted what they would be granted at the other store.
    assert!(!config.upload.supports_post);
}

#[test]
fn origins_are_read_as_a_list() {
    let origins = "https://a.example, http://localhost:5173, https://*.b.example:8443";
    let allowed = config(&[("CORS_ALLOWED_ORIGINS", origins)])
        .unwrap()
        .http
        .allowed_origins;
    let AllowedOrigins::Exactly(origins) = allowed else {
        panic!("not a list");
    };
    assert_eq!(
        origins,
        [
            "https://a.example",
            "http://localhost:5173",
            "https://*.b.example:8443"
        ]
    );
    for vague in [
        "https://*",
        "https://*.com",
        "https://a.*.example",
        "https://a*.example.com",
    ] {
        assert!(
            config(&[("CORS_ALLOWED_ORIGINS", vague)]).is_err(),
            "{vague}"
        );
    }
}

#[test]
fn a_file_of_cas_that_cannot_be_used_is_refused() {
    let folder = tempfile::TempDir::new().unwrap();
    let [key, cas] = ["key.pem", "cas.pem"].map(|name| folder.path().join(name));
    std::fs::write(&key, "-----BEGIN PRIVATE KEY-----\n").unwrap();
    std::fs::write(&cas, b"caf\xe9\n-----BEGIN CERTIFICATE-----\n").unwrap();
    let [key, cas] = [key, cas].map(|path| path.to_str().unwrap().to_owned());
    for path in ["", "/nowhere.pem", &key, &format!(" {cas}")] {
        refused_for("SSL_CERT_FILE: ", &[("SSL_CERT_FILE", path)]);
    }
    assert!(config(&[("SSL_CERT_FILE", &cas)]).is_ok());
}

#[cfg(unix)]
#[test]
fn a_file_without_end_is_refused() {
    for name in ["UPLOAD_POLICIES_FILE", "RECEIPT_KEY_FILE", "SSL_CERT_FILE"] {
        let faults = faults(&[(name, "/dev/zero")]).join("");
        assert!(faults.contains("it is longer than 16 MiB"), "{faults}");
    }
}

#[test]
fn auth_mode_is_required_where_other_machines_can_call() {
    for addr in ["0.0.0.0:3000", "[::]:3000", "10.0.0.1:80"] {
        refused_for("AUTH_MODE is not set", &[("BIND_ADDR", addr)]);
        assert!(config(&[("BIND_ADDR", addr), ("AUTH_MODE", "none")]).is_ok());
    }
    assert!(config(&[("BIND_ADDR", "[::1]:3000")]).is_ok());
}

#[test]
fn forms_only_is_refused_together_with_what_needs_a_put() {
    let only = ("S3_FORMS_ONLY", "true");
    assert!(config(&[only]).unwrap().upload.forms_only);
    refused_for(
        "S3_FORMS_ONLY is true, but S3_SUPPORTS_POST_POLICY",
        &[only, ("S3_SUPPORTS_POST_POLICY", "false")],
    );
    let (_folder, path) = policies_file("[policies.once]\nkey = '{uuid}'\noverwrite = false\n");
    let policies = ("UPLOAD_POLICIES_FILE", &*path);
    refused_for(
        "S3_FORMS_ONLY is true, but policies.once",
        &[only, policies],
    );
    refused("S3_FORMS_ONLY", &["yes"]);
}

/// A file of policies, in a folder that goes when it is dropped.
fn policies_file(policies: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policies.toml");
    std::fs::write(&path, policies).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

/// There is one fault, which begins with these words.
#[track_caller]
fn refused_for(says: &str, variables: &[(&str, &str)]) {
    let faults = faults(variables);
    let [fault] = &faults[..] else {
        panic!("{variables:?}: {faults:?}");
    };
    assert!(fault.starts_with(says), "{fault}");
}

#[test]
fn a_policy_that_names_the_default_bucket_is_as_one_that_names_none() {
    let policies = "[policies.default]\nbucket = 'my-bucket'\n[policies.other]\nbucket = 'media'";
    let (_folder, path) = policies_file(policies);
    let config = config(&[("UPLOAD_POLICIES_FILE", &path)]).unwrap();
    let buckets: Vec<Option<&str>> = config.upload.policies.buckets().into_iter().collect();
    assert_eq!(buckets, [None, Some("media")]);
}
