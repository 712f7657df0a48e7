//! `presignd check`, as a user runs it, on healthy and faulty stores.

mod advice;
mod cors;
mod enforcement;
mod kept;
mod markers;
mod pending;
mod permissions;
mod prove;
mod stores;
mod unsupported;
mod versions;

use std::sync::{Arc, Mutex};

use axum::extract::Request;
use axum::http::StatusCode;
use presignd::dev;
use presignd::webhook::Secrets;
use serde_json::Value;
use tempfile::TempDir;

use crate::auth::jwks::{published, publishing};
use crate::auth::jwt::{IssuerKey, JWT};
use crate::helpers::spawn;
use crate::process::presignd;
use crate::stand_in::StandIn;

/// What a run of `presignd check --json` came to.
struct Run {
    code: Option<i32>,
    report: Value,
}

/// Runs it with `variables`: of two with the same name, the last one counts.
async fn check(variables: &[(&str, &str)], args: &[&str]) -> Run {
    let (code, out, _) = run(variables, &[&["--json"], args].concat()).await;
    let report = serde_json::from_str(&out).expect(&out);
    Run { code, report }
}

/// Runs it on the store at `endpoint`, with `more` variables than are needed.
async fn check_at(endpoint: &str, more: &[(&str, &str)]) -> Run {
    check(&with(endpoint, more), &[]).await
}

async fn check_passes(endpoint: &str, more: &[(&str, &str)]) -> Run {
    let run = check_at(endpoint, more).await;
    assert_eq!(run.code, Some(0), "{:#}", run.report);
    run
}

async fn check_fails(endpoint: &str, more: &[(&str, &str)]) -> Run {
    let run = check_at(endpoint, more).await;
    assert_eq!(run.code, Some(1), "{:#}", run.report);
    run
}

async fn run(variables: &[(&str, &str)], args: &[&str]) -> (Option<i32>, String, String) {
    let folder = TempDir::new().unwrap();
    let mut command = presignd(&[&["check"], args].concat(), folder.path());
    command.envs(variables.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = output.await.unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    for text in [&out, &err] {
        // Of a presigned URL, of a form, of the credentials.
        for secret in ["X-Amz-", "AWS4", "presignd-dev-secret", "wrong-secret"] {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
    }
    (output.status.code(), out, err)
}

impl Run {
    fn line(&self, check: &str) -> &Value {
        let lines = self.report["checks"].as_array().unwrap();
        let found = lines.iter().find(|line| line["check"] == check);
        found.unwrap_or_else(|| panic!("no line of {check}: {:#}", self.report))
    }

    #[track_caller]
    fn says(&self, check: &str, status: &str, words: &[&str]) {
        let line = self.line(check);
        assert_eq!(line["status"], status, "{line:#}");
        for words in words {
            assert!(line.to_string().contains(words), "{words:?}: {line:#}");
        }
    }

    fn statuses(&self) -> Vec<(&str, &str)> {
        let lines = self.report["checks"].as_array().unwrap().iter();
        let lines = lines.map(|line| (line["check"].as_str(), line["status"].as_str()));
        lines
            .map(|(check, status)| (check.unwrap(), status.unwrap()))
            .collect()
    }
}

/// A file with these policies, and the folder that it is in.
fn policies_file(toml: &str) -> (TempDir, String) {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("policies.toml");
    std::fs::write(&file, toml).unwrap();
    let path = file.to_str().unwrap().to_owned();
    (folder, path)
}

/// Runs it with these policies.
async fn check_with(stand: &StandIn, toml: &str, args: &[&str]) -> Run {
    let (_folder, file) = policies_file(toml);
    check(
        &with(&stand.url(), &[("UPLOAD_POLICIES_FILE", &file)]),
        args,
    )
    .await
}

/// What leads to an embedded store at `endpoint`.
fn variables(endpoint: &str) -> [(&str, &str); 7] {
    [
        ("AWS_ACCESS_KEY_ID", "presignd-dev"),
        ("AWS_SECRET_ACCESS_KEY", "presignd-dev-secret"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_S3_BUCKET_NAME", dev::BUCKET),
        ("S3_FORCE_PATH_STYLE", "true"),
        ("CORS_ALLOWED_ORIGINS", "https://app.example.com"),
        ("AWS_ENDPOINT_URL_S3", endpoint),
    ]
}

fn with<'a>(endpoint: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    variables(endpoint).iter().chain(more).copied().collect()
}

#[tokio::test]
async fn an_issuer_whose_keys_cannot_be_fetched_fails() {
    let stand = StandIn::embedded().await;
    let key = IssuerKey::ed();
    let issuer = publishing(&[published("k", &key)]).await;
    for (path, status, words) in [
        ("jwks", "ok", "JWT_JWKS_URL: 1"),
        ("none", "failed", "the answer was 404"),
    ] {
        let jwks = format!("http://{issuer}/{path}");
        let more = [&JWT[..3], &[("JWT_JWKS_URL", jwks.as_str())]].concat();
        let run = check_at(&stand.url(), &more).await;
        assert_eq!(run.code, Some(i32::from(status == "failed")));
        run.says("issuer", status, &[words]);
        run.says("put", "ok", &[]);
    }
}

#[tokio::test]
async fn an_application_that_answers_anything_can_be_reached_and_gets_no_webhook() {
    let stand = StandIn::embedded().await;
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let noted = Arc::clone(&asked);
    let application = axum::Router::new().fallback(async move |request: Request| {
        let is_signed = request.headers().contains_key("webhook-signature");
        let request = format!("{} {} {is_signed}", request.method(), request.uri());
        noted.lock().unwrap().push(request);
        StatusCode::METHOD_NOT_ALLOWED
    });
    let application = format!("http://{}/hooks?key=hidden", spawn(application).await);
    for (webhook, status, words) in [
        (application.as_str(), "ok", "answers (405"),
        ("http://127.0.0.1:1/hooks?key=hidden", "failed", "refused"),
    ] {
        let secret = Secrets::generate().unwrap();
        let more = [
            ("WEBHOOK_URL", webhook),
            ("WEBHOOK_SECRET", &secret),
            ("EVENTS_TOKEN", "a-token-of-the-store"),
        ];
        let run = check_at(&stand.url(), &more).await;
        assert_eq!(run.code, Some(i32::from(status == "failed")));
        run.says("webhook", status, &[words]);
        run.says("put", "ok", &[]);
        assert!(!run.report.to_string().contains("hidden"));
    }
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked, ["OPTIONS /hooks?key=hidden false"]);
}

#[tokio::test]
async fn nothing_is_wrong_with_the_embedded_store_and_nothing_stays_there() {
    let stand = StandIn::embedded().await;
    let url = stand.url();
    let policies = format!("{}/policies.example.toml", env!("CARGO_MANIFEST_DIR"));
    let run = check_passes(&url, &[("UPLOAD_POLICIES_FILE", &policies)]).await;
    let expected = [
        ("settings", "ok"),
        ("credentials", "ok"),
        ("endpoint", "ok"),
        ("clock", "ok"),
        ("region", "ok"),
        ("bucket", "ok"),
        ("put", "ok"),
        ("put", "ok"),
        ("put", "ok"),
        ("head", "ok"),
        ("post", "ok"),
        ("post", "ok"),
        ("multipart", "ok"),
        ("multipart", "ok"),
        ("unsigned-headers", "ok"),
        ("form-headers", "ok"),
        ("unsigned-stream", "ok"),
        ("cors", "ok"),
        ("lifecycle", "warning"),
        ("public-access", "skipped"),
    ];
    assert_eq!(run.statuses(), expected);
    run.says(
        "credentials",
        "ok",
        &["EnvironmentVariable", "do not expire"],
    );
    run.says("endpoint", "ok", &["path style"]);
    assert_eq!(run.line("put")["policy"], "avatar");
    stand.is_as_it_was();
}

#[tokio::test]
async fn people_get_a_table_with_what_to_do() {
    let stand = StandIn::embedded().await;
    let url = stand.url();
    let (code, out, err) = run(&with(&url, &[]), &[]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(
        out.starts_with("ok       settings             bucket uploads, at "),
        "{out}"
    );
    let (code, out, err) = run(&with(&url, &[("AWS_S3_BUCKET_NAME", "nope")]), &[]).await;
    assert_eq!(code, Some(1));
    assert_eq!(err, "presignd: 1 check has failed\n");
    let failed = out.lines().find(|line| line.starts_with("FAILED")).unwrap();
    assert!(
        failed.contains("no bucket nope") && out.contains("\n                      → "),
        "{out}"
    );
    assert!(out.contains("AWS_S3_BUCKET_NAME"), "{out}");
    stand.is_as_it_was();
}

#[tokio::test]
async fn settings_that_serve_would_refuse_are_named() {
    for (name, value) in [
        ("AWS_S3_BUCKET_NAME", ""),
        ("AWS_S3_BUCKET_NAME", "arn:x"),
        ("S3_PUBLIC_ENDPOINT_URL", "s3.example.com"),
        ("AUTH_MODE", "maybe"),
    ] {
        let run = check_fails("http://127.0.0.1:1", &[(name, value)]).await;
        assert_eq!(run.statuses(), [("settings", "failed")]);
        run.says("settings", "failed", &[name]);
    }
}

#[tokio::test]
async fn a_service_that_strangers_reach_should_know_its_callers() {
    let stand = StandIn::embedded().await;
    let url = stand.url();
    let open = [("BIND_ADDR", "0.0.0.0:3000"), ("AUTH_MODE", "none")];
    let open = check_passes(&url, &open).await;
    let words = ["AUTH_MODE", "RATE_LIMIT_PER_SECOND"];
    open.says("callers", "warning", &words);
    let guarded = [
        ("BIND_ADDR", "0.0.0.0:3000"),
        ("RATE_LIMIT_PER_SECOND", "10"),
    ];
    let guarded = check_at(&url, &[&JWT[..], &guarded].concat()).await;
    guarded.says("callers", "ok", &[]);
    let closed = check_at(&url, &[]).await;
    let statuses = closed.statuses();
    assert!(statuses.iter().all(|(check, _)| *check != "callers"));
}
