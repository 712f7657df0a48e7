//! How much memory one caller can make the service use.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use presignd::dev::BUCKET;
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::helpers::spawn;
use crate::process::Running;
use crate::receipts::pem;
use crate::stand_in::{CREATED, object, ten_thousand_parts};
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
    SHORT,
];
const SHORT: &str = "short verifications of full objects";

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
        Method::POST if query.contains("uploads") => CREATED,
        Method::POST => {
            to_bytes(request.into_body(), usize::MAX).await.unwrap();
            "<CompleteMultipartUploadResult/>"
        }
        _ => return ten_thousand_parts(&query),
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

fn post(path: &str, body: &Value) -> Vec<u8> {
    post_text(path, &body.to_string())
}

fn post_text(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn verify(wait: u32, keys: &[String]) -> Vec<u8> {
    post("/upload/verify", &json!({"keys": keys, "wait": wait}))
}

/// A request, and the status that it has alone.
struct Kind {
    name: &'static str,
    alone: u16,
    request: Vec<u8>,
}

/// A request of each kind that makes the service work or answer much.
fn kinds(upload: &Upload) -> Vec<Kind> {
    const LIST: &str = "/upload/presigned-urls";
    let (key, path) = (&upload.key, format!("/s3/multipart/{}", upload.id));
    let long = "n".repeat(200);
    let granted = |n: usize| format!("uploads/5d3c8f60-9d0e-4b1f-8e51-{n:012}/{long}");
    let keys = |count: usize| (0..count).map(granted).collect::<Vec<_>>();
    let file = |n| json!({"filename": format!("{n}-{long}.txt"), "contentType": "text/plain"});
    let files: Vec<Value> = (0..1000).map(file).collect();
    let forms = json!({"files": files[..250], "forms": true});
    let form = json!({"filename": long, "contentType": "a/b"});
    let large = json!({"files": [{"name": long, "size": 3_u64 << 30, "type": ""}]});
    let metadata: Map<_, _> = (0..5000).map(|n| (format!("n{n}"), 1.into())).collect();
    let small: Vec<Value> = (0..100)
        .map(|n| json!({"name": format!("{n}"), "size": 1, "type": ""}))
        .collect();
    let of_many = json!({"route": "other", "files": small, "metadata": metadata});
    let full_name = "한".repeat(80) + "full";
    let full = vec![format!("uploads/5d3c8f60-9d0e-4b1f-8e51-3c2f5c0a8f3e/{full_name}"); 100];
    let twice: Vec<String> = (0..50).map(|n| format!("\"{n}\":1,\"{n}\":1")).collect();
    let hostile = format!("{{\"{}\":{{{}}}}}", "/".repeat(2_000_000), twice.join(","));
    let query = "a&".repeat(30_000);
    let numbers: Vec<String> = (1..=200).map(|n| n.to_string()).collect();
    let batch = format!("batch?key={key}&partNumbers={}", numbers.join(","));
    let part = |n| json!({"PartNumber": n, "ETag": format!("\"{n:032}\"")});
    let parts = json!({"parts": (1..=10_000).map(part).collect::<Vec<_>>()});
    let complete = format!("{path}/complete?key={key}");
    let kinds = [
        ("lists of files", 201, post(LIST, &json!({"files": files}))),
        ("lists of forms", 201, post(LIST, &forms)),
        ("hostile bodies", 400, post_text(LIST, &hostile)),
        ("forms", 201, post("/upload/presigned-post", &form)),
        (
            "parameters",
            200,
            get(&format!("/s3/params?filename=a&{query}")),
        ),
        ("batches of parts", 200, get(&format!("{path}/{batch}"))),
        (
            "uploads of better-upload",
            200,
            post("/better-upload", &large),
        ),
        (
            "metadata of many files",
            422,
            post("/better-upload", &of_many),
        ),
        ("lists of parts", 200, get(&format!("{path}?key={key}"))),
        ("completions", 200, post(&complete, &parts)),
        ("verifications", 200, verify(0, &keys(100))),
        ("verifications that wait", 200, verify(2, &keys(10))),
        ("verifications of full objects", 200, verify(0, &full)),
        (SHORT, 200, verify(0, &full[..16])),
        ("the document", 200, get("/openapi.json")),
        ("static files", 200, get("/docs/swagger-ui-bundle.js")),
    ];
    let kinds = kinds.into_iter();
    kinds
        .map(|(name, alone, request)| Kind {
            name,
            alone,
            request,
        })
        .collect()
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

/// A running service.
struct Service {
    process: Running,
    addr: SocketAddr,
    /// The most memory that it had used when it began, in KiB.
    before: u64,
    _folder: TempDir,
}

impl Service {
    /// With an upload in parts that has been created.
    async fn start() -> (Self, Upload) {
        let store = spawn(Router::new().fallback(store)).await;
        let endpoint = format!("http://{store}");
        let token = "t".repeat(1000);
        let policies = "[policies.default]
            allowed_metadata = ['a']
            [policies.other]
            key = 'other/{uuid}'
            allowed_metadata = ['*']";
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("policies.toml"), policies).unwrap();
        std::fs::write(folder.path().join("receipts.pem"), pem()).unwrap();
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
        let (process, addr) = Running::serve(folder.path(), &variables);
        let file = json!({"filename": "a", "type": "a/b"});
        let upload = create_at(&format!("http://{addr}"), file).await;
        let service = Self {
            before: peak(process.child.id()),
            process,
            addr: addr.parse().unwrap(),
            _folder: folder,
        };
        (service, upload)
    }

    /// Sends requests of a kind at the same time, and gives the memory that the service needs for them, in MiB. Some of
    /// the answers are what one request alone gets, and all others are refusals.
    fn needs(&self, kind: &Kind, requests: &[Vec<u8>], read_all: bool) -> u64 {
        let pid = self.process.child.id();
        // The peak is counted from here on.
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
        let answers: Vec<_> = std::thread::scope(|scope| {
            let all: Vec<_> = requests
                .iter()
                .map(|request| scope.spawn(|| send(self.addr, request, read_all)))
                .collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let mib = peak(pid).saturating_sub(self.before) >> 10;
        let mut statuses = BTreeMap::<_, u32>::new();
        for (_, status) in &answers {
            *statuses.entry(*status).or_default() += 1;
        }
        let name = kind.name;
        println!("{name}, read: {read_all}: {mib} MiB, {statuses:?}");
        let is_right = |status: &Status| match status {
            Ok(status) => *status == kind.alone || *status == 429,
            // Its body was refused before all of it had come.
            Err(error) => *error == ErrorKind::ConnectionReset && kind.request.len() > 64 * 1024,
        };
        assert!(statuses.keys().all(is_right), "{name}: {statuses:?}");
        assert!(
            statuses.contains_key(&Ok(kind.alone)),
            "{name}: {statuses:?}"
        );
        mib
    }
}

/// Tries these kinds one after the other, every second one at another service. Most of the time, they wait.
async fn try_kinds(are_tried: fn(&str) -> bool, check: fn(&Service, &Kind)) {
    let lanes = [0, 1].map(async |lane| {
        let (service, upload) = Service::start().await;
        let mut kinds = kinds(&upload);
        kinds.retain(|kind| are_tried(kind.name));
        let kinds = kinds.into_iter().skip(lane).step_by(2);
        let tried = tokio::task::spawn_blocking(move || {
            for kind in kinds {
                check(&service, &kind);
            }
        });
        tried.await.unwrap();
    });
    join_all(lanes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_hundred_requests_of_a_caller_take_more_than_64_mib() {
    let check = |service: &Service, kind: &Kind| {
        let requests = vec![kind.request.clone(); 100];
        for read_all in [true, false] {
            if !read_all || READ_TOO.contains(&kind.name) {
                let mib = service.needs(kind, &requests, read_all);
                assert!(mib <= MOST, "{}: {mib} MiB", kind.name);
            }
        }
    };
    try_kinds(|_| true, check).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_callers_there_are_their_requests_take_no_more_than_128_mib() {
    let check = |service: &Service, kind: &Kind| {
        let request = &kind.request;
        let line = request.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let of_caller = |n: u8| {
            let from = format!("x-forwarded-for: 192.0.2.{n}\r\n");
            [&request[..line], from.as_bytes(), &request[line..]].concat()
        };
        let requests: Vec<_> = (0..200).map(of_caller).collect();
        let mib = service.needs(kind, &requests, false);
        assert!(mib <= MOST_OF_ALL, "{}: {mib} MiB", kind.name);
    };
    try_kinds(|name| OF_MANY.contains(&name), check).await;
}
