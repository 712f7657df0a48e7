//! What S3 reports to the function: itself, through a queue, and through `EventBridge`.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use presignd::dev;
use serde_json::{Value, json};

use crate::fronts::{Front, Sent};
use crate::function::Function;
use crate::helpers::{client, spawn};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A function, and the types and keys that its application received. The application refuses keys with
/// `refuse` in them.
async fn start() -> (Function, Arc<Mutex<Vec<String>>>) {
    let reported: Arc<Mutex<Vec<String>>> = Arc::default();
    let keys = Arc::clone(&reported);
    let application = Router::new().fallback(async move |body: Bytes| {
        let message: Value = serde_json::from_slice(&body).unwrap();
        let key = message["data"]["key"].as_str().unwrap().to_owned();
        if key.contains("refuse") {
            return StatusCode::INTERNAL_SERVER_ERROR;
        }
        keys.lock().unwrap().push(key);
        StatusCode::NO_CONTENT
    });
    let url = format!("http://{}/", spawn(application).await);
    let variables = [("WEBHOOK_URL", &*url), ("WEBHOOK_SECRET", SECRET)];
    (Function::start(&variables).await, reported)
}

async fn uploaded(function: &Function, filename: &str) -> String {
    let body = json!({"filename": filename, "contentType": "text/plain"});
    let sent = Sent::post("/upload/presigned-url", &body);
    let grant = function.ask(Front::FunctionUrl, &sent).await.json();
    let put = client().put(grant["url"].as_str().unwrap());
    let put = put.header("content-type", "text/plain").body("hello");
    assert_eq!(put.send().await.unwrap().status(), 200);
    grant["key"].as_str().unwrap().to_owned()
}

fn of_s3(key: &str) -> Value {
    let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    let key = key.replace(' ', "+");
    json!({"Records": [{
        "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "us-east-1",
        "eventTime": at, "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": dev::BUCKET}, "object": {"key": key, "size": 5}},
    }]})
}

fn of_event_bridge(key: &str) -> Value {
    let at = humantime::format_rfc3339_seconds(SystemTime::now() - Duration::from_secs(1));
    json!({
        "version": "0", "source": "aws.s3", "detail-type": "Object Created", "time": at.to_string(),
        "detail": {"bucket": {"name": dev::BUCKET}, "object": {"key": key, "size": 5}},
    })
}

fn of_queue(bodies: &[(&str, Value)]) -> Value {
    let messages = bodies.iter().map(|(id, body)| {
        json!({"eventSource": "aws:sqs", "messageId": id, "receiptHandle": "r", "body": body.to_string()})
    });
    json!({"Records": messages.collect::<Vec<_>>()})
}

#[tokio::test]
async fn what_s3_reports_is_received() {
    let (function, reported) = start().await;
    let key = uploaded(&function, "a b.txt").await;
    for event in [
        of_s3(&key),
        of_event_bridge(&key),
        of_queue(&[("1", of_s3(&key))]),
        of_queue(&[("1", of_event_bridge(&key))]),
    ] {
        let answer = function.outcome(event).await.unwrap();
        assert_eq!(answer, json!({"batchItemFailures": []}));
        assert_eq!(reported.lock().unwrap().pop().as_ref(), Some(&key));
    }
}

#[tokio::test]
async fn what_is_not_delivered_comes_again() {
    let (function, reported) = start().await;
    let key = uploaded(&function, "a.txt").await;
    let refused = uploaded(&function, "refuse.txt").await;
    assert!(function.outcome(of_s3(&refused)).await.is_err());
    assert!(function.outcome(of_event_bridge(&refused)).await.is_err());
    let batch = of_queue(&[
        ("1", of_s3(&refused)),
        ("2", of_s3(&key)),
        ("3", json!({"no": "event"})),
        ("4", json!({"Event": "s3:TestEvent"})),
    ]);
    let answer = function.outcome(batch).await.unwrap();
    let mut failed: Vec<&str> = answer["batchItemFailures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|failed| failed["itemIdentifier"].as_str().unwrap())
        .collect();
    failed.sort_unstable();
    assert_eq!(failed, ["1", "3"]);
    assert_eq!(*reported.lock().unwrap(), [key]);
    // Requests are still answered, and what is neither is a failure.
    let healthy = function.ask(Front::Alb, &Sent::get("/healthz")).await;
    assert_eq!(healthy.status, 200);
    assert!(function.outcome(json!({"any": "thing"})).await.is_err());
    let (_, log) = function.stop().await;
    let of_message = |line: &&str| line.contains(r#""message_id":"3""#);
    let line = log.lines().find(of_message).expect(&log);
    assert!(line.contains("the event"), "{line}");
}
