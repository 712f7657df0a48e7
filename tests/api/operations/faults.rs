//! What the log and the metrics tell of faults that no client sees.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::Request;
use axum::http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{get, has, metrics};
use crate::auth::jwt::JWT;
use crate::connections::{connect, rest};
use crate::helpers::{client, eventually, is, problem};
use crate::process::{BUCKET, Running, free_addr, log_lines, presignd, request_lines};
use crate::receipts::pem;
use crate::stand_in::{CREATED, StandIn, empty, xml};
use crate::uppy::create_at;

fn serve(folder: &Path, variables: &[(&str, &str)]) -> (Running, String) {
    let region = [("AWS_REGION", "eu-central-1")];
    let all = [&BUCKET[..], &region, variables].concat();
    Running::serve(folder, &all)
}

async fn until_counted(metrics_addr: &str, line: &str) {
    let url = format!("http://{metrics_addr}/metrics");
    let is_counted = async || metrics(&url).await.lines().any(|it| it == line);
    eventually(line, is_counted).await;
}

#[tokio::test]
async fn fetches_of_the_keys_of_an_issuer_are_counted_and_failures_logged() {
    let hangs = StandIn::answering(|_| std::future::pending()).await;
    let fails = StandIn::with_status(502).await;
    for (issuer, says) in [(hangs, "timed out"), (fails, "502")] {
        let folder = TempDir::new().unwrap();
        let (url, metrics_addr) = (issuer.url(), free_addr());
        let own = [
            ("JWT_JWKS_URL", url.as_str()),
            ("METRICS_ADDR", &metrics_addr),
        ];
        let (mut serve, _) = serve(folder.path(), &[&JWT[..3], &own].concat());
        let counted = r#"presignd_issuer_fetches_total{outcome="failed"} 1"#;
        until_counted(&metrics_addr, counted).await;
        let text = metrics(&format!("http://{metrics_addr}/metrics")).await;
        has(&text, r#"presignd_issuer_fetches_total{outcome="ok"} 0"#);
        let log = serve.logged_until("could not be fetched");
        assert!(log.lines().last().unwrap().contains(says), "{log}");
    }
}

#[tokio::test]
async fn each_bucket_that_is_not_ready_is_named_and_all_are_asked() {
    let store = StandIn::answering(|request: Request| async move {
        let is_there = request.uri().path().starts_with("/my-bucket");
        empty(if is_there { 200 } else { 404 })
    })
    .await;
    let folder = TempDir::new().unwrap();
    let policies = ["one", "two"].map(|it| format!("[policies.{it}]\nbucket = '{it}-bucket'\n"));
    let file = folder.path().join("policies.toml");
    std::fs::write(&file, format!("[policies.default]\n{}", policies.concat())).unwrap();
    let (url, metrics_addr) = (store.url(), free_addr());
    let (mut serve, addr) = serve(
        folder.path(),
        &[
            ("AWS_ENDPOINT_URL_S3", &url),
            ("S3_FORCE_PATH_STYLE", "true"),
            ("UPLOAD_POLICIES_FILE", file.to_str().unwrap()),
            ("METRICS_ADDR", &metrics_addr),
        ],
    );
    let answer = get(&format!("http://{addr}/readyz")).await;
    assert_eq!(answer.status(), 503);
    let text = metrics(&format!("http://{metrics_addr}/metrics")).await;
    let name = "presignd_storage_call_duration_seconds_count";
    for (result, count) in [("ok", 1), ("failed", 2)] {
        let labels = format!(r#"operation="HeadBucket",result="{result}""#);
        has(&text, &format!("{name}{{{labels}}} {count}"));
    }
    let log = serve.logged_until(r#""route":"/readyz""#);
    let lines = log_lines(&log).into_iter();
    let lines = lines.filter(|line| line["message"] == "not ready");
    let named: Vec<String> = lines.map(|line| line["bucket"].to_string()).collect();
    assert_eq!(named, [r#""one-bucket""#, r#""two-bucket""#], "{log}");
}

#[tokio::test]
async fn a_complete_upload_in_parts_that_cannot_be_verified_is_logged() {
    let store = StandIn::answering(|request: Request| async move {
        let query = request.uri().query().unwrap_or_default();
        match *request.method() {
            Method::HEAD => empty(403),
            Method::GET => xml(
                "<ListPartsResult><IsTruncated>false</IsTruncated><Part><PartNumber>1</PartNumber>\
                <ETag>\"e\"</ETag><Size>5</Size></Part></ListPartsResult>",
            ),
            _ if query.contains("uploads") => xml(CREATED),
            _ => xml("<CompleteMultipartUploadResult/>"),
        }
    })
    .await;
    let (folder, url) = (TempDir::new().unwrap(), store.url());
    std::fs::write(folder.path().join("receipts.pem"), pem()).unwrap();
    let (mut serve, addr) = serve(
        folder.path(),
        &[
            ("AWS_ENDPOINT_URL_S3", &url),
            ("S3_FORCE_PATH_STYLE", "true"),
            ("RECEIPT_KEY_FILE", "receipts.pem"),
            ("AWS_S3_BUCKET_NAME", "uploads"),
        ],
    );
    let file = json!({"filename": "a.mp4", "type": "video/mp4"});
    let upload = create_at(&format!("http://{addr}"), file).await;
    let parts = json!([{"PartNumber": 1, "ETag": "\"e\""}]);
    assert_eq!(upload.complete(parts).await.status(), 200);
    let log = serve.logged_until("could not be verified");
    assert!(log.lines().last().unwrap().contains("403"), "{log}");
}

#[tokio::test]
async fn a_store_that_begins_to_refuse_the_credentials_is_logged_once() {
    let refuses = Arc::new(AtomicBool::new(true));
    let answer = Arc::clone(&refuses);
    let store = StandIn::answering(move |_| {
        let refuses = answer.load(Ordering::SeqCst);
        std::future::ready(empty(if refuses { 403 } else { 200 }))
    });
    let (folder, url) = (TempDir::new().unwrap(), store.await.url());
    let variables = [("AWS_ENDPOINT_URL_S3", url.as_str())];
    let (mut serve, addr) = serve(folder.path(), &variables);
    // An answer counts for five seconds.
    for _ in 0..2 {
        assert_eq!(get(&format!("http://{addr}/readyz")).await.status(), 200);
        tokio::time::sleep(Duration::from_millis(5_100)).await;
    }
    refuses.store(false, Ordering::SeqCst);
    assert_eq!(get(&format!("http://{addr}/readyz")).await.status(), 200);
    let log = serve.logged_until("accepts HeadBucket again");
    assert_eq!(log.matches("HeadBucket with 403").count(), 1, "{log}");
}

#[tokio::test]
async fn why_there_is_no_upload_is_in_the_log_alone() {
    let (folder, session) = (TempDir::new().unwrap(), "x".repeat(32));
    let (dev, base) = Running::dev(
        folder.path(),
        &[("LOG_FORMAT", "json"), ("UPLOAD_SESSION_SECRET", &session)],
    );
    let file = json!({"filename": "private.mp4", "type": "video/mp4"});
    let upload = create_at(&base, file).await;
    let (id, key) = (&upload.id, &upload.key);
    let url_of = |id: &str, key: &str| format!("{base}/s3/multipart/{id}?key={key}");
    let abort = client().delete(url_of(id, key)).send().await.unwrap();
    assert_eq!(abort.status(), 200);
    let gone = "the store does not have it: it was completed, aborted or removed";
    let mut answers = Vec::new();
    let requests = [
        (
            url_of("abc", key),
            "the token was not made with this UPLOAD_SESSION_SECRET",
        ),
        (url_of(id, "other"), "the upload has another key"),
        (url_of(id, key), gone),
    ];
    for (url, _) in &requests {
        let mut answer = problem(get(url).await).await;
        is(&answer, 404, "no-such-upload");
        answer["requestId"].take();
        answers.push(answer);
    }
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
    let (_, _, log) = dev.stop("INT");
    let lines = request_lines(&log).into_iter();
    let refused: Vec<Value> = lines.map(|line| line["refused"].clone()).collect();
    let expected = requests.map(|(_, why)| json!(why));
    assert_eq!(refused[refused.len() - 3..], expected, "{log}");
}

#[tokio::test]
async fn what_is_not_http_is_logged_with_the_address_and_not_each_time() {
    let folder = TempDir::new().unwrap();
    let (mut serve, addr) = serve(folder.path(), &[]);
    for _ in 0..3 {
        let refused = rest(connect(&addr, "\u{16}\u{3}\u{1}").await).await;
        assert!(refused.starts_with("HTTP/1.1 400"), "{refused}");
    }
    get(&format!("http://{addr}/nope")).await;
    let log = serve.logged_until(r#""status":404"#);
    let lines = log_lines(&log).into_iter();
    let peers = lines.filter(|line| line["message"].to_string().contains("HTTP/1.1"));
    let peers: Vec<Value> = peers.map(|line| line["peer"].clone()).collect();
    assert_eq!(peers, [json!("127.0.0.1")], "{log}");
}

#[tokio::test]
async fn a_call_to_the_store_that_the_client_does_not_wait_for_is_measured() {
    let store = super::slow(Duration::from_mins(1)).await;
    let (base, own) = super::with_metrics(&store.config()).await;
    let body = json!({"key": crate::stand_in::KEY});
    let request = client().post(format!("{base}/upload/verify")).json(&body);
    tokio::select! {
        answer = request.send() => panic!("{answer:?}"),
        () = eventually("the store is asked", async || store.asked() == 1) => {}
    }
    let counted = r#"presignd_storage_call_duration_seconds_count{operation="HeadObject",result="cancelled"} 1"#;
    eventually(counted, async || metrics(&own).await.contains(counted)).await;
}

#[tokio::test]
async fn lines_of_the_log_that_cannot_be_written_are_counted() {
    let folder = TempDir::new().unwrap();
    let (addr, metrics_addr) = (free_addr(), free_addr());
    let full = std::fs::File::options().write(true).open("/dev/full");
    let mut command = presignd(&["serve"], folder.path());
    command.envs(BUCKET).envs([
        ("AWS_REGION", "eu-central-1"),
        ("BIND_ADDR", &addr),
        ("METRICS_ADDR", &metrics_addr),
    ]);
    let mut child = command.stderr(Stdio::from(full.unwrap())).spawn().unwrap();
    let asked = async {
        loop {
            let request = crate::helpers::client().get(format!("http://{addr}/nope"));
            request.send().await.ok(); // it may not listen yet
            let url = format!("http://{metrics_addr}/metrics");
            let answer = crate::helpers::client().get(url).send().await;
            if let Ok(answer) = answer {
                let text = answer.text().await.unwrap();
                let line = text
                    .lines()
                    .find_map(|line| line.strip_prefix("presignd_log_lines_dropped_total "));
                if line.is_some_and(|count| count != "0") {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let asked = tokio::time::timeout(Duration::from_secs(30), asked).await;
    child.kill().unwrap();
    child.wait().unwrap();
    asked.expect("no line is counted");
}
