//! The binary, as a user runs it.

use std::io::BufRead;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::helpers::{Grant, client};
use crate::process::{Running, base, one_line_and_exit_1, presignd, run};

async fn upload(base: &str, filename: &str, body: &str) -> Grant {
    let request = json!({"filename": filename, "contentType": "text/plain"});
    let url = format!("{base}/upload/presigned-url");
    let response = client().post(url).json(&request).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let grant: Grant = response.json().await.unwrap();
    let put = client()
        .put(&grant.url)
        .header("content-type", "text/plain");
    let response = put.body(body.to_owned()).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    grant
}

fn file_of(folder: &Path, grant: &Grant) -> PathBuf {
    folder.join(".presignd/uploads").join(&grant.key)
}

#[tokio::test]
async fn dev_serves_an_upload_and_keeps_it_over_a_restart() {
    let folder = TempDir::new().unwrap();
    let mut dev = Running::dev(folder.path(), &[]);
    let banner = dev.printed_until("-T hello.txt");
    let grant = upload(&base(&banner), "a.txt", "kept").await;
    assert_eq!(
        std::fs::read(file_of(folder.path(), &grant)).unwrap(),
        b"kept"
    );
    let (code, out, _) = dev.stop("INT");
    assert_eq!(code, Some(0));
    assert!(out.contains("Stopped."), "{out}");

    let mut dev = Running::dev(folder.path(), &[]);
    dev.printed_until("-T hello.txt");
    let (code, ..) = dev.stop("TERM");
    assert_eq!(code, Some(0));
    assert_eq!(
        std::fs::read(file_of(folder.path(), &grant)).unwrap(),
        b"kept"
    );
}

/// Whatever somebody sends to be let in, and whatever lets them in, is nobody else's business.
#[tokio::test]
async fn the_log_names_the_caller_and_never_what_lets_them_in() {
    let secret = "shared-secret-of-the-issuer-and-of-us";
    let folder = TempDir::new().unwrap();
    let variables = [
        ("RUST_LOG", "trace"),
        ("LOG_FORMAT", "json"),
        ("AUTH_MODE", "jwt"),
        ("JWT_ISSUER", "https://issuer.example/"),
        ("JWT_AUDIENCE", "presignd"),
        ("JWT_SECRET", secret),
        (
            "UPLOAD_SESSION_SECRET",
            "session-secret-of-all-of-the-replicas",
        ),
    ];
    let mut dev = Running::dev(folder.path(), &variables);
    let base = base(&dev.printed_until("-T hello.txt"));
    let claims = json!({
        "iss": "https://issuer.example/",
        "aud": "presignd",
        "sub": "alice|7",
        "exp": 4_000_000_000_u64,
        "private-claim": 1,
    });
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
    let bent = format!("{}bent", &token[..token.len() - 8]);
    let file = json!({"filename": "private.txt", "type": "text/plain"});
    let url = format!("{base}/s3/multipart");
    let create = |token: &str| client().post(&url).bearer_auth(token).json(&file);
    let refused = create(&bent)
        .header("x-api-key", "private-key")
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    let created: Value = create(&token).send().await.unwrap().json().await.unwrap();
    let upload = created["uploadId"].as_str().unwrap();
    let part = client()
        .get(format!("{url}/{upload}/1"))
        .bearer_auth(&token);
    let part = part.query(&[("key", created["key"].as_str().unwrap())]);
    let part: Value = part.send().await.unwrap().json().await.unwrap();
    let signature = part["url"]
        .as_str()
        .unwrap()
        .split_once("X-Amz-Signature=")
        .unwrap()
        .1;
    let (_, _, log) = dev.stop("INT");
    assert_eq!(log.matches(r#""caller":"alice=7C7""#).count(), 2, "{log}");
    let parts_of = |token: &str| token.split('.').map(str::to_owned).collect::<Vec<_>>();
    let mut secrets: Vec<String> = ["private", "secret-of", "Bearer", signature]
        .map(Into::into)
        .into();
    // A header is the same in all tokens.
    secrets.extend(parts_of(&token).into_iter().skip(1));
    secrets.extend(parts_of(&bent).into_iter().skip(2));
    secrets.extend(parts_of(upload).into_iter().skip(1));
    for secret in secrets {
        assert!(!log.contains(&secret), "{secret:?} is in the log: {log}");
    }
}

#[tokio::test]
async fn the_log_has_a_line_for_each_request_and_never_a_secret() {
    let folder = TempDir::new().unwrap();
    let mut dev = Running::dev(
        folder.path(),
        &[("RUST_LOG", "trace"), ("LOG_FORMAT", "json")],
    );
    let base = base(&dev.printed_until("-T hello.txt"));
    let grant = upload(&base, "private-name.txt", "x").await;
    let nope = format!("{base}/nope/private-path?token=private-query");
    let response = client()
        .get(nope)
        .header("x-request-id", "my-id")
        .send()
        .await;
    assert_eq!(response.unwrap().status(), StatusCode::NOT_FOUND);
    let (_, _, log) = dev.stop("INT");

    let lines: Vec<Value> = log
        .lines()
        .map(|l| serde_json::from_str(l).expect(l))
        .collect();
    let requests: Vec<&Value> = lines.iter().filter(|l| l["message"] == "request").collect();
    let [granted, unknown] = requests[..] else {
        panic!("{log}");
    };
    assert_eq!(granted["method"], "POST");
    assert_eq!(granted["route"], "/upload/presigned-url");
    assert_eq!(granted["status"], 201);
    assert!(granted["us"].is_u64());
    assert!(granted["request_id"].is_string());
    assert_eq!(unknown["route"], "<unknown>");
    assert_eq!(unknown["status"], 404);
    assert_eq!(unknown["request_id"], "my-id");

    let (_, signature) = grant.url.split_once("X-Amz-Signature=").unwrap();
    for secret in [
        signature,
        &grant.key,
        "X-Amz-",
        "x-amz-",
        "AWS4",
        "presignd-dev-secret",
        "private",
    ] {
        assert!(!log.contains(secret), "{secret:?} is in the log: {log}");
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
fn serve_reports_all_faults_of_the_environment_at_once() {
    let (output, _) = run(&["serve"], &[]);
    one_line_and_exit_1(&output, &["AWS_S3_BUCKET_NAME", "presignd dev"]);
    let (output, errors) = run(
        &["serve"],
        &[
            ("BIND_ADDR", "nowhere"),
            ("UPLOAD_SESSION_SECRET", "my-secret"),
        ],
    );
    assert_eq!(output.status.code(), Some(1));
    let lines: Vec<&str> = errors.lines().collect();
    let [head, bucket, addr, secret] = lines[..] else {
        panic!("{errors}");
    };
    assert!(head.contains("3 faults"), "{errors}");
    assert!(bucket.starts_with("- AWS_S3_BUCKET_NAME is not set"));
    assert!(addr.starts_with("- BIND_ADDR must be") && addr.contains("`nowhere`"));
    assert!(secret.starts_with("- UPLOAD_SESSION_SECRET must have"));
    assert!(!errors.contains("my-secret"));
    // This is well-formed, but nothing can be signed with it.
    let variables = [
        ("BIND_ADDR", "127.0.0.1:0"),
        ("AWS_S3_BUCKET_NAME", "arn:x"),
    ];
    let (output, _) = run(&["serve"], &variables);
    one_line_and_exit_1(&output, &["AWS_S3_BUCKET_NAME"]);
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
    let mut dev = Running::dev(folder.path(), &variables);
    let base = base(&dev.printed_until("-T hello.txt"));
    let ask = || {
        let file = json!({"filename": "a.txt", "contentType": "text/plain"});
        client()
            .post(format!("{base}/upload/presigned-url"))
            .json(&file)
    };
    let refused = ask().send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    let granted = ask().bearer_auth(&key).send().await.unwrap();
    assert_eq!(granted.status(), StatusCode::CREATED);

    let (output, _) = run(&["api-key", ""], &[]);
    one_line_and_exit_1(&output, &["NAME"]);
}

#[test]
fn a_service_that_is_open_to_all_says_so() {
    let folder = TempDir::new().unwrap();
    let says = |addr: &str, more: &[(&str, &str)]| {
        let mut variables = vec![
            ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_S3_BUCKET_NAME", "my-bucket"),
            ("BIND_ADDR", addr),
        ];
        variables.extend(more);
        let mut serve = Running::start(&["serve"], folder.path(), &variables);
        let mut log = String::new();
        // The last of the lines at the start.
        while !log.contains("UPLOAD_SESSION_SECRET") {
            assert_ne!(serve.stderr.read_line(&mut log).unwrap(), 0, "{log}");
        }
        log.contains("AUTH_MODE is none")
    };
    assert!(says("0.0.0.0:0", &[("AUTH_MODE", "none")]));
    assert!(!says("127.0.0.1:0", &[]));
    let jwt = [
        ("AUTH_MODE", "jwt"),
        ("JWT_ISSUER", "x"),
        ("JWT_AUDIENCE", "y"),
        ("JWT_SECRET", "a secret of more than thirty-two bytes"),
    ];
    assert!(!says("0.0.0.0:0", &jwt));
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

    for (text, says) in [
        ("\nAWS_SECRET_ACCESS_KEY='hidden\n", "line 2"),
        ("AWS_SECRET_ACCESS_KEY=hid\0den\n", "line 1"),
    ] {
        std::fs::write(&dotenv, text).unwrap();
        let output = serve(folder.path(), &[]);
        one_line_and_exit_1(&output, &[".env", says, "AWS_SECRET_ACCESS_KEY"]);
        assert!(!String::from_utf8_lossy(&output.stderr).contains("hid"));
    }
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
    let mut log = String::new();
    while !log.contains("there are no credentials") {
        assert_ne!(serve.stderr.read_line(&mut log).unwrap(), 0, "{log}");
    }
    assert!(log.contains("AWS_CONFIG_FILE"), "it is named: {log}");
    assert!(!path("ran").exists(), "the command ran");
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
    let url = format!("http://{addr}/upload/presigned-url");
    let file = json!({"filename": "a.txt", "contentType": "text/plain"});
    let response = client().post(url).json(&file).send().await.unwrap();
    let grant: Grant = response.json().await.unwrap();
    let host = "https://my-bucket.s3.ap-northeast-2.amazonaws.com/uploads/";
    assert!(grant.url.starts_with(host), "{}", grant.url);
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
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let addr = format!("127.0.0.1:{port}");
    for (flag, variable) in [
        (port.to_string(), "127.0.0.1:1".to_owned()),
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
async fn serve_signs_for_aws_with_the_usual_variables() {
    let folder = TempDir::new().unwrap();
    let variables = [
        ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_S3_BUCKET_NAME", "my-bucket"),
    ];
    let (serve, addr) = Running::serve(folder.path(), &variables);

    let healthy = tokio::task::spawn_blocking({
        let addr = addr.clone();
        move || run(&["healthcheck"], &[("BIND_ADDR", &addr)]).0.status
    });
    assert!(healthy.await.unwrap().success());

    let response = client()
        .post(format!("http://{addr}/upload/presigned-url"))
        .json(&json!({"filename": "a.txt", "contentType": "text/plain"}))
        .send()
        .await
        .unwrap();
    let grant: Grant = response.json().await.unwrap();
    let host = "https://my-bucket.s3.ap-northeast-2.amazonaws.com/uploads/";
    assert!(grant.url.starts_with(host), "{}", grant.url);
    let (code, ..) = serve.stop("TERM");
    assert_eq!(code, Some(0));
}

/// What `serve` logs up to its warning of a missing session secret, which is the last.
fn first_lines_of_serve(variables: &[(&str, &str)]) -> String {
    let folder = TempDir::new().unwrap();
    let all = [
        ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_S3_BUCKET_NAME", "my-bucket"),
        ("BIND_ADDR", "0.0.0.0:0"),
        ("AUTH_MODE", "none"),
    ];
    let all: Vec<_> = all.iter().chain(variables).copied().collect();
    let mut serve = Running::start(&["serve"], folder.path(), &all);
    let mut log = String::new();
    while !log.contains("UPLOAD_SESSION_SECRET") {
        assert_ne!(serve.stderr.read_line(&mut log).unwrap(), 0, "{log}");
    }
    log
}

#[test]
fn serve_warns_of_a_store_that_clients_may_not_reach() {
    let internal = ("AWS_ENDPOINT_URL_S3", "http://minio:9000");
    let log = first_lines_of_serve(&[internal]);
    assert!(
        log.contains("S3_PUBLIC_ENDPOINT_URL") && log.contains("at minio,"),
        "{log}"
    );
    let still_internal = ("S3_PUBLIC_ENDPOINT_URL", "http://10.0.0.1:9000");
    let log = first_lines_of_serve(&[internal, still_internal]);
    assert!(
        log.contains("S3_PUBLIC_ENDPOINT_URL") && log.contains("at 10.0.0.1,"),
        "{log}"
    );
    for variables in [
        &[][..],
        &[
            internal,
            ("S3_PUBLIC_ENDPOINT_URL", "https://s3.example.com"),
        ],
        &[internal, ("BIND_ADDR", "127.0.0.1:0")],
    ] {
        let log = first_lines_of_serve(variables);
        assert!(!log.contains("S3_PUBLIC_ENDPOINT_URL"), "{log}");
    }
}

#[test]
fn healthcheck_fails_when_nothing_answers() {
    let addr = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
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
    assert_eq!(printed, include_str!("../../openapi.json"));
}

#[test]
fn the_readme_shows_what_dev_prints() {
    let readme = include_str!("../../README.md");
    let [addr, s3_addr] = ["127.0.0.1:3000", "127.0.0.1:9000"].map(|a| a.parse().unwrap());
    let data = TempDir::new().unwrap();
    let dev = presignd::dev::Dev::open(data.path(), None).unwrap();
    let banner = dev.banner(addr, s3_addr, None).unwrap();
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
fn a_second_signal_ends_it_at_once() {
    use std::io::Write;
    let folder = TempDir::new().unwrap();
    let mut dev = Running::dev(folder.path(), &[]);
    let base = base(&dev.printed_until("-T hello.txt"));
    let addr = base.strip_prefix("http://").unwrap();
    // Under way for as long as its body does not come.
    let mut waiting = std::net::TcpStream::connect(addr).unwrap();
    let head = "POST /upload/presigned-url HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
        content-length: 10\r\n\r\n";
    waiting.write_all(head.as_bytes()).unwrap();
    let begin = std::time::Instant::now();
    let kill = |signal: &str| {
        let kill = format!("kill -s {signal} {}", dev.child.id());
        assert!(
            Command::new("sh")
                .args(["-c", &kill])
                .status()
                .unwrap()
                .success()
        );
    };
    kill("TERM");
    while std::net::TcpStream::connect(addr).is_ok() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    kill("INT");
    let code = dev.child.wait().unwrap().code();
    assert_eq!(code, Some(1));
    assert!(
        begin.elapsed() < std::time::Duration::from_secs(9),
        "it waited for the request"
    );
}

#[tokio::test]
async fn metrics_have_an_address_of_their_own() {
    let folder = TempDir::new().unwrap();
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let mut dev = Running::dev(folder.path(), &[("METRICS_ADDR", &free)]);
    let base = base(&dev.printed_until("-T hello.txt"));
    upload(&base, "a.txt", "x").await;
    let text = client()
        .get(format!("http://{free}/metrics"))
        .send()
        .await
        .unwrap()
        .text()
        .await;
    assert!(
        text.unwrap()
            .contains(r#"presignd_grants_total{policy="default",kind="put",outcome="granted"} 1"#)
    );
    assert_eq!(dev.stop("TERM").0, Some(0));
}
