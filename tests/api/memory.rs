//! How much memory one caller can make the service use.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use presignd::dev::BUCKET;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::helpers::spawn;
use crate::process::Running;
use crate::receipts::pem;
use crate::stand_in::object;
use crate::uppy::{Upload, create_at};

/// What 100 requests of one caller may add, in MiB.
const MOST: u64 = 64;
/// The same of 200 requests of as many callers, with 128 KiB for each connection.
const MOST_OF_ALL: u64 = 128 + 200 / 8;

/// Answers that are not read stay longer than those that are. A few kinds are tried both ways.
const READ_TOO: [&str; 1] = ["lists of files"];
/// What is tried with many callers.
const OF_MANY: [&str; 7] = [
    "lists of files",
    "hostile bodies",
    "batches of parts",
    "completions",
    "verifications",
    "verifications of full objects",
    "short verifications of full objects",
];

/// The most memory that the process has used so far, in KiB.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.unwrap().trim().trim_end_matches(" kB");
    kibibytes.parse().unwrap()
}

/// A store that has objects under full names alone, and an upload of 10,000 parts.
async fn store(request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let body = match *request.method() {
        Method::HEAD => {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if request.uri().path().contains("full") {
                return full_object();
            }
            return StatusCode::NOT_FOUND.into_response();
        }
        Method::POST if query.contains("uploads") => {
            "<InitiateMultipartUploadResult><UploadId>id</UploadId></InitiateMultipartUploadResult>"
                .to_owned()
        }
        Method::POST => {
            to_bytes(request.into_body(), usize::MAX).await.unwrap();
            "<CompleteMultipartUploadResult/>".to_owned()
        }
        _ => {
            let marker = query
                .split('&')
                .find_map(|p| p.strip_prefix("part-number-marker="));
            let after: u32 = marker.map_or(0, |n| n.parse().unwrap());
            let (is_more, next) = (after < 9000, after + 1000);
            let mut xml = format!(
                "<ListPartsResult><IsTruncated>{is_more}</IsTruncated><NextPartNumberMarker>{next}</NextPartNumberMarker>"
            );
            for n in after + 1..=next {
                let etag = format!("&quot;{n:032}&quot;");
                write!(xml, "<Part><PartNumber>{n}</PartNumber><ETag>{etag}</ETag><Size>5242880</Size></Part>").unwrap();
            }
            xml + "</ListPartsResult>"
        }
    };
    body.into_response()
}

/// An object whose texts are as long as they may be. JSON escapes the characters of its metadata.
fn full_object() -> Response {
    let content_type = format!("text/plain;{}", "t".repeat(244));
    let text = |begin: &str| format!("{begin}{}", "x".repeat(2000));
    object(&[
        ("content-type", &content_type),
        ("content-disposition", &text("attachment;")),
        ("cache-control", &text("")),
        ("x-amz-meta-a", &"\"".repeat(2030)),
    ])
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").into_bytes()
}

fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn verify(wait: u32, keys: &[String]) -> Vec<u8> {
    let body = json!({"keys": keys, "wait": wait}).to_string();
    post("/upload/verify", &body)
}

/// A request of each kind that makes the service work or answer much, and the status that it has alone.
fn requests(upload_id: &str, key: &str) -> Vec<(&'static str, u16, Vec<u8>)> {
    let upload = format!("/s3/multipart/{upload_id}");
    let granted = |n| {
        format!(
            "uploads/5d3c8f60-9d0e-4b1f-8e51-{n:012}/{}",
            "n".repeat(200)
        )
    };
    let name = "n".repeat(200);
    let files: Vec<Value> = (0..1000)
        .map(|n| json!({"filename": format!("{n}-{name}.txt"), "contentType": "text/plain"}))
        .collect();
    let keys = |count: usize| (0..count).map(granted).collect::<Vec<_>>();
    let full_name = "한".repeat(80) + "full";
    let full = vec![format!("uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/{full_name}"); 100];
    let twice: Vec<String> = (0..50).map(|n| format!("\"{n}\":1,\"{n}\":1")).collect();
    let hostile = format!("{{\"{}\":{{{}}}}}", "/".repeat(2_000_000), twice.join(","));
    let numbers: Vec<String> = (1..=200).map(|n| n.to_string()).collect();
    let parts: Vec<Value> = (1..=10_000)
        .map(|n| json!({"PartNumber": n, "ETag": format!("\"{n:032}\"")}))
        .collect();
    vec![
        (
            "lists of files",
            201,
            post(
                "/upload/presigned-urls",
                &json!({"files": files}).to_string(),
            ),
        ),
        (
            "lists of forms",
            201,
            post(
                "/upload/presigned-urls",
                &json!({"files": files[..250], "forms": true}).to_string(),
            ),
        ),
        (
            "hostile bodies",
            400,
            post("/upload/presigned-urls", &hostile),
        ),
        (
            "forms",
            201,
            post(
                "/upload/presigned-post",
                &json!({"filename": name, "contentType": "a/b"}).to_string(),
            ),
        ),
        (
            "parameters",
            200,
            get(&format!("/s3/params?filename=a&{}", "a&".repeat(30_000))),
        ),
        (
            "batches of parts",
            200,
            get(&format!(
                "{upload}/batch?key={key}&partNumbers={}",
                numbers.join(",")
            )),
        ),
        (
            "uploads of better-upload",
            200,
            post(
                "/better-upload",
                &json!({"files": [{"name": name, "size": 3_u64 << 30, "type": ""}]}).to_string(),
            ),
        ),
        ("lists of parts", 200, get(&format!("{upload}?key={key}"))),
        (
            "completions",
            200,
            post(
                &format!("{upload}/complete?key={key}"),
                &json!({"parts": parts}).to_string(),
            ),
        ),
        ("verifications", 200, verify(0, &keys(100))),
        ("verifications that wait", 200, verify(2, &keys(10))),
        ("verifications of full objects", 200, verify(0, &full[..])),
        (
            "short verifications of full objects",
            200,
            verify(0, &full[..16]),
        ),
        ("the document", 200, get("/openapi.json")),
        ("static files", 200, get("/docs/swagger-ui-bundle.js")),
    ]
}

/// The status of an answer, or why there is none.
type Status = Result<u16, ErrorKind>;

/// Sends a request and reads the answer, or only its first line.
fn send(addr: SocketAddr, request: &[u8], read_all: bool) -> (TcpStream, Status) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    if !read_all {
        // Otherwise the kernel holds much of what nobody reads.
        socket.set_recv_buffer_size(8192).unwrap();
    }
    socket.connect(&addr.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream
        .set_read_timeout(Some(Duration::from_mins(1)))
        .unwrap();
    stream.write_all(request).ok(); // an answer may come before the end of the body
    let mut begin = [0; 12];
    if let Err(error) = stream.read_exact(&mut begin) {
        return (stream, Err(error.kind()));
    }
    if read_all {
        std::io::copy(&mut stream, &mut std::io::sink()).ok(); // the same
    }
    let status = str::from_utf8(&begin[9..]).unwrap().parse();
    (stream, Ok(status.unwrap()))
}

/// Runs the service, and gives its process, its address and an upload in parts that has been created.
async fn serve(folder: &Path) -> (Running, SocketAddr, Upload) {
    let store = spawn(Router::new().fallback(store)).await;
    let endpoint = format!("http://{store}");
    let token = "t".repeat(1000);
    let policies = "[policies.default]
        allowed_metadata = ['a']
        [policies.other]
        key = 'other/{uuid}'";
    std::fs::write(folder.join("policies.toml"), policies).unwrap();
    std::fs::write(folder.join("receipts.pem"), pem()).unwrap();
    let variables = [
        ("UPLOAD_POLICIES_FILE", "policies.toml"),
        ("RECEIPT_KEY_FILE", "receipts.pem"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_SESSION_TOKEN", &token),
        ("AWS_S3_BUCKET_NAME", BUCKET),
        ("AWS_ENDPOINT_URL_S3", &endpoint),
        ("S3_FORCE_PATH_STYLE", "true"),
        ("TRUSTED_PROXIES", "127.0.0.0/8"),
    ];
    let (serve, addr) = Running::serve(folder, &variables);
    let file = json!({"filename": "a", "type": "a/b"});
    let upload = create_at(&format!("http://{addr}"), file).await;
    (serve, addr.parse().unwrap(), upload)
}

/// Sends all requests at the same time. Returns the most memory that the process had then, in KiB, and how
/// many answers of each status there were.
fn peak_of(
    pid: u32,
    addr: SocketAddr,
    requests: &[Vec<u8>],
    read_all: bool,
) -> (u64, BTreeMap<Status, u32>) {
    // The peak is counted from here on.
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let all: Vec<_> = requests
            .iter()
            .map(|request| scope.spawn(|| send(addr, request, read_all)))
            .collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let mut statuses = BTreeMap::<_, u32>::new();
    for (_, status) in &answers {
        *statuses.entry(*status).or_default() += 1;
    }
    (peak(pid), statuses)
}

/// Some of the answers are what one request alone gets, and all others are refusals.
#[track_caller]
fn are_answers_or_refusals(
    what: &str,
    alone: u16,
    request: &[u8],
    statuses: &BTreeMap<Status, u32>,
) {
    let is_right = |status: &Status| match status {
        Ok(status) => *status == alone || *status == 429,
        // Its body was refused before all of it had come.
        Err(error) => *error == ErrorKind::ConnectionReset && request.len() > 64 * 1024,
    };
    assert!(statuses.keys().all(is_right), "{what}: {statuses:?}");
    assert!(statuses.contains_key(&Ok(alone)), "{what}: {statuses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_hundred_requests_of_a_caller_take_more_than_64_mib() {
    let folder = TempDir::new().unwrap();
    let (serve, addr, upload) = serve(folder.path()).await;
    let pid = serve.child.id();
    let before = peak(pid);
    for (what, alone, request) in requests(&upload.id, &upload.key) {
        for read_all in [true, false] {
            if read_all && !READ_TOO.contains(&what) {
                continue;
            }
            let (peak, statuses) = peak_of(pid, addr, &vec![request.clone(); 100], read_all);
            let mib = peak.saturating_sub(before) >> 10;
            println!("{what}, read: {read_all}: {mib} MiB, {statuses:?}");
            assert!(mib <= MOST, "{what}, read: {read_all}: {mib} MiB");
            are_answers_or_refusals(what, alone, &request, &statuses);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_callers_there_are_their_requests_take_no_more_than_128_mib() {
    let folder = TempDir::new().unwrap();
    let (serve, addr, upload) = serve(folder.path()).await;
    let pid = serve.child.id();
    let before = peak(pid);
    let mut most = 0;
    for (what, alone, request) in requests(&upload.id, &upload.key) {
        if !OF_MANY.contains(&what) {
            continue;
        }
        let line = request.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let of_caller = |n: u8| {
            let from = format!("x-forwarded-for: 192.0.2.{n}\r\n");
            [&request[..line], from.as_bytes(), &request[line..]].concat()
        };
        let all: Vec<_> = (0..200).map(of_caller).collect();
        let (peak, statuses) = peak_of(pid, addr, &all, false);
        let mib = peak.saturating_sub(before) >> 10;
        println!("{what}, of 200 callers: {mib} MiB, {statuses:?}");
        are_answers_or_refusals(what, alone, &request, &statuses);
        most = most.max(mib);
    }
    assert!(most <= MOST_OF_ALL, "{most} MiB");
}
