//! How much memory one caller can make the service use.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::helpers::client;
use crate::process::{Running, base};

/// The most that 100 requests of one caller may add.
const MOST: u64 = 64 * 1024 * 1024;

/// How much memory the process has used at most, in bytes.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.unwrap().trim().trim_end_matches(" kB");
    kibibytes.parse::<u64>().unwrap() * 1024
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// The requests with the longest answers, as a client sends them.
fn requests(upload_id: &str, key: &str) -> Vec<(&'static str, String)> {
    let files: Vec<Value> = (0..1000)
        .map(|n| json!({"filename": format!("{n}-{}.txt", "n".repeat(200)), "contentType": "text/plain"}))
        .collect();
    let names = "/".repeat(2_000_000);
    let twice: Vec<String> = (0..50).map(|n| format!("\"{n}\":1,\"{n}\":1")).collect();
    let hostile = format!("{{\"{names}\":{{{}}}}}", twice.join(","));
    let numbers: Vec<String> = (1..=200).map(|n| n.to_string()).collect();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    vec![
        (
            "a list of files",
            post(
                "/upload/presigned-urls",
                &json!({"files": files}).to_string(),
            ),
        ),
        ("a hostile body", post("/upload/presigned-urls", &hostile)),
        (
            "a batch of parts",
            get(&format!(
                "/s3/multipart/{upload_id}/batch?key={key}&partNumbers={}",
                numbers.join(",")
            )),
        ),
        ("the document", get("/openapi.json")),
        ("a static file", get("/docs/swagger-ui-bundle.js")),
    ]
}

/// Sends the same request a number of times, each on a connection of its own, and reads the beginning of
/// each answer alone.
fn send_and_do_not_read(addr: &str, request: &str, times: usize) -> Vec<TcpStream> {
    let streams: Vec<TcpStream> = (0..times)
        .map(|_| {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream
                .set_read_timeout(Some(Duration::from_mins(1)))
                .unwrap();
            // An answer that comes before the end of the body closes the connection.
            stream.write_all(request.as_bytes()).ok();
            stream
        })
        .collect();
    for mut stream in &streams {
        stream.read_exact(&mut [0; 12]).ok();
    }
    streams
}

#[tokio::test(flavor = "multi_thread")]
async fn no_hundred_requests_of_a_caller_take_more_than_64_mib() {
    let folder = TempDir::new().unwrap();
    let mut dev = Running::dev(folder.path(), &[]);
    let base = base(&dev.printed_until("-T hello.txt"));
    let addr = base.strip_prefix("http://").unwrap();
    let pid = dev.child.id();
    let create = client().post(format!("{base}/s3/multipart"));
    let file = json!({"filename": "a", "type": "a/b"});
    let created = create.json(&file).send().await.unwrap();
    let created: Value = created.json().await.unwrap();
    let [upload_id, key] = ["uploadId", "key"].map(|name| created[name].as_str().unwrap());
    for (what, request) in requests(upload_id, key) {
        // What the first request of its kind needs stays.
        drop(send_and_do_not_read(addr, &request, 1));
        let before = peak(pid);
        let unread = send_and_do_not_read(addr, &request, 100);
        let grown = peak(pid) - before;
        assert!(grown <= MOST, "{what}: {} MiB", grown >> 20);
        let healthz = client().get(format!("{base}/healthz")).send().await;
        assert!(healthz.unwrap().status().is_success(), "{what}");
        drop(unread);
    }
}
