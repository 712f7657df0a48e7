//! The binary, as a user runs it.

mod closed_pipe;
mod install;
mod reload;
mod systemd;
mod ticket;
mod variables;

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::auth::jwt::{JWT, claims, signed};
use crate::helpers::{Grant, asking_at, client, granted};
use crate::process::{
    BUCKET, Running, free_addr, one_line_and_exit_1, presignd, request_lines, run,
};

async fn upload(base: &str, filename: &str, body: &str) -> Grant {
    let request = json!({"filename": filename, "contentType": "text/plain"});
    let grant: Grant = granted(base, "/upload/presigned-url", &request).await;
    assert_eq!(grant.send(&client(), body.to_owned()).await.status(), 200);
    grant
}

fn file_of(folder: &Path, grant: &Grant) -> PathBuf {
    folder.join(".presignd/uploads").join(&grant.key)
}

#[tokio::test]
async fn dev_serves_an_upload_and_keeps_it_over_a_restart() {
    let folder = TempDir::new().unwrap();
    let (dev, base) = Running::dev(folder.path(), &[]);
    let grant = upload(&base, "a.txt", "kept").await;
    assert_eq!(
        std::fs::read(file_of(folder.path(), &grant)).unwrap(),
        b"kept"
    );
    let (code, out, _) = dev.stop("INT");
    assert_eq!(code, Some(0));
    assert!(out.contains("Stopped."), "{out}");

    let (dev, _) = Running::dev(folder.path(), &[]);
    let (code, ..) = dev.stop("TERM");
    assert_eq!(code, Some(0));
    assert_eq!(
        std::fs::read(file_of(folder.path(), &grant)).unwrap(),
        b"kept"
    );
}

/// The SDK panics at a setting of a profile that it does not know.
#[test]
fn what_the_sdk_cannot_use_is_a_fault_of_the_start() {
    let folder = TempDir::new().unwrap();
    let profile = folder.path().join("config");
    std::fs::write(&profile, "[default]\nretry_mode = legacy\n").unwrap();
    let own = [("AWS_CONFIG_FILE", profile.to_str().unwrap())];
    for command in ["serve", "check"] {
        let (output, errors) = run(&[command], &[&BUCKET[..], &own].concat());
        let said = String::from_utf8(output.stdout).unwrap() + &errors;
        assert_eq!(output.status.code(), Some(1), "{command}: {said}");
        assert!(
            said.contains("the AWS settings cannot be used"),
            "{command}: {said}"
        );
    }
}

#[test]
fn dev_sends_webhooks_only_where_the_service_would() {
    let (output, errors) = run(&["dev", "--webhook", "ftp://app.example"], &[]);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(
        errors.contains("must be a URL such as https://"),
        "{errors}"
    );
}

#[tokio::test]
async fn the_log_has_a_line_for_each_request_and_names_its_caller_and_never_a_secret() {
    let folder = TempDir::new().unwrap();
    let variables = [
        ("RUST_LOG", "trace"),
        ("LOG_FORMAT", "json"),
        ("TRUSTED_PROXIES", "127.0.0.1"),
        (
            "UPLOAD_SESSION_SECRET",
            "session-secret-of-all-of-the-replicas",
        ),
    ];
    let (dev, base) = Running::dev(folder.path(), &[&variables[..], &JWT].concat());
    let mut claims = claims("alice|7");
    claims["private-claim"] = 1.into();
    let token = signed(&claims);
    let invalid = format!("{}invalid", &token[..token.len() - 8]);
    let file = json!({"filename": "private.txt", "type": "text/plain"});
    let url = format!("{base}/s3/multipart");
    let create = |token: &str| client().post(&url).bearer_auth(token).json(&file);
    let refused = create(&invalid).header("x-api-key", "private-key").send();
    assert_eq!(refused.await.unwrap().status(), 401);
    let created: Value = create(&token).send().await.unwrap().json().await.unwrap();
    let [upload, key] = ["uploadId", "key"].map(|name| created[name].as_str().unwrap());
    let part = client().get(format!("{url}/{upload}/1"));
    let part = part.bearer_auth(&token).query(&[("key", key)]).send().await;
    let part: Value = part.unwrap().json().await.unwrap();
    let part_url = part["url"].as_str().unwrap();
    let put = client().put(part_url).body("private").send().await;
    assert_eq!(put.unwrap().status(), 200);
    let (_, signature) = part_url.split_once("X-Amz-Signature=").unwrap();
    let nope = client().get(format!("{base}/nope/private-path?token=private-query"));
    let nope = nope.header("x-request-id", "my-id").send().await;
    assert_eq!(nope.unwrap().status(), 404);
    let (_, _, log) = dev.stop("INT");

    let requests = request_lines(&log);
    let [refused, created, part, unknown] = &requests[..] else {
        panic!("{log}");
    };
    assert_eq!(refused["status"], 401);
    for (request, method, route, status) in [
        (created, "POST", "/s3/multipart", 200),
        (part, "GET", "/s3/multipart/{uploadId}/{partNumber}", 200),
        (unknown, "GET", "<unknown>", 404),
    ] {
        let found = ["method", "route", "status"].map(|name| &request[name]);
        assert_eq!(found, [&json!(method), &json!(route), &json!(status)]);
        assert!(request["us"].is_u64() && request["request_id"].is_string());
    }
    for request in [created, part] {
        assert_eq!(request["caller"], "alice=7C7");
    }
    assert_eq!(unknown["request_id"], "my-id");

    let parts_of = |token: &str| token.split('.').map(str::to_owned).collect::<Vec<_>>();
    let mut secrets: Vec<String> = [
        "private",
        "secret-of",
        JWT[3].1,
        "Bearer",
        signature,
        key,
        "X-Amz-",
        "x-amz-",
        "AWS4",
        "presignd-dev-secret",
    ]
    .map(Into::into)
    .into();
    // A header is the same in all tokens.
    secrets.extend(parts_of(&token).into_iter().skip(1));
    secrets.extend(parts_of(&invalid).into_iter().skip(2));
    secrets.extend(parts_of(upload).into_iter().skip(1));
    for secret in secrets {
        assert!(!log.contains(&secret), "{secret:?} is in the log: {log}");
    }
}

/// They come every few seconds.
#[tokio::test]
async fn the_log_has_probes_and_scrapes_only_if_they_fail_or_at_the_level_debug() {
    let folder = TempDir::new().unwrap();
    let closed_port = format!("http://{}", free_addr());
    for (level, routes) in [
        ("info", &["/readyz"][..]),
        ("debug", &["/healthz", "/metrics", "/readyz"]),
    ] {
        let metrics_addr = free_addr();
        let variables = [
            ("RUST_LOG", level),
            ("METRICS_ADDR", &metrics_addr),
            ("AWS_ENDPOINT_URL_S3", &closed_port),
        ];
        let (serve, addr) = Running::serve(folder.path(), &[&BUCKET[..], &variables].concat());
        for (addr, path, status) in [
            (&addr, "/healthz", 200),
            (&metrics_addr, "/metrics", 200),
            (&addr, "/readyz", 503),
        ] {
            let response = client().get(format!("http://{addr}{path}")).send().await;
            assert_eq!(response.unwrap().status(), status, "{path}");
        }
        let (_, _, log) = serve.stop("TERM");
        let logged: Vec<_> = request_lines(&log)
            .iter()
            .map(|line| line["route"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(logged, routes, "{level}");
    }
}

#[test]
fn dev_names_what_it_cannot_use() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let free = "127.0.0.1:0";
    let (output, _) = run(&["dev", "--addr", &addr, "--s3-addr", free], &[]);
    one_line_and_exit_1(&output, &[&addr, "--addr"]);
    let (output, _) = run(&["dev", "--addr", free, "--s3-addr", &addr], &[]);
    one_line_and_exit_1(&output, &[&addr, "--s3-addr"]);
    let (output, _) = run(&["dev", "--addr", "0.0.0.0:0", "--s3-addr", free], &[]);
    one_line_and_exit_1(&output, &["--addr", "loopback"]);
    // A folder inside a file can't be made by anyone, root included.
    let file = tempfile::NamedTempFile::new().unwrap();
    let folder = file.path().join("data");
    let folder = folder.to_str().unwrap();
    let args = [
        "dev",
        "--addr",
        free,
        "--s3-addr",
        free,
        "--data-dir",
        folder,
    ];
    let (output, _) = run(&args, &[]);
    one_line_and_exit_1(&output, &[folder]);
}

#[test]
fn a_container_that_all_may_reach_has_no_secret_key_that_all_know() {
    let args = [
        "dev",
        "--in-container",
        "--secret-key",
        "presignd-dev-secret",
    ];
    let (output, errors) = run(&args, &[]);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("cannot be used with"), "{errors}");
}

#[tokio::test]
async fn an_api_key_that_the_command_made_is_let_in() {
    let folder = TempDir::new().unwrap();
    let made = presignd(&["api-key", "web"], folder.path())
        .output()
        .unwrap();
    assert!(made.status.success());
    let key = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let explained = String::from_utf8(made.stderr).unwrap();
    assert!(
        !explained.contains(&key),
        "the key is shown once: {explained}"
    );
    let (_, entry) = explained.split_once("[[keys]]").unwrap();
    std::fs::write(folder.path().join("keys.toml"), format!("[[keys]]{entry}")).unwrap();
    let variables = [("AUTH_MODE", "api-key"), ("API_KEYS_FILE", "keys.toml")];
    let (_dev, base) = Running::dev(folder.path(), &variables);
    let refused = asking_at(&base).send().await.unwrap();
    assert_eq!(refused.status(), 401);
    let granted = asking_at(&base).bearer_auth(&key).send().await.unwrap();
    assert_eq!(granted.status(), 201);

    let (output, _) = run(&["api-key", ""], &[]);
    one_line_and_exit_1(&output, &["NAME"]);
}

#[test]
fn healthcheck_fails_when_nothing_answers() {
    let addr = free_addr();
    let (output, _) = run(&["healthcheck"], &[("BIND_ADDR", &addr)]);
    one_line_and_exit_1(&output, &[&addr]);
}

#[test]
fn the_command_explains_itself() {
    let (output, errors) = run(&[], &[]);
    assert_eq!(output.status.code(), Some(2));
    let (output, _) = run(&["--help"], &[]);
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    for command in ["dev", "serve", "api-key", "check", "openapi", "healthcheck"] {
        assert!(
            help.contains(command) && errors.contains(command),
            "{command}"
        );
    }
    for name in presignd::config::VARIABLES {
        assert!(help.contains(name), "{name}");
    }
    let (output, _) = run(&["--version"], &[]);
    let version = format!("presignd {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), version);
}

#[test]
fn openapi_prints_the_document_of_the_repository() {
    let (output, _) = run(&["openapi"], &[]);
    let printed = String::from_utf8(output.stdout).unwrap();
    let is_current = printed == include_str!("../../openapi.json");
    assert!(is_current, "run `cargo run -- openapi > openapi.json`");
}

#[test]
fn the_readme_shows_what_dev_prints() {
    let readme = include_str!("../../README.md");
    let [addr, s3_addr] = ["127.0.0.1:3000", "127.0.0.1:9000"].map(|a| a.parse().unwrap());
    let data = TempDir::new().unwrap();
    let dev = presignd::dev::Dev::open(data.path(), None).unwrap();
    let policies = ["avatar".to_owned(), "default".to_owned()];
    let without_default = dev.banner(addr, s3_addr, None, &policies[..1]).unwrap();
    assert!(without_default.contains("names one: avatar"));
    assert!(!without_default.contains("curl"), "{without_default}");
    let banner = dev.banner(addr, s3_addr, None, &policies).unwrap();
    let (_, commands) = banner.split_once("send a file to it.\n\n").unwrap();
    let commands: Vec<&str> = commands
        .trim_end()
        .lines()
        .map(|l| l.strip_prefix("  ").unwrap_or(l))
        .collect();
    // The README's commands are run by CI.
    assert!(readme.contains(&commands.join("\n")), "{commands:#?}");
}

#[test]
fn a_second_signal_stops_it_immediately() {
    use std::io::Write;
    let folder = TempDir::new().unwrap();
    let (mut dev, base) = Running::dev(folder.path(), &[]);
    let addr = base.strip_prefix("http://").unwrap();
    // A request in progress until its body comes.
    let mut waiting = std::net::TcpStream::connect(addr).unwrap();
    let head = "POST /upload/presigned-url HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
        content-length: 10\r\n\r\n";
    waiting.write_all(head.as_bytes()).unwrap();
    let begin = std::time::Instant::now();
    dev.signal("TERM");
    while std::net::TcpStream::connect(addr).is_ok() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    dev.signal("INT");
    let code = dev.child.wait().unwrap().code();
    assert_eq!(code, Some(1));
    let took = begin.elapsed();
    assert!(
        took < std::time::Duration::from_secs(9),
        "{took:?}: it waited for the request"
    );
}
