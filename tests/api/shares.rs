//! What one caller may hold at the same time, so that others are answered.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use presignd::http::{self, Rate};
use reqwest::StatusCode;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::helpers::{built_in, client, is, problem, spawn_app, spawn_app_with_both};
use crate::uppy::create_at;

#[tokio::test]
async fn a_batch_of_parts_counts_as_several_requests() {
    let settings = http::Settings {
        rate: Some(Rate {
            per_second: 0.001,
            burst: NonZeroU32::new(12).unwrap(),
        }),
        ..http::Settings::default()
    };
    let app = spawn_app_with_both(built_in(), &settings).await;
    let upload = create_at(&app.base, json!({"filename": "a", "type": "a/b"})).await;
    let batch = async |count: u32| {
        let numbers: Vec<String> = (1..=count).map(|n| n.to_string()).collect();
        let url = format!("{}/s3/multipart/{}/batch", app.base, upload.id);
        let query = [("key", &upload.key), ("partNumbers", &numbers.join(","))];
        let answer = client().get(url).query(&query).send().await;
        answer.unwrap().status().as_u16()
    };
    // With the one that created the upload, 12 requests: 1 for up to 20 parts, 10 for 200.
    assert_eq!(batch(20).await, 200);
    assert_eq!(batch(200).await, 200);
    assert_eq!(batch(1).await, 429);
}

#[tokio::test]
async fn a_caller_waits_for_uploads_with_64_requests_at_most() {
    let app = spawn_app().await;
    let verify = |_| {
        let body = json!({"key": format!("uploads/{}/a", Uuid::new_v4()), "wait": 2});
        let url = format!("{}/upload/verify", app.base);
        app.client.post(url).json(&body).send()
    };
    let answers = join_all((0..70).map(verify)).await;
    let mut refused = 0;
    for answer in answers {
        let answer = answer.unwrap();
        if answer.status() == StatusCode::NOT_FOUND {
            continue;
        }
        assert!(answer.headers().contains_key("retry-after"));
        is(&problem(answer).await, 429, "too-many-waiting");
        refused += 1;
    }
    assert_eq!(refused, 6);
}

#[tokio::test]
async fn bodies_of_which_one_byte_arrives_delay_no_list() {
    let app = spawn_app().await;
    let addr = app.base.strip_prefix("http://").unwrap();
    let mut slow = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let head = "POST /upload/presigned-urls HTTP/1.1\r\nhost: localhost\r\n\
                    content-type: application/json\r\ncontent-length: 2097152\r\n\r\n{";
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let name = "n".repeat(200);
    let file = json!({"filename": name, "contentType": "text/plain"});
    let list = json!({"files": vec![file; 500]});
    assert!(list.to_string().len() > 64 * 1024);
    let begin = Instant::now();
    let answer = app.post("/upload/presigned-urls", &list).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
}
