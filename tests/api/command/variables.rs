//! The environment and `.env`, as `serve` and `dev` read them.

use std::path::Path;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use presignd::http::auth::new_api_key;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;

use crate::auth::jwt::{AUDIENCE, ISSUER, IssuerKey, JWT};
use crate::connections::connect;
use crate::helpers::{Grant, asking_at, client, eventually, preflight};
use crate::operations::metrics;
use crate::process::{BUCKET, Running, base, free_addr, one_line_and_exit_1, presignd, run};
use crate::receipts;

#[test]
fn serve_reports_all_faults_of_the_environment_at_once() {
    let (output, errors) = run(
        &["serve"],
        &[
            ("BIND_ADDR", "nowhere"),
            ("UPLOAD_SESSION_SECRET", "my-secret"),
        ],
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains("3 faults"), "{errors}");
    assert_eq!(errors.lines().count(), 4, "{errors}");
    assert!(!errors.contains("my-secret"));
}

#[test]
fn a_service_that_is_open_to_all_says_so() {
    let says =
        |variables: &[(&str, &str)]| first_lines_of_serve(variables).contains("AUTH_MODE is none");
    assert!(says(&[]));
    assert!(!says(&[("BIND_ADDR", "127.0.0.1:0")]));
    assert!(!says(&JWT));
}

#[test]
fn dotenv_is_read_from_the_working_directory_alone_and_the_environment_wins() {
    let folder = TempDir::new().unwrap();
    let below = folder.path().join("below");
    std::fs::create_dir(&below).unwrap();
    let dotenv = folder.path().join(".env");
    let serve = |folder: &Path, variables: &[(&str, &str)]| {
        let mut command = presignd(&["serve"], folder);
        command.envs(variables.iter().copied()).output().unwrap()
    };
    std::fs::write(&dotenv, "AWS_S3_BUCKET_NAME=bucket\nBIND_ADDR=from-$file\n").unwrap();
    one_line_and_exit_1(&serve(folder.path(), &[]), &["BIND_ADDR", "`from-$file`"]);
    let output = serve(folder.path(), &[("BIND_ADDR", "from-environment")]);
    one_line_and_exit_1(&output, &["BIND_ADDR", "from-environment"]);
    one_line_and_exit_1(&serve(&below, &[]), &["AWS_S3_BUCKET_NAME is not set"]);

    std::fs::write(&dotenv, "\nAWS_SECRET_ACCESS_KEY='hidden\n").unwrap();
    let output = serve(folder.path(), &[]);
    one_line_and_exit_1(&output, &[".env", "line 2", "AWS_SECRET_ACCESS_KEY"]);
}

/// Whoever can write `.env` must not be able to run a command as the service.
#[test]
fn dotenv_cannot_make_the_sdk_run_a_command() {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let script = format!("#!/bin/sh\ntouch {}\n", path("ran").display());
    std::fs::write(path("script"), script).unwrap();
    std::fs::set_permissions(path("script"), PermissionsExt::from_mode(0o755)).unwrap();
    let profile = format!(
        "[default]\ncredential_process = {}\n",
        path("script").display()
    );
    std::fs::write(path("aws"), profile).unwrap();
    let dotenv = format!(
        "AWS_CONFIG_FILE={}\nAWS_S3_BUCKET_NAME=bucket\nAWS_REGION=us-east-1\nBIND_ADDR=127.0.0.1:0\n",
        path("aws").display()
    );
    std::fs::write(path(".env"), dotenv).unwrap();
    let mut serve = Running::start(&["serve"], folder.path(), &[]);
    let log = serve.logged_until("there are no credentials");
    assert!(log.contains("AWS_CONFIG_FILE"), "it is named: {log}");
    assert!(!path("ran").exists(), "the command ran");
}

async fn is_granted_for_aws(addr: &str) {
    let response = asking_at(&format!("http://{addr}")).send().await.unwrap();
    let grant: Grant = response.json().await.unwrap();
    let host = "https://my-bucket.s3.ap-northeast-2.amazonaws.com/uploads/";
    assert!(grant.url.starts_with(host), "{}", grant.url);
}

/// Compose writes variables like these when the host has none of the name.
#[tokio::test]
async fn variables_of_the_sdk_that_are_empty_count_as_unset() {
    let folder = TempDir::new().unwrap();
    let variables = [
        ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE\n"),
        ("AWS_SECRET_ACCESS_KEY", "secret\r\n"),
        ("AWS_SESSION_TOKEN", ""),
        ("AWS_S3_BUCKET_NAME", "my-bucket"),
        ("AWS_REGION", ""),
        ("AWS_ENDPOINT_URL", ""),
        ("AWS_ENDPOINT_URL_S3", ""),
        ("AWS_PROFILE", ""),
    ];
    let (serve, addr) = Running::serve(folder.path(), &variables);
    is_granted_for_aws(&addr).await;
    let (_, _, log) = serve.stop("TERM");
    assert!(
        log.contains("no region was found") && log.contains("AWS_REGION"),
        "{log}"
    );
    assert!(!log.contains("no credentials"), "{log}");
}

#[test]
fn dev_listens_where_the_flag_or_else_the_variable_says() {
    let folder = TempDir::new().unwrap();
    let addr = free_addr();
    let (_, port) = addr.split_once(':').unwrap();
    for (flag, variable) in [
        (port.to_owned(), "127.0.0.1:1".to_owned()),
        (format!("localhost:{port}"), String::new()),
        (String::new(), addr.clone()),
    ] {
        let flag = if flag.is_empty() {
            vec![]
        } else {
            vec!["--addr", &flag]
        };
        let args = [&["dev", "--s3-addr", "0"], &flag[..]].concat();
        let mut dev = Running::start(&args, folder.path(), &[("BIND_ADDR", &variable)]);
        let banner = dev.printed_until("-T hello.txt");
        assert_eq!(base(&banner), format!("http://{addr}"));
        dev.stop("TERM");
    }
    let (output, errors) = run(&["dev", "--addr", "nowhere"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(errors.contains("127.0.0.1:3010"), "{errors}");
}

#[tokio::test]
async fn dev_lets_pages_of_this_machine_call_unless_others_are_named() {
    let (here, app) = ("http://localhost:5173", "https://a.app.example");
    for (variable, allowed, refused) in [("", here, app), ("https://*.app.example", app, here)] {
        let folder = TempDir::new().unwrap();
        let (dev, url) = Running::dev(folder.path(), &[("CORS_ALLOWED_ORIGINS", variable)]);
        let store = dev.banner.split_once("S3 store  ").unwrap().1;
        let store = store.split_once(',').unwrap().0;
        for url in [url, format!("{store}/uploads/a")] {
            for (origin, is_allowed) in [(allowed, true), (refused, false)] {
                let response = preflight(&url, origin, "PUT", "content-type").await;
                let header = response.headers().get("access-control-allow-origin");
                assert_eq!(header.is_some(), is_allowed, "{variable} {url} {origin}");
            }
        }
        let (_, _, log) = dev.stop("TERM");
        for refusal in ["may not call", "may not send to the store"] {
            let says = |line: &str| line.contains(refusal) && line.contains(refused);
            assert_eq!(log.lines().filter(|line| says(line)).count(), 1, "{log}");
        }
        assert!(log.contains("CORS_ALLOWED_ORIGINS"), "{log}");
    }
}

#[tokio::test]
async fn serve_signs_for_aws_with_the_usual_variables() {
    let folder = TempDir::new().unwrap();
    let (serve, addr) = Running::serve(folder.path(), &BUCKET);

    let healthy = tokio::task::spawn_blocking({
        let addr = addr.clone();
        move || run(&["healthcheck"], &[("BIND_ADDR", &addr)]).0.status
    });
    assert!(healthy.await.unwrap().success());

    is_granted_for_aws(&addr).await;
    let (code, ..) = serve.stop("TERM");
    assert_eq!(code, Some(0));
}

/// What `serve` logs up to its warning of a missing session secret, which is the last.
fn first_lines_of_serve(variables: &[(&str, &str)]) -> String {
    let folder = TempDir::new().unwrap();
    let open = [("BIND_ADDR", "0.0.0.0:0"), ("AUTH_MODE", "none")];
    let all: Vec<_> = BUCKET
        .iter()
        .chain(&open)
        .chain(variables)
        .copied()
        .collect();
    let mut serve = Running::start(&["serve"], folder.path(), &all);
    serve.logged_until("UPLOAD_SESSION_SECRET")
}

#[test]
fn serve_warns_of_a_store_that_clients_may_not_reach() {
    let internal = ("AWS_ENDPOINT_URL_S3", "http://minio:9000");
    let log = first_lines_of_serve(&[internal]);
    assert!(
        log.contains("S3_PUBLIC_ENDPOINT_URL") && log.contains("at minio,"),
        "{log}"
    );
    let public = ("S3_PUBLIC_ENDPOINT_URL", "https://s3.example.com");
    for reachable in [public, ("BIND_ADDR", "127.0.0.1:0")] {
        let log = first_lines_of_serve(&[internal, reachable]);
        assert!(!log.contains("S3_PUBLIC_ENDPOINT_URL"), "{log}");
    }
}

#[test]
fn serve_warns_of_webhooks_for_an_access_point_whose_events_name_its_bucket() {
    let webhook = [
        ("WEBHOOK_URL", "https://app.example.com/hook"),
        ("WEBHOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ("EVENTS_TOKEN", "0123456789abcdef"),
    ];
    let arn = "arn:aws:s3:eu-west-1:123456789012:accesspoint/photos";
    for (name, warns) in [(arn, true), ("photos-x1-s3alias", true), ("photos", false)] {
        let bucket = ("AWS_S3_BUCKET_NAME", name);
        let log = first_lines_of_serve(&[&webhook[..], &[bucket]].concat());
        assert_eq!(log.contains("is an access point"), warns, "{log}");
    }
    let log = first_lines_of_serve(&[("AWS_S3_BUCKET_NAME", arn)]);
    assert!(!log.contains("is an access point"), "{log}");
}

#[test]
fn serve_warns_of_a_variable_whose_name_is_misspelled() {
    let log = first_lines_of_serve(&[("TRUSTED_PROXY", "10.0.0.1"), ("METRICS_PORT", "1")]);
    assert!(log.contains("TRUSTED_PROXIES"), "{log}");
    assert!(!log.contains("METRICS_PORT"), "{log}");
}

#[test]
fn dev_warns_of_probable_mistakes_too() {
    let folder = TempDir::new().unwrap();
    let policies = "[policies.default]\nkey = '{uuid}'\n[policies.other]\nkey = '{uuid}'";
    std::fs::write(folder.path().join("policies.toml"), policies).unwrap();
    let variables = [
        ("UPLOAD_POLICIES_FILE", "policies.toml"),
        ("TRUSTED_PROXY", "10.0.0.1"),
    ];
    let (dev, _base) = Running::dev(folder.path(), &variables);
    let (_, _, log) = dev.stop("TERM");
    for warning in ["TRUSTED_PROXIES", "can make the same keys"] {
        assert!(log.contains(warning), "{log}");
    }
}

#[test]
fn serve_warns_of_a_file_of_policies_or_keys_that_everyone_can_write() {
    use std::os::unix::fs::PermissionsExt;

    let folder = TempDir::new().unwrap();
    let file = |name: &str, text: &str, mode| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (_, entry) = new_api_key("alice").unwrap();
    let issuer = IssuerKey::ec(Algorithm::ES256);
    for (mode, warns) in [(0o666, true), (0o644, false)] {
        let keys = file("keys.toml", &entry, mode);
        let policies = file("policies.toml", "[policies.default]", mode);
        let receipt_key = file("receipts.pem", &receipts::pem(), mode);
        let issuer = file("issuer.pem", &issuer.pem(), mode);
        let log = first_lines_of_serve(&[
            ("AUTH_MODE", "api-key,jwt"),
            ("API_KEYS_FILE", &keys),
            ("JWT_ISSUER", ISSUER),
            ("JWT_AUDIENCE", AUDIENCE),
            ("JWT_PUBLIC_KEY_FILE", &issuer),
            ("UPLOAD_POLICIES_FILE", &policies),
            ("RECEIPT_KEY_FILE", &receipt_key),
        ]);
        for name in [
            "API_KEYS_FILE",
            "JWT_PUBLIC_KEY_FILE",
            "RECEIPT_KEY_FILE",
            "UPLOAD_POLICIES_FILE",
        ] {
            let warning = format!("can write the file of {name}");
            assert_eq!(log.contains(&warning), warns, "{log}");
        }
    }
}

#[tokio::test]
async fn serve_warns_of_fewer_file_descriptors_than_its_connections_can_need() {
    let folder = TempDir::new().unwrap();
    for (max_connections, warns, counts) in [("300", false, 300), ("2000", true, 1000)] {
        let metrics_addr = free_addr();
        let mut command = std::process::Command::new("sh");
        let script = "ulimit -n 1000 && exec \"$0\" serve";
        command.args(["-c", script, env!("CARGO_BIN_EXE_presignd")]);
        command.env_clear().current_dir(folder.path()).envs(BUCKET);
        command.envs([
            ("BIND_ADDR", "127.0.0.1:0"),
            ("METRICS_ADDR", &metrics_addr),
            ("MAX_CONNECTIONS", max_connections),
            ("AWS_REGION", "eu-central-1"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ]);
        let mut serve = Running::run(&mut command);
        let log = serve.logged_until("UPLOAD_SESSION_SECRET");
        assert_eq!(log.contains("file descriptors"), warns, "{log}");
        let line = format!("presignd_max_connections {counts}\n");
        let url = format!("http://{metrics_addr}/metrics");
        eventually(&line, async || metrics(&url).await.contains(&line)).await;
    }
}

#[tokio::test]
async fn idle_connections_stay_open_for_as_long_as_the_variable_says() {
    let folder = TempDir::new().unwrap();
    for (seconds, stays) in [("1", false), ("620", true)] {
        let variables = [("KEEP_ALIVE_TIMEOUT", seconds)];
        let (_dev, url) = Running::dev(folder.path(), &variables);
        let request = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
        let mut stream = connect(url.trim_start_matches("http://"), request).await;
        let mut answer = Vec::new();
        let all = stream.read_to_end(&mut answer);
        let closed = tokio::time::timeout(Duration::from_secs(5), all).await;
        assert_eq!(closed.is_err(), stays, "{seconds}");
        assert!(answer.starts_with(b"HTTP/1.1 200"));
    }
}

/// `dev` listens on `--addr`, so what the environment says about other addresses does not count.
#[tokio::test]
async fn dev_answers_no_rebound_name_whatever_the_environment_is_made_for() {
    for variables in [
        &[("BIND_ADDR", "0.0.0.0:3000"), ("AUTH_MODE", "none")],
        &[("TRUSTED_PROXIES", "10.0.0.1"), ("AUTH_MODE", "none")],
    ] {
        let folder = TempDir::new().unwrap();
        let (_dev, url) = Running::dev(folder.path(), variables);
        let request = client().get(format!("{url}/healthz"));
        let response = request.header("host", "rebound.evil.example").send().await;
        assert_eq!(response.unwrap().status(), 403, "{variables:?}");
    }
}

/// A proxy on the same machine may pass on any name. Where nobody has to authenticate, a page of another origin
/// could use one.
#[tokio::test]
async fn a_loopback_service_that_asks_who_calls_answers_under_any_name() {
    let folder = TempDir::new().unwrap();
    let (key, entry) = new_api_key("web").unwrap();
    let file = folder.path().join("keys.toml");
    std::fs::write(&file, entry).unwrap();
    let keys = [
        ("AUTH_MODE", "api-key"),
        ("API_KEYS_FILE", file.to_str().unwrap()),
    ];
    for (auth, expected) in [(&keys[..], 201), (&[], 403)] {
        let (_serve, addr) = Running::serve(folder.path(), &[&BUCKET, auth].concat());
        let request = asking_at(&format!("http://{addr}")).bearer_auth(&key);
        let answer = request.header("host", "uploads.example.com").send().await;
        assert_eq!(answer.unwrap().status(), expected);
    }
}
